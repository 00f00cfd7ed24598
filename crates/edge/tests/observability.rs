//! `deploy/observability`, without a browser: Prometheus takes its configuration, every alert is raised by what it is for
//! and has a runbook, and neither an alert nor a dashboard asks for what no shop shows.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use files::{read, root};
use serde_json::Value;

const FOLDER: &str = "deploy/observability";
const DASHBOARDS: [&str; 5] = ["overview", "engine", "services", "messaging", "datastores"];

/// Files of a folder below `deploy/observability`, by name.
fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(FOLDER).join(folder)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn yaml(path: &str) -> Value {
    let value: serde_norway::Value = serde_norway::from_str(&read(&format!("{FOLDER}/{path}"))).unwrap();
    serde_json::to_value(value).unwrap()
}

/// Every rule of every file: alerts and records.
fn rules() -> Vec<Value> {
    let files = names("rules").into_iter().map(|name| yaml(&format!("rules/{name}")));
    let groups = files.flat_map(|file| file["groups"].as_array().unwrap().clone());
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

/// Debian's package `prometheus` has it; `./test` installs it.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(root().join(FOLDER)).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; run `./test tools`"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn prometheus_takes_its_configuration_and_its_rules() {
    promtool(&["check", "config", "prometheus.yml"]);
    for name in names("rules") {
        promtool(&["check", "rules", &format!("rules/{name}")]);
    }
}

#[test]
fn every_alert_is_raised_by_what_it_is_for_and_by_nothing_in_a_shop_that_is_well() {
    let (mut raised, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    assert_eq!(names("rules"), names("tests"), "each file of rules has its tests");
    for name in names("tests") {
        let path = format!("tests/{name}");
        promtool(&["test", "rules", &path]);
        for test in yaml(&path)["tests"].as_array().unwrap() {
            for case in test["alert_rule_test"].as_array().unwrap() {
                let alert = case["alertname"].as_str().unwrap().to_owned();
                let expected = case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
                if expected { &mut raised } else { &mut quiet }.insert(alert);
            }
        }
    }
    let all: BTreeSet<String> = alerts().iter().map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect();
    assert_eq!(raised, all, "an alert that no test raises");
    assert_eq!(quiet, all, "an alert that no test keeps quiet");
}

#[test]
fn every_alert_has_a_severity_a_summary_and_a_runbook_that_is_there() {
    let page = read("docs/operations.md");
    let section = page.split("\n## Alerts\n").nth(1).expect("docs/operations.md has a section `Alerts`");
    let section = section.split("\n## ").next().unwrap();
    let headings: BTreeSet<&str> = section.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let (alerts, mut named) = (alerts(), BTreeSet::new());
    for rule in &alerts {
        let name = rule["alert"].as_str().unwrap();
        assert!(named.insert(name), "{name} twice");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        assert!(rule["annotations"]["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{name}");
        let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(runbook, format!("{{{{ $externalLabels.runbooks }}}}{}", name.to_lowercase()), "{name}");
        let text = section.split(&format!("\n### {name}\n")).nth(1).unwrap_or_else(|| panic!("{name} has no runbook"));
        let text = text.split("\n### ").next().unwrap();
        assert!(text.trim().len() > 100, "{name}: a runbook says what it means and what to do");
    }
    assert_eq!(headings, named, "a runbook without an alert");
    assert!(named.len() >= 15, "{named:?}");
}

/// What docs/metrics.md names, which a test of the shop holds against its pages; histograms with their three parts.
fn shown() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in read("docs/metrics.md").lines() {
        let Some(row) = line.strip_prefix("| `saga_") else { continue };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = format!("saga_{}", cells[0].trim_end_matches('`'));
        match cells[1] {
            "histogram" => names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}"))),
            _ => drop(names.insert(name)),
        }
    }
    assert!(names.len() > 60, "{names:?}");
    names
}

/// The metrics of ours that a query asks for.
fn asked(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')));
    words.filter(|word| word.starts_with("saga_")).map(str::to_owned).collect()
}

#[test]
fn alerts_ask_for_what_is_shown_and_for_labels_that_are_there() {
    let (shown, records): (_, BTreeSet<String>) =
        (shown(), rules().iter().filter_map(|rule| rule["record"].as_str().map(str::to_owned)).collect());
    assert!(!asked("sum(saga_made_up_total) / up").is_subset(&shown), "a name that nobody shows is seen");
    for rule in rules() {
        let query = rule["expr"].as_str().unwrap();
        let unknown: Vec<_> = asked(query).difference(&shown).cloned().collect();
        assert!(unknown.is_empty(), "{query}: {unknown:?}");
        let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')));
        for record in words.filter(|word| word.starts_with("saga:")) {
            assert!(records.contains(record), "{record} is recorded nowhere");
        }
    }
}

