//! Imports point down only: binary → services → adapters | chassis → runtime | contracts → core.

use serde_json::Value;

use crate::tree::{expect_none, read, run, with_extension};

/// Each crate's floor. A crate may use what is on a lower floor, never its own or a higher one.
const FLOORS: &[(&str, u8)] = &[
    ("saga-core", 0),
    ("saga-runtime", 1),
    ("contracts", 1),
    ("edge", 1),
    ("saga-adapters", 2),
    ("chassis", 2),
    ("testkit", 3),
    ("account", 3),
    ("product", 3),
    ("order", 3),
    ("payment", 3),
    ("purchase", 3),
    ("orchestrator", 3),
    ("console", 3),
    ("saga", 4),
    ("trip", 4),
];

/// Crates that belong to one brand of database, broker or cache, and the one crate that may name them.
const BRANDS: &[&str] = &["rusqlite", "tokio-postgres", "deadpool-postgres", "refinery", "rdkafka", "redis"];
const BRANDS_LIVE_IN: &str = "saga-adapters";

/// What the pure engine can never reach, however far down: a runtime, a clock, randomness, logging, a socket.
const IMPURE: &[&str] =
    &["tokio", "async-trait", "futures-core", "tracing", "log", "rand", "getrandom", "mio", "socket2", "jiff"];

struct Edge {
    from: String,
    to: String,
    dev: bool,
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(n, _)| *n == name).map(|(_, floor)| *floor)
}

/// Every direct dependency that a member's manifest declares.
fn edges() -> Vec<Edge> {
    let metadata = run(env!("CARGO"), &["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            edges.push(Edge {
                from: package["name"].as_str().unwrap().to_owned(),
                to: dependency["name"].as_str().unwrap().to_owned(),
                dev: dependency["kind"] == "dev",
            });
        }
    }
    assert!(edges.len() > FLOORS.len(), "cargo metadata lists the members' dependencies");
    edges
}

#[test]
fn imports_point_down_only() {
    let mut findings = Vec::new();
    for Edge { from, to, dev } in edges() {
        let Some(below) = floor(&to) else { continue };
        let Some(above) = floor(&from) else {
            findings.push(format!("{from} has no floor: add it to FLOORS"));
            continue;
        };
        // The test kit is what tests stand on: any crate's tests may use it, and no crate's code.
        let allowed = if to == "testkit" { dev } else { below < above };
        if !allowed {
            findings.push(format!("{from} (floor {above}) depends on {to} (floor {below})"));
        }
    }
    expect_none("a crate may use lower floors only", &findings);
}

#[test]
fn brands_are_named_in_the_adapters_only() {
    let outside = |e: &Edge| BRANDS.contains(&e.to.as_str()) && e.from != BRANDS_LIVE_IN;
    let findings: Vec<_> =
        edges().iter().filter(|e| outside(e)).map(|e| format!("{} depends on {}", e.from, e.to)).collect();
    expect_none("only saga-adapters names brands; ask it for a port", &findings);
}

#[test]
fn the_engine_cannot_reach_a_runtime_a_clock_or_chance() {
    let tree = run(env!("CARGO"), &["tree", "-p", "saga-core", "-e", "normal,build", "--prefix", "none", "--offline"]);
    let reached: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(reached.contains(&"serde"), "cargo tree lists what saga-core uses: {tree}");
    let findings: Vec<_> = reached.iter().filter(|name| IMPURE.contains(name)).map(|name| (*name).to_owned()).collect();
    expect_none("saga-core is pure: no runtime, clock, chance or logging", &findings);
}

#[test]
fn versions_are_named_once_in_the_root_manifest() {
    let mut findings = Vec::new();
    for path in with_extension("toml").iter().filter(|p| p.ends_with("/Cargo.toml")) {
        let mut section = String::new();
        for (number, line) in read(path).lines().enumerate() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if section.ends_with("dependencies") && line.contains('=') && !line.contains("workspace = true") {
                findings.push(format!("{path}:{}: {line}", number + 1));
            }
        }
    }
    expect_none("write `name.workspace = true`, the version stands in the root Cargo.toml", &findings);
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let manifests = with_extension("toml").into_iter().filter(|p| p.ends_with("/Cargo.toml"));
    let findings: Vec<_> = manifests.filter(|path| !read(path).contains("[lints]\nworkspace = true")).collect();
    expect_none("add `[lints]` with `workspace = true`", &findings);
    // A clippy.toml inside a crate silently replaces the root's, bans and all.
    let findings: Vec<_> = with_extension("toml").into_iter().filter(|p| p.ends_with("/clippy.toml")).collect();
    expect_none("a clippy.toml in a crate switches the root's bans off", &findings);
}
