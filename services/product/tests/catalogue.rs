//! The catalogue over HTTP: reading is free, writing is the admin's, and what exists is found.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod desk;

use std::collections::BTreeSet;
use std::sync::Arc;

use chassis::auth::Role;
use desk::{ADMIN, Shop, product};
use serde_json::{Value, json};
use testkit::client::ask;

#[tokio::test]
async fn the_originals_walkthrough_works_and_ids_come_back() {
    let shop = Shop::open().await;
    let answer = shop.admin("POST", "/categories", json!({ "name": "Tea", "description": "all of it" })).await;
    let category = answer.id();
    assert_eq!(
        (answer.status, answer.headers["location"].to_str().unwrap()),
        (201, &*format!("/api/v1/categories/{category}"))
    );
    let body = json!({
        "category_id": category, "name": "Oolong", "brand_name": "Hill", "description": "d", "price": 1390, "inventory": 1000,
    });
    let answer = shop.admin("POST", "/products", body.clone()).await;
    let id = answer.id();
    assert_eq!(
        (answer.status, answer.headers["location"].to_str().unwrap()),
        (201, &*format!("/api/v1/products/{id}"))
    );
    assert!(id < 1 << 53 && category < id, "g24");
    let mut wanted = body;
    wanted["id"] = json!(id);
    wanted["currency_code"] = json!("VND");
    let seen = shop.get(&format!("/products/{id}")).await;
    assert_eq!((seen.status, seen.body), (200, wanted));
}

#[tokio::test]
async fn g16_a39_who_is_not_an_admin_changes_nothing() {
    let shop = Shop::open().await;
    let id = shop.product(10, 5).await;
    let category = shop.get("/categories").await.ids("id")[0];
    let (product_path, category_path) = (format!("/products/{id}"), format!("/categories/{category}"));
    let text = json!({ "name": "Mine", "description": "now" });
    let writes = [
        ("POST", "/products", Some(product(category, 1, 1))),
        ("PUT", &product_path, Some(json!({ "price": 1 }))),
        ("POST", "/categories", Some(text.clone())),
        ("PUT", &category_path, Some(text)),
        ("DELETE", &category_path, None),
    ];
    let before = (shop.get("/products").await.body, shop.get("/categories").await.body);
    for (method, path, body) in writes {
        let answer = ask(&shop.router, None, method, path, body.clone()).await;
        assert_eq!(answer.code(), (401, "unauthenticated"), "{method} {path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        for role in [Role::Customer, Role::Operator] {
            let answer = ask(&shop.router, Some((7, role)), method, path, body.clone()).await;
            assert_eq!(answer.code(), (403, "forbidden"), "{method} {path} as {role:?}");
        }
    }
    assert_eq!((shop.get("/products").await.body, shop.get("/categories").await.body), before);
}

#[tokio::test]
async fn a_new_product_that_cannot_be_is_refused_field_by_field() {
    let shop = Shop::open().await;
    let category = shop.category().await;
    let long = |n: usize| json!("é".repeat(n));
    for (field, value) in [
        ("category_id", json!(category + 1)),
        ("category_id", json!(-1)),
        ("category_id", json!(1_u64 << 53)),
        ("name", json!("")),
        ("name", long(201)),
        ("brand_name", long(201)),
        ("description", long(4_001)),
        ("price", json!(-1)),
        ("price", json!(1_i64 << 53)),
        ("price", json!(13.9)),
        ("price", json!("1390")),
        ("price", Value::Null),
        ("currency_code", json!("vnd")),
        ("currency_code", json!("XXQ")),
        ("inventory", json!(-1)),
        ("inventory", json!(1_i64 << 53)),
        ("id", json!(5)),
        ("version", json!(5)),
    ] {
        let mut body = product(category, 10, 5);
        body[field] = value.clone();
        let answer = shop.admin("POST", "/products", body).await;
        assert_eq!(answer.code(), (422, "validation_error"), "{field}: {value}");
        assert_eq!(answer.pointers(), [format!("#/{field}")], "{value}");
    }
    assert!(shop.get("/products").await.ids("id").is_empty());
    let mut widest = product(category, (1 << 53) - 1, (1 << 53) - 1);
    (widest["name"], widest["description"], widest["currency_code"]) = (long(200), long(4_000), json!("EUR"));
    assert_eq!(shop.admin("POST", "/products", widest).await.status, 201);
}

