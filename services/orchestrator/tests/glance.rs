//! The shop at a glance, one saga whole, and what is on the topics, as an operator sees them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, missing_docs, dead_code, reason = "tests")]

mod desk;

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use desk::world;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use tower::ServiceExt as _;

#[tokio::test]
async fn a_saga_shows_its_steps_with_who_waited_and_who_worked() {
    let world = world().await;
    world.bring(7, "STUCK").await;
    let saga = world.saga(7).await;
    let [take, ship] = saga["steps"].as_array().unwrap().as_slice() else { panic!("{saga}") };
    assert_eq!((&take["name"], &take["kind"], &take["after"]), (&json!("take"), &json!("compensatable"), &json!([])));
    assert_eq!((&take["do"]["state"], &take["do"]["outcome"]), (&json!("DONE"), &json!("done")));
    assert!(take["do"]["run_ms"].is_u64() && take["do"]["queue_ms"].is_u64(), "{take}");
    assert_eq!((&take["undo"]["state"], &take["undo"]["topic"]), (&json!("WAITING"), &json!("give-back")));
    assert_eq!(
        (&ship["do"]["state"], &ship["do"]["attempts"], &ship["undo"]),
        (&json!("STUCK"), &json!(2), &Value::Null)
    );
    assert!(ship["do"]["detail"].as_str().unwrap().contains("the desk is closed"), "{ship}");
    assert_eq!((&saga["awaiting"], &saga["trace_id"]), (&json!("ship.do"), &Value::Null));
    let compensated = world.bring(13, "COMPENSATED").await;
    assert_eq!(compensated["steps"][0]["do"]["code"], "unlucky");
    assert_eq!(compensated["awaiting"], "");
}

#[tokio::test]
async fn a_saga_s_messages_are_those_that_were_on_the_topics() {
    let world = world().await;
    world.open.store(true, Ordering::SeqCst);
    // Whoever looks makes the bus keep what comes.
    let looked = world.call("GET", "/admin/topics/take/messages", None).await;
    assert_eq!((looked.0, &looked.1["items"]), (StatusCode::OK, &json!([])));
    assert!(looked.1["kept_since"].is_string());
    world.bring(7, "COMPLETED").await;
    let (status, told) = world.call("GET", "/admin/sagas/7/messages?definition=parcel", None).await;
    assert_eq!(status, StatusCode::OK);
    let told = told["items"].as_array().unwrap();
    let directions: Vec<_> = told.iter().map(|message| message["direction"].as_str().unwrap()).collect();
    assert_eq!(directions, ["result", "command", "reply", "result", "result", "command", "reply", "result", "result"]);
    for topic in ["take", "ship", "reply"] {
        let (_, seen) = world.call("GET", &format!("/admin/topics/{topic}/messages?key=7&partition=0"), None).await;
        let mut seen: Vec<&Value> = seen["items"].as_array().unwrap().iter().collect();
        seen.reverse();
        let ours: Vec<&Value> = told.iter().filter(|message| message["topic"] == topic).collect();
        assert!(!ours.is_empty() && seen.len() >= ours.len(), "{topic}: {seen:?}");
        // The first sendings; what came after are repetitions of a test that asks again and again.
        for (ours, seen) in ours.iter().zip(&seen) {
            for part in ["key", "payload"] {
                assert_eq!(ours[part], seen[part], "{topic}");
            }
            // A unit sends its commands some moments after it decided on them.
            let headers = |message: &Value| {
                let mut headers = message["headers"].as_object().unwrap().clone();
                assert_eq!(headers.remove("sent_at").is_some(), topic != "reply", "{message}");
                headers
            };
            assert_eq!(headers(ours), headers(seen), "{topic}");
            assert_eq!((&seen["encoding"], &seen["truncated"]), (&json!("text"), &json!(false)));
        }
    }
    let (_, topics) = world.call("GET", "/admin/topics/list", None).await;
    let names: Vec<_> = topics["items"].as_array().unwrap().iter().map(|t| t["topic"].as_str().unwrap()).collect();
    assert_eq!(names, ["give-back", "parcel", "parcel-result", "reply", "ship", "take"]);
    assert_eq!(world.call("GET", "/admin/topics/no-such/messages", None).await.0, StatusCode::NOT_FOUND);
    let (status, problem) = world.call("GET", "/admin/topics/take/messages?from=3", None).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("#/from")));
    assert_eq!(world.call("GET", "/admin/sagas/99/messages?definition=parcel", None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_shop_is_seen_at_a_glance() {
    let world = world().await;
    world.bring(7, "STUCK").await;
    world.bring(13, "COMPENSATED").await;
    let (status, overview) = world.call("GET", "/admin/overview", None).await;
    assert_eq!(
        (status, &overview["in_flight"], &overview["stuck"]),
        (StatusCode::OK, &json!(1), &json!(1)),
        "{overview}"
    );
    assert_eq!((&overview["version"], &overview["profile"]), (&json!("1.2.3"), &json!("embedded")));
    assert!(overview["latency_ms"]["p99"].is_u64() && overview["dead_letters"] == 0);
    assert_eq!(overview["rates"]["from"], "rows", "nobody has looked before");
    assert!(overview["rates"]["compensated"].as_f64().unwrap() > 0.0, "{overview}");
    let desk = &overview["participants"][0];
    assert_eq!((&desk["participant"], &desk["topics"]), (&json!("desk"), &json!(["give-back", "ship", "take"])));
    assert_eq!(desk["refusals"], 1, "{desk}");
    assert!(desk["attempts"].as_u64().unwrap() >= 4 && desk["last_reply_at"].is_string(), "{desk}");
    let (_, again) = world.call("GET", "/admin/overview", None).await;
    assert_eq!(again["as_of"], overview["as_of"], "put together once a second at most");
    let (_, participants) = world.call("GET", "/admin/participants", None).await;
    assert_eq!(participants["items"][0]["state"], "idle", "who is stuck waits for a human: {participants}");
}

/// The moment of the next overview on a stream.
async fn shown(stream: &mut axum::body::BodyDataStream) -> String {
    let next = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap().unwrap().unwrap();
    let text = String::from_utf8(next.to_vec()).unwrap();
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_else(|| panic!("{text}"));
    let overview: Value = serde_json::from_str(data).unwrap();
    assert_eq!(overview["profile"], "embedded");
    overview["as_of"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn readers_of_the_overview_s_stream_share_it_and_are_bounded() {
    let world = world().await;
    let open = || world.router.clone().oneshot(Request::get("/admin/overview/events").body(Body::empty()).unwrap());
    let mut streams = Vec::new();
    for _ in 0..100 {
        let answer = open().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        streams.push(answer.into_body().into_data_stream());
    }
    assert_eq!(open().await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    let mut moments = std::collections::BTreeSet::new();
    for stream in &mut streams {
        moments.insert(shown(stream).await);
    }
    assert!(moments.len() <= 3, "put together once for all: {moments:?}");
    // Whoever does not read is shown what is now, and nothing has been piled up meanwhile.
    let mut slow = streams.pop().unwrap();
    let mut latest = String::new();
    for _ in 0..3 {
        latest = shown(&mut streams[0]).await;
    }
    let late = shown(&mut slow).await;
    assert!(late >= latest, "{late} is older than {latest}");
    assert!(slow.next().now_or_never().is_none(), "the next one is a second away");
    drop(slow);
    drop(streams.pop());
    assert_eq!(open().await.unwrap().status(), StatusCode::OK, "whoever goes makes room");
}
