//! What operators order, and what is written down about it: roles aside (the door's), every route that changes something.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, missing_docs, dead_code, reason = "tests")]

mod desk;

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use desk::{World, world};
use saga_runtime::audit::{AuditFilter, AuditLog as _};
use serde_json::{Value, json};

/// (action, target, outcome) of every line, oldest first, without those of [`World`]'s own beginning.
async fn lines(world: &World) -> Vec<(String, String, String)> {
    let all = world.audit.list(AuditFilter { limit: 1_000, ..AuditFilter::default() }).await.unwrap();
    let ours = all.into_iter().rev().filter(|line| line.entry.reason != "is anybody there");
    ours.map(|line| (line.entry.action, line.entry.target, line.outcome)).collect()
}

fn line(action: &str, target: &str, outcome: &str) -> (String, String, String) {
    (action.to_owned(), target.to_owned(), outcome.to_owned())
}

#[tokio::test]
async fn of_two_operators_who_click_at_once_one_is_obeyed_and_both_are_written_down() {
    let world = world().await;
    let saga = world.bring(7, "STUCK").await;
    world.open.store(true, Ordering::SeqCst);
    let body = json!({ "reason": "the desk is open again", "version": saga["version"] });
    let (one, two) = tokio::join!(world.verb(7, "retry", body.clone()), world.verb(7, "retry", body));
    let mut statuses = [one.0, two.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::CONFLICT], "{} {}", one.1, two.1);
    let done = world.bring(7, "COMPLETED").await;
    assert_eq!(done["text"].as_str().unwrap().matches("retried by").count(), 1, "one effect: {done}");
    let mut written = lines(&world).await;
    written.sort_unstable();
    let target = "parcel/7";
    assert_eq!(written, [line("saga.retry", target, "done"), line("saga.retry", target, "refused: conflict")]);
}

