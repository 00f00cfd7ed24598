//! A real HAProxy with the generated configuration, before replicas that say who they are.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests: they measure time, start threads and fail loudly"
)]

mod hostile;
mod proxy;
mod replica;
mod restarts;

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge::Table;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};

use proxy::{Proxy, get, open, send};
use replica::Replica;

/// How long a stream says nothing between its two events: longer than an answer may take.
pub(crate) const SILENCE: Duration = Duration::from_millis(1_500);

/// The table that is shipped, with short times.
fn table() -> Table {
    let mut table = Table::parse(&std::fs::read_to_string("../../deploy/routes.yaml").unwrap()).unwrap();
    table.timeouts = edge::table::Timeouts {
        connect_ms: 500,
        request_ms: 700,
        server_ms: 500,
        stream_ms: 20_000,
        idle_ms: 500,
        check_ms: 100,
        drain_ms: 500,
    };
    table
}

/// Everybody behind the edge.
const SERVICES: [&str; 6] = ["account", "product", "order", "payment", "purchase", "console"];

/// A shop of one replica per service.
fn shop() -> (Proxy, Vec<Replica>) {
    let replicas: Vec<Replica> = SERVICES.map(Replica::start).into();
    let arguments: Vec<String> = replicas.iter().map(|replica| replica.argument(&replica.name)).collect();
    (Proxy::start(&table(), &arguments), replicas)
}

/// A shop in which only one service matters, with two replicas of that.
fn two_of(service: &str, table: &Table) -> (Proxy, Replica, Replica) {
    let (one, two) = (Replica::start("one"), Replica::start("two"));
    let mut arguments = vec![one.argument(service), two.argument(service)];
    let others = SERVICES.into_iter().filter(|name| *name != service);
    // Nobody listens there, and nobody asks.
    arguments.extend(others.map(|name| format!("{name}=127.0.0.1:9/127.0.0.1:9")));
    (Proxy::start(table, &arguments), one, two)
}

/// Runs a test's client; the replicas have runtimes of their own, and end outside of this one.
fn block_on<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

