//! What must not be reached from outside, asked for in every way that has ever worked somewhere.

use crate::proxy::send;
use crate::replica::Replica;
use crate::{block_on, call, shop};

/// Paths of things that are not public, and spellings of public ones that somebody might read as those.
const PATHS: &[&str] = &[
    "//",
    "/admin",
    "/console",
    "/console/",
    "/console/login",
    "/console/sagas",
    "/console/assets/0123/console.css",
    "/shopx",
    "/SHOP",
    "/shop/../console/sagas",
    "/shop/..;/console/sagas",
    "/shop/%2e%2e/console/sagas",
    "/shop/..%2fconsole/sagas",
    "/shop/purchases/../../console/sagas",
    "/shop//console/sagas",
    "/admin/sagas",
    "/admin/sagas?state=RUNNING",
    "/livez",
    "/readyz",
    "/readyz?verbose",
    "/metrics",
    "/auth.AuthService/Auth",
    "/product.ProductService/GetProducts",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/api",
    "/api/v1",
    "/api/v1/",
    "/api/v1/account",
    "/api/v1/admin/sagas",
    "/api/v1/ordersmen",
    "/api/v1/orders;/../../../admin",
    "/api/v2/orders",
    "/API/V1/orders",
    "/.well-known/jwks.json/",
    "/.well-known/",
    "//admin/sagas",
    "/api/v1//orders",
    "/api/v1/orders//7",
    "/api/v1/orders/../../../admin/sagas",
    "/api/v1/orders/./../../../readyz",
    "/api/v1/orders/..",
    "/api/v1/orders/%2e%2e/%2e%2e/%2e%2e/admin/sagas",
    "/api/v1/orders/%2E%2E/%2E./.%2e/admin",
    "/api/v1/orders/..%2f..%2f..%2fadmin",
    "/api/v1/orders/%252e%252e/admin",
    "/api/v1/orders/..%5c..%5cadmin",
    "/api/v1/orders\\..\\..\\admin",
    "/api/v1/orders/%00/admin",
    "/%61dmin/sagas",
    "/%2fadmin/sagas",
    "/docs/../admin/sagas",
    "http://orchestrator:9002/admin/sagas",
    "http://shop/auth.AuthService/Auth",
    "*",
];

/// Headers that should change nothing.
const HEADERS: &[&str] = &[
    "",
    "Host: orchestrator\r\n",
    "Host: 127.0.0.1:9000\r\n",
    "X-Original-URL: /api/v1/orders\r\n",
    "X-Rewrite-URL: /api/v1/orders\r\n",
    "X-Original-URL: /shop\r\nReferer: http://shop/shop\r\n",
    "Host: console:9002\r\n",
    "X-Forwarded-Prefix: /api/v1/orders\r\n",
    "X-Forwarded-Host: internal\r\nX-Forwarded-Port: 9000\r\nX-Forwarded-For: 127.0.0.1\r\n",
    "Forwarded: for=127.0.0.1;host=internal\r\n",
    "Content-Type: application/grpc\r\nTE: trailers\r\n",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
];

#[test]
fn a45_a46_g17_nothing_internal_is_reached_from_outside() {
    let (proxy, replicas) = shop();
    let mut findings = Vec::new();
    for path in PATHS {
        for headers in HEADERS {
            for method in ["GET", "POST"] {
                let host = if headers.starts_with("Host") { "" } else { "Host: shop\r\n" };
                let length = "Content-Length: 0\r\nConnection: close\r\n";
                let request = format!("{method} {path} HTTP/1.1\r\n{host}{headers}{length}\r\n");
                let status = send(proxy.web, &request).map(|answer| answer.status);
                // `*` is only lawful with OPTIONS, and a host in the path only if it is the header's.
                let malformed = status == Some(400) && !path.starts_with('/');
                if status != Some(404) && !malformed {
                    findings.push(format!("{method} {path} {headers:?}: {status:?}"));
                }
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert_eq!(replicas.iter().map(Replica::requests).sum::<u32>(), 0, "a service was reached");
}

#[test]
fn a45_grpc_is_not_spoken_outside() {
    let (proxy, replicas) = shop();
    for path in ["/auth.AuthService/Auth", "/product.ProductService/GetProducts", "/api/v1/orders", "/docs"] {
        for kind in ["application/grpc", "application/grpc+proto", "Application/GRPC-web"] {
            let (status, body, _) = block_on(call(proxy.web, path, kind));
            assert_eq!(status, 404, "{path} as {kind}: {body}");
            assert!(body.contains(r#""code":"not_found""#), "{body}");
        }
    }
    assert_eq!(replicas.iter().map(Replica::requests).sum::<u32>(), 0, "a service was reached");
    let (status, _, _) = block_on(call(proxy.web, "/api/v1/orders", "application/json"));
    assert_eq!(status, 200, "HTTP/2 itself is welcome");
}

#[test]
fn two_requests_in_one_are_not_let_through() {
    let (proxy, _replicas) = shop();
    let hidden = "GET /admin/sagas HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    for lengths in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Content-Length: 0\r\nContent-Length: 60\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let request = format!("POST /api/v1/orders HTTP/1.1\r\nHost: shop\r\n{lengths}\r\n0\r\n\r\n{hidden}");
        let answer = send(proxy.web, &request).unwrap();
        let all = format!("{}{}", answer.head, answer.body);
        // Refused whole, or read in the one way that leaves a second request, which is refused as what it is.
        assert!(!all.contains("/public /admin"), "{lengths:?}: {all}");
    }
}
