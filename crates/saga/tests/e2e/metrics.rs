//! `/metrics` as a scraper sees it: exact numbers after known purchases, nothing that is not documented, nowhere but on
//! the admin listener.

pub mod page;

use std::collections::BTreeSet;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use saga::remote::{Connection, Endpoint};
use serde_json::json;

use crate::town::{Town, eventually};
use page::{is_as_documented, scrape};

#[tokio::test(flavor = "multi_thread")]
async fn after_known_purchases_every_number_is_exact_and_every_name_documented() {
    let town = Town::open().await;
    let mary = town.customer("mary").await;
    let (cup, spoon) = (town.product(10, 100).await, town.product(13, 10).await);
    let scarce = town.product(10, 1).await;
    for _ in 0..3 {
        let id = mary.buy(&[(cup, 2)]).await;
        assert_eq!(mary.ended(id).await["status"], "COMPLETED");
    }
    for (product, quantity) in [(spoon, 1), (scarce, 2)] {
        let id = mary.buy(&[(product, quantity)]).await;
        assert_eq!(mary.ended(id).await["status"], "COMPENSATED");
    }
    assert_eq!(mary.get("/api/v1/products/4503599627370495").await.status, StatusCode::NOT_FOUND);
    assert_eq!(mary.get("/api/v1/nowhere").await.status, StatusCode::NOT_FOUND);
    let wrong = json!({ "email": "mary@example.com", "password": "not her password" });
    assert_eq!(mary.post("/api/v1/account/auth/login", &wrong).await.status, StatusCode::UNAUTHORIZED);

    let admin = town.home().admin();
    let page = scrape(&admin).await;
    let step = |name: &str, step: &str, op: &str, more: &str| {
        page.of(&format!("saga_{name}{{definition=\"purchase\",step=\"{step}\",op=\"{op}\"{more}}}"))
    };
    let (stock, order, payment) = ("update-product-inventory", "create-order", "create-payment");
    for (series, expected) in [
        (r#"saga_started_total{definition="purchase"}"#, 5.0),
        (r#"saga_ended_total{definition="purchase",outcome="completed"}"#, 3.0),
        (r#"saga_ended_total{definition="purchase",outcome="compensated"}"#, 2.0),
        (r#"saga_duration_seconds_count{definition="purchase",outcome="completed"}"#, 3.0),
        (r#"saga_duration_seconds_count{definition="purchase",outcome="compensated"}"#, 2.0),
        (r#"saga_compensations_total{definition="purchase"}"#, 2.0),
        (r#"saga_in_flight{definition="purchase",status="RUNNING"}"#, 0.0),
        (r#"saga_stuck{definition="purchase"}"#, 0.0),
        ("saga_purchases_accepted_total", 5.0),
        (r#"saga_purchases_ended_total{outcome="completed"}"#, 3.0),
        (r#"saga_purchases_ended_total{outcome="compensated"}"#, 2.0),
        ("saga_orders_confirmed_total", 3.0),
        ("saga_items_sold_total", 6.0),
        (r#"saga_money_captured_minor_units_total{currency="VND"}"#, 60.0),
        (r#"saga_money_captures_total{currency="VND"}"#, 3.0),
        (r#"saga_money_refunds_total{currency="VND"}"#, 0.0),
        (r#"saga_auth_total{action="register",result="accepted"}"#, 2.0),
        (r#"saga_auth_total{action="login",result="refused"}"#, 1.0),
        (r#"saga_filter_checks_total{result="absent"}"#, 1.0),
        (r#"saga_participant_batch_sum{group="payment"}"#, 4.0),
        (r#"saga_http_requests_total{listener="public",method="POST",route="/api/v1/purchases",status="202"}"#, 5.0),
        (r#"saga_http_requests_total{listener="public",method="GET",route="other",status="404"}"#, 1.0),
        (r#"saga_consumer_lag{group="orchestrator",topic="reply"}"#, 0.0),
        (r#"saga_poll_up{source="consumer_lag"}"#, 1.0),
        (r#"saga_build_info{version="0.1.0",profile="embedded"}"#, 1.0),
        ("saga_ready", 1.0),
        ("saga_metrics_left_out_total", 0.0),
    ] {
        assert_eq!(page.of(series), expected, "{series}");
    }
    for (named, op, attempts, done, refused) in [
        (stock, "do", 5.0, 4.0, 1.0),
        (order, "do", 4.0, 4.0, 0.0),
        (payment, "do", 4.0, 3.0, 1.0),
        ("confirm-order", "do", 3.0, 3.0, 0.0),
        (order, "undo", 1.0, 1.0, 0.0),
        (stock, "undo", 1.0, 1.0, 0.0),
    ] {
        assert_eq!(step("step_attempts_total", named, op, ""), attempts, "{named} {op}");
        assert_eq!(step("step_outcomes_total", named, op, ",outcome=\"done\""), done, "{named} {op}");
        assert_eq!(step("step_outcomes_total", named, op, ",outcome=\"refused\""), refused, "{named} {op}");
        assert_eq!(step("step_duration_seconds_count", named, op, ""), done + refused, "{named} {op}");
        assert_eq!(step("step_queue_seconds_count", named, op, ""), attempts, "{named} {op}");
        assert_eq!(step("step_timeouts_total", named, op, ""), 0.0, "{named} {op}");
    }
    assert!(page.of("saga_process_resident_memory_bytes") > 1e6 && page.of("saga_process_open_fds") > 3.0);
    assert!(page.of(r#"saga_writer_batch_count{database="orchestrator"}"#) >= 5.0);
    // Its own request is on the next page.
    let page = page.and(scrape(&admin).await);
    is_as_documented(&page, "With servers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a61_metrics_are_on_the_admin_listener_only() {
    let town = Town::open().await;
    let mary = town.customer("mary").await;
    for url in [town.home().public(), town.home().internal()] {
        let mut connection = Connection::new(&Endpoint::parse(&url).unwrap());
        for bearer in [None, mary.bearer(), town.admin.bearer()] {
            let answer = connection.send(Method::GET, "/metrics", bearer.as_ref(), Bytes::new()).await;
            // What speaks HTTP/2 only does not even answer.
            assert!(answer.is_err() || answer.unwrap().status == StatusCode::NOT_FOUND, "{url}");
        }
    }
    scrape(&town.home().admin()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o05_no_caller_can_add_a_label() {
    let town = Town::open().await;
    let mary = town.customer("mary").await;
    let before = scrape(&town.home().admin()).await;
    for number in 0..200 {
        let secret = format!("mary{number}@example.com");
        mary.get(&format!("/api/v1/{secret}/{number}")).await;
        mary.get(&format!("/api/v1/purchases/{number}")).await;
        let login = json!({ "email": secret, "password": "a guess" });
        mary.post("/api/v1/account/auth/login", &login).await;
        let verb = Method::from_bytes(format!("VERB{number}").as_bytes()).unwrap();
        let mut connection = Connection::new(&mary.endpoint);
        connection.send(verb, "/api/v1/products", None, Bytes::new()).await.unwrap();
    }
    let after = scrape(&town.home().admin()).await;
    let new: Vec<&String> = after.samples.keys().filter(|series| !before.samples.contains_key(*series)).collect();
    let routes: BTreeSet<&str> =
        new.iter().filter_map(|series| series.split("route=\"").nth(1)?.split('"').next()).collect();
    assert!(routes.len() <= 6, "{routes:?}");
    assert!(new.iter().all(|series| !series.contains("mary") && !series.contains("VERB")), "{new:#?}");
    assert!(new.iter().all(|series| series.starts_with("saga_http_")), "only routes that were not asked for: {new:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_does_not_move_is_seen() {
    let slow = |config: &mut saga::config::Config| config.payment.sandbox.latency_ms = 60_000;
    let town = Town::open_with(slow).await;
    let cup = town.product(10, 10).await;
    town.admin.buy(&[(cup, 1)]).await;
    let running = r#"saga_in_flight{definition="purchase",status="RUNNING"}"#;
    let page = eventually("it is in flight", || async {
        let page = scrape(&town.home().admin()).await;
        (page.of(running) == 1.0).then_some(page)
    });
    let age = page.await.of(r#"saga_oldest_in_flight_seconds{definition="purchase",status="RUNNING"}"#);
    assert!((0.0..60.0).contains(&age), "{age}");
}