/// One call over HTTP/2, on a connection of its own: its status and its body.
async fn call(to: std::net::SocketAddr, path: &str, kind: &str) -> (u16, String, Option<String>) {
    let stream = TokioIo::new(tokio::net::TcpStream::connect(to).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = call_on(&mut sender, to, path, kind).await;
    connection.abort();
    answer
}

async fn call_on(
    sender: &mut hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    to: std::net::SocketAddr,
    path: &str,
    kind: &str,
) -> (u16, String, Option<String>) {
    let request = Request::post(format!("http://{to}{path}")).header("content-type", kind).header("te", "trailers");
    let answer = sender.send_request(request.body(replica::message()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap();
    let grpc = body.trailers().and_then(|t| t.get("grpc-status")).map(|s| s.to_str().unwrap().to_owned());
    (status, String::from_utf8_lossy(&body.to_bytes()).into_owned(), grpc)
}

#[test]
fn each_path_goes_to_its_service() {
    let (proxy, _replicas) = shop();
    for (path, service) in [
        ("/api/v1/account/auth/login", "account"),
        ("/api/v1/account/customer/personal", "account"),
        ("/.well-known/jwks.json", "account"),
        ("/api/v1/products?limit=2", "product"),
        ("/api/v1/products/7", "product"),
        ("/api/v1/categories/7", "product"),
        ("/api/v1/orders", "order"),
        ("/api/v1/payments/7", "payment"),
        ("/api/v1/purchases/7?wait=10s", "purchase"),
        ("/", "console"),
        ("/shop", "console"),
        ("/shop?q=cup", "console"),
        ("/shop/purchases/7", "console"),
        ("/shop/assets/0123/console.css", "console"),
    ] {
        let answer = get(proxy.web, path).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.body.starts_with(&format!("{service}/public {path} ")), "{path}: {}", answer.body);
    }
}

#[test]
fn what_a_client_says_about_its_origin_is_replaced() {
    let (proxy, _replicas) = shop();
    let lies = "Forwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: gopher\r\n\
        X-Forwarded-Prefix: /admin\r\nX-Real-IP: 10.0.0.1\r\nX-Original-URL: /admin/sagas\r\nX-Rewrite-URL: /admin\r\n\
        X-HTTP-Method-Override: DELETE\r\nX-Internal: yes\r\nConnection: close, Upgrade, HTTP2-Settings\r\n\
        Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    let answer = send(proxy.web, &format!("GET /api/v1/orders HTTP/1.1\r\nHost: shop\r\n{lies}\r\n")).unwrap();
    assert!(answer.body.starts_with("order/public /api/v1/orders 0\n"), "{}", answer.body);
    let passed = answer.body.to_lowercase();
    for lie in ["10.0.0.1", "gopher", "/admin", "override", "x-internal", "upgrade"] {
        assert!(!passed.contains(lie), "{lie} was passed on: {passed}");
    }
    assert!(passed.contains("x-forwarded-for: 127.0.0.1\n"), "{passed}");
    assert!(passed.contains("x-forwarded-host: shop\n") && passed.contains("x-forwarded-proto: http\n"), "{passed}");
}

async fn twenty_calls_on_one_connection(proxy: &Proxy) {
    let stream = TokioIo::new(tokio::net::TcpStream::connect(proxy.internal).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..20 {
        let path = "/product.ProductService/GetProducts";
        let (status, body, grpc) = call_on(&mut sender, proxy.internal, path, "application/grpc").await;
        assert_eq!((status, grpc.as_deref()), (200, Some("0")), "{body}");
        assert!(body.ends_with("/internal"), "{body}");
    }
    connection.abort();
}

#[test]
fn grpc_calls_on_one_connection_are_spread_over_the_replicas() {
    let (proxy, one, two) = two_of("product", &table());
    block_on(twenty_calls_on_one_connection(&proxy));
    assert_eq!((one.requests(), two.requests()), (10, 10));
}

#[test]
fn the_internal_entry_point_knows_its_services_and_nothing_else() {
    let (proxy, _replicas) = shop();
    let (status, body, _) = block_on(call(proxy.internal, "/auth.AuthService/Auth", "application/grpc"));
    assert_eq!((status, body.as_str()), (200, "account/internal"));
    let keys = get(proxy.internal, "/.well-known/jwks.json").unwrap();
    assert!(keys.body.starts_with("account/internal "), "{}", keys.body);
    let nowhere = ["/api/v1/orders", "/admin/sagas", "/console/sagas", "/shop", "/readyz", "/metrics", "/docs", "/"];
    for path in nowhere.into_iter().chain(["/auth.AuthServiceX/Auth"]) {
        assert_eq!(get(proxy.internal, path).unwrap().status, 404, "{path}");
    }
}

#[test]
fn the_pages_ask_inside_where_no_client_address_is_counted() {
    let mut table = table();
    table.limits.client = Some(edge::table::Client { in_flight: 1, per_second: 1, burst: 0 });
    let (proxy, one, two) = two_of("purchase", &table);
    for path in ["/api/v1/purchases", "/api/v1/purchases/7"] {
        for _ in 0..10 {
            let answer = get(proxy.internal, path).unwrap();
            assert!(answer.status == 200 && answer.body.contains(&format!("/public {path} ")), "{}", answer.body);
        }
    }
    let write = "POST /api/v1/purchases HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(send(proxy.internal, write).unwrap().status, 200);
    let held: Vec<_> = (0..4)
        .map(|_| open(proxy.internal, "GET /api/v1/purchases/endless/events HTTP/1.1\r\nHost: shop\r\n\r\n"))
        .collect();
    proxy::wait_for("four streams are open", || one.requests() + two.requests() == 25);
    drop(held);
    // The same on the other entry point is one client address.
    assert!((0..12).any(|_| get(proxy.web, "/api/v1/purchases").unwrap().status == 429));
}

#[test]
fn a_stream_may_be_silent_for_longer_than_an_answer_may_take() {
    let (proxy, _replicas) = shop();
    let started = Instant::now();
    let mut stream = open(proxy.web, "GET /api/v1/purchases/7/events HTTP/1.1\r\nHost: shop\r\n\r\n");
    let mut text = String::new();
    let mut read_until = |what: &str| {
        let mut buffer = [0; 1024];
        while !text.contains(what) {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the stream ended before {what}: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        started.elapsed()
    };
    assert!(read_until("data: first of purchase/public") < SILENCE, "an event is passed on when it comes");
    assert!(read_until("data: second of purchase/public") >= SILENCE);
    // The same silence where an answer is due.
    let answer = get(proxy.web, "/api/v1/purchases/7/silent").unwrap();
    assert_eq!(answer.status, 504);
    assert!(answer.body.contains(r#""code":"dependency_unavailable""#), "{}", answer.body);
}

#[test]
fn a49_headers_that_never_end_are_cut_off() {
    let (proxy, replicas) = shop();
    let started = Instant::now();
    let mut stream = open(proxy.web, "POST /api/v1/purchases HTTP/1.1\r\nHost: sh");
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    let body = "POST /api/v1/purchases HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\n{";
    let mut text = String::new();
    open(proxy.web, body).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(replicas.iter().all(|replica| replica.requests() == 0), "no service was troubled");
}

#[test]
fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let (proxy, replicas) = shop();
    let post = |size: usize| {
        let head = format!("POST /api/v1/orders HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: {size}");
        send(proxy.web, &format!("{head}\r\n\r\n{}", "x".repeat(size))).unwrap()
    };
    let fits = post(65_536);
    assert_eq!(fits.status, 200, "{}", fits.head);
    assert!(fits.body.starts_with("order/public /api/v1/orders 65536\n"), "{}", fits.body);
    let answer = post(65_537);
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains(r#""code":"payload_too_large""#), "{}", answer.body);
    assert_eq!(replicas.iter().map(Replica::requests).sum::<u32>(), 1);
}

#[test]
fn who_has_too_much_open_waits_until_some_of_it_is_done() {
    let mut table = table();
    table.limits.client = Some(edge::table::Client { in_flight: 3, per_second: 10_000, burst: 10_000 });
    let (proxy, one, two) = two_of("purchase", &table);
    let held: Vec<_> = (0..3)
        .map(|_| open(proxy.web, "GET /api/v1/purchases/endless/events HTTP/1.1\r\nHost: shop\r\n\r\n"))
        .collect();
    proxy::wait_for("three streams are open", || one.requests() + two.requests() == 3);
    let answer = get(proxy.web, "/api/v1/purchases").unwrap();
    assert_eq!(answer.status, 429, "a fourth beside three open ones");
    // Noticed with a comment that nobody reads.
    drop(held);
    proxy::wait_for("a place is free", || get(proxy.web, "/api/v1/purchases").unwrap().status == 200);
}

#[test]
fn who_asks_too_often_is_told_to_wait() {
    let mut table = table();
    table.limits.client = Some(edge::table::Client { in_flight: 100, per_second: 10, burst: 20 });
    let (proxy, one, two) = two_of("purchase", &table);
    // 10 a second over 10 seconds, and 20 more.
    let refused = (0..125).find_map(|_| get(proxy.web, "/api/v1/purchases").filter(|answer| answer.status != 200));
    let answer = refused.unwrap();
    assert_eq!((answer.status, one.requests() + two.requests()), (429, 120));
    assert!(answer.head.to_lowercase().contains("retry-after: 1"), "{}", answer.head);
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&problem["code"], &problem["instance"]), (&"rate_limited".into(), &"/api/v1/purchases".into()));
    assert_eq!(problem["trace_id"].as_str().map(str::len), Some(32), "{problem}");
}

#[test]
fn passwords_are_guessed_more_slowly() {
    for (service, guessed, other) in [
        ("account", "/api/v1/account/auth/login", "/api/v1/account/customer/personal"),
        ("console", "/shop/login", "/shop"),
    ] {
        let mut table = table();
        let login = table.web.iter_mut().find(|route| route.takes(guessed)).unwrap();
        login.limit = Some(edge::Rate { per_second: 1, burst: 0 });
        let (proxy, _one, _two) = two_of(service, &table);
        let mut statuses = (0..11).map(|_| get(proxy.web, guessed).unwrap().status);
        assert!(statuses.by_ref().take(10).all(|status| status == 200), "{guessed}");
        assert_eq!(statuses.next(), Some(429), "{guessed}");
        assert_eq!(get(proxy.web, other).unwrap().status, 200, "only there");
    }
}

#[test]
fn a_page_that_is_watched_is_a_stream() {
    let (proxy, _replicas) = shop();
    let mut stream = open(proxy.web, "GET /shop/purchases/7/live HTTP/1.1\r\nHost: shop\r\n\r\n");
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    while !text.contains("data: second of console/public") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}
