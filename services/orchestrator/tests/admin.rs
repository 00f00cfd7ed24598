//! The admin routes over a real store, bus and loop: what an operator sees and can do.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, missing_docs, dead_code, reason = "tests")]

mod desk;

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use desk::world;
use saga_core::protocol::Start;
use saga_core::{Json, SagaKey};
use saga_runtime::{Bus as _, wire};
use serde_json::json;
use tower::ServiceExt as _;

#[tokio::test]
async fn a_stuck_saga_is_listed_and_goes_on_when_it_is_retried() {
    let world = world().await;
    let saga = world.bring(7, "STUCK").await;
    let (status, page) = world.call("GET", "/admin/sagas?state=STUCK&definition=parcel&step=ship", None).await;
    assert_eq!((status, &page["items"][0]["id"]), (StatusCode::OK, &json!(7)));

    let stale = world.verb(7, "retry", json!({ "reason": "the desk is open again", "version": 1 })).await;
    assert_eq!((stale.0, &stale.1["code"]), (StatusCode::CONFLICT, &json!("conflict")));

    world.open.store(true, Ordering::SeqCst);
    let body = json!({ "reason": "the desk is open again", "version": saga["version"] });
    assert_eq!(world.verb(7, "retry", body.clone()).await.0, StatusCode::OK);
    let done = world.bring(7, "COMPLETED").await;
    assert!(done["text"].as_str().unwrap().contains("retried by operator: the desk is open again"), "{done}");
    // A double click: one effect, a clear answer.
    assert_eq!(world.verb(7, "retry", body).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn an_operator_sees_what_waits_for_whom() {
    let world = world().await;
    world.bring(7, "STUCK").await;
    let (status, page) = world.call("GET", "/admin/topics", None).await;
    let groups = page["items"].as_array().unwrap();
    let ours = groups.iter().find(|group| group["group"] == "orchestrator").unwrap();
    let topics: Vec<_> =
        ours["places"].as_array().unwrap().iter().map(|place| place["topic"].as_str().unwrap()).collect();
    assert_eq!((status, topics), (StatusCode::OK, vec!["parcel", "reply"]), "{page}");
    assert!(ours["waiting"].is_u64());
}

#[tokio::test]
async fn a_stuck_step_can_be_skipped_and_a_stuck_saga_resolved() {
    let world = world().await;
    world.bring(1, "STUCK").await;
    assert_eq!(world.verb(1, "skip", json!({ "reason": "shipped by hand" })).await.1["status"], "COMPLETED");
    world.bring(2, "STUCK").await;
    let no_status = world.verb(2, "resolve", json!({ "reason": "lost" })).await;
    assert_eq!(no_status.1["errors"][0]["pointer"], "#/status");
    let open_end = world.verb(2, "resolve", json!({ "reason": "lost", "status": "RUNNING" })).await;
    assert_eq!(open_end.0, StatusCode::UNPROCESSABLE_ENTITY);
    let resolved = world.verb(2, "resolve", json!({ "reason": "lost", "status": "COMPENSATED" })).await;
    assert_eq!(resolved.1["status"], "COMPENSATED");
}

#[tokio::test]
async fn wrong_requests_get_a_problem_that_names_the_field() {
    let world = world().await;
    let (status, problem) = world.call("GET", "/admin/sagas?state=ASLEEP", None).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("#/state")));
    assert_eq!(world.call("GET", "/admin/sagas?page_token=nonsense", None).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.call("GET", "/admin/sagas?colour=red", None).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.call("GET", "/admin/sagas/99", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.call("GET", "/admin/sagas/abc", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.verb(99, "cancel", json!({ "reason": "x" })).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.verb(99, "cancel", json!({})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.verb(99, "explode", json!({ "reason": "x" })).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let world = world().await;
    world.open.store(true, Ordering::SeqCst);
    for id in [1, 2, 3, 13] {
        world.bring(id, if id == 13 { "COMPENSATED" } else { "COMPLETED" }).await;
    }
    let (mut ids, mut token) = (vec![], String::new());
    loop {
        let (_, page) = world.call("GET", &format!("/admin/sagas?limit=3{token}"), None).await;
        ids.extend(page["items"].as_array().unwrap().iter().map(|saga| saga["id"].as_u64().unwrap()));
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    assert_eq!(ids, [13, 3, 2, 1]);
    let watched = world
        .router
        .clone()
        .oneshot(Request::get("/admin/sagas/13/events?definition=parcel").body(Body::empty()).unwrap());
    let stream = to_bytes(watched.await.unwrap().into_body(), 1 << 20).await.unwrap();
    let stream = String::from_utf8(stream.to_vec()).unwrap();
    assert!(stream.contains("refused, unlucky") && stream.contains("COMPENSATED"), "{stream}");
}

#[tokio::test]
async fn m07_poison_becomes_a_dead_letter_that_can_be_shown_and_redriven() {
    let world = world().await;
    world.bring(1, "STUCK").await;
    let mut poison =
        wire::start_message(&"parcel".into(), &Start { saga: SagaKey::new("parcel", 5), input: Json::null() });
    poison.payload = "{ not json".into();
    world.bus.publish(vec![poison]).await.unwrap();
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    let letter = loop {
        let (_, page) = world.call("GET", "/admin/dlq/parcel", None).await;
        if let Some(letter) = page["items"].get(0) {
            break letter.clone();
        }
        assert!(tokio::time::Instant::now() < limit);
        tokio::task::yield_now().await;
    };
    assert!(letter["reason"].as_str().unwrap().contains("saga.start.v1"), "{letter}");
    let (_, redriven) =
        world.call("POST", "/admin/dlq/parcel/redrive", Some(json!({ "reason": "try", "ids": [letter["id"]] }))).await;
    assert_eq!(redriven["redriven"], 1);
    assert_eq!(
        world.call("POST", "/admin/dlq/parcel/purge", Some(json!({}))).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
}