#[tokio::test]
async fn every_lawful_order_leaves_one_line_and_unlawful_ones_none() {
    let world = world().await;
    world.bring(1, "STUCK").await;
    let reason = || json!({ "reason": "to see" });
    assert_eq!(world.verb(1, "skip", reason()).await.0, StatusCode::OK);
    assert_eq!(world.verb(99, "cancel", reason()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.verb(1, "cancel", json!({})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.verb(1, "explode", reason()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.verb(1, "resolve", reason()).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let letters = |verb: &str| format!("/admin/dlq/parcel/{verb}");
    assert_eq!(world.call("POST", &letters("redrive"), Some(reason())).await.1["redriven"], 0);
    assert_eq!(world.call("POST", &letters("purge"), Some(reason())).await.1["purged"], 0);
    assert_eq!(world.call("POST", &letters("purge"), Some(json!({}))).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let expected = [
        line("saga.skip", "parcel/1", "done"),
        line("saga.cancel", "parcel/99", "refused: not_found"),
        line("dlq.redrive", "parcel", "done"),
        line("dlq.purge", "parcel", "done"),
    ];
    assert_eq!(lines(&world).await, expected);
}

#[tokio::test]
async fn a_bulk_order_is_looked_at_first_then_given_and_leaves_one_line() {
    let world = world().await;
    for id in [1, 2, 3] {
        world.bring(id, "STUCK").await;
    }
    world.bring(13, "COMPENSATED").await;
    world.open.store(true, Ordering::SeqCst);
    let order = |more: Value| {
        let mut body =
            json!({ "verb": "retry", "filter": { "state": "STUCK", "definition": "parcel" }, "reason": "open" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.call("POST", "/admin/sagas/bulk", Some(body))
    };
    // Without a word it is a dry run.
    for dry in [json!({}), json!({ "dry_run": true, "expect_count": 9 })] {
        let (status, answer) = order(dry).await;
        assert_eq!((status, &answer["matched"]), (StatusCode::OK, &json!(3)), "{answer}");
        assert_eq!(answer["sample"][0]["id"], 3, "those that started last first");
        assert_eq!(answer["filter"], json!({ "state": "STUCK", "definition": "parcel" }));
    }
    assert_eq!(lines(&world).await, []);
    let (status, problem) = order(json!({ "dry_run": false })).await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("#/expect_count"))
    );
    let (status, problem) = order(json!({ "dry_run": false, "expect_count": 2 })).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().unwrap().contains("3 sagas match now, not 2"), "{problem}");
    let (status, answer) = order(json!({ "dry_run": false, "expect_count": 3 })).await;
    assert_eq!((status, &answer["applied"], &answer["refused"]), (StatusCode::OK, &json!(3), &json!([])), "{answer}");
    for id in [1, 2, 3] {
        let done = world.bring(id, "COMPLETED").await;
        assert!(done["text"].as_str().unwrap().contains("retried by operator: open"), "{done}");
    }
    let bulk = |outcome| line("sagas.bulk", "retry", outcome);
    assert_eq!(lines(&world).await, [bulk("refused: conflict"), bulk("done")]);
    let last = world.audit.list(AuditFilter { limit: 1, ..AuditFilter::default() }).await.unwrap().remove(0);
    let details: Value = serde_json::from_str(&last.entry.details).unwrap();
    assert_eq!((&details["applied"], &details["filter"]["state"]), (&json!(3), &json!("STUCK")));
}

#[tokio::test]
async fn a_bulk_order_tells_who_refused_and_why() {
    let world = world().await;
    world.bring(1, "STUCK").await;
    world.bring(2, "STUCK").await;
    let order = json!({
        "verb": "cancel", "filter": { "ids": [1, 2, 99] }, "reason": "too late", "dry_run": false, "expect_count": 2,
    });
    // Shipping has no way back.
    let (status, answer) = world.call("POST", "/admin/sagas/bulk", Some(order)).await;
    assert_eq!(
        (status, &answer["applied"], &answer["refused_count"]),
        (StatusCode::OK, &json!(0), &json!(2)),
        "{answer}"
    );
    assert_eq!(answer["refused"][0]["code"], "conflict");
    assert!(answer["refused"][0]["detail"].as_str().unwrap().contains("too late"), "{answer}");
    assert_eq!(world.saga(1).await["status"], "STUCK");
}

#[tokio::test]
async fn bulk_orders_to_everything_or_to_what_has_ended_are_refused() {
    let world = world().await;
    for (filter, more, pointer) in [
        (json!({}), json!({}), "#/filter"),
        (json!({ "state": "COMPLETED" }), json!({}), "#/filter/state"),
        (json!({ "state": ["STUCK", "COMPENSATED"] }), json!({}), "#/filter/state"),
        (json!({ "state": "ASLEEP" }), json!({}), "#/filter/state"),
        (json!({ "started_after": "yesterday" }), json!({}), "#/filter/started_after"),
        (json!({ "ids": [] }), json!({}), "#/filter/ids"),
        (json!({ "colour": "red" }), json!({}), "#/filter/colour"),
        (json!({ "step": "ship" }), json!({ "verb": "explode" }), "#/verb"),
        (json!({ "step": "ship" }), json!({ "verb": "resolve" }), "#/status"),
        (json!({ "step": "ship" }), json!({ "status": "COMPLETED" }), "#/status"),
        (json!({ "step": "ship" }), json!({ "verb": "resolve", "status": "RUNNING" }), "#/status"),
        (json!({ "step": "ship" }), json!({ "reason": "" }), "#/reason"),
    ] {
        let mut body = json!({ "verb": "retry", "filter": filter, "reason": "to see" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, problem) = world.call("POST", "/admin/sagas/bulk", Some(body.clone())).await;
        let found = &problem["errors"][0]["pointer"];
        assert_eq!((status, found), (StatusCode::UNPROCESSABLE_ENTITY, &json!(pointer)), "{body}: {problem}");
    }
    assert_eq!(lines(&world).await, []);
}

#[tokio::test]
async fn sagas_are_counted_by_definition_and_state() {
    let world = world().await;
    world.bring(1, "STUCK").await;
    world.bring(2, "STUCK").await;
    world.bring(13, "COMPENSATED").await;
    let (status, counts) = world.call("GET", "/admin/sagas/counts", None).await;
    let expected = json!([
        { "definition": "parcel", "status": "STUCK", "count": 2 },
        { "definition": "parcel", "status": "COMPENSATED", "count": 1 },
    ]);
    assert_eq!((status, &counts["items"]), (StatusCode::OK, &expected), "{counts}");
    assert_eq!((&counts["in_flight"], &counts["stuck"]), (&json!(2), &json!(2)));
    assert_eq!(counts["oldest_in_flight_at"], world.saga(1).await["started_at"]);
    let (_, other) = world.call("GET", "/admin/sagas/counts?definition=refund", None).await;
    assert_eq!((&other["items"], &other["in_flight"]), (&json!([]), &json!(0)));
    let (_, ended) = world.call("GET", "/admin/sagas/counts?state=COMPENSATED", None).await;
    assert_eq!(ended["items"].as_array().unwrap().len(), 1);
    let (status, problem) = world.call("GET", "/admin/sagas/counts?state=ASLEEP", None).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("#/state")));
}

#[tokio::test]
async fn wrong_filters_and_forged_page_tokens_are_named() {
    let world = world().await;
    for (query, pointer) in [
        ("started_after=yesterday", "#/started_after"),
        ("started_before=2026-13-01T00:00:00Z", "#/started_before"),
        ("older_than=-1", "#/older_than"),
        ("q=seven", "#/q"),
        ("limit=0", "#/limit"),
        ("limit=501", "#/limit"),
        // A number, an array of the wrong things, somebody else's token, no base64.
        ("page_token=Nw", "#/page_token"),
        ("page_token=WzEsMl0", "#/page_token"),
        ("page_token=eyJpZCI6N30", "#/page_token"),
        ("page_token=%21%21", "#/page_token"),
    ] {
        let (status, problem) = world.call("GET", &format!("/admin/sagas?{query}"), None).await;
        let found = &problem["errors"][0]["pointer"];
        assert_eq!((status, found), (StatusCode::UNPROCESSABLE_ENTITY, &json!(pointer)), "{query}: {problem}");
    }
    let (status, problem) = world.call("GET", "/admin/dlq/parcel?page_token=bm8", None).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("#/page_token")));
    world.bring(13, "COMPENSATED").await;
    let started = world.saga(13).await["started_at"].as_str().unwrap().to_owned();
    let count = |query: String| {
        let world = &world;
        async move { world.call("GET", &format!("/admin/sagas?{query}"), None).await.1["items"].as_array().unwrap().len() }
    };
    assert_eq!(count(format!("started_after={started}")).await, 1);
    assert_eq!(count(format!("started_before={started}")).await, 0);
    assert_eq!(count("started_before=2100-01-01T00:00:00Z&state=COMPENSATED&q=13".to_owned()).await, 1);
}