#[tokio::test]
async fn a_change_touches_what_it_names_and_nothing_else() {
    let shop = Shop::open().await;
    let id = shop.product(10, 5).await;
    let path = format!("/products/{id}");
    let mut wanted = shop.get(&path).await.body;
    for (field, value) in
        [("name", json!("Green")), ("brand_name", json!("")), ("price", json!(0)), ("description", json!("x"))]
    {
        wanted[field] = value.clone();
        let answer = shop.admin("PUT", &path, json!({ field: value })).await;
        assert_eq!((answer.status, &answer.body), (200, &wanted), "{field}");
        assert_eq!(shop.get(&path).await.body, wanted, "what was changed is seen at once");
    }
    let other = shop.category().await;
    assert_eq!(shop.admin("PUT", &path, json!({ "category_id": other })).await.body["category_id"], other);
    assert_eq!(shop.admin("PUT", &path, json!({ "category_id": other + 1 })).await.pointers(), ["#/category_id"]);
    assert_eq!(shop.admin("PUT", &path, json!({ "inventory": 7 })).await.pointers(), ["#/inventory"]);
    assert_eq!(
        shop.admin("PUT", &format!("/products/{}", id + 1), json!({ "price": 1 })).await.code(),
        (404, "not_found")
    );
}

#[tokio::test]
async fn stock_changes_by_a_delta_with_a_reason_and_never_below_zero() {
    let shop = Shop::open().await;
    let id = shop.product(10, 5).await;
    let path = format!("/products/{id}");
    let change = |delta: i64| shop.admin("PUT", &path, json!({ "inventory_delta": delta, "reason": "count" }));
    assert_eq!(change(3).await.body["inventory"], 8);
    assert_eq!(change(-8).await.body["inventory"], 0);
    assert_eq!(change(-1).await.code(), (409, "conflict"));
    assert_eq!(change((1 << 53) - 1).await.status, 200);
    assert_eq!(change(1).await.code(), (409, "conflict"));
    assert_eq!(shop.admin("PUT", &path, json!({ "inventory_delta": 1 })).await.pointers(), ["#/reason"]);
    assert_eq!(shop.admin("PUT", &path, json!({ "reason": "why not" })).await.pointers(), ["#/inventory_delta"]);
    let both = json!({ "inventory_delta": -1, "reason": "broken", "category_id": 9 });
    assert_eq!(shop.admin("PUT", &path, both).await.status, 422);
    assert_eq!(shop.inventory(id).await, (1 << 53) - 1, "a refused change changes nothing");
    shop.check_stock().await;
}

#[tokio::test]
async fn deltas_of_two_admins_at_once_add_up() {
    let shop = Arc::new(Shop::open().await);
    let id = shop.product(10, 0).await;
    let changes: Vec<_> = (0..20)
        .map(|_| {
            let shop = shop.clone();
            tokio::spawn(async move {
                let body = json!({ "inventory_delta": 3, "reason": "delivery" });
                shop.admin("PUT", &format!("/products/{id}"), body).await.status
            })
        })
        .collect();
    for change in changes {
        assert_eq!(change.await.unwrap(), 200);
    }
    assert_eq!(shop.inventory(id).await, 60);
    shop.check_stock().await;
}

#[tokio::test]
async fn categories_can_be_read_changed_and_deleted_unless_they_are_used() {
    let shop = Shop::open().await;
    let (used, free) = (shop.category().await, shop.category().await);
    assert_eq!(shop.admin("POST", "/products", product(used, 1, 1)).await.status, 201);
    let path = format!("/categories/{free}");
    let changed = shop.admin("PUT", &path, json!({ "name": "Cups", "description": "of clay" })).await;
    assert_eq!((changed.status, changed.id()), (200, free));
    assert_eq!(shop.get(&path).await.body, json!({ "id": free, "name": "Cups", "description": "of clay" }));
    assert_eq!(shop.admin("PUT", &path, json!({ "name": "", "description": "" })).await.pointers(), ["#/name"]);
    let delete = |id: u64| {
        let path = format!("/categories/{id}");
        let router = shop.router.clone();
        async move { ask(&router, ADMIN, "DELETE", &path, None).await }
    };
    assert_eq!(delete(used).await.code(), (409, "conflict"));
    assert_eq!(delete(free).await.status, 204);
    assert_eq!(delete(free).await.code(), (404, "not_found"));
    assert_eq!(shop.get(&path).await.code(), (404, "not_found"));
    assert_eq!(shop.get("/categories").await.ids("id"), [used]);
}

