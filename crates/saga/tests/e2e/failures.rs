//! Failures on purpose: everything that a saga can run into is provoked, watched, and healed.

use std::path::Path;

use saga::config::Config;
use saga::remote::Admin;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Process, run, stderr, stdout};
use crate::town::{PATIENCE, Town, comes_to, eventually};

/// The built-in saga, but every step is tried again at once, a payment and an undo only twice.
fn impatient(folder: &Path) -> std::path::PathBuf {
    let yaml = include_str!("../../../../services/orchestrator/definitions/purchase.yaml");
    let quick = yaml
        .replace("retry: { initial: 200ms, factor: 2, max: 30s }  ", "retry: { initial: 5ms, factor: 2, max: 20ms }  ")
        .replace("initial: 200ms, factor: 2, max: 30s, attempts: 15", "initial: 5ms, factor: 2, max: 10ms, attempts: 2")
        .replace(
            "undo: rollback-payment ",
            "undo: rollback-payment\n    retry: { initial: 5ms, max: 5ms, attempts: 2 } ",
        );
    assert_eq!(quick.matches("attempts: 2 ").count(), 2, "{quick}");
    assert!(quick.contains("retry: { initial: 5ms, factor"), "{quick}");
    let path = folder.join("impatient.yaml");
    std::fs::write(&path, quick).unwrap();
    path
}

pub fn enabled(config: &mut Config) {
    config.failures.enabled = true;
    config.orchestrator.definitions = vec![impatient(&config.data)];
}

/// A shop in which things can be made to fail, with its operators' desk.
struct Lab(Town);

impl Lab {
    async fn open() -> Self {
        Self(Town::open_with(enabled).await)
    }

    fn desk(&self) -> Admin {
        Admin::new(&self.0.home().admin(), self.0.home().token()).unwrap()
    }

    async fn fail(&self, mut what: Value) {
        what["reason"] = "to see what happens".into();
        self.desk().put("/admin/failures", &what).await.unwrap();
    }

    async fn heal(&self) {
        let now = self.desk().put("/admin/failures", &json!({ "reason": "enough" })).await.unwrap();
        assert_eq!((&now["steps"], &now["stopped"]), (&json!({}), &json!([])));
    }

    async fn saga(&self, id: u64) -> Value {
        self.desk().get(&format!("/admin/sagas/{id}")).await.unwrap()
    }

