//! What is generated: lawful by the published schemas, equal to what is committed, and the same in both languages.
#![allow(clippy::unwrap_used, reason = "tests")]

mod files;

use edge::{Layout, Replicas, Table};
use files::{read, schema, validate};
use regex::Regex;
use serde_json::Value;

fn table() -> Table {
    Table::parse(&read("deploy/routes.yaml")).unwrap()
}

fn generated(table: &Table) -> Vec<edge::File> {
    let replicas = Replicas::parse(&read("deploy/replicas.yaml")).unwrap();
    edge::generate(table, &Layout::compose(replicas)).unwrap()
}

fn file(table: &Table, name: &str) -> String {
    generated(table).into_iter().find(|file| file.name == name).unwrap().text
}

fn yaml(text: &str) -> Value {
    serde_norway::from_str(text).unwrap()
}

#[test]
fn what_is_committed_is_what_is_generated() {
    for file in generated(&table()) {
        let path = format!("deploy/generated/{}", file.name);
        assert!(read(&path) == file.text, "{path} is stale: run `cargo run -p edge -- compose`");
    }
}

#[test]
fn traefiks_files_are_lawful_by_its_schemas() {
    let mut lifted = table();
    lifted.without_client_limits();
    for table in [table(), lifted] {
        validate(&schema("traefik-v3.json"), &yaml(&file(&table, "traefik.yaml")));
        validate(&schema("traefik-v3-file-provider.json"), &yaml(&file(&table, "dynamic.yaml")));
    }
}

#[test]
fn the_schemas_refuse_what_traefik_would() {
    let refuses = |name: &str, value: Value| {
        let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft7).build(&schema(name)).unwrap();
        assert!(!validator.is_valid(&value), "{name} takes {value}");
    };
    let mut fixed = yaml(&file(&table(), "traefik.yaml"));
    fixed["entryPoints"]["web"]["addres"] = ":80".into();
    refuses("traefik-v3.json", fixed);
    let mut dynamic = yaml(&file(&table(), "dynamic.yaml"));
    dynamic["http"]["routers"]["web-docs"]["rules"] = "Path(`/docs`)".into();
    refuses("traefik-v3-file-provider.json", dynamic);
}

#[test]
fn traefiks_parts_name_each_other() {
    let dynamic = yaml(&file(&table(), "dynamic.yaml"));
    let fixed = yaml(&file(&table(), "traefik.yaml"));
    let http = &dynamic["http"];
    for (name, router) in http["routers"].as_object().unwrap() {
        assert!(http["services"].get(router["service"].as_str().unwrap()).is_some(), "{name}: {router}");
        for part in router["middlewares"].as_array().unwrap() {
            assert!(http["middlewares"].get(part.as_str().unwrap()).is_some(), "{name}: no middleware {part}");
        }
        for entry in router["entryPoints"].as_array().unwrap() {
            assert!(fixed["entryPoints"].get(entry.as_str().unwrap()).is_some(), "{name}: no entry point {entry}");
        }
    }
}

#[test]
fn g17_the_web_entry_point_leads_to_public_listeners_only() {
    let dynamic = yaml(&file(&table(), "dynamic.yaml"));
    for (name, router) in dynamic["http"]["routers"].as_object().unwrap() {
        let internal = router["entryPoints"] != serde_json::json!(["web"]);
        let servers = &dynamic["http"]["services"][router["service"].as_str().unwrap()]["loadBalancer"]["servers"];
        for server in servers.as_array().unwrap() {
            let url = server["url"].as_str().unwrap();
            // What services use of the public routes is on the public listeners for them, too.
            let own = internal && router["service"].as_str().unwrap().ends_with("-internal");
            let (scheme, port) = if own { ("h2c://", ":9001") } else { ("http://", ":8000") };
            assert!(url.starts_with(scheme) && url.ends_with(port), "{name} leads to {url}");
        }
        assert!(internal || router["rule"].as_str().unwrap().contains("application/grpc"), "{name} takes gRPC");
    }
}

#[test]
fn streams_are_not_buffered_and_everything_else_is_limited() {
    let dynamic = yaml(&file(&table(), "dynamic.yaml"));
    let streams: Vec<String> =
        table().web.iter().filter(|route| route.stream).map(|route| format!("web-{}", route.name())).collect();
    assert_eq!(streams.len(), 3);
    for (name, router) in dynamic["http"]["routers"].as_object().unwrap() {
        if name.starts_with("web-") {
            let buffered = router["middlewares"].as_array().unwrap().contains(&"body".into());
            assert_eq!(buffered, !streams.contains(name), "{name}");
        }
    }
}

