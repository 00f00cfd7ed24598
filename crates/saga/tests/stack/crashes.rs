//! Processes that die: at named places of their code, all at once, or only seemingly.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use saga::up::roles::{ALL, ServiceRole};

use crate::city::City;
use crate::town::{BodyJson as _, Person, cart, created, eventually, product};
use crate::traffic::{Load, MIX, accepted, balanced, city};

/// The places of a service that moves messages, with those that its load comes by.
const PLACES: [(ServiceRole, &[&str]); 4] = [
    // p03 … p06, p08, p09
    (ServiceRole::Orchestrator, &["fetched", "before_commit", "committed", "published", "timer", "ended"]),
    // p10 … p13
    (ServiceRole::Product, &["fetched", "do.before_commit", "do.committed", "undo.committed", "published"]),
    (ServiceRole::Order, &["fetched", "do.before_commit", "do.committed", "undo.before_commit", "published"]),
    (ServiceRole::Payment, &["fetched", "do.before_commit", "do.committed", "published"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn p03_to_p13_a_death_at_each_place_of_each_service_loses_and_doubles_nothing() {
    let mut city = city(1, |_| {}).await;
    let load = Load::start(&city, &["--clients", "4", "--rate", "40", "--duration", "150s", "--mix", MIX]);
    accepted(&city, 20).await;
    for (role, places) in PLACES {
        for place in places {
            // It was killed somewhere, too: what it had in hand comes again.
            city.kill(role, 0);
            city.start_to_die(role, 0, place);
            assert!(city.dies(role, 0, Duration::from_secs(30)).await, "{role} never came by {place}");
            city.start(role, 0);
            city.process_ready(role, 0).await;
        }
    }
    load.stop();
    let report = balanced(&city).await;
    assert!(report["completed"].as_u64().unwrap() > 50 && report["compensated"].as_u64().unwrap() > 20, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p01_p02_a_purchase_service_that_dies_before_its_answer_makes_one_purchase_a_key() {
    let mut city = city(1, |_| {}).await;
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let cup = cup(&admin).await;
    for place in ["before_commit", "committed"] {
        city.kill(ServiceRole::Purchase, 0);
        city.start_to_die(ServiceRole::Purchase, 0, place);
        city.process_ready(ServiceRole::Purchase, 0).await;
        let buy = || async {
            let key = [("idempotency-key", format!("one-{place}"))];
            admin.send(Method::POST, "/api/v1/purchases", &key, Bytes::from(cart(&[(cup, 1)]).to_string())).await
        };
        // Until the edge has seen that it is there.
        while !city.dies(ServiceRole::Purchase, 0, Duration::from_millis(100)).await {
            let lost = buy().await;
            assert!(lost.status.is_server_error(), "{}", lost.status);
        }
        city.start(ServiceRole::Purchase, 0);
        city.process_ready(ServiceRole::Purchase, 0).await;
        let id = eventually("the edge sees it", || async {
            let again = buy().await;
            (again.status == StatusCode::ACCEPTED).then(|| again.body_json()["id"].as_u64().unwrap())
        })
        .await;
        assert_eq!(buy().await.body_json()["id"], id, "the same key, the same purchase");
        assert_eq!(admin.ended(id).await["status"], "COMPLETED");
    }
    assert_eq!(balanced(&city).await["purchases"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_everything_at_once_in_mid_load() {
    let mut city = city(1, |_| {}).await;
    let load = Load::start(&city, &["--clients", "8", "--duration", "12s", "--mix", MIX]);
    for (round, order) in [ALL.to_vec(), ALL.into_iter().rev().collect()].into_iter().enumerate() {
        accepted(&city, 300 * (round as u64 + 1)).await;
        city.kill_all();
        for role in order {
            city.start(role, 0);
        }
        city.ready().await;
    }
    load.end();
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p18_an_owner_that_sleeps_is_replaced_and_its_writes_are_refused() {
    let city = city(2, |_| {}).await;
    let load = Load::start(&city, &["--clients", "4", "--duration", "12s", "--mix", MIX]);
    accepted(&city, 100).await;
    let owned = |city: &City| city.sql("orchestrator", "select sum(epoch) from owner").parse::<u64>().unwrap();
    let before = owned(&city);
    city.signal(ServiceRole::Orchestrator, 0, "STOP");
    eventually("the other takes over", || async { (owned(&city) > before).then_some(()) }).await;
    let so_far: u64 = city.sql("purchase", "select count(*) from purchase").parse().unwrap();
    accepted(&city, so_far + 100).await;
    city.signal(ServiceRole::Orchestrator, 0, "CONT");
    load.end();
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o04_every_process_is_restarted_in_turn_and_no_customer_notices() {
    let mut city = city(2, |config| config.unready_ms = 1_000).await;
    let load = Load::start(&city, &["--clients", "4", "--rate", "60", "--duration", "45s", "--mix", MIX]);
    accepted(&city, 50).await;
    for role in ALL {
        for replica in 0..2 {
            assert_eq!(city.term(role, replica), Some(0), "{role} {replica}");
            city.start(role, replica);
            city.process_ready(role, replica).await;
            // The edge asks every 200 ms, and believes the second answer.
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    }
    let report = load.end();
    assert_eq!(report["errors"], 0, "{report}");
    balanced(&city).await;
}

async fn cup(admin: &Person) -> u64 {
    let category = serde_json::json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&admin.post("/api/v1/categories", &category).await);
    created(&admin.post("/api/v1/products", &product(category, 10, 100)).await)
}