    async fn retried(&self, id: u64) {
        self.desk().post(&format!("/admin/sagas/{id}/retry"), &json!({ "reason": "it is healed" })).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_declines_makes_purchases_compensate_until_it_is_healed() {
    let lab = Lab::open().await;
    let (mary, cup) = (lab.0.customer("mary").await, lab.0.product(10, 5).await);
    lab.fail(json!({ "gateway": { "decline_rate": 1.0, "latency_ms": 1 } })).await;
    let declined = mary.ended(mary.buy(&[(cup, 2)]).await).await;
    assert_eq!((&declined["status"], &declined["reason"]["code"]), (&json!("COMPENSATED"), &json!("payment_declined")));
    assert_eq!(lab.0.inventory(cup).await, 5);
    lab.heal().await;
    assert_eq!(mary.ended(mary.buy(&[(cup, 2)]).await).await["status"], "COMPLETED");
    lab.0.books(1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_gateway_makes_purchases_wait_at_their_payment_until_it_is_switched_off() {
    const SLOWER_MS: u64 = 400;
    let lab = Lab::open().await;
    let (mary, cup) = (lab.0.customer("mary").await, lab.0.product(10, 5).await);
    lab.fail(json!({ "gateway": { "latency_ms": SLOWER_MS } })).await;
    let begun = std::time::Instant::now();
    let id = mary.buy(&[(cup, 1)]).await;
    assert_eq!(mary.ended(id).await["status"], "COMPLETED");
    assert!(begun.elapsed().as_millis() >= u128::from(SLOWER_MS), "{:?}", begun.elapsed());
    // Where the time went is what the customer sees.
    let (_, events) = mary.events(&format!("/api/v1/purchases/{id}/events"), None).await;
    let at = |name: &str| {
        let (_, _, data) = events.iter().find(|(_, event, _)| event == name).unwrap_or_else(|| panic!("{events:?}"));
        chassis::time::from_rfc3339(data["occurred_at"].as_str().unwrap()).unwrap()
    };
    let waited = at("create-payment.success") - at("create-payment.execute");
    assert!(waited >= SLOWER_MS, "the payment took {waited} ms");

    // Twice as slow as anybody here waits for, then as ever: it ends at all, so nothing of that is left.
    let slowest = json!({ "gateway": { "latency_ms": 2 * PATIENCE.as_millis() as u64 } });
    lab.fail(slowest.clone()).await;
    assert_eq!(
        lab.desk().get("/admin/failures").await.unwrap()["gateway"]["latency_ms"],
        slowest["gateway"]["latency_ms"]
    );
    lab.heal().await;
    assert_eq!(mary.ended(mary.buy(&[(cup, 1)]).await).await["status"], "COMPLETED");
    lab.0.books(2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_answer_retry_and_unknown_at_a_rate_only_take_longer() {
    let lab = Lab::open().await;
    let (mary, cup) = (lab.0.customer("mary").await, lab.0.product(10, 100).await);
    lab.fail(json!({ "steps": {
        "update-product-inventory": { "retry_rate": 0.5 },
        "create-order": { "unknown_rate": 0.5 },
        "confirm-order": { "retry_rate": 0.3, "unknown_rate": 0.3 },
    } }))
    .await;
    let mut delayed = 0;
    for _ in 0..15 {
        let id = mary.buy(&[(cup, 1)]).await;
        assert_eq!(mary.ended(id).await["status"], "COMPLETED");
        delayed += lab.saga(id).await["history"].to_string().matches("a failure on purpose").count();
    }
    assert!(delayed > 15, "{delayed} answers were made up for 15 purchases");
    assert_eq!(lab.0.inventory(cup).await, 85);
    lab.0.books(15, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_and_whose_answer_was_lost_is_done_once_however_often_it_is_asked_for() {
    let lab = Lab::open().await;
    let (mary, cup) = (lab.0.customer("mary").await, lab.0.product(10, 5).await);
    lab.fail(json!({ "steps": { "create-order": { "lost_rate": 1.0 } } })).await;
    let id = mary.buy(&[(cup, 2)]).await;
    let lost = |saga: &Value| saga["history"].to_string().matches("the answer was lost").count();
    eventually("nobody knows, three times over", || async {
        let saga = lab.desk().get(&format!("/admin/sagas/{id}")).await.ok()?;
        (lost(&saga) >= 3).then_some(())
    })
    .await;
    // Yet it was done: the order is there, the stock is taken, once.
    assert_eq!(mary.get(&format!("/api/v1/orders/{id}")).await.status, 200);
    assert_eq!(lab.0.inventory(cup).await, 3);
    lab.heal().await;
    // The same command again: its participant says what it said the first time.
    assert_eq!(mary.ended(id).await["status"], "COMPLETED");
    assert_eq!(lab.0.inventory(cup).await, 3);
    // Taken back, too: what nobody knows of is undone once.
    lab.fail(json!({ "gateway": { "decline_rate": 1.0 }, "steps": {
        "update-product-inventory": { "lost_rate": 0.5 },
        "create-order": { "lost_rate": 0.5, "op": "do" },
    } }))
    .await;
    let declined = mary.buy(&[(cup, 3)]).await;
    let ended = eventually("it has ended or waits for a human", || async {
        let saga = lab.desk().get(&format!("/admin/sagas/{declined}")).await.ok()?;
        matches!(saga["status"].as_str(), Some("COMPENSATED" | "COMPENSATION_STUCK")).then_some(saga)
    })
    .await;
    lab.heal().await;
    if ended["status"] != "COMPENSATED" {
        lab.retried(declined).await;
    }
    assert_eq!(mary.ended(declined).await["status"], "COMPENSATED");
    assert_eq!(lab.0.inventory(cup).await, 3);
    lab.0.books(1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_of_which_nobody_knows_is_stuck_and_goes_on_when_it_is_retried() {
    let lab = Lab::open().await;
    let (mary, cup) = (lab.0.customer("mary").await, lab.0.product(10, 5).await);
    lab.fail(json!({ "steps": { "create-payment": { "unknown_rate": 1.0 } } })).await;
    let id = mary.buy(&[(cup, 1)]).await;
    comes_to(&lab.desk(), id, "STUCK").await;
    lab.heal().await;
    lab.retried(id).await;
    assert_eq!(mary.ended(id).await["status"], "COMPLETED");
    lab.0.books(1, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compensation_that_cannot_be_is_stuck_and_ends_when_it_is_retried() {
    let lab = Lab::open().await;
    let (mary, cup) = (lab.0.customer("mary").await, lab.0.product(10, 5).await);
    let undo = json!({ "create-order": { "retry_rate": 1.0, "op": "undo" } });
    lab.fail(json!({ "gateway": { "decline_rate": 1.0 }, "steps": undo })).await;
    let id = mary.buy(&[(cup, 1)]).await;
    let stuck = comes_to(&lab.desk(), id, "COMPENSATION_STUCK").await;
    assert!(stuck["text"].as_str().unwrap().contains("a failure on purpose"), "{stuck}");
    assert_eq!(lab.0.inventory(cup).await, 4, "what comes after the stuck undo has to wait");
    lab.heal().await;
    lab.retried(id).await;
    assert_eq!(mary.ended(id).await["status"], "COMPENSATED");
    assert_eq!(lab.0.inventory(cup).await, 5);
    lab.0.books(0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_participant_takes_nothing_and_loses_nothing_not_even_over_a_restart() {
    let mut lab = Lab::open().await;
    let (mary, cup) = (lab.0.customer("mary").await, lab.0.product(10, 5).await);
    lab.fail(json!({ "stopped": ["order"] })).await;
    let first = mary.buy(&[(cup, 1)]).await;
    let waits = |id: u64, lab: &Lab| {
        let desk = lab.desk();
        async move {
            eventually("it waits for the order", || async {
                let listed = desk.get(&format!("/admin/sagas?q={id}&step=create-order")).await.unwrap();
                (listed["items"].as_array().unwrap().len() == 1).then_some(())
            })
            .await;
        }
    };
    waits(first, &lab).await;
    assert_eq!(mary.get(&format!("/api/v1/orders/{first}")).await.status, 404);
    lab.heal().await;
    assert_eq!(mary.ended(first).await["status"], "COMPLETED");

    // A shop that is stopped meanwhile stops as ever, and what waited is done by the next.
    lab.fail(json!({ "stopped": ["order", "product"] })).await;
    let second = mary.buy(&[(cup, 1)]).await;
    let begun = std::time::Instant::now();
    lab.0.reopen_with(|_| {}).await;
    assert!(begun.elapsed().as_secs() < 8, "the stop waited for a participant that is stopped: {:?}", begun.elapsed());
    let mary = crate::town::Person { endpoint: lab.0.admin.endpoint.clone(), ..mary };
    assert_eq!(mary.ended(second).await["status"], "COMPLETED");
    lab.0.books(2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_switches_failures_from_a_terminal_where_they_are_enabled() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let off = Process::start(data).await;
    let refused = run(data, &["failures", "set", "--decline", "1", "--reason", "to see"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("failures.enabled"), "{}", stderr(&refused));
    assert!(stdout(&run(data, &["failures", "show"])).contains("not enabled"));
    drop(off);

    std::fs::write(data.join("saga.toml"), "[failures]\nenabled = true\n").unwrap();
    let config = data.join("saga.toml");
    let _on = Process::start_with(data, &["--listen", "127.0.0.1:0", "--config", config.to_str().unwrap()]).await;
    let json = |args: &[&str]| -> Value {
        let output = run(data, &[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let rule = "confirm-order=retry:0.5,do";
    let why = ["--reason", "a lesson"];
    let order = ["failures", "set", "--decline", "0.25", "--latency", "1s", "--step", rule, "--stop", "payment"];
    let set = json(&[&order[..], &why].concat());
    assert_eq!(set["gateway"], json!({ "decline_rate": 0.25, "latency_ms": 1000 }));
    assert_eq!(
        set["steps"]["confirm-order"],
        json!({ "unknown_rate": 0.0, "retry_rate": 0.5, "lost_rate": 0.0, "op": "do" })
    );
    assert_eq!(set["choices"]["participants"], json!(["order", "payment", "product"]));
    assert_eq!(json(&["failures", "show"]), set);
    // The same again is so already.
    assert_eq!(json(&[&order[..], &["--reason", "a second click"]].concat()), set);
    let wrong = run(data, &[&["failures", "set", "--stop", "weather"], &why[..]].concat());
    assert!(stderr(&wrong).contains("#/stopped/0") && stderr(&wrong).contains("payment"), "{}", stderr(&wrong));
    let silent = run(data, &["failures", "clear"]);
    assert!(silent.status.code() == Some(2) && stderr(&silent).contains("--reason"), "{}", stderr(&silent));
    let clear = json(&["failures", "clear", "--reason", "the lesson is over"]);
    assert_eq!(json(&["failures", "clear", "--reason", "a second click"]), clear);
    assert_eq!((&clear["enabled"], &clear["stopped"], &clear["steps"]), (&json!(true), &json!([]), &json!({})));
    // What could not be, and what was so already, left no line.
    let lines = json(&["audit", "--action", "failures.set"]);
    let lines = lines["items"].as_array().unwrap().iter();
    let lines: Vec<_> =
        lines.map(|line| (&line["reason"], &line["outcome"])).map(|(r, o)| format!("{r} {o}")).collect();
    assert_eq!(lines, [r#""the lesson is over" "done""#, r#""a lesson" "done""#]);
}
