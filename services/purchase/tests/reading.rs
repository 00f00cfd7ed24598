//! Looking at purchases: own ones only, pages, versions, long polls.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod shop;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use purchase::Config;
use saga_runtime::SystemClock;
use serde_json::Value;

use shop::orchestrator::{completed, declined};
use shop::{ALICE, Answer, BOB, Script, Shop, quick, until, within};

async fn hold() -> Shop {
    Shop::with(quick(), Arc::new(SystemClock), Script::Hold).await
}

async fn if_none_match(shop: &Shop, path: &str, etag: &str) -> Answer {
    let request = Request::get(format!("/api/v1{path}")).header("if-none-match", etag);
    shop::answer(shop.send(ALICE, request, Body::empty()).await).await
}

#[tokio::test]
async fn a38_somebody_elses_purchase_is_not_there() {
    let shop = Shop::open().await;
    let id = shop.buy(ALICE).await;
    shop.until(id, "COMPLETED").await;
    for path in [format!("/purchases/{id}"), format!("/purchases/{id}?wait=30s"), format!("/purchases/{id}/events")] {
        let answer = shop.get(BOB, &path).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "not_found"), "{path}");
    }
    assert_eq!(shop.post(BOB, &format!("/purchases/{id}/cancel"), "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(shop.get(BOB, "/purchases").await.body["items"], Value::Array(vec![]));
    assert_eq!(shop.stat("waiting"), 0, "nothing is left behind");
}

#[tokio::test]
async fn a11_ids_of_every_wrong_shape_are_not_there() {
    let shop = Shop::open().await;
    for id in ["0", "-1", "01", "1.0", "1e3", "abc", "9007199254740992", "99999999999999999999", "%00", "%F0%9F%92%A9"]
    {
        for tail in ["", "/events"] {
            let answer = shop.get(ALICE, &format!("/purchases/{id}{tail}")).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "not_found"), "{id}{tail}");
        }
    }
}

#[tokio::test]
async fn a_version_that_is_known_is_not_sent_again() {
    let shop = hold().await;
    let id = shop.buy(ALICE).await;
    let path = format!("/purchases/{id}");
    let first = shop.get(ALICE, &path).await;
    let etag = first.header("etag").unwrap().to_owned();
    let same = if_none_match(&shop, &path, &etag).await;
    assert_eq!((same.status, same.header("etag")), (StatusCode::NOT_MODIFIED, Some(etag.as_str())));
    assert_eq!(same.body, Value::Null);
    shop.orchestrator.emit(id, &completed(id)[..1]).await;
    shop.until(id, "RUNNING").await;
    let changed = if_none_match(&shop, &path, &etag).await;
    assert_eq!(changed.status, StatusCode::OK);
    let etag = changed.header("etag").unwrap().to_owned();
    shop.post(ALICE, &format!("{path}/cancel"), "").await;
    assert_eq!(if_none_match(&shop, &path, &etag).await.status, StatusCode::OK, "a wish to cancel is a change");
}

#[tokio::test]
async fn a_long_poll_answers_with_the_end() {
    let shop = Arc::new(hold().await);
    let id = shop.buy(ALICE).await;
    let polling = tokio::spawn({
        let shop = Arc::clone(&shop);
        async move { shop.get(ALICE, &format!("/purchases/{id}?wait=30s")).await }
    });
    until("the poll to wait", || shop.stat("waiting") == 1).await;
    let events = completed(id);
    shop.orchestrator.emit(id, &events[..8]).await;
    shop.until(id, "RUNNING").await;
    assert!(!polling.is_finished());
    shop.orchestrator.emit(id, &events[8..]).await;
    let answer = polling.await.unwrap();
    assert_eq!(answer.body["status"], "COMPLETED");
    assert_eq!(shop.stat("waiting"), 0);
    // What has ended is answered at once.
    assert_eq!(shop.get(ALICE, &format!("/purchases/{id}?wait=30s")).await.body, answer.body);
}

#[tokio::test]
async fn a_long_poll_with_a_version_answers_with_the_next_one() {
    let shop = Arc::new(hold().await);
    let id = shop.buy(ALICE).await;
    let path = format!("/purchases/{id}?wait=30s");
    let etag = shop.get(ALICE, &format!("/purchases/{id}")).await.header("etag").unwrap().to_owned();
    let polling = tokio::spawn({
        let (shop, path, etag) = (Arc::clone(&shop), path.clone(), etag.clone());
        async move { if_none_match(&shop, &path, &etag).await }
    });
    until("the poll to wait", || shop.stat("waiting") == 1).await;
    shop.orchestrator.emit(id, &completed(id)[..1]).await;
    let answer = polling.await.unwrap();
    assert_eq!((answer.status, &answer.body["status"]), (StatusCode::OK, &Value::from("RUNNING")));
    assert_eq!(if_none_match(&shop, &path, &etag).await.status, StatusCode::OK, "changed already");
}

#[tokio::test]
async fn whoever_polls_with_a_version_is_told_what_was_held() {
    let shop = Arc::new(Shop::held().await);
    let (id, other) = (shop.buy(ALICE).await, shop.buy(BOB).await);
    let path = format!("/purchases/{id}?wait=30s");
    let etag = shop.get(ALICE, &format!("/purchases/{id}")).await.header("etag").unwrap().to_owned();
    shop.orchestrator.emit(id, &completed(id)[..1]).await;
    shop.orchestrator.emit(other, &completed(other)).await;
    until("the results have been heard", || shop.stat("completed") == 1).await;
    let answer = within("the answer", if_none_match(&shop, &path, &etag)).await;
    assert_eq!((answer.status, &answer.body["status"]), (StatusCode::OK, &Value::from("RUNNING")));
}

