//! A purchase through six services: it succeeds, finds no stock, is declined, is cancelled, races.

use hyper::StatusCode;
use serde_json::json;

use crate::town::{BodyJson as _, PATIENCE, Town, cart};

fn names(events: &[(String, String, serde_json::Value)]) -> Vec<&str> {
    events.iter().map(|(_, name, _)| name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_succeeds_and_all_six_services_agree() {
    let town = Town::open().await;
    let (cup, pot) = (town.product(1390, 1000).await, town.product(3780, 1000).await);
    let mary = town.customer("mary").await;

    let answer = mary.post("/api/v1/purchases", &cart(&[(cup, 4), (pot, 5)])).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let id = answer.body_json()["id"].as_u64().unwrap();
    assert_eq!(answer.header("location"), format!("/api/v1/purchases/{id}"));
    assert_eq!(answer.body_json()["links"]["self"], format!("/api/v1/purchases/{id}"));

    let (status, events) = mary.events(&format!("/api/v1/purchases/{id}/events"), None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        names(&events),
        [
            "update-product-inventory.execute",
            "update-product-inventory.success",
            "create-order.execute",
            "create-order.success",
            "create-payment.execute",
            "create-payment.success",
            "confirm-order.execute",
            "confirm-order.success",
            "purchase.success",
        ]
    );
    let numbers: Vec<String> = events.iter().map(|(id, ..)| id.clone()).collect();
    assert_eq!(numbers, (1..=9).map(|n| n.to_string()).collect::<Vec<_>>());

    let order = mary.get(&format!("/api/v1/orders/{id}")).await.body_json();
    assert_eq!((&order["order_id"], &order["status"]), (&json!(id), &json!("CONFIRMED")));
    let line = order["products"].as_array().unwrap().iter().find(|p| p["id"] == cup).unwrap().clone();
    assert_eq!((&line["name"], &line["price"], &line["quantity"]), (&json!("Cup"), &json!(1390), &json!(4)));
    let payment = mary.get(&format!("/api/v1/payments/{id}")).await.body_json();
    assert_eq!(payment["amount"], 4 * 1390 + 5 * 3780);
    assert_eq!((&payment["currency_code"], &payment["status"]), (&json!("VND"), &json!("CAPTURED")));
    assert_eq!(payment["id"], id);
    assert_eq!((town.inventory(cup).await, town.inventory(pot).await), (996, 995));
    let purchase = mary.get(&format!("/api/v1/purchases/{id}")).await.body_json();
    assert_eq!(purchase["status"], "COMPLETED");
    assert_eq!(purchase["links"]["order"], format!("/api/v1/orders/{id}"));
    town.books(1, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_without_stock_is_refused_and_leaves_nothing() {
    let town = Town::open().await;
    let cup = town.product(10, 3).await;
    let id = town.admin.buy(&[(cup, 4)]).await;
    let (_, events) = town.admin.events(&format!("/api/v1/purchases/{id}/events"), None).await;
    assert_eq!(
        names(&events),
        ["update-product-inventory.execute", "update-product-inventory.failed", "purchase.rollback"]
    );
    let purchase = town.admin.get(&format!("/api/v1/purchases/{id}")).await.body_json();
    assert_eq!(
        (&purchase["status"], &purchase["reason"]["code"]),
        (&json!("COMPENSATED"), &json!("insufficient_stock"))
    );
    assert_eq!(town.admin.get(&format!("/api/v1/orders/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(town.admin.get(&format!("/api/v1/payments/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(town.inventory(cup).await, 3);
    town.books(0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_purchase_is_undone_newest_first() {
    let town = Town::open().await;
    let spoon = town.product(13, 10).await;
    let id = town.admin.buy(&[(spoon, 1)]).await;
    let (_, events) = town.admin.events(&format!("/api/v1/purchases/{id}/events"), None).await;
    assert_eq!(
        names(&events)[5..],
        ["create-payment.failed", "create-order.rollback", "update-product-inventory.rollback", "purchase.rollback"]
    );
    let terminal = &events.last().unwrap().2;
    assert_eq!((&terminal["terminal"], &terminal["reason"]["code"]), (&json!(true), &json!("payment_declined")));
    let order = town.admin.get(&format!("/api/v1/orders/{id}")).await.body_json();
    assert_eq!(order["status"], "CANCELLED");
    assert_eq!(town.inventory(spoon).await, 10);
    town.books(0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_after_its_last_event_and_ends_for_good() {
    let town = Town::open().await;
    let cup = town.product(10, 100).await;
    let id = town.admin.buy(&[(cup, 1)]).await;
    let path = format!("/api/v1/purchases/{id}/events");
    let (_, all) = town.admin.events(&path, None).await;
    let (status, rest) = town.admin.events(&path, Some("4")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(rest, all[4..]);
    let (status, nothing) = town.admin.events(&path, Some("9")).await;
    assert_eq!((status, nothing.len()), (StatusCode::NO_CONTENT, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_two_hundred_buyers_of_the_last_five_sell_five() {
    let town = Town::open().await;
    let cup = town.product(10, 5).await;
    let buyers = (0..200).map(|_| {
        let buyer = town.admin.clone();
        tokio::spawn(async move {
            let id = buyer.buy(&[(cup, 1)]).await;
            buyer.ended(id).await["status"] == "COMPLETED"
        })
    });
    let mut sold = 0;
    for buyer in buyers.collect::<Vec<_>>() {
        sold += u32::from(tokio::time::timeout(PATIENCE, buyer).await.unwrap().unwrap());
    }
    assert_eq!((sold, town.inventory(cup).await), (5, 0));
    town.books(5, 195).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_makes_one_purchase_and_answers_the_same() {
    let town = Town::open().await;
    let cup = town.product(10, 100).await;
    let key = [("idempotency-key", "\"once\"".to_owned())];
    let body = bytes::Bytes::from(cart(&[(cup, 1)]).to_string());
    let post = |body: bytes::Bytes| town.admin.send(hyper::Method::POST, "/api/v1/purchases", &key, body);
    let (first, second) = (post(body.clone()).await, post(body).await);
    assert_eq!((first.status, second.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!(first.body_json()["id"], second.body_json()["id"]);
    assert_eq!(second.header("idempotency-replayed"), "true");
    let other = post(bytes::Bytes::from(cart(&[(cup, 2)]).to_string())).await;
    assert_eq!((other.status, other.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"));
    let report = town.books(1, 0).await;
    assert_eq!(report.purchases, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn s16_a_price_that_changes_between_quote_and_reserve_charges_nothing() {
    // Whoever wins the race, nobody pays a price that was not quoted.
    let town = Town::open().await;
    let cup = town.product(10, 1_000).await;
    let path = format!("/api/v1/products/{cup}");
    let mut bought = Vec::new();
    for round in 0..30 {
        let (order, price) = (cart(&[(cup, 1)]), json!({ "price": 120 + round }));
        let (buy, change) = tokio::join!(town.admin.post("/api/v1/purchases", &order), town.admin.put(&path, &price));
        assert!(change.status.is_success(), "{:?}", change.body);
        assert_eq!(buy.status, StatusCode::ACCEPTED);
        bought.push(buy.body_json()["id"].as_u64().unwrap());
    }
    for id in bought {
        let purchase = town.admin.ended(id).await;
        if purchase["status"] == "COMPLETED" {
            let payment = town.admin.get(&format!("/api/v1/payments/{id}")).await.body_json();
            assert_eq!(payment["amount"], purchase["amount"]);
        } else {
            assert_eq!(purchase["reason"]["code"], "price_changed");
        }
    }
    town.books(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s01_a_participant_ten_times_slower_than_its_timeout_is_waited_for_and_does_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = include_str!("../../../../services/orchestrator/definitions/purchase.yaml");
    let impatient = yaml.replace("timeout: 10s", "timeout: 200ms");
    assert_ne!(yaml, impatient);
    let path = folder.path().join("impatient.yaml");
    std::fs::write(&path, impatient).unwrap();
    let town = Town::open_with(|config| {
        config.orchestrator.definitions = vec![path];
        config.payment.sandbox.latency_ms = 2_000;
    })
    .await;
    let (cup, unlucky) = (town.product(10, 100).await, town.product(13, 100).await);
    let mary = town.customer("mary").await;
    let bought = [mary.buy(&[(cup, 1)]).await, mary.buy(&[(unlucky, 1)]).await];
    for (id, end) in bought.into_iter().zip(["COMPLETED", "COMPENSATED"]) {
        assert_eq!(mary.ended(id).await["status"], end);
        let operators = saga::remote::Admin::new(&town.home().admin(), town.home().token()).unwrap();
        let saga = operators.get(&format!("/admin/sagas/{id}")).await.unwrap();
        assert!(saga["text"].as_str().unwrap().contains("create-payment: do sent again, attempt 3"), "{saga}");
    }
    town.books(1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing() {
    let mut town = Town::open().await;
    let cup = town.product(10, 1_000).await;
    let mut bought = Vec::new();
    for _ in 0..50 {
        bought.push(town.admin.buy(&[(cup, 1)]).await);
    }
    // Stopped while some are on their way.
    town.reopen_with(|_| {}).await;
    for id in bought {
        assert_eq!(town.admin.ended(id).await["status"], "COMPLETED");
    }
    assert_eq!(town.inventory(cup).await, 950);
    town.books(50, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_shops_live_in_one_process() {
    let (one, two) = tokio::join!(Town::open(), Town::open());
    let cup = one.product(10, 10).await;
    let id = one.admin.buy(&[(cup, 1)]).await;
    assert_eq!(one.admin.ended(id).await["status"], "COMPLETED");
    assert_eq!(two.nobody().get(&format!("/api/v1/products/{cup}")).await.status, StatusCode::NOT_FOUND);
    one.books(1, 0).await;
    assert_eq!(two.books(0, 0).await.purchases, 0);
}
