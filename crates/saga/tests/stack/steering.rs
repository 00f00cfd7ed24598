//! Operators' orders on PostgreSQL and Kafka, with two processes of everything: by form, by the API, for many at once, and
//! from a terminal at whichever orchestrator answers.

use std::process::Output;

use hyper::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::city::City;
use crate::town::{Person, comes_to, created, impatient, product};
use crate::traffic::city;
use crate::visitor::{Visitor, text};

/// From now on nobody knows anything of a payment, or everybody does again.
async fn payments_are_unknown(city: &City, rate: f64) {
    let steps = json!({ "create-payment": { "unknown_rate": rate, "op": "do" } });
    city.operators().put("/admin/failures", &json!({ "steps": steps, "reason": "a lesson" })).await.unwrap();
}

/// Sagas whose payment nobody knows anything of. They stay so, also if what was sent arrives once more.
async fn stuck(city: &City, admin: &Person, cup: u64, count: usize) -> Vec<u64> {
    payments_are_unknown(city, 1.0).await;
    let mut bought = Vec::new();
    for _ in 0..count {
        bought.push(admin.buy(&[(cup, 1)]).await);
    }
    for id in &bought {
        comes_to(&city.operators(), *id, "STUCK").await;
    }
    bought
}

/// The lines of the audit log about what was done to a saga, or to many.
async fn lines(city: &City, action: &str, target: &str) -> Vec<Value> {
    let answer = city.operators().get(&format!("/admin/audit?action={action}&limit=200")).await.unwrap();
    let all = answer["items"].as_array().unwrap();
    all.iter().filter(|line| line["target"].as_str().unwrap().contains(target)).cloned().collect()
}

async fn operator(city: &City, replica: usize) -> Visitor {
    let mut operator = Visitor::at(&city.admin("orchestrator", replica));
    let login = operator.log_in("/console", "admin@example.com").await;
    assert_eq!(login.status, StatusCode::SEE_OTHER, "{}", text(&login));
    operator
}

fn cli(city: &City, replica: usize, args: &[&str]) -> Output {
    city.saga().arg("sagas").args(args).args(["--url", &city.admin("orchestrator", replica)]).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_is_carried_out_once_whichever_orchestrator_is_asked() {
    let folder = TempDir::new().unwrap();
    let city = city(2, |config| {
        config.orchestrator.definitions = vec![impatient(folder.path(), "10s")];
        config.failures.enabled = true;
    })
    .await;
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let kitchen = json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&admin.post("/api/v1/categories", &kitchen).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 1_000)).await);
    let all = stuck(&city, &admin, cup, 6).await;
    let [cancelled, skipped, resolved] = [all[0], all[1], all[2]];
    by_the_api(&city, cancelled).await;
    from_a_terminal(&city, skipped, resolved).await;
    many_at_once(&city, &all[3..]).await;
    let retried = stuck(&city, &admin, cup, 1).await[0];
    payments_are_unknown(&city, 0.0).await;
    two_press_at_once(&city, retried).await;
}

/// Two who look at the same saga at two orchestrators, and both have it tried again.
async fn two_press_at_once(city: &City, id: u64) {
    let (mut oscar, mut olga) = (operator(city, 0).await, operator(city, 1).await);
    let (first, second) = (oscar.asked(id, "retry").await, olga.asked(id, "retry").await);
    let (one, two) = tokio::join!(
        oscar.send_form(&first, &[("reason", "says Oscar")]),
        olga.send_form(&second, &[("reason", "says Olga")])
    );
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 409], "{} {}", text(&one), text(&two));
    let saga = comes_to(&city.operators(), id, "COMPLETED").await.to_string();
    assert_eq!(saga.matches("\"retried\":{").count(), 1, "{saga}");
    let lines = lines(city, "saga.retry", &id.to_string()).await;
    assert_eq!((lines.len(), &lines[0]["outcome"]), (1, &json!("done")), "{lines:?}");
    // Pressed once more, with what was looked at then.
    let late = oscar.send_form(&first, &[("reason", "says Oscar")]).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "{}", text(&late));
}

/// With the version that was looked at: once, and not by who looked before.
async fn by_the_api(city: &City, id: u64) {
    let desk = city.operators();
    let version = desk.get(&format!("/admin/sagas/{id}")).await.unwrap()["version"].as_u64().unwrap();
    let (path, order) =
        (format!("/admin/sagas/{id}/cancel"), json!({ "reason": "the customer rang", "version": version }));
    desk.post(&path, &order).await.unwrap();
    comes_to(&city.operators(), id, "COMPENSATED").await;
    let late = desk.post(&path, &order).await.unwrap_err().to_string();
    assert!(late.contains("conflict") || late.contains("version"), "{late}");
    let lines = lines(city, "saga.cancel", &id.to_string()).await;
    assert_eq!((lines.len(), &lines[0]["reason"]), (1, &json!("the customer rang")), "{lines:?}");
}

/// What a human has dealt with, told to either of the two.
async fn from_a_terminal(city: &City, skipped: u64, resolved: u64) {
    let (skipped, resolved) = (skipped.to_string(), resolved.to_string());
    let paid = cli(city, 0, &["skip", &skipped, "--reason", "paid in cash"]);
    assert!(paid.status.success(), "{paid:?}");
    comes_to(&city.operators(), skipped.parse().unwrap(), "COMPLETED").await;
    let ended = cli(city, 1, &["resolve", &resolved, "--status", "COMPENSATED", "--reason", "taken back by hand"]);
    assert!(ended.status.success(), "{ended:?}");
    comes_to(&city.operators(), resolved.parse().unwrap(), "COMPENSATED").await;
    let again = cli(city, 0, &["resolve", &resolved, "--status", "COMPLETED", "--reason", "or not"]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    for (action, target) in [("saga.skip", &skipped), ("saga.resolve", &resolved)] {
        assert_eq!(lines(city, action, target).await.len(), 1, "{action}");
    }
}

/// A dry run first; then exactly those, once.
async fn many_at_once(city: &City, rest: &[u64]) {
    let cancel = ["bulk", "cancel", "--state", "STUCK", "--reason", "the gateway is gone"];
    let dry = cli(city, 1, &cancel);
    let said = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert!(dry.status.success() && rest.iter().all(|id| said.contains(&id.to_string())), "{dry:?}");
    assert_eq!(lines(city, "sagas.bulk", "").await.len(), 0, "showing does nothing");
    let done = cli(city, 1, &[&cancel[..], &["--yes"]].concat());
    assert!(done.status.success(), "{done:?}");
    for id in rest {
        comes_to(&city.operators(), *id, "COMPENSATED").await;
    }
    let lines = lines(city, "sagas.bulk", "").await;
    assert_eq!((lines.len(), &lines[0]["details"]["applied"]), (1, &json!(rest.len())), "{lines:?}");
}
