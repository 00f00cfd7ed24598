//! The admin routes over a real store, bus and loop: what an operator sees and can do.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use saga_adapters::inproc::InProcBus;
use saga_adapters::sqlite::dead_letters::{self, SqliteDeadLetters};
use saga_adapters::sqlite::saga_store::{self, SqliteSagaStore};
use saga_adapters::sqlite::{Db, Options};
use saga_core::protocol::{Command, Outcome, Reply, Start};
use saga_core::{Definition, Json, Name, Op, SagaKey};
use saga_runtime::{
    Bus as _, Definitions, LoopContext, LoopOptions, Participant, Stats, StoreError, SystemClock, run_participant, wire,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Does everything, but pays only when it is told that it may.
struct Desk {
    open: Arc<AtomicBool>,
}

#[async_trait]
impl Participant for Desk {
    fn group(&self) -> &str {
        "desk"
    }

    fn topics(&self) -> Vec<Name> {
        ["take", "give-back", "ship"].map(Name::new).to_vec()
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let closed = !self.open.load(Ordering::SeqCst);
        let answer = |command: &Command| match (command.step.as_str(), command.op) {
            ("take", Op::Do) if command.saga.id == 13 => Outcome::refused("unlucky", "not this one"),
            ("ship", Op::Do) if closed => Outcome::Retry("the desk is closed".into()),
            _ => Outcome::done(),
        };
        Ok(batch.iter().map(|command| command.reply(answer(command))).collect())
    }
}

struct World {
    router: axum::Router,
    bus: Arc<InProcBus>,
    open: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const DEFINITION: &str = "
saga: parcel
version: 1
retry: { initial: 1ms, max: 1ms, attempts: 2 }
steps:
  - { step: take, undo: give-back }
  - { step: ship, kind: retriable }
";

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let open_db = |name: &str, schema| Db::open(&folder.path().join(name), &schema, &Options::default()).unwrap();
    let letters = Arc::new(SqliteDeadLetters::new(open_db("bus.db", dead_letters::SCHEMA)));
    let store = Arc::new(SqliteSagaStore::new(open_db("orchestrator.db", saga_store::SCHEMA)));
    let definition = Definition::from_yaml(DEFINITION).unwrap();
    let bus = Arc::new(InProcBus::new(definition.topics(), 1_000, letters.clone()));
    let stop = CancellationToken::new();
    let context = LoopContext {
        bus: bus.clone(),
        clock: Arc::new(SystemClock),
        stop: stop.clone(),
        stats: Arc::new(Stats::default()),
        options: LoopOptions::default(),
    };
    let definitions = Arc::new(Definitions::new([definition]));
    let service = orchestrator::build(&orchestrator::Config::default(), context.clone(), store, letters, definitions);
    let open = Arc::new(AtomicBool::new(false));
    tokio::spawn(run_participant(context, Arc::new(Desk { open: open.clone() })));
    tokio::spawn(service.orchestrator.run());
    World { router: service.admin, bus, open, _folder: folder, stop }
}

impl World {
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn saga(&self, id: u64) -> Value {
        self.call("GET", &format!("/admin/sagas/{id}?definition=parcel"), None).await.1
    }

    /// Starts a saga (again and again: the groups may not have joined yet) until it stands where it should.
    async fn bring(&self, id: u64, status: &str) -> Value {
        let start = Start { saga: SagaKey::new("parcel", id), input: Json::of(&json!({ "weight": 3 })).unwrap() };
        let limit = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            self.bus.publish(vec![wire::start_message(&"parcel".into(), &start)]).await.unwrap();
            let saga = self.saga(id).await;
            if saga["status"] == status {
                return saga;
            }
            assert!(tokio::time::Instant::now() < limit, "saga {id} is {saga}, not {status}");
            tokio::task::yield_now().await;
        }
    }

    async fn verb(&self, id: u64, verb: &str, body: Value) -> (StatusCode, Value) {
        self.call("POST", &format!("/admin/sagas/{id}/{verb}?definition=parcel"), Some(body)).await
    }
}

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
