//! `saga doctor` on the real stack: all is well, a topic is missing, a server is down.

use serde_json::Value;

use crate::city::City;
use crate::servers::Servers;
use crate::traffic::city_on;

fn doctor(city: &City) -> (Option<i32>, Vec<String>) {
    let output = city.saga().args(["doctor", "--json", "--url", &city.admin("orchestrator", 0)]).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = told["findings"].as_array().unwrap().iter();
    let all = all.filter(|f| !["disk", "descriptors"].contains(&f["subject"].as_str().unwrap()));
    // The edge has the shop's ports, and no run file says so.
    let all = all.filter(|f| !f["subject"].as_str().unwrap().starts_with("port "));
    (output.status.code(), all.map(ToString::to_string).collect())
}

fn ill(findings: &[String]) -> Vec<&String> {
    findings.iter().filter(|finding| !finding.contains("\"level\":\"ok\"")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_stack_is_well_and_what_fails_is_named() {
    let servers = Servers::start();
    let mut city = city_on(&servers, 1, |_| {}).await;
    let (_, well) = doctor(&city);
    // The stack of the tests may not sync to disk, and the machine may be busy: everything else is well.
    let of_the_machine = |finding: &&String| finding.contains("fsync") || finding.contains("answers in");
    let other: Vec<_> = ill(&well).into_iter().filter(|finding| !of_the_machine(finding)).collect();
    assert!(other.is_empty(), "{other:?}");
    let all = well.join("\n");
    for word in
        ["all 20 are there", "the cluster is ok", "runs and is ready", "wants up to 18 sessions", "is ours, up to date"]
    {
        assert!(all.contains(word), "{word}: {all}");
    }

    let prefix = city.config.bus.prefix.clone();
    city.config.bus.prefix = format!("{prefix}other-");
    city.write_settings();
    let (code, missing) = doctor(&city);
    assert!(
        code == Some(1) && ill(&missing).iter().any(|f| f.contains("missing: ") && f.contains("saga migrate")),
        "{missing:?}"
    );
    city.config.bus.prefix = prefix;
    city.write_settings();

    servers.stack(&["stop", "redis-0"]);
    servers.stack(&["stop", "postgres"]);
    let (code, down) = doctor(&city);
    let down = ill(&down).into_iter().cloned().collect::<Vec<_>>().join("\n");
    assert_eq!(code, Some(1));
    for word in ["store order", "cannot be reached", "redis"] {
        assert!(down.contains(word), "{word}: {down}");
    }
    city.kill_all();
}