#[tokio::test]
async fn g21_c10_forged_ids_are_not_found_and_those_that_exist_are_also_after_a_restart() {
    let shop = Shop::open().await;
    let mut known = Vec::new();
    for _ in 0..30 {
        known.push(shop.product(10, 1).await);
    }
    let shop = shop.restart().await;
    for id in &known {
        assert_eq!(shop.get(&format!("/products/{id}")).await.status, 200, "{id}");
    }
    for id in (1..500).map(|n| known[0] + 7_000 * n) {
        assert_eq!(shop.get(&format!("/products/{id}")).await.code(), (404, "not_found"), "{id}");
    }
    let fresh = shop.product(10, 1).await;
    assert_eq!(shop.get(&format!("/products/{fresh}")).await.status, 200);
}

#[tokio::test]
async fn a_list_can_be_narrowed_by_category_and_name_and_takes_no_orders_from_the_text() {
    let shop = Shop::open().await;
    let (tea, cups) = (shop.category().await, shop.category().await);
    for (category, name) in [(tea, "Green tea"), (tea, "Black TEA"), (cups, "Teacup"), (cups, "100% clay_cup")] {
        let mut body = product(category, 1, 1);
        body["name"] = json!(name);
        assert_eq!(shop.admin("POST", "/products", body).await.status, 201);
    }
    let names = |query: &'static str| {
        let shop = &shop;
        async move {
            let answer = shop.get(&format!("/products?{query}")).await;
            assert_eq!(answer.status, 200, "{query}: {answer:?}");
            let items = answer.body["items"].as_array().unwrap().clone();
            items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(names("q=tea").await, ["Green tea", "Black TEA", "Teacup"]);
    assert_eq!(names("q=CUP").await, ["Teacup", "100% clay_cup"]);
    assert_eq!(names("q=%25").await, ["100% clay_cup"], "a percent sign is a percent sign");
    assert_eq!(names("q=_").await, ["100% clay_cup"]);
    assert_eq!(names("q=").await.len(), 4);
    for text in ["%27%20or%20%271%27=%271", "%27;drop%20table%20product;--", "%22", "%5C", "%01"] {
        let answer = shop.get(&format!("/products?q={text}")).await;
        assert_eq!((answer.status, answer.ids("id").len()), (200, 0), "a14: {text}");
    }
    assert_eq!(shop.get(&format!("/products?category_id={cups}")).await.ids("id").len(), 2);
    assert_eq!(shop.get(&format!("/products?category_id={cups}&q=tea")).await.ids("id").len(), 1);
    for text in ["%00", &"a".repeat(101)] {
        assert_eq!(shop.get(&format!("/products?q={text}")).await.pointers(), ["#/q"], "{text}");
    }
}

#[tokio::test]
async fn a12_paging_shows_each_product_once_while_others_are_added() {
    let shop = Shop::open().await;
    let mut known = BTreeSet::new();
    for _ in 0..23 {
        known.insert(shop.product(10, 1).await);
    }
    let (mut seen, mut path) = (Vec::new(), "/products?limit=5".to_owned());
    loop {
        let page = shop.get(&path).await;
        let ids = page.ids("id");
        assert!(ids.len() <= 5 && !ids.is_empty());
        seen.extend(ids);
        let Some(token) = page.body["next_page_token"].as_str() else { break };
        path = format!("/products?limit=5&page_token={token}");
        if seen.len() == 10 {
            known.insert(shop.product(10, 1).await);
        }
    }
    assert_eq!(seen, known.into_iter().collect::<Vec<_>>());
    for query in ["limit=0", "limit=101", "page_token=nonsense", "page_token=IiI", "offset=1"] {
        assert_eq!(shop.get(&format!("/products?{query}")).await.code(), (422, "validation_error"), "{query}");
    }
}