/// One alternative of a rule: `Matcher(value)`.
fn matches(matcher: &str, value: &str, path: &str) -> bool {
    match matcher {
        "Path" => path == value,
        "PathPrefix" => path.starts_with(value),
        "PathRegexp" => Regex::new(value).unwrap().is_match(path),
        other => panic!("no matcher of the generated rules is called {other}"),
    }
}

/// What Traefik would choose for a GET: the matching router with the highest priority.
fn traefik_chooses(dynamic: &Value, entry: &str, path: &str) -> Option<String> {
    let alternative = Regex::new(r"(Path|PathPrefix|PathRegexp)\(`([^`]*)`\)").unwrap();
    let routers = dynamic["http"]["routers"].as_object().unwrap().iter();
    let fitting = routers.filter(|(_, router)| router["entryPoints"][0] == entry).filter(|(_, router)| {
        let rule = router["rule"].as_str().unwrap();
        alternative.captures_iter(rule).any(|found| matches(&found[1], &found[2], path))
    });
    let (name, router) = fitting.max_by_key(|(_, router)| router["priority"].as_u64().unwrap())?;
    Some(format!("{name} to {}", router["service"].as_str().unwrap()))
}

#[test]
fn traefiks_rules_choose_what_the_table_chooses() {
    let (table, dynamic) = (table(), yaml(&file(&table(), "dynamic.yaml")));
    let (mut chosen, mut inside) = (0, 0);
    for path in [
        "/api/v1/account/auth/login",
        "/api/v1/account/customer/personal",
        "/api/v1/accounts",
        "/api/v1/products",
        "/api/v1/products/7",
        "/api/v1/productsx",
        "/api/v1/categories/7",
        "/api/v1/orders/7",
        "/api/v1/payments",
        "/api/v1/purchases",
        "/api/v1/purchases/7",
        "/api/v1/purchases/7/events",
        "/api/v1/purchases/7/events/8",
        "/api/v1/purchases/events",
        "/api/v1/purchases/7/cancel",
        "/docs/errors/not_found",
        "/docsx",
        "/openapi.json",
        "/openapi.json/x",
        "/.well-known/jwks.json",
        "/.well-known/jwksXjson",
        "/admin/sagas",
        "/readyz",
        "/auth.AuthService/Auth",
        "/",
        "/shop",
        "/shop/purchases/7",
        "/shop/purchases/7/live",
        "/shop/login",
        "/shopx",
        "/console",
    ] {
        let wanted = table.web_route(path).map(|route| format!("web-{} to {}", route.name(), route.service));
        chosen += u32::from(wanted.is_some());
        assert_eq!(traefik_chooses(&dynamic, "web", path), wanted, "{path}");
        let wanted = table.internal_route(path).map(|route| {
            let of_services = table.internal.contains(route);
            let service = if of_services { format!("{}-internal", route.service) } else { route.service.clone() };
            format!("internal-{} to {service}", route.name())
        });
        inside += u32::from(wanted.is_some());
        assert_eq!(traefik_chooses(&dynamic, "internal", path), wanted, "{path}");
    }
    assert_eq!((chosen, inside), (21, 13));
}

#[test]
fn traefiks_rules_are_in_its_third_language() {
    // `Matcher(`one value`)`, a function of version 3, joined by && and ||.
    let matcher = Regex::new(r"!?(Path|PathPrefix|PathRegexp|Method|HeaderRegexp)\(`[^`]*`(, `[^`]*`)?\)").unwrap();
    for router in yaml(&file(&table(), "dynamic.yaml"))["http"]["routers"].as_object().unwrap().values() {
        let rule = router["rule"].as_str().unwrap();
        let rest = matcher.replace_all(rule, "x");
        let rest = rest.replace("(x || x)", "x").replace("(x)", "x");
        assert!(["x", "x || x", "x && x", "x && x && x"].contains(&rest.as_str()), "{rule} leaves {rest}");
        // Two values belong to headers only: a name and what it must be.
        assert_eq!(rule.matches("`, `").count(), rule.matches("HeaderRegexp(").count(), "{rule}");
    }
}

#[test]
fn haproxy_takes_the_committed_file() {
    let path = files::root().join("deploy/generated/haproxy.cfg");
    let program = if std::path::Path::new("/usr/sbin/haproxy").exists() { "/usr/sbin/haproxy" } else { "haproxy" };
    let output = std::process::Command::new(program).args(["-c", "-f"]).arg(path).output();
    let output = output.expect("haproxy runs: install Debian's package `haproxy`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