#[tokio::test]
async fn a_long_poll_has_an_end_of_its_own() {
    let clock = shop::HandClock::at(1_795_435_200_000);
    let shop = Arc::new(Shop::with(quick(), Arc::clone(&clock) as _, Script::Hold).await);
    let id = shop.buy(ALICE).await;
    // An hour is cut to thirty seconds.
    let polling = tokio::spawn({
        let shop = Arc::clone(&shop);
        async move { shop.get(ALICE, &format!("/purchases/{id}?wait=3600s")).await }
    });
    until("the poll to wait", || shop.stat("waiting") == 1).await;
    clock.advance(std::time::Duration::from_secs(29));
    assert_eq!(shop.stat("waiting"), 1);
    clock.advance(std::time::Duration::from_secs(1));
    let answer = polling.await.unwrap();
    assert_eq!((answer.status, &answer.body["status"]), (StatusCode::OK, &Value::from("PENDING")));
}

#[tokio::test]
async fn who_finds_too_many_waiting_is_told_to_come_back_and_counted() {
    let config = Config { max_streams: 1, ..quick() };
    let shop = Arc::new(Shop::with(config, Arc::new(SystemClock), Script::Hold).await);
    let id = shop.buy(ALICE).await;
    let polling = tokio::spawn({
        let shop = Arc::clone(&shop);
        async move { shop.get(ALICE, &format!("/purchases/{id}?wait=30s")).await }
    });
    until("the poll to wait", || shop.stat("waiting") == 1).await;
    let refused = shop.get(ALICE, &format!("/purchases/{id}?wait=30s")).await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &Value::from("overloaded")));
    assert_eq!(shop.stat("polls_refused"), 1);
    // Who does not want to wait is answered as ever.
    assert_eq!(shop.get(ALICE, &format!("/purchases/{id}")).await.status, StatusCode::OK);
    shop.orchestrator.emit(id, &completed(id)).await;
    assert_eq!(polling.await.unwrap().body["status"], "COMPLETED");
}

#[tokio::test]
async fn a_long_poll_ends_with_the_process() {
    let mut shop = hold().await;
    let id = shop.buy(ALICE).await;
    let (router, auth) = (shop.life().router.clone(), shop::tokens::bearer(ALICE, shop::tokens::NEVER));
    let request = Request::get(format!("/api/v1/purchases/{id}?wait=30s")).header("authorization", auth);
    let request = request.body(Body::empty()).unwrap();
    let polling = tokio::spawn(async move { chassis::http::oneshot(router, request).await.status() });
    until("the poll to wait", || shop.stat("waiting") == 1).await;
    shop.life().stop.cancel();
    assert_eq!(within("the poll to end", polling).await.unwrap(), StatusCode::OK);
    shop.stop().await;
}

#[tokio::test]
async fn odd_queries_are_refused() {
    let shop = Shop::open().await;
    let id = shop.buy(ALICE).await;
    let paths = [
        format!("/purchases/{id}?wait=forever"),
        format!("/purchases/{id}?wait=-1s"),
        format!("/purchases/{id}?wait={}", "9".repeat(30)),
        format!("/purchases/{id}?speed=1"),
        "/purchases?limit=0".to_owned(),
        "/purchases?limit=201".to_owned(),
        "/purchases?limit=ten".to_owned(),
        "/purchases?page_token=%21".to_owned(),
        "/purchases?page_token=bm9wZQ".to_owned(),
        "/purchases?customer_id=12".to_owned(),
        "/purchases/events?terminal=maybe".to_owned(),
    ];
    for path in paths {
        let answer = shop.get(ALICE, &path).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "validation_error"), "{path}");
    }
}

#[tokio::test]
async fn a12_pages_are_newest_first_without_gaps_or_repeats() {
    let shop = Shop::open().await;
    let mut bought = Vec::new();
    for _ in 0..7 {
        bought.push(shop.buy(ALICE).await);
        shop.buy(BOB).await;
    }
    bought.reverse();
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = shop.get(ALICE, &format!("/purchases?limit=3{token}")).await;
        let items = page.body["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["id"].as_u64().unwrap()));
        assert!(items.len() <= 3 && items[0]["links"]["self"].is_string() && items[0].get("steps").is_none());
        match page.body["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    assert_eq!(seen, bought);
}

#[tokio::test]
async fn g10_a_step_is_shown_as_done_only_after_it_reported_so() {
    let shop = hold().await;
    let id = shop.buy(ALICE).await;
    assert_eq!(shop.get(ALICE, &format!("/purchases/{id}")).await.body["steps"], Value::Array(vec![]));
    let events = declined(id);
    let mut etag = String::new();
    for count in 1..=events.len() {
        shop.orchestrator.emit(id, &events[count - 1..count]).await;
        let answer = within("the next version", async {
            loop {
                let answer = shop.get(ALICE, &format!("/purchases/{id}")).await;
                if answer.header("etag") != Some(&etag) && answer.header("etag") == Some(&format!("\"{count}\"")) {
                    return answer;
                }
            }
        });
        let answer = answer.await;
        etag = answer.header("etag").unwrap().to_owned();
        for step in answer.body["steps"].as_array().unwrap() {
            let last = events[..count].iter().rfind(|event| step["step"] == event.step.as_str()).unwrap();
            assert_eq!(step["status"], last.status.as_str());
        }
    }
}
