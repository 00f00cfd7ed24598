//! What operators order, and what is written down about it: roles aside (the door's), every route that changes something.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, missing_docs, dead_code, reason = "tests")]

mod desk;

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use desk::{World, world};
use saga_runtime::Bus as _;
use saga_runtime::audit::{AuditFilter, AuditLog as _};
use saga_runtime::bus::Message;
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
async fn of_two_operators_who_click_at_once_one_is_obeyed_and_written_down() {
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
    // Nor does one who comes when all is over leave a line.
    let late = world.verb(7, "cancel", json!({ "reason": "too late" })).await;
    assert_eq!(late.0, StatusCode::CONFLICT, "{}", late.1);
    assert_eq!(lines(&world).await, [line("saga.retry", "parcel/7", "done")]);
}

#[tokio::test]
async fn every_order_that_changes_something_leaves_one_line_and_others_none() {
    let world = world().await;
    world.bring(1, "STUCK").await;
    let reason = || json!({ "reason": "to see" });
    assert_eq!(world.verb(1, "skip", reason()).await.0, StatusCode::OK);
    // Refused: nothing was changed.
    world.bring(2, "STUCK").await;
    assert_eq!(world.verb(2, "cancel", reason()).await.0, StatusCode::CONFLICT);
    assert_eq!(world.verb(99, "cancel", reason()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.verb(2, "skip", json!({ "reason": " \t" })).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.verb(1, "cancel", json!({})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.verb(1, "explode", reason()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.verb(1, "resolve", reason()).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let letters = |verb: &str| format!("/admin/dlq/parcel/{verb}");
    assert_eq!(world.call("POST", &letters("redrive"), Some(reason())).await.1["redriven"], 0);
    assert_eq!(world.call("POST", &letters("purge"), Some(reason())).await.1["purged"], 0);
    assert_eq!(world.call("POST", &letters("purge"), Some(json!({}))).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(lines(&world).await, [line("saga.skip", "parcel/1", "done")]);
}

/// Nobody says which version they looked at: the first is obeyed, and the second told that there is nothing to do.
#[tokio::test]
async fn of_two_orders_without_a_version_one_is_obeyed_and_written_down() {
    let world = world().await;
    let reason = || json!({ "reason": "to see" });
    let resolve = json!({ "reason": "to see", "status": "COMPENSATED" });
    for (id, verb, body) in [(1, "skip", reason()), (2, "resolve", resolve), (3, "retry", reason())] {
        world.bring(id, "STUCK").await;
        world.open.store(true, Ordering::SeqCst);
        let (one, two) = tokio::join!(world.verb(id, verb, body.clone()), world.verb(id, verb, body.clone()));
        let mut statuses = [one.0, two.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [StatusCode::OK, StatusCode::CONFLICT], "{verb}: {} {}", one.1, two.1);
        let late = world.verb(id, verb, body).await;
        assert_eq!(late.0, StatusCode::CONFLICT, "{verb}: {}", late.1);
        world.open.store(false, Ordering::SeqCst);
        let target = format!("parcel/{id}");
        let ours: Vec<_> = lines(&world).await.into_iter().filter(|(_, to, _)| *to == target).collect();
        assert_eq!(ours, [line(&format!("saga.{verb}"), &target, "done")]);
    }
}

#[tokio::test]
async fn letters_that_somebody_has_dealt_with_leave_no_second_line() {
    let world = world().await;
    let buried = async || {
        world.bus.publish(vec![garbage()]).await.unwrap();
        let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let (_, letters) = world.call("GET", "/admin/dlq/parcel", None).await;
            if let Some(id) = letters["items"][0]["id"].as_u64() {
                return id;
            }
            assert!(tokio::time::Instant::now() < limit, "nothing was set aside");
            tokio::task::yield_now().await;
        }
    };
    for verb in ["purge", "redrive"] {
        // Sent again it is set aside again: as another letter.
        let body = json!({ "reason": "to see", "ids": [buried().await] });
        let path = format!("/admin/dlq/parcel/{verb}");
        let order = || world.call("POST", &path, Some(body.clone()));
        let (one, two) = tokio::join!(order(), order());
        let counted = |answer: &Value| answer.as_object().unwrap().values().next().unwrap().as_u64().unwrap();
        assert_eq!((one.0, two.0), (StatusCode::OK, StatusCode::OK), "{} {}", one.1, two.1);
        assert_eq!(counted(&one.1) + counted(&two.1), 1, "one of them did it: {} {}", one.1, two.1);
    }
    assert_eq!(lines(&world).await, [line("dlq.purge", "parcel", "done"), line("dlq.redrive", "parcel", "done")]);
}

/// A record that is no message of ours.
fn garbage() -> Message {
    Message { topic: "parcel".into(), key: "7".into(), headers: Vec::new().into(), payload: "?".into() }
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
    // Whoever looked at two sees three: nothing came of that. The same order once more finds nothing left to do.
    assert_eq!(order(json!({ "dry_run": false, "expect_count": 3 })).await.0, StatusCode::CONFLICT);
    assert_eq!(lines(&world).await, [bulk("done")]);
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
