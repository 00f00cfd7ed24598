//! Redis holds only what can be rebuilt: whatever becomes of it, every answer is right, and comes in time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use saga::remote::{Connection, Endpoint};
use saga::up::roles::ServiceRole;
use serde_json::{Value, json};

use crate::city::City;
use crate::scrapes::{Seen, scrape};
use crate::servers::Servers;
use crate::town::{BodyJson as _, Person, created, eventually, product};
use crate::traffic::{Load, MIX, balanced, city_on};

/// Longer than a read takes when one operation on Redis has timed out.
const PROMPT: Duration = Duration::from_secs(2);

/// A shop, its administrator, and products that exist.
async fn shop(servers: &Servers) -> (City, Person, Vec<u64>) {
    let city = city_on(servers, 2, |_| {}).await;
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let category = json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&admin.post("/api/v1/categories", &category).await);
    let mut products = Vec::new();
    for price in 1..=20 {
        products.push(created(&admin.post("/api/v1/products", &product(category, price, 1_000)).await));
    }
    (city, admin, products)
}

/// Every product is there, with its price, whichever replica answers; and what does not exist does not.
async fn all_right(admin: &Person, products: &[u64]) {
    for (price, id) in (1..).zip(products) {
        for _ in 0..2 {
            let began = Instant::now();
            let answer = admin.get(&format!("/api/v1/products/{id}")).await;
            assert_eq!(answer.status, StatusCode::OK, "product {id}");
            assert_eq!(answer.body_json()["price"], Value::from(price));
            assert!(began.elapsed() < PROMPT, "an answer took {:?}", began.elapsed());
        }
    }
    assert_eq!(admin.get("/api/v1/products/12345").await.status, StatusCode::NOT_FOUND);
    assert_eq!(admin.get("/api/v1/account/customer/personal").await.status, StatusCode::OK);
}

/// What the product service says of its cache.
async fn cache_of(city: &City) -> String {
    let place = Person::at(&city.address(ServiceRole::Product, 0));
    let report = place.get("/readyz?verbose").await;
    assert_eq!(report.status, StatusCode::OK, "ready whatever becomes of Redis");
    String::from_utf8_lossy(&report.body).lines().find(|line| line.contains("cache")).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_c02_masters_die_and_hang_the_cluster_goes_and_comes_and_nobody_notices() {
    let servers = Servers::start();
    let (city, admin, products) = shop(&servers).await;
    all_right(&admin, &products).await;
    eventually("it tells how the cache is", || async { (!cache_of(&city).await.is_empty()).then_some(()) }).await;
    servers.stack(&["kill", "redis-0"]);
    all_right(&admin, &products).await;
    servers.stack(&["kill", "redis-1", "STOP"]);
    all_right(&admin, &products).await;
    for node in ["redis-2", "redis-3", "redis-4", "redis-5"] {
        servers.stack(&["kill", node]);
    }
    all_right(&admin, &products).await;
    Load::start(&city, &["--clients", "4", "--count", "60", "--mix", MIX]).end();
    servers.stack(&["kill", "redis-1", "CONT"]);
    for node in ["redis-0", "redis-2", "redis-3", "redis-4", "redis-5"] {
        servers.stack(&["start", node]);
    }
    all_right(&admin, &products).await;
    it_was_counted(&city).await;
    balanced(&city).await;
}

/// What became of Redis, as the product service's metrics tell it.
async fn it_was_counted(city: &City) {
    // Whoever reads is answered before the nodes are found again.
    eventually("what became of Redis is counted", || async {
        let mut seen = Seen::default();
        for replica in 0..2 {
            seen.add(&scrape(&city.admin("product", replica)).await);
        }
        let whole = ["saga_cache_server_failures_total", "saga_cache_server_reconnects_total", "saga_cache_server_up"];
        // Read without the lock while nobody had it.
        let locks = seen.has("saga_cache_locks_total", &["unavailable"]);
        (locks && whole.iter().all(|name| seen.has(name, &[]))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_a_filter_that_is_lost_denies_nothing_and_is_filled_again() {
    let servers = Servers::start();
    let (city, admin, products) = shop(&servers).await;
    servers.flush();
    all_right(&admin, &products).await;
    let filled = |replica| city.log(ServiceRole::Product, replica).matches("is filled").count();
    let before = filled(0) + filled(1);
    servers.flush();
    eventually("it is filled again", || async { (filled(0) + filled(1) > before).then_some(()) }).await;
    all_right(&admin, &products).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_changes_another_shows() {
    let (city, admin, products) = shop(Servers::shared()).await;
    let id = products[0];
    let mary = Person::at(&city.public()).register("mary@example.com").await;
    for price in [100, 200, 300] {
        let changed = admin.put(&format!("/api/v1/products/{id}"), &json!({ "price": price })).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", String::from_utf8_lossy(&changed.body));
        // Quotes are a second old at most; the step that takes the stock would refuse an old one.
        eventually("a purchase at the new price", || async {
            let bought = mary.buy(&[(id, 1)]).await;
            let ended = mary.ended(bought).await;
            (ended["status"] == "COMPLETED" && ended["amount"] == price).then_some(())
        })
        .await;
    }
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_a_price_whose_change_the_cache_was_not_told_of_is_shown_for_its_time_and_never_charged() {
    /// How old a quote may be: `product.cache_ms`.
    const AGE: Duration = Duration::from_secs(10);
    let age = u64::try_from(AGE.as_millis()).unwrap();
    let mut city = city_on(Servers::shared(), 1, |config| config.product.cache_ms = age).await;
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let category = json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&admin.post("/api/v1/categories", &category).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 1_000)).await);
    city.kill(ServiceRole::Product, 0);
    city.start_to_die(ServiceRole::Product, 0, "changed");
    city.ready().await;
    assert_eq!(admin.ended(admin.buy(&[(cup, 1)]).await).await["status"], "COMPLETED");
    let changed = Instant::now();
    // Past the edge, so that the end of the connection is seen.
    let mut connection = Connection::new(&Endpoint::parse(&city.address(ServiceRole::Product, 0)).unwrap());
    let (path, body) = (format!("/api/v1/products/{cup}"), Bytes::from_static(br#"{"price":99}"#));
    let lost = connection.send_with(Method::PUT, &path, admin.bearer().as_ref(), &[], body).await;
    assert!(lost.is_err() && city.dies(ServiceRole::Product, 0, Duration::from_secs(1)).await);
    assert_eq!(city.sql("product", &format!("select price from product where id = {cup}")), "99", "it was committed");
    city.start(ServiceRole::Product, 0);
    city.ready().await;
    let mut stale = 0;
    loop {
        let ended = admin.ended(admin.buy(&[(cup, 1)]).await).await;
        if ended["status"] == "COMPLETED" {
            assert_eq!(ended["amount"], 99, "never at the old price");
            break;
        }
        assert_eq!((&ended["amount"], &ended["reason"]["code"]), (&json!(10), &json!("price_changed")));
        assert!(changed.elapsed() < AGE + PROMPT, "it is still shown after {:?}", changed.elapsed());
        stale += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(stale > 0, "the cache was not told, and showed the old one");
    // The next change is told, and nothing older comes back.
    assert_eq!(admin.put(&format!("/api/v1/products/{cup}"), &json!({ "price": 70 })).await.status, StatusCode::OK);
    let ended = admin.ended(admin.buy(&[(cup, 1)]).await).await;
    assert_eq!((&ended["status"], &ended["amount"]), (&json!("COMPLETED"), &json!(70)));
    assert_eq!(balanced(&city).await["completed"], 3);
}
