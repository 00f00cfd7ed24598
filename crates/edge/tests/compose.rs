//! `deploy/compose.yaml` and the `Dockerfile`, without an engine: what can be known from reading them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod files;

use std::collections::BTreeSet;
use std::process::Command;

use files::{read, root, schema, validate};
use serde_json::{Map, Value};

/// What everything else stands on, and what stands on nothing itself. Traefik is among them: it asks its replicas
/// whether they are ready, and some of them are only when they reach another one through it.
/// Who watches the others comes up without them.
const GROUND: [&str; 11] = [
    "postgres",
    "kafka",
    "traefik",
    "redis-0",
    "redis-1",
    "redis-2",
    "redis-3",
    "redis-4",
    "redis-5",
    "prometheus",
    "jaeger",
];

const SERVICES: [&str; 7] = ["account", "product", "order", "payment", "purchase", "orchestrator", "console"];

fn compose() -> Value {
    let mut value: serde_norway::Value = serde_norway::from_str(&read("deploy/compose.yaml")).unwrap();
    // What is merged may merge something itself: a level a time.
    for _ in 0..4 {
        value.apply_merge().unwrap();
    }
    serde_json::to_value(value).unwrap()
}

fn services(compose: &Value) -> &Map<String, Value> {
    compose["services"].as_object().unwrap()
}

