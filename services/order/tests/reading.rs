//! What customers see of their orders, and that nobody else does.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod desk;

use std::sync::atomic::Ordering;

use chassis::auth::Role;
use contracts::purchase::PurchaseItem;
use desk::{ALICE, BOB, Desk, cancel, command, confirm, input, place};
use saga_core::Op;
use saga_core::protocol::Outcome;
use serde_json::json;
use testkit::client::ask;

#[tokio::test]
async fn an_order_is_shown_as_the_original_showed_it() {
    let desk = Desk::open();
    desk.handle(vec![place(5), confirm(5)]).await;
    let answer = desk.get(ALICE, "/orders/5").await;
    let product = |id: u64, price: i64, quantity: i64| {
        json!({
            "id": id, "category_id": 100 + id, "name": format!("name {id}"), "brand_name": format!("brand {id}"),
            "description": format!("description {id}"), "price": price, "quantity": quantity,
        })
    };
    let wanted = json!({
        "order_id": 5, "status": "CONFIRMED", "currency_code": "VND", "amount": 24_460,
        "created_at": "2026-01-01T00:00:00.000Z", "products": [product(1, 1390, 4), product(2, 3780, 5)],
    });
    assert_eq!((answer.status, answer.body), (200, wanted));
}

#[tokio::test]
async fn a_pending_and_a_cancelled_order_are_shown_as_what_they_are() {
    let desk = Desk::open();
    desk.handle(vec![place(5), place(6), cancel(6)]).await;
    assert_eq!(desk.get(ALICE, "/orders/5").await.body["status"], "PENDING");
    assert_eq!(desk.get(ALICE, "/orders/6").await.body["status"], "CANCELLED");
}

#[tokio::test]
async fn a38_somebody_elses_order_is_not_there_not_even_for_an_admin() {
    let desk = Desk::open();
    desk.outcome(place(5)).await;
    assert_eq!(desk.get(ALICE, "/orders/5").await.status, 200);
    let others = [(BOB, Role::Customer), (BOB, Role::Operator), (1, Role::Admin)];
    for who in others {
        let answer = ask(&desk.router, Some(who), "GET", "/orders/5", None).await;
        let missing = ask(&desk.router, Some(who), "GET", "/orders/6", None).await;
        assert_eq!(answer.code(), (404, "not_found"), "{who:?}");
        assert_eq!(answer.body["detail"], missing.body["detail"], "nothing tells that it exists");
        let list = ask(&desk.router, Some(who), "GET", "/orders", None).await;
        assert!(list.ids("order_id").is_empty(), "{who:?}");
    }
    for path in ["/orders", "/orders/5"] {
        assert_eq!(ask(&desk.router, None, "GET", path, None).await.code(), (401, "unauthenticated"));
    }
}

#[tokio::test]
async fn nobody_writes_an_order_over_http() {
    let desk = Desk::open();
    for (method, path) in [("POST", "/orders"), ("PUT", "/orders/5"), ("DELETE", "/orders/5"), ("PATCH", "/orders/5")] {
        let answer = ask(&desk.router, Some((1, Role::Admin)), method, path, Some(json!({}))).await;
        assert_eq!(answer.code(), (405, "method_not_allowed"), "{method} {path}");
    }
}

#[tokio::test]
async fn a_list_shows_the_own_orders_newest_first_page_by_page() {
    let desk = Desk::open();
    let of =
        |saga: u64| command("create-order", Op::Do, &input(saga, if saga.is_multiple_of(3) { BOB } else { ALICE }));
    desk.handle((1..=20).map(of).collect()).await;
    let (mut seen, mut path) = (Vec::new(), "/orders?limit=4".to_owned());
    loop {
        let page = desk.get(ALICE, &path).await;
        assert_eq!(page.status, 200, "{page:?}");
        seen.extend(page.ids("order_id"));
        let Some(token) = page.body["next_page_token"].as_str() else { break };
        // A new one on top does not shift what follows.
        desk.outcome(of(100 + seen.len() as u64 * 3 + 1)).await;
        path = format!("/orders?limit=4&page_token={token}");
    }
    assert_eq!(seen, (1..=20).rev().filter(|id| id % 3 != 0).collect::<Vec<u64>>());
    assert_eq!(desk.get(BOB, "/orders").await.ids("order_id"), [18, 15, 12, 9, 6, 3]);
}

#[tokio::test]
async fn a12_a_token_of_somebody_else_shows_only_the_own_orders() {
    let desk = Desk::open();
    let of = |saga: u64| command("create-order", Op::Do, &input(saga, if saga > 5 { BOB } else { ALICE }));
    desk.handle((1..=10).map(of).collect()).await;
    let token = desk.get(BOB, "/orders?limit=2").await.body["next_page_token"].as_str().unwrap().to_owned();
    let page = desk.get(ALICE, &format!("/orders?page_token={token}")).await;
    assert_eq!(page.ids("order_id"), [5, 4, 3, 2, 1]);
    for query in ["limit=0", "limit=1000", "page_token=x", "customer_id=12"] {
        assert_eq!(desk.get(ALICE, &format!("/orders?{query}")).await.code(), (422, "validation_error"), "{query}");
    }
}

#[tokio::test]
async fn a_product_that_is_gone_leaves_its_line_with_price_and_quantity() {
    let desk = Desk::open();
    let mut input = input(5, ALICE);
    input.items.push(PurchaseItem { product_id: 77, quantity: 2, unit_price: 100 });
    input.amount += 200;
    assert_eq!(desk.outcome(command("create-order", Op::Do, &input)).await, Outcome::done());
    let body = desk.get(ALICE, "/orders/5").await.body;
    let gone = &body["products"][2];
    assert_eq!(
        (&gone["id"], &gone["price"], &gone["quantity"], &gone["name"]),
        (&json!(77), &json!(100), &json!(2), &json!(""))
    );
}

#[tokio::test]
async fn without_the_catalogue_an_order_cannot_be_described_and_the_answer_says_so() {
    let desk = Desk::open();
    desk.outcome(place(5)).await;
    desk.shelf.away.store(true, Ordering::Relaxed);
    for path in ["/orders/5", "/orders"] {
        let answer = desk.get(ALICE, path).await;
        assert_eq!(answer.code(), (503, "dependency_unavailable"));
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(desk.get(BOB, "/orders").await.status, 200, "an empty list needs no catalogue");
    assert_eq!(desk.get(BOB, "/orders/5").await.status, 404);
    desk.shelf.away.store(false, Ordering::Relaxed);
    assert_eq!(desk.get(ALICE, "/orders/5").await.status, 200);
}

#[tokio::test]
async fn an_order_outlives_a_restart() {
    let desk = Desk::open();
    desk.handle(vec![place(5), confirm(5)]).await;
    let before = desk.get(ALICE, "/orders/5").await.body;
    let desk = desk.restart().await;
    assert_eq!(desk.get(ALICE, "/orders/5").await.body, before);
}
