//! Buying over HTTP: what is accepted, what is refused and how, keys, admission, cancelling.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod shop;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use purchase::Config;
use saga_runtime::SystemClock;
use serde_json::json;

use shop::orchestrator::{completed, declined};
use shop::{ALICE, BOB, ONE, Script, Shop, quick, until, within};

fn order(product: &str, quantity: &str) -> String {
    format!(
        r#"{{"order_items":[{{"product_id":{product},"quantity":{quantity}}}],"payment":{{"currency_code":"VND"}}}}"#
    )
}

#[tokio::test]
async fn g15_a_purchase_is_answered_at_once_and_can_be_followed() {
    let shop = Shop::open().await;
    let body = r#"{"order_items":[{"product_id":1,"quantity":4},{"product_id":2,"quantity":5}],"payment":{"currency_code":"VND"}}"#;
    let answer = shop.post(ALICE, "/purchases", body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let id = answer.id();
    let this = format!("/api/v1/purchases/{id}");
    assert_eq!(answer.header("location"), Some(this.as_str()));
    assert_eq!(answer.header("idempotency-replayed"), None);
    let links = json!({ "self": this, "events": format!("{this}/events") });
    assert_eq!(answer.body, json!({ "id": id, "status": "PENDING", "links": links }));
    assert!(id < 1 << 53, "g24");

    let seen = shop.until(id, "COMPLETED").await;
    assert_eq!(seen["amount"], 4 * 1390 + 5 * 3780);
    assert_eq!(seen["currency_code"], "VND");
    assert_eq!(seen["order_items"][0], json!({ "product_id": 1, "quantity": 4, "unit_price": 1390 }));
    assert_eq!(seen["links"]["order"], format!("/api/v1/orders/{id}"));
    assert_eq!(seen["links"]["payment"], format!("/api/v1/payments/{id}"));
    let steps: Vec<_> = seen["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["step"].as_str().unwrap(), s["status"].as_str().unwrap()))
        .collect();
    let names = ["update-product-inventory", "create-order", "create-payment", "confirm-order"];
    assert_eq!(steps, names.map(|name| (name, "SUCCESS")));
    assert!(seen["ended_at"].as_str().unwrap().ends_with('Z'));
    shop.bus.close();
}

#[tokio::test]
async fn a_declined_purchase_says_why_and_has_no_payment() {
    let shop = Shop::with(quick(), Arc::new(SystemClock), Script::Decline).await;
    let id = shop.buy(ALICE).await;
    let seen = shop.until(id, "COMPENSATED").await;
    assert_eq!(seen["reason"]["code"], "payment_declined");
    assert!(seen["links"].get("payment").is_none());
    let steps: Vec<_> = seen["steps"].as_array().unwrap().iter().map(|s| s["status"].as_str().unwrap()).collect();
    assert_eq!(steps, ["ROLLBACK", "ROLLBACK", "FAILED"]);
}

#[tokio::test]
async fn a01_to_a07_what_is_wrong_is_refused_with_code_and_pointer_and_leaves_nothing() {
    let shop = Shop::open().await;
    let many = |n: usize| {
        let lines = vec![r#"{"product_id":1,"quantity":1}"#; n].join(",");
        format!(r#"{{"order_items":[{lines}],"payment":{{"currency_code":"VND"}}}}"#)
    };
    let with_more = |more: &str| ONE.replacen('{', &format!("{{{more},"), 1);
    let line_with = |more: &str| ONE.replace(r#""quantity":1"#, &format!(r#""quantity":1,{more}"#));
    let invalid = "validation_error";
    let cases: Vec<(String, &str, Option<&str>)> = vec![
        (order("1", "0"), invalid, Some("#/order_items/0/quantity")),
        (order("1", "-1"), invalid, Some("#/order_items/0/quantity")),
        (order("1", "1000001"), invalid, Some("#/order_items/0/quantity")),
        (order("1", "1.5"), invalid, None),
        (order("1", "1e3"), invalid, None),
        (order("1", r#""5""#), invalid, None),
        (order("1", "9223372036854775808"), invalid, None),
        (order("1", "NaN"), "malformed_json", None),
        (order("1", "null"), invalid, None),
        (order("0", "1"), invalid, Some("#/order_items/0/product_id")),
        (order("-1", "1"), invalid, None),
        (order("9007199254740992", "1"), invalid, Some("#/order_items/0/product_id")),
        (order("99", "1"), invalid, Some("#/order_items/0/product_id")),
        (order("3", "1"), "unsupported_currency", None),
        (ONE.replace("VND", "EUR"), "unsupported_currency", None),
        (ONE.replace("VND", "vnd"), invalid, Some("#/payment/currency_code")),
        (ONE.replace(r#""VND""#, "null"), invalid, None),
        (r#"{"order_items":[],"payment":{"currency_code":"VND"}}"#.to_owned(), invalid, Some("#/order_items")),
        (many(101), invalid, Some("#/order_items")),
        (many(10_001), "payload_too_large", None),
        (with_more(r#""amount":1"#), invalid, None),
        (with_more(r#""status":"COMPLETED""#), invalid, None),
        (with_more(r#""customer_id":12"#), invalid, None),
        (line_with(r#""price":1"#), invalid, None),
        (line_with(r#""unit_price":1"#), invalid, None),
        (r#"{"order_items":[{"product_id":1,"quantity":1}]}"#.to_owned(), invalid, None),
        (r#"{"payment":{"currency_code":"VND"}}"#.to_owned(), invalid, None),
        ("{}".to_owned(), invalid, None),
        ("null".to_owned(), invalid, None),
        ("[]".to_owned(), invalid, None),
        (String::new(), "malformed_json", None),
        ("{".to_owned(), "malformed_json", None),
        // Refused where the shape is first wrong, long before the depth could hurt.
        ("[".repeat(10_000), invalid, None),
        (format!(r#"{{"order_items":{}"#, "[".repeat(10_000)), invalid, None),
        (ONE.replace('}', "},"), "malformed_json", None),
    ];
    for (body, code, pointer) in cases {
        let answer = shop.post(ALICE, "/purchases", &body).await;
        let shown: String = body.chars().take(100).collect();
        assert!(answer.status.is_client_error(), "{shown}: {answer:?}");
        assert_eq!(answer.code(), code, "{shown}: {answer:?}");
        if let Some(pointer) = pointer {
            assert_eq!(answer.pointers(), [pointer], "{shown}");
        }
    }
    assert_eq!(shop.get(ALICE, "/purchases").await.body["items"], json!([]));
    assert_eq!((shop.stat("accepted"), shop.stat("outstanding")), (0, 0));
    let slots = u64::try_from(quick().max_in_flight).unwrap();
    assert_eq!(shop.stat("free_slots"), slots, "no slot is left behind");
}

#[tokio::test]
async fn a01_an_amount_that_nobody_can_hold_is_refused() {
    let shop = Shop::open().await;
    shop.prices.products.lock().insert(4, (1 << 52, "VND"));
    let answer = shop.post(ALICE, "/purchases", &order("4", "2")).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "amount_out_of_range"));
    assert_eq!(shop.post(ALICE, "/purchases", &order("4", "1")).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a08_what_is_no_json_or_no_text_is_malformed() {
    let shop = Shop::open().await;
    for body in [&b"\xff\xfe"[..], b"{\"order_items\":\"\xc3\x28\"}", b"\0"] {
        let request = Request::post("/api/v1/purchases").header("content-type", "application/json");
        let answer = shop::answer(shop.send(ALICE, request, Body::from(body)).await).await;
        assert!(answer.status.is_client_error(), "{answer:?}");
    }
    let request = Request::post("/api/v1/purchases").header("content-type", "text/plain");
    let answer = shop::answer(shop.send(ALICE, request, Body::from(ONE)).await).await;
    assert_eq!(answer.code(), "unsupported_media_type");
}

#[tokio::test]
async fn without_a_token_there_is_nothing() {
    let shop = Shop::open().await;
    let requests = [
        Request::post("/api/v1/purchases"),
        Request::get("/api/v1/purchases"),
        Request::get("/api/v1/purchases/1"),
        Request::get("/api/v1/purchases/events"),
        Request::get("/api/v1/purchases/1/events"),
        Request::post("/api/v1/purchases/1/cancel"),
    ];
    for request in requests {
        let request = request.header("content-type", "application/json").body(Body::from(ONE)).unwrap();
        let what = format!("{} {}", request.method(), request.uri());
        let answer = shop::answer(shop.send_raw(request).await).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{what}");
    }
}

#[tokio::test]
async fn p02_a13_the_same_key_and_purchase_get_the_first_answer_again() {
    let shop = Shop::open().await;
    let first = shop.post_with(ALICE, "/purchases", ONE, &[("idempotency-key", "\"k-1\"")]).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert_eq!(first.header("idempotency-replayed"), None);
    // White space, order and duplicates do not make another purchase; nor does a key without quotes.
    let again = ONE.replace(':', " : ");
    let second = shop.post_with(ALICE, "/purchases", &again, &[("idempotency-key", "k-1")]).await;
    assert_eq!((second.status, &second.body), (StatusCode::ACCEPTED, &first.body));
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    assert_eq!(second.header("location"), first.header("location"));
    // After it ended, the first answer still.
    shop.until(first.id(), "COMPLETED").await;
    let third = shop.post_with(ALICE, "/purchases", ONE, &[("idempotency-key", "k-1")]).await;
    assert_eq!(third.body, first.body);

    let other = shop.post_with(ALICE, "/purchases", &order("1", "2"), &[("idempotency-key", "k-1")]).await;
    assert_eq!((other.status, other.code()), (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"));
    // Keys are the customer's own.
    let bobs = shop.post_with(BOB, "/purchases", &order("1", "2"), &[("idempotency-key", "k-1")]).await;
    assert_eq!(bobs.status, StatusCode::ACCEPTED);
    assert_ne!(bobs.id(), first.id());
    assert_eq!(shop.stat("accepted"), 2);
}

#[tokio::test]
async fn a13_a_key_answers_though_the_price_changed_or_the_catalogue_is_down() {
    let shop = Shop::open().await;
    let key = [("idempotency-key", "k")];
    let first = shop.post_with(ALICE, "/purchases", ONE, &key).await;
    shop.prices.products.lock().clear();
    assert_eq!(shop.post_with(ALICE, "/purchases", ONE, &key).await.body, first.body);
    let other = shop.post_with(ALICE, "/purchases", &order("1", "2"), &key).await;
    assert_eq!(other.code(), "idempotency_key_reused");
    *shop.prices.down.lock() = true;
    assert_eq!(shop.post_with(ALICE, "/purchases", ONE, &key).await.body, first.body);
    let new = shop.post(ALICE, "/purchases", ONE).await;
    assert_eq!((new.status, new.code()), (StatusCode::SERVICE_UNAVAILABLE, "dependency_unavailable"));
    assert!(new.header("retry-after").is_some());
}

#[tokio::test]
async fn a13_odd_keys_are_refused() {
    let shop = Shop::open().await;
    for key in ["", "\"", "\"\"", "k\"", &"k".repeat(256)] {
        let answer = shop.post_with(ALICE, "/purchases", ONE, &[("idempotency-key", key)]).await;
        assert_eq!(
            (answer.code(), answer.pointers()),
            ("validation_error", vec!["#/headers/idempotency-key"]),
            "{key}"
        );
    }
    let two = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(shop.post_with(ALICE, "/purchases", ONE, &two).await.code(), "validation_error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a13_p01_fifty_requests_with_one_key_at_once_make_one_purchase() {
    let shop = Arc::new(Shop::open().await);
    let post = |_| {
        let shop = Arc::clone(&shop);
        tokio::spawn(async move { shop.post_with(ALICE, "/purchases", ONE, &[("idempotency-key", "same")]).await })
    };
    let requests: Vec<_> = (0..50).map(post).collect();
    let mut ids = Vec::new();
    let mut fresh = 0;
    for request in requests {
        let answer = request.await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        fresh += usize::from(answer.header("idempotency-replayed").is_none());
        ids.push(answer.id());
    }
    ids.dedup();
    assert_eq!((ids.len(), fresh), (1, 1));
    shop.until(ids[0], "COMPLETED").await;
    until("every slot is free again", || shop.stat("outstanding") == 0).await;
    assert_eq!(shop.stat("free_slots"), u64::try_from(quick().max_in_flight).unwrap());
    assert_eq!(shop.orchestrator.starts(), [ids[0]]);
}

#[tokio::test]
async fn keys_are_forgotten_after_48_hours_and_not_before() {
    let clock = shop::HandClock::at(1_795_435_200_000);
    let shop = Shop::with(quick(), Arc::clone(&clock) as _, Script::Complete).await;
    let key = [("idempotency-key", "k")];
    let first = shop.post_with(ALICE, "/purchases", ONE, &key).await;
    let hours = |h: u64| std::time::Duration::from_secs(h * 3600);
    clock.advance(hours(47));
    assert_eq!(shop.post_with(ALICE, "/purchases", ONE, &key).await.id(), first.id());
    clock.advance(hours(2));
    let second = within("the key to be forgotten", async {
        loop {
            let answer = shop.post_with(ALICE, "/purchases", ONE, &key).await;
            if answer.id() != first.id() {
                return answer;
            }
            clock.advance(hours(0) + std::time::Duration::from_millis(100));
        }
    });
    assert_eq!(second.await.header("idempotency-replayed"), None);
}

#[tokio::test]
async fn s17_a58_when_all_slots_are_taken_a_purchase_is_told_to_come_back() {
    let config = Config { max_in_flight: 2, ..quick() };
    let shop = Shop::with(config, Arc::new(SystemClock), Script::Hold).await;
    let first = shop.post_with(ALICE, "/purchases", ONE, &[("idempotency-key", "k")]).await;
    shop.buy(ALICE).await;
    let refused = shop.post(ALICE, "/purchases", ONE).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    // What exists is answered all the same.
    let again = shop.post_with(ALICE, "/purchases", ONE, &[("idempotency-key", "k")]).await;
    assert_eq!(again.id(), first.id());
    shop.orchestrator.emit(first.id(), &completed(first.id())).await;
    shop.until(first.id(), "COMPLETED").await;
    shop.buy(ALICE).await;
}

#[tokio::test]
async fn m16_when_very_much_is_outstanding_the_shop_says_so() {
    let config = Config { max_in_flight: 1, max_outstanding: 3, park_after_ms: 1, stale_after_ms: 20, ..quick() };
    let shop = Shop::with(config, Arc::new(SystemClock), Script::Hold).await;
    for parked in 1..=3 {
        until("a free slot", || shop.stat("free_slots") == 1).await;
        shop.buy(ALICE).await;
        until("the purchase to be parked", || shop.stat("parked") == parked).await;
    }
    let refused = shop.post(ALICE, "/purchases", ONE).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::SERVICE_UNAVAILABLE, "overloaded"));
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn a_cancel_is_kept_and_passed_on_until_it_is_too_late() {
    let shop = Shop::with(quick(), Arc::new(SystemClock), Script::Hold).await;
    let id = shop.buy(ALICE).await;
    let events = declined(id);
    shop.orchestrator.emit(id, &events[..3]).await;
    shop.until(id, "RUNNING").await;
    let path = format!("/purchases/{id}/cancel");
    let answer = shop.post(ALICE, &path, r#"{"reason":"changed my mind"}"#).await;
    assert_eq!((answer.status, &answer.body["cancel_requested"]), (StatusCode::ACCEPTED, &json!(true)));
    let said = (id, format!("customer {ALICE}"), "changed my mind".to_owned());
    until("the cancel to arrive", || shop.orchestrator.cancels().contains(&said)).await;
    // Again, with another reason: the first one stands. It is sent again until the purchase moves back.
    assert_eq!(shop.post(ALICE, &path, "").await.status, StatusCode::ACCEPTED);
    until("the cancel to be sent again", || shop.orchestrator.cancels().iter().filter(|c| **c == said).count() > 1)
        .await;
    assert_eq!(shop.get(ALICE, &format!("/purchases/{id}")).await.body["cancel_requested"], true);
    shop.orchestrator.emit(id, &events[3..]).await;
    shop.until(id, "COMPENSATED").await;
    let late = shop.post(ALICE, &path, "").await;
    assert_eq!((late.status, late.code()), (StatusCode::CONFLICT, "conflict"));
}

#[tokio::test]
async fn a_cancel_past_the_pivot_is_a_conflict_and_odd_ones_are_refused() {
    let shop = Shop::with(quick(), Arc::new(SystemClock), Script::Hold).await;
    let id = shop.buy(ALICE).await;
    let path = format!("/purchases/{id}/cancel");
    for (body, code) in
        [("{", "malformed_json"), (r#"{"reason":1}"#, "validation_error"), (r#"{"why":""}"#, "validation_error")]
    {
        assert_eq!(shop.post(ALICE, &path, body).await.code(), code, "{body}");
    }
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(201));
    assert_eq!(shop.post(ALICE, &path, &long).await.pointers(), ["#/reason"]);
    assert_eq!(shop.post(BOB, &path, "").await.status, StatusCode::NOT_FOUND);
    let events = completed(id);
    shop.orchestrator.emit(id, &events[..6]).await;
    let answered = within("the payment to be seen", async {
        loop {
            let seen = shop.get(ALICE, &format!("/purchases/{id}")).await;
            if seen.body["links"].get("payment").is_some() {
                return shop.post(ALICE, &path, "").await;
            }
        }
    });
    let answer = answered.await;
    assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, "conflict"));
    assert!(shop.orchestrator.cancels().is_empty());
}
