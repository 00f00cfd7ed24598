//! Failures on purpose in the processes of the real stack: switched where operators are, at the orchestrator's.

use std::process::Output;

use hyper::StatusCode;
use saga::remote::Admin;
use saga::up::roles::ServiceRole;
use serde_json::{Value, json};

use crate::city::{City, TOKEN};
use crate::town::{Person, created, eventually, product};
use crate::traffic::{Load, MIX, accepted, balanced, city};
use crate::visitor::{Visitor, text};

/// A shop with a customer, and a cup to buy.
async fn open(city: &City) -> (Person, u64) {
    let shop = Person::at(&city.public());
    let mary = shop.register("mary@example.com").await;
    let admin = shop.login("admin@example.com").await;
    let category =
        created(&admin.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "Tea" })).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 100)).await);
    // Joined, and at work.
    assert_eq!(mary.ended(mary.buy(&[(cup, 1)]).await).await["status"], "COMPLETED");
    (mary, cup)
}

/// What a process says of itself alone.
async fn own(city: &City, role: &str, replica: usize) -> Value {
    let process = Admin::new(&city.admin(role, replica), TOKEN).unwrap();
    process.get("/admin/failures?here=true").await.unwrap()
}

fn cli(city: &City, args: &[&str]) -> Output {
    city.saga().arg("failures").args(args).args(["--url", &city.admin("orchestrator", 0)]).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_switches_the_participants_of_all_processes_at_the_orchestrator() {
    let mut city = city(2, |config| config.failures.enabled = true).await;
    let (mary, cup) = open(&city).await;
    let desk = city.operators();
    let seen = desk.get("/admin/failures").await.unwrap();
    assert_eq!(seen["choices"]["participants"], json!(["order", "payment", "product"]), "{seen}");
    let processes = seen["processes"].as_array().unwrap();
    assert_eq!((processes.len(), &seen["unreached"]), (6, &Value::Null), "{seen}");
    // What is nowhere is set nowhere.
    let wrong = json!({ "gateway": { "decline_rate": 1 }, "stopped": ["order", "weather"], "reason": "to see" });
    let wrong = desk.put("/admin/failures", &wrong).await.unwrap_err().to_string();
    assert!(wrong.contains("#/stopped/1") && wrong.contains("order, payment, product"), "{wrong}");
    assert_eq!(own(&city, "payment", 0).await["gateway"]["decline_rate"], 0.0);

    // By the form, with the token of who is logged in.
    let mut operator = Visitor::at(&city.admin("orchestrator", 0));
    operator.log_in("/console", "admin@example.com").await;
    let page = "/console/failures";
    let fields =
        [("decline", "100"), ("step", "create-order"), ("lost.create-order", "100"), ("op.create-order", "undo")];
    let refused = operator.post(page, page, &fields).await;
    assert!(text(&refused).contains("must say why"), "without a reason: {} {}", refused.status, text(&refused));
    let set = operator.post(page, page, &[&fields[..], &[("reason", "a lesson")]].concat()).await;
    assert_eq!(set.status, StatusCode::SEE_OTHER, "{}", text(&set));
    for replica in [0, 1] {
        assert_eq!(own(&city, "payment", replica).await["gateway"]["decline_rate"], 1.0);
        assert_eq!(own(&city, "order", replica).await["steps"]["create-order"]["op"], "undo");
        assert_eq!(own(&city, "product", replica).await["steps"], json!({}), "its own share");
        let log = city.log(ServiceRole::Payment, replica);
        assert!(log.contains("a lesson") && log.contains("actor=\"account "), "who and why: {log}");
    }
    let shown = text(&operator.get(page).await);
    assert!(shown.contains(r#"<option value="undo" selected>"#) && shown.contains("Process by process"), "{shown}");
    assert!(shown.contains(&city.admin("payment", 1)), "{shown}");
    let declined = mary.buy(&[(cup, 1)]).await;
    eventually("its undo is done, and the answer lost", || async {
        let saga = desk.get(&format!("/admin/sagas/{declined}")).await.ok()?;
        saga["history"].to_string().contains("the answer was lost").then_some(())
    })
    .await;
    let silent = operator.post(page, page, &[("off", "yes")]).await;
    assert!(text(&silent).contains("must say why"), "the way back has a reason, too: {}", text(&silent));
    for reason in ["the lesson is over", "a second click"] {
        let off = operator.post(page, page, &[("off", "yes"), ("reason", reason)]).await;
        assert_eq!(off.status, StatusCode::SEE_OTHER, "{}", text(&off));
    }
    for role in [ServiceRole::Order, ServiceRole::Payment, ServiceRole::Product] {
        let known = city.log(role, 0);
        assert_eq!(known.matches("the lesson is over").count(), 1, "each process says why: {known}");
        assert!(!known.contains("a second click"), "it was so already: {known}");
    }
    assert_eq!(mary.ended(declined).await["status"], "COMPENSATED");
    assert_eq!(mary.ended(mary.buy(&[(cup, 1)]).await).await["status"], "COMPLETED");

    // From a terminal, and one process has died.
    city.kill(ServiceRole::Payment, 1);
    let gone = city.admin("payment", 1);
    let set = cli(&city, &["set", "--step", "create-payment=unknown:1,do", "--reason", "one is gone"]);
    let said = String::from_utf8_lossy(&set.stderr).into_owned();
    assert!(set.status.code() == Some(1) && said.contains(&format!("not known to have reached {gone}")), "{said}");
    assert!(text(&operator.get(page).await).contains(&gone), "the page says so");
    let id = mary.buy(&[(cup, 1)]).await;
    eventually("nobody knows of the payment", || async {
        let saga = desk.get(&format!("/admin/sagas/{id}")).await.ok()?;
        saga["history"].to_string().contains("a failure on purpose").then_some(())
    })
    .await;
    // It begins without.
    city.start(ServiceRole::Payment, 1);
    city.process_ready(ServiceRole::Payment, 1).await;
    assert_eq!(own(&city, "payment", 1).await["steps"], json!({}));
    let differs = text(&operator.get(page).await);
    assert!(differs.contains("create-payment, unknown") && differs.contains("Processes differ"), "{differs}");
    assert_eq!(desk.get("/admin/failures").await.unwrap()["unreached"], Value::Null);
    let cleared = cli(&city, &["clear", "--reason", "enough"]);
    assert!(cleared.status.success(), "{}", String::from_utf8_lossy(&cleared.stderr));
    assert_eq!(mary.ended(id).await["status"], "COMPLETED");
    let lines = desk.get("/admin/audit?action=failures.set").await.unwrap();
    let reasons: Vec<&Value> = lines["items"].as_array().unwrap().iter().map(|line| &line["reason"]).collect();
    assert_eq!(reasons, ["enough", "one is gone", "the lesson is over", "a lesson"]);
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_participant_keeps_its_partitions_and_goes_on_where_it_was() {
    let city = city(1, |config| config.failures.enabled = true).await;
    let (mary, cup) = open(&city).await;

    let order = Admin::new(&city.admin("order", 0), TOKEN).unwrap();
    order.put("/admin/failures", &json!({ "stopped": ["order"], "reason": "to see it wait" })).await.unwrap();
    let id = mary.buy(&[(cup, 1)]).await;
    let desk = city.operators();
    eventually("it waits for the order", || async {
        let listed = desk.get(&format!("/admin/sagas?q={id}&step=create-order")).await.unwrap();
        (listed["items"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    // Longer than a member of the group may be silent.
    let silent = city.config.bus.session_timeout_ms + 1_000;
    tokio::time::sleep(std::time::Duration::from_millis(silent)).await;
    let listed = desk.get(&format!("/admin/sagas?q={id}&step=create-order")).await.unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "it still waits");
    order.put("/admin/failures", &json!({ "reason": "enough" })).await.unwrap();
    assert_eq!(mary.ended(id).await["status"], "COMPLETED");
    let log = city.log(ServiceRole::Order, 0);
    assert!(!log.contains("revoked"), "the group did not take the partitions away: {log}");
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_databases_of_one_moment_go_on_without_their_topics() {
    let mut city = city(1, |_| {}).await;
    let load = Load::start(&city, &["--clients", "8", "--count", "100000", "--mix", MIX]);
    accepted(&city, 400).await;
    city.kill_all();
    load.stop();
    let unfinished = city.sql("orchestrator", "select count(*) from saga where open");
    assert_ne!(unfinished, "0", "something was on its way");

    // The backup: nobody writes, so it is one moment of all six. What is on the topics is not a part of it.
    let shop = city.config.bus.prefix.trim_end_matches('-').to_owned();
    for role in saga::up::roles::ALL {
        let copy = format!("create database restored_{shop}_{role} template {shop}_{role} owner \"{role}\"");
        crate::servers::Servers::shared().sql("postgres", &copy);
    }
    let shop = format!("restored_{shop}");
    city.config.stores.url = crate::servers::Servers::shared().store(&shop);
    city.config.bus.prefix = format!("{shop}-");
    city.write_settings();
    assert!(city.saga().arg("migrate").stdout(std::process::Stdio::null()).status().unwrap().success());
    for role in saga::up::roles::ALL {
        city.start(role, 0);
    }
    city.ready().await;
    let report = balanced(&city).await;
    assert!(report["completed"].as_u64() > Some(100) && report["compensated"].as_u64() > Some(10), "{report}");
}
