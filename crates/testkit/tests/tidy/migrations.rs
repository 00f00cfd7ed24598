//! Migrations are append-only: a database out there has run them.

use std::collections::BTreeMap;

use crate::tree::{expect_none, read, run, with_extension};

/// The hash of every migration that was ever landed, one `hash path` a line.
const LOCK: &str = "crates/testkit/tests/tidy/migrations.lock";

fn migrations() -> Vec<String> {
    let all: Vec<_> = with_extension("sql").into_iter().filter(|p| p.contains("/migrations/")).collect();
    assert!(!all.is_empty(), "there are migrations");
    all
}

/// Git's own hash of the content.
fn hash(path: &str) -> String {
    run("git", &["hash-object", path]).trim().to_owned()
}

#[test]
fn a_landed_migration_never_changes() {
    let lock = read(LOCK);
    let lines = lock.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    let mut locked: BTreeMap<&str, &str> =
        lines.filter_map(|l| l.split_once(' ')).map(|(hash, path)| (path, hash)).collect();
    let mut findings = Vec::new();
    for path in migrations() {
        let now = hash(&path);
        match locked.remove(path.as_str()) {
            Some(then) if then == now => {}
            Some(_) => findings.push(format!("{path} was changed: put it back and add a new V…__….sql beside it")),
            None => findings.push(format!("{path} is new: add this line to {LOCK}:\n    {now} {path}")),
        }
    }
    findings.extend(locked.keys().map(|path| format!("{path} is gone: databases that ran it would be refused")));
    expect_none("migrations are append-only", &findings);
}

#[test]
fn migrations_are_numbered_without_gaps() {
    let mut versions: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut findings = Vec::new();
    for path in migrations() {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let version = name.strip_prefix('V').and_then(|n| n.split_once("__")).and_then(|(v, _)| v.parse().ok());
        match version {
            Some(version) => versions.entry(folder.to_owned()).or_default().push(version),
            None => findings.push(format!("{path} is not called V<number>__<what>.sql")),
        }
    }
    for (folder, mut found) in versions {
        found.sort_unstable();
        let expected: Vec<u32> = (1..).take(found.len()).collect();
        if found != expected {
            findings.push(format!("{folder}: {found:?}"));
        }
    }
    expect_none("V1, V2, V3, …", &findings);
}

#[test]
fn sql_keywords_are_lower_case() {
    let keywords =
        ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "FROM ", "WHERE ", "NOT NULL", "PRIMARY KEY"];
    let mut findings = Vec::new();
    for path in with_extension("sql") {
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("--").next().unwrap();
            if keywords.iter().any(|keyword| code.contains(keyword)) {
                findings.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    expect_none("SQL is written in lower case", &findings);
}
