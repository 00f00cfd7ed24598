//! The shipped table against the contract, and tables that are refused.
#![allow(clippy::unwrap_used, reason = "tests")]

mod files;

use std::collections::BTreeSet;

use edge::{Layout, Replicas, Table};
use files::{read, shared};

fn table() -> Table {
    Table::parse(&read("deploy/routes.yaml")).unwrap()
}

/// Every path of the contract's HTTP table, with a number for each id.
fn contract() -> BTreeSet<String> {
    let text = shared("api.md");
    let (_, rest) = text.split_once("## HTTP").unwrap();
    let (section, _) = rest.split_once("\n- **Errors**").unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let words: Vec<&str> = cells.flat_map(|cell| cell.split(['`', ' ', ','])).collect();
    let paths = words.into_iter().filter(|word| word.starts_with('/') && word.len() > 1);
    paths
        // `GET`/`PUT …` leaves a slash of its own, `GET/PUT/DELETE …` none.
        .map(|path| path.split('?').next().unwrap().replace(":id", "7"))
        .map(|path| match path.as_str() {
            "/.well-known/jwks.json" | "/openapi.json" | "/docs" => path,
            _ => format!("/api/v1{path}"),
        })
        .collect()
}

#[test]
fn every_public_route_of_the_contract_is_in_the_table_and_nothing_else() {
    let (table, contract) = (table(), contract());
    assert!(contract.len() >= 22, "{contract:?}");
    let mut used = BTreeSet::new();
    for path in &contract {
        let wanted = match path.split('/').nth(3).unwrap_or_default() {
            "account" | "" => "account",
            "products" | "categories" => "product",
            "orders" => "order",
            "payments" => "payment",
            "purchases" => "purchase",
            other => panic!("whose is {other}?"),
        };
        let route = table.web_route(path).unwrap_or_else(|| panic!("{path} is not in the table"));
        assert_eq!(route.service, wanted, "{path}");
        assert_eq!(route.stream, path.ends_with("/events"), "{path}");
        used.insert(route.path.clone());
    }
    // Pages are no contract; one service has them all.
    for path in ["/", "/shop", "/shop/login", "/shop/register", "/shop/purchases/7/live"] {
        let route = table.web_route(path).unwrap_or_else(|| panic!("{path} is not in the table"));
        assert_eq!((route.service.as_str(), route.stream), ("console", path.ends_with("/live")), "{path}");
        used.insert(route.path.clone());
    }
    let all: Vec<String> = table.web.iter().map(|route| route.path.clone()).collect();
    assert_eq!(all.len(), used.len(), "a route that no contract has, or twice: {all:?} for {used:?}");
}

#[test]
fn nothing_internal_is_in_the_public_table() {
    let table = table();
    for path in [
        "/admin",
        "/admin/sagas",
        "/api/v1/admin/sagas",
        "/livez",
        "/readyz",
        "/metrics",
        "/auth.AuthService/Auth",
        "/product.ProductService/GetProducts",
        "/grpc.health.v1.Health/Check",
        "//",
        "/console",
        "/console/sagas",
        "/shopx",
        "/assets",
        "/api/v1",
        "",
    ] {
        assert_eq!(table.web_route(path), None, "{path}");
    }
    assert!(table.web.iter().all(|route| route.service != "orchestrator"), "it talks to operators only");
}

#[test]
fn the_internal_table_has_the_contracts_services() {
    let table = table();
    let service = |path: &str| table.internal_route(path).map(|route| route.service.as_str());
    assert_eq!(service("/auth.AuthService/Auth"), Some("account"));
    assert_eq!(service("/product.ProductService/CheckProducts"), Some("product"));
    assert_eq!(service("/product.ProductService/GetProducts"), Some("product"));
    assert_eq!(service("/.well-known/jwks.json"), Some("account"));
    assert_eq!(service("/product.ProductServices/GetProducts"), None);
    assert_eq!(service("/grpc.health.v1.Health/Check"), None);
    assert_eq!(table.internal.len(), 3);
    // What the pages ask for on behalf of whoever looks at them, and not the pages themselves.
    for path in ["/api/v1/account/auth/login", "/api/v1/products/7", "/api/v1/purchases/7/events"] {
        assert_eq!(table.internal_route(path), table.web_route(path), "{path}");
    }
    for path in ["/", "/shop", "/console", "/admin/sagas", "/api/v1/orders", "/docs"] {
        assert_eq!(table.internal_route(path), None, "{path}");
    }
    // Every service of the .proto files, and no more.
    let protos = ["auth", "product"].map(|name| read(&format!("proto/{name}.proto")));
    for line in protos.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("service ")) {
        let name = line.split(' ').nth(1).unwrap();
        assert!(table.internal.iter().any(|route| route.path.ends_with(&format!(".{name}"))), "{name}");
    }
}

