//! A participant that is stopped on purpose, on the real stack.

use saga::remote::Admin;
use saga::up::roles::ServiceRole;
use serde_json::json;

use crate::city::TOKEN;
use crate::town::{Person, created, eventually, product};
use crate::traffic::{Load, MIX, accepted, balanced, city};

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_participant_keeps_its_partitions_and_goes_on_where_it_was() {
    let city = city(1, |config| config.failures.enabled = true).await;
    let shop = Person::at(&city.public());
    let mary = shop.register("mary@example.com").await;
    let admin = shop.login("admin@example.com").await;
    let category =
        created(&admin.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "Tea" })).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 5)).await);
    // Joined, and at work.
    assert_eq!(mary.ended(mary.buy(&[(cup, 1)]).await).await["status"], "COMPLETED");

    let order = Admin::new(&city.admin("order", 0), TOKEN).unwrap();
    order.put("/admin/failures", &json!({ "stopped": ["order"] })).await.unwrap();
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
    order.put("/admin/failures", &json!({})).await.unwrap();
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