/// Runs once and ends.
fn is_job(service: &Value) -> bool {
    service["restart"] == "no"
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().map(|all| all.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

#[test]
fn it_is_lawful_by_the_compose_specification() {
    validate(&schema("compose-spec.json"), &compose());
}

#[test]
fn docker_compose_takes_it() {
    for profile in [&[][..], &["--profile", "observability"], &["-f", "deploy/observability.yaml"]] {
        let arguments = ["-f", "deploy/compose.yaml"].iter().chain(profile).chain(&["config", "-q"]);
        let mut compose = Command::new("docker-compose");
        match compose.args(arguments).current_dir(root()).env("SAGA_ADMIN_TOKEN", "x").output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            // The schema was asked; Debian's package `docker-compose` adds names, conditions and interpolation.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
        }
    }
}

#[test]
fn with_the_override_every_process_of_the_shop_sends_its_traces_to_the_profiles_jaeger_and_without_it_none() {
    let mut overlay: serde_norway::Value = serde_norway::from_str(&read("deploy/observability.yaml")).unwrap();
    overlay.apply_merge().unwrap();
    let overlay: Value = serde_json::to_value(overlay).unwrap();
    let compose = compose();
    let serves = |service: &Value| texts(&service["command"]).first() == Some(&"serve");
    let shop: Vec<&String> = services(&compose).iter().filter(|(_, one)| serves(one)).map(|(name, _)| name).collect();
    assert_eq!(services(&overlay).keys().collect::<Vec<_>>(), shop);
    for (name, service) in services(&overlay) {
        let endpoint = service["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"].as_str().unwrap();
        assert!(endpoint.contains(":-http://jaeger:4318}"), "{name}: {endpoint}");
        let own = compose["services"][name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"].as_str();
        assert!(own.is_none_or(|own| own.ends_with(":-}")), "{name}: {own:?}");
    }
    assert_eq!(texts(&compose["services"]["jaeger"]["profiles"]), ["observability"]);
}

/// A tag that names one release: two numbers at least.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let version = tag.trim_start_matches('v').split('-').next().unwrap();
    let numbers: Vec<&str> = version.split('.').collect();
    numbers.len() >= 2 && numbers.iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[test]
fn every_image_is_pinned() {
    for wrong in ["redis", "redis:latest", "redis:8", "postgres:bookworm", "host:5000/redis"] {
        assert!(!is_pinned(wrong), "{wrong}");
    }
    for (name, service) in services(&compose()) {
        let image = service["image"].as_str().unwrap();
        assert!(is_pinned(image), "{name}: {image}");
    }
    let stack = read("deploy/kafka/pom.xml");
    let kafka = compose()["services"]["kafka"]["image"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    assert!(stack.contains(&format!("<version>{kafka}</version>")), "deploy/stack runs another Kafka than {kafka}");
}

#[test]
fn every_service_says_when_it_is_healthy_what_it_needs_and_how_much_it_takes() {
    let compose = compose();
    let all = services(&compose);
    let mut findings = Vec::new();
    for (name, service) in all {
        let mut want = |holds: bool, what: &str| {
            if !holds {
                findings.push(format!("{name}: {what}"));
            }
        };
        want(service["mem_limit"].is_string(), "no memory limit");
        want(service["networks"].is_array(), "in the default network");
        if !is_job(service) {
            want(service["healthcheck"]["test"].is_array(), "no health check");
            want(service["restart"] == "unless-stopped", "does not come back");
        }
        let needs = service["depends_on"].as_object();
        want(needs.is_some() != GROUND.contains(&name.as_str()), "depends on nothing, or is ground and does");
        for (other, how) in needs.into_iter().flatten() {
            let wanted = match all.get(other) {
                None => "(there is no such service)",
                Some(job) if is_job(job) => "service_completed_successfully",
                Some(_) => "service_healthy",
            };
            want(how["condition"] == wanted, &format!("needs {other} as {}, not as {wanted}", how["condition"]));
        }
        let test = texts(&service["healthcheck"]["test"]).join(" ");
        want(!test.contains("curl") && !test.contains("wget"), "its image may have no curl");
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(SERVICES.iter().all(|name| all.contains_key(*name)));
}

#[test]
fn only_the_shop_is_open_to_other_machines() {
    for (name, service) in services(&compose()) {
        for port in texts(&service["ports"]) {
            let open = !port.starts_with("127.0.0.1:");
            assert!(!open || (name == "traefik" && port == "${WEB_PORT:-8000}:8000"), "{name} publishes {port}");
        }
    }
    let ports = |name: &str| texts(&compose()["services"][name]["ports"]).join(" ");
    assert!(ports("traefik").contains(":8000") && ports("traefik").contains(":8080"));
    assert!(ports("topics").contains(":9000") && ports("orchestrator").contains(":9002"));
    assert_eq!(compose()["networks"]["data"]["internal"], true);
}

#[test]
fn there_is_no_secret_in_it() {
    let text = read("deploy/compose.yaml");
    let at_in_url = |word: &str| word.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    assert!(!text.split_whitespace().any(at_in_url), "a URL with a password");
    for (name, service) in services(&compose()) {
        for (key, value) in service["environment"].as_object().into_iter().flatten() {
            let secret = ["PASSWORD", "TOKEN", "SECRET", "STORES"].iter().any(|word| key.contains(word));
            let value = value.as_str().unwrap_or_default();
            let outside = if key.ends_with("_FILE") {
                value.starts_with("/run/secrets/")
            } else {
                value.starts_with("${") && value.contains(":?")
            };
            assert!(!secret || outside, "{name}: {key}={value}");
            if let Some(secret) = value.strip_prefix("/run/secrets/") {
                assert!(texts(&service["secrets"]).contains(&secret), "{name} is not given {secret}");
                assert!(compose()["secrets"].get(secret).is_some(), "{secret} is not declared");
            }
        }
    }
    let example = read("deploy/.env.example");
    assert!(example.lines().any(|line| line == "SAGA_ADMIN_TOKEN="), "the example has no value");
    let ignored = read("deploy/.gitignore");
    assert!(ignored.contains("/.env\n") && ignored.contains("/secrets/\n"));
    assert!(read(".dockerignore").contains("deploy/secrets\n"), "secrets would be sent to the builder");
}

/// Every setting that the defaults name, those included that are only shown in a comment.
fn settings() -> toml::Table {
    let text = read("crates/saga/src/config.default.toml");
    let shown = |line: &str| {
        let key = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = "));
        let key = key.filter(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        key.map_or_else(|| line.to_owned(), |(key, value)| format!("{key} = {value}"))
    };
    toml::from_str(&text.lines().map(shown).collect::<Vec<_>>().join("\n")).unwrap()
}

fn is_setting(settings: &toml::Table, name: &str) -> bool {
    // A variable that the binary reads itself, not a setting.
    if name == "SAGA_ADMIN_TOKEN" {
        return true;
    }
    let path = name.trim_start_matches("SAGA_").to_ascii_lowercase();
    let mut keys: Vec<&str> = path.trim_end_matches("_file").split("__").collect();
    let last = keys.pop().unwrap();
    let table = keys.iter().try_fold(settings, |table, key| table.get(*key)?.as_table());
    table.and_then(|table| table.get(last)).is_some_and(|value| !value.is_table())
}

#[test]
fn o01_every_variable_is_a_setting() {
    let settings = settings();
    assert!(is_setting(&settings, "SAGA_LISTEN") && is_setting(&settings, "SAGA_PURCHASE__MAX_IN_FLIGHT"));
    assert!(is_setting(&settings, "SAGA_ADMIN_LISTEN"), "it is shown in a comment");
    assert!(!is_setting(&settings, "SAGA_PURCHASE__MAX") && !is_setting(&settings, "SAGA_PURCHASE"));
    let compose = compose();
    let environments = services(&compose).values().filter_map(|service| service["environment"].as_object());
    let dockerfile = read("Dockerfile");
    let words = dockerfile.split_whitespace().filter_map(|word| word.split_once('=')).map(|(name, _)| name);
    let names: BTreeSet<&str> = environments.flat_map(|e| e.keys()).map(String::as_str).chain(words).collect();
    let ours: Vec<&str> = names.into_iter().filter(|name| name.starts_with("SAGA_")).collect();
    assert!(ours.len() > 10, "{ours:?}");
    let unknown: Vec<_> = ours.into_iter().filter(|name| !is_setting(&settings, name)).collect();
    assert!(unknown.is_empty(), "the binary would refuse {unknown:?}");
}

#[test]
fn the_services_listen_where_the_edge_looks_for_them() {
    let compose = compose();
    let replicas = edge::Replicas::parse(&read("deploy/replicas.yaml")).unwrap();
    let port = |service: &Value, key: &str| {
        service["environment"][key].as_str().unwrap().rsplit_once(':').unwrap().1.parse::<u16>().unwrap()
    };
    for name in SERVICES.into_iter().filter(|name| *name != "orchestrator") {
        let found = replicas.of(name);
        assert!(!found.is_empty(), "{name} has no replica");
        for replica in found {
            let public = replica.public.to_string();
            let (host, at) = public.split_once(':').unwrap();
            let service = &services(&compose)[host];
            assert_eq!(texts(&service["command"]), ["serve", name], "{host}");
            assert_eq!(at.parse::<u16>().unwrap(), port(service, "SAGA_LISTEN"));
            let internal = replica.internal.as_ref().unwrap().to_string();
            assert_eq!(internal, format!("{host}:{}", port(service, "SAGA_INTERNAL_LISTEN")));
            assert!(texts(&service["networks"]).contains(&"edge"), "Traefik does not reach {host}");
        }
    }
    let traefik: Value = serde_norway::from_str(&read("deploy/generated/traefik.yaml")).unwrap();
    let internal = traefik["entryPoints"]["internal"]["address"].as_str().unwrap();
    for peer in ["SAGA_PEERS__ACCOUNT", "SAGA_PEERS__PRODUCT"] {
        assert_eq!(compose["services"]["purchase"]["environment"][peer], format!("http://traefik{internal}"));
    }
    // The pages ask where they are no client address among others.
    for pages in ["console", "orchestrator"] {
        let url = &compose["services"][pages]["environment"]["SAGA_CONSOLE__SHOP_URL"];
        assert_eq!(*url, format!("http://traefik{internal}"), "{pages}");
    }
    let admin = compose["services"]["console"]["environment"]["SAGA_CONSOLE__ADMIN_URL"].as_str().unwrap();
    let port = port(&compose["services"]["orchestrator"], "SAGA_ADMIN_LISTEN");
    assert_eq!(admin, format!("http://orchestrator:{port}"));
    assert!(
        compose["services"]["console"].get("ports").is_none(),
        "its operators' pages are on no port of the machine"
    );
}

#[test]
fn replicas_of_one_service_have_numbers_of_their_own() {
    let compose = compose();
    let mut seen = BTreeSet::new();
    for (name, service) in services(&compose) {
        if let ["serve", role] = texts(&service["command"])[..] {
            let node: u8 = service["environment"]["SAGA_NODE"].as_str().unwrap().parse().unwrap();
            assert!(node < 32 && seen.insert((role.to_owned(), node)), "{name} is {role} {node}, as another one");
        }
    }
    assert_eq!(seen.iter().map(|(role, _)| role).collect::<BTreeSet<_>>().len(), SERVICES.len());
}

#[test]
fn the_image_is_built_as_the_repository_is_and_runs_without_rights() {
    let text = read("Dockerfile");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let bases: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert!(bases.len() >= 2, "one stage builds, another one runs");
    for base in &bases {
        assert!(is_pinned(base.split(' ').next().unwrap()), "{base}");
    }
    let channel: toml::Table = toml::from_str(&read("rust-toolchain.toml")).unwrap();
    let compiler = channel["toolchain"]["channel"].as_str().unwrap();
    assert!(bases[0].starts_with(&format!("rust:{compiler}-")), "{} is not {compiler}", bases[0]);
    assert!(text.contains(&format!("RUSTUP_TOOLCHAIN={compiler}\n")));
    let build = text.contains("cargo build --locked --release") && text.contains("--mount=type=cache");
    assert!(build, "a locked release build with caches");
    let last = text.rsplit("\nFROM ").next().unwrap();
    let user = last.lines().filter_map(|line| line.strip_prefix("USER ")).next_back().unwrap();
    assert!(!["root", "0"].contains(&user.split(':').next().unwrap()), "runs as {user}");
    assert!(!last.contains("ADD http") && !last.contains("curl"), "nothing is fetched into it");
}
