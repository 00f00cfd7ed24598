//! The original's defects that only the whole system can show. The others are tested where they would live.

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::town::{BodyJson as _, Town, cart, eventually, product};

#[tokio::test(flavor = "multi_thread")]
async fn g07_a_saga_that_was_on_its_way_at_a_kill_goes_on() {
    // The loops die without a word, as in a kill; the rows know what is outstanding.
    let mut town = Town::open_with(|config| config.payment.sandbox.latency_ms = 200).await;
    let cup = town.product(10, 100).await;
    let id = town.admin.buy(&[(cup, 1)]).await;
    town.reopen_with(|config| config.payment.sandbox.latency_ms = 0).await;
    assert_eq!(town.admin.ended(id).await["status"], "COMPLETED");
    town.books(1, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g10_a_step_is_reported_done_only_after_its_own_commit() {
    let town = Town::open_with(|config| config.payment.sandbox.latency_ms = 300).await;
    let cup = town.product(10, 100).await;
    let id = town.admin.buy(&[(cup, 1)]).await;
    // While the gateway thinks, nothing says that the payment succeeded, and there is none.
    let seen_waiting = std::cell::Cell::new(false);
    eventually("the purchase ends", || async {
        let purchase = town.admin.get(&format!("/api/v1/purchases/{id}")).await.body_json();
        let steps = purchase["steps"].as_array().unwrap();
        let paid = steps.iter().any(|s| s["step"] == "create-payment" && s["status"] == "SUCCESS");
        let payment = town.admin.get(&format!("/api/v1/payments/{id}")).await.status;
        assert!(!paid || payment == StatusCode::OK, "reported before its commit");
        seen_waiting.set(seen_waiting.get() || !paid);
        (purchase["status"] == "COMPLETED").then_some(())
    })
    .await;
    assert!(seen_waiting.get());
}

#[tokio::test(flavor = "multi_thread")]
async fn g12_a_price_times_a_quantity_that_does_not_fit_is_refused() {
    let town = Town::open().await;
    let dear = town.product(9_007_199_254_740_991, 1_000_000).await;
    let answer = town.admin.post("/api/v1/purchases", &cart(&[(dear, 1_000_000)])).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "amount_out_of_range"));
    town.books(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g13_the_last_item_can_be_bought() {
    let town = Town::open().await;
    let cup = town.product(10, 2).await;
    // Looked at while there are two: no answer about stock is kept for later.
    assert_eq!(town.inventory(cup).await, 2);
    for _ in 0..2 {
        let id = town.admin.buy(&[(cup, 1)]).await;
        assert_eq!(town.admin.ended(id).await["status"], "COMPLETED");
    }
    let id = town.admin.buy(&[(cup, 1)]).await;
    assert_eq!(town.admin.ended(id).await["reason"]["code"], "insufficient_stock");
    assert_eq!(town.inventory(cup).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn g15_a_purchase_is_answered_with_its_id_and_where_to_look() {
    let town = Town::open().await;
    let cup = town.product(10, 2).await;
    let answer = town.admin.post("/api/v1/purchases", &cart(&[(cup, 1)])).await;
    let body = answer.body_json();
    let id = body["id"].as_u64().unwrap();
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(body["status"], "PENDING");
    assert_eq!(answer.header("location"), format!("/api/v1/purchases/{id}"));
    for link in ["self", "events"] {
        let path = body["links"][link].as_str().unwrap();
        assert_eq!(town.admin.get(path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g16_a_product_is_changed_by_administrators_only() {
    let town = Town::open().await;
    let cup = town.product(10, 2).await;
    let path = format!("/api/v1/products/{cup}");
    let change = json!({ "price": 1 });
    let nobody = town.nobody().put(&path, &change).await;
    assert_eq!((nobody.status, nobody.code().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
    let customer = town.customer("mary").await.put(&path, &change).await;
    assert_eq!((customer.status, customer.code().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
    assert_eq!(town.nobody().get(&path).await.body_json()["price"], 10);
    assert!(town.admin.put(&path, &change).await.status.is_success());
    assert_eq!(town.nobody().get(&path).await.body_json()["price"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn g17_grpc_and_admin_are_not_on_the_public_listener_whatever_the_headers_say() {
    let town = Town::open().await;
    let grpc =
        ["/auth.AuthService/Auth", "/product.ProductService/CheckProducts", "/product.ProductService/GetProducts"];
    let spoofed = [
        ("content-type", "application/grpc".to_owned()),
        ("x-forwarded-for", "127.0.0.1".to_owned()),
        ("x-internal", "true".to_owned()),
        ("forwarded", "for=127.0.0.1;host=internal".to_owned()),
        ("x-original-url", "/admin/sagas".to_owned()),
    ];
    for path in grpc.into_iter().chain(["/admin/sagas", "/admin/dlq", "/admin/check", "/metrics"]) {
        for method in [Method::GET, Method::POST] {
            let answer = town.admin.send(method, path, &spoofed, bytes::Bytes::new()).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g18_no_authorization_header_makes_more_than_a_401() {
    let town = Town::open().await;
    let odd = [
        "",
        "B",
        "Bearer",
        "Bearer ",
        "bearer x",
        "Basic YTpi",
        "Bearer a.b.c",
        "Bearer  ",
        "Bearer a b",
        "😀",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
    ];
    for header in odd.into_iter().map(str::to_owned).chain(["Bearer ".to_owned() + &"a".repeat(5_000)]) {
        let extra = [("authorization", header.clone())];
        let path = "/api/v1/account/customer/personal";
        let answer = town.nobody().send(Method::GET, path, &extra, bytes::Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{header:?}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{header:?}");
        assert_eq!(answer.code(), "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g19_an_expired_token_is_told_as_such() {
    let town = Town::open_with(|config| config.account.access_token_minutes = 0).await;
    let answer = town.admin.get("/api/v1/account/customer/personal").await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNAUTHORIZED, "token_expired"));
    assert!(answer.header("www-authenticate").contains("invalid_token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn g23_an_empty_order_is_refused() {
    let town = Town::open().await;
    let answer = town.admin.post("/api/v1/purchases", &cart(&[])).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "validation_error"));
    assert_eq!(answer.body_json()["errors"][0]["pointer"], "#/order_items");
}

#[tokio::test(flavor = "multi_thread")]
async fn g24_every_id_is_a_number_that_javascript_can_hold() {
    let town = Town::open().await;
    let cup = town.product(10, 10).await;
    let id = town.admin.buy(&[(cup, 1)]).await;
    town.admin.ended(id).await;
    let own = town.admin.get(&format!("/api/v1/orders/{id}")).await.body_json();
    let ids = [json!(cup), json!(id), own["order_id"].clone(), own["products"][0]["category_id"].clone()];
    for id in ids {
        let id = id.as_u64().expect("a JSON number");
        assert!(id > 0 && id < 1 << 53, "{id}");
        // What a double does to it changes nothing.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the point"
        )]
        let through_javascript = id as f64 as u64;
        assert_eq!(through_javascript, id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g25_no_other_origin_is_let_in_and_bodies_have_a_limit() {
    let town = Town::open().await;
    let origin = [("origin", "https://evil.example".to_owned()), ("access-control-request-method", "POST".to_owned())];
    for method in [Method::GET, Method::OPTIONS, Method::POST] {
        let answer = town.admin.send(method, "/api/v1/purchases", &origin, bytes::Bytes::new()).await;
        for name in ["access-control-allow-origin", "access-control-allow-credentials"] {
            assert_eq!(answer.header(name), "", "{name}");
        }
    }
    let large = bytes::Bytes::from(format!("{{\"order_items\":[{}]}}", " ".repeat(70_000)));
    let answer = town.admin.send(Method::POST, "/api/v1/purchases", &[], large).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn g26_no_setting_drops_anything_and_every_start_keeps_what_was_there() {
    let mut town = Town::open().await;
    let cup = town.product(10, 10).await;
    for _ in 0..3 {
        town.reopen_with(|_| {}).await;
        assert_eq!(town.inventory(cup).await, 10);
    }
    let defaults = saga::config::DEFAULTS.to_lowercase();
    let setting = |line: &&str| !line.trim_start().starts_with('#');
    for word in ["drop", "reset", "truncate", "wipe", "recreate"] {
        assert!(!defaults.lines().filter(setting).any(|line| line.contains(word)), "a setting that can {word}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g21_g22_what_was_just_made_is_found_through_filter_and_cache() {
    let mut town = Town::open().await;
    let category = town.category().await;
    let mut made = Vec::new();
    for number in 0..30 {
        let answer = town.admin.post("/api/v1/products", &product(category, 10 + number, 5)).await;
        let id = crate::town::created(&answer);
        assert_eq!(town.nobody().get(&format!("/api/v1/products/{id}")).await.status, StatusCode::OK);
        made.push(id);
    }
    town.reopen_with(|_| {}).await;
    for id in made {
        assert_eq!(town.nobody().get(&format!("/api/v1/products/{id}")).await.status, StatusCode::OK, "product {id}");
    }
}