#[test]
fn a_segment_is_whole() {
    let table = table();
    let stream = |path: &str| table.web_route(path).is_some_and(|route| route.stream);
    assert!(stream("/api/v1/purchases/7/events") && stream("/api/v1/purchases/events"));
    assert!(!stream("/api/v1/purchases//events") && !stream("/api/v1/purchases/7/events/"));
    assert!(!stream("/api/v1/purchases/7/8/events") && !stream("/api/v1/purchases/7"));
}

/// The shipped table with one line in place of another.
fn changed(from: &str, to: &str) -> Result<Table, edge::Error> {
    let text = read("deploy/routes.yaml");
    assert!(text.contains(from), "{from}");
    Table::parse(&text.replacen(from, to, 1))
}

#[test]
fn a_table_that_cannot_be_meant_is_refused() {
    let order = "  - path: /api/v1/orders\n";
    for (from, to, why) in [
        (order, "  - path: api/v1/orders\n", "begin with /"),
        (order, "  - path: /api/v1/orders/\n", "segments"),
        (order, "  - path: /api/v1//orders\n", "segments"),
        (order, "  - path: /api/v1/../orders\n", "segments"),
        (order, "  - path: /api/v1/orders`) || PathPrefix(`/\n", "segments"),
        (order, "  - path: \"/api/v1/orders\\nuse_backend x\"\n", "segments"),
        (order, "  - path: /api/v1/or{id}\n", "segments"),
        (order, "  - path: /api/v1/products/special\n", "/api/v1/products is before it"),
        ("  - path: /\n    service: console\n    exact: true", "  - path: /\n    service: console", "exact"),
        ("  - path: /auth.AuthService\n", "  - inside: true\n    path: /auth.AuthService\n", "inside"),
        ("service: order", "service: Order", "lower case"),
        ("    exact: true", "    exakt: true", "exakt"),
        ("  - Proxy\n", "  - \"Proxy\\n\"\n", "header"),
        ("check_ms: 1000", "check_ms: fast", "check_ms"),
    ] {
        let error = changed(from, to).unwrap_err().to_string();
        assert!(error.contains(why), "{to:?}: {error}");
    }
}

#[test]
fn replicas_are_addresses_and_nothing_more() {
    let mut replicas = Replicas::default();
    replicas.add("product=127.0.0.1:9001/[::1]:9002").unwrap();
    assert!(!replicas.have_names());
    replicas.add("product=product-2:9001").unwrap();
    assert!(replicas.have_names());
    for wrong in [
        "product",
        "=127.0.0.1:1",
        "product=127.0.0.1",
        "product=127.0.0.1:0",
        "product=127.0.0.1:99999",
        "product=127.0.0.1:1/127.0.0.1",
        "product=a b:1",
        "product=a\n  stats enable:1",
        "Product=a:1",
    ] {
        assert!(replicas.add(wrong).is_err(), "{wrong:?}");
    }
    assert!(Replicas::parse("product: [[a:1, b:2], [a:3]]").is_ok());
    assert!(Replicas::parse(r#"{"product": [["a:1", "b:2"]]}"#).is_ok());
    assert!(Replicas::parse("product: [a]").is_err());
}

#[test]
fn routes_lead_somewhere() {
    let layout = |list: &str| Layout::compose(Replicas::parse(list).unwrap());
    let all = "{account: [[a:1, a:2]], product: [[a:1, a:2]], order: [[a:1]], payment: [[a:1]], purchase: [[a:1]],
        console: [[a:1]]}";
    assert!(edge::generate(&table(), &layout(all)).is_ok());
    let error = edge::generate(&table(), &layout(&all.replace("order", "ordre"))).unwrap_err().to_string();
    assert!(error.contains("order"), "{error}");
    let error = edge::generate(&table(), &layout(&all.replacen("a:1, a:2", "a:1", 1))).unwrap_err().to_string();
    assert!(error.contains("account") && error.contains("internal"), "{error}");
}