/// Every panel, those in rows included.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let own = dashboard["panels"].as_array().into_iter().flatten();
    own.flat_map(|panel| std::iter::once(panel).chain(panels(panel))).collect()
}

#[test]
fn dashboards_are_provisioned_and_ask_for_what_is_shown() {
    let (shown, mut uids, mut used) = (shown(), BTreeMap::new(), BTreeSet::new());
    let mut expected = DASHBOARDS.map(|name| format!("{name}.json"));
    expected.sort();
    assert_eq!(names("grafana/dashboards"), expected);
    for name in names("grafana/dashboards") {
        let dashboard: Value = serde_json::from_str(&read(&format!("{FOLDER}/grafana/dashboards/{name}"))).unwrap();
        let uid = dashboard["uid"].as_str().unwrap().to_owned();
        assert!(uid.starts_with("saga-") && dashboard["title"].is_string(), "{name}");
        assert_eq!(uids.insert(uid, name.clone()), None, "{name} has another one's uid");
        let panels = panels(&dashboard);
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: panels have numbers of their own");
        let queries: Vec<&Value> = panels.iter().flat_map(|p| p["targets"].as_array().into_iter().flatten()).collect();
        assert!(queries.len() >= 10, "{name} shows something");
        for query in queries {
            let text = query["expr"].as_str().unwrap();
            let unknown: Vec<_> = asked(text).difference(&shown).cloned().collect();
            assert!(unknown.is_empty(), "{name}: {text}: {unknown:?}");
            assert_eq!(query["datasource"]["uid"], "prometheus", "{name}: {text}");
            used.extend(asked(text));
        }
    }
    assert!(used.len() > 50, "{used:?}");
    let sources = yaml("grafana/provisioning/datasources/datasources.yaml");
    assert!(sources["datasources"].as_array().unwrap().iter().any(|source| source["uid"] == "prometheus"));
    let provider = yaml("grafana/provisioning/dashboards/dashboards.yaml");
    let path = provider["providers"][0]["options"]["path"].as_str().unwrap().to_owned();
    let compose = read("deploy/compose.yaml");
    assert!(
        compose.contains(&format!("./observability/grafana/dashboards:{path}:ro")),
        "mounted where it is looked for"
    );
    assert!(compose.contains(&format!("{path}/overview.json")), "the first one that is seen");
}

/// Prometheus' own parser takes every query of the dashboards.
#[test]
fn prometheus_can_read_every_query_of_the_dashboards() {
    let mut rules = Vec::new();
    for name in names("grafana/dashboards") {
        let dashboard: Value = serde_json::from_str(&read(&format!("{FOLDER}/grafana/dashboards/{name}"))).unwrap();
        for panel in panels(&dashboard) {
            for query in panel["targets"].as_array().into_iter().flatten() {
                let text = query["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
                rules.push(serde_json::json!({ "record": format!("q:{}", rules.len()), "expr": text }));
            }
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let groups = serde_json::json!({ "groups": [{ "name": "queries", "rules": rules }] });
    std::fs::write(file.path(), groups.to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()]);
}

#[test]
fn every_process_is_asked() {
    let config = yaml("prometheus.yml");
    let jobs = config["scrape_configs"].as_array().unwrap();
    let job = jobs.iter().find(|job| job["job_name"] == "saga").unwrap();
    let targets: BTreeSet<&str> =
        job["static_configs"][0]["targets"].as_array().unwrap().iter().map(|target| target.as_str().unwrap()).collect();
    let compose: serde_norway::Value = serde_norway::from_str(&read("deploy/compose.yaml")).unwrap();
    let compose = serde_json::to_value(compose).unwrap();
    let admin = compose["x-saga-environment"]["SAGA_ADMIN_LISTEN"].as_str().unwrap();
    let port = admin.rsplit_once(':').unwrap().1;
    let serving = compose["services"].as_object().unwrap().iter().filter(|(_, s)| s["command"][0] == "serve");
    let expected: BTreeSet<String> = serving.map(|(name, _)| format!("{name}:{port}")).collect();
    assert_eq!(targets, expected.iter().map(String::as_str).collect(), "a process that nobody asks");
}
