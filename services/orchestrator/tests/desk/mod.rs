//! An orchestrator and one participant, over a real store and bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use saga_adapters::inproc::InProcBus;
use saga_adapters::sqlite::audit_log::SqliteAuditLog;
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
    busy: Arc<AtomicU32>,
}

/// The saga that no handler survives.
pub const CURSED: u64 = 99;

#[async_trait]
impl Participant for Desk {
    fn group(&self) -> &str {
        "desk"
    }

    fn topics(&self) -> Vec<Name> {
        ["take", "give-back", "ship"].map(Name::new).to_vec()
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let busy = |left: u32| left.checked_sub(1);
        if self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, busy).is_ok() {
            return Err(StoreError::Transient("the database is busy".into()));
        }
        assert!(batch.iter().all(|command| command.saga.id != CURSED), "a bug, on purpose");
        let closed = !self.open.load(Ordering::SeqCst);
        let answer = |command: &Command| match (command.step.as_str(), command.op) {
            ("take", Op::Do) if command.saga.id == 13 => Outcome::refused("unlucky", "not this one"),
            ("ship", Op::Do) if closed => Outcome::Retry("the desk is closed".into()),
            _ => Outcome::done(),
        };
        Ok(batch.iter().map(|command| command.reply(answer(command))).collect())
    }
}

pub struct World {
    pub router: axum::Router,
    pub bus: Arc<InProcBus>,
    /// Whether parcels are shipped; before that the answer is *retry*.
    pub open: Arc<AtomicBool>,
    /// How often the desk's database will still be busy.
    pub busy: Arc<AtomicU32>,
    /// Who did what.
    pub audit: Arc<SqliteAuditLog>,
    /// What the loops counted.
    pub stats: Arc<Stats>,
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

pub async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let open_db = |name: &str, schema| Db::open(&folder.path().join(name), &schema, &Options::default()).unwrap();
    let letters = Arc::new(SqliteDeadLetters::new(open_db("bus.db", dead_letters::SCHEMA)));
    let rows = open_db("orchestrator.db", saga_store::SCHEMA);
    let audit = Arc::new(SqliteAuditLog::new(rows.clone()));
    let store = Arc::new(SqliteSagaStore::new(rows));
    let definition = Definition::from_yaml(DEFINITION).unwrap();
    let bus = Arc::new(InProcBus::observable(definition.topics(), 1_000, letters.clone(), Arc::new(SystemClock)));
    let stop = CancellationToken::new();
    let definitions = Arc::new(Definitions::new([definition]));
    let stats = Arc::new(Stats::of(&definitions));
    let context = LoopContext {
        bus: bus.clone(),
        clock: Arc::new(SystemClock),
        stop: stop.clone(),
        stats: stats.clone(),
        options: LoopOptions::default(),
        tracer: saga_runtime::trace::Tracer::default(),
    };
    let stores = orchestrator::Stores { sagas: store, dead_letters: letters, audit: audit.clone() };
    let about = orchestrator::About { version: "1.2.3", profile: "embedded", ..Default::default() };
    let service = orchestrator::build(&orchestrator::Config::default(), context.clone(), stores, definitions, about);
    let open = Arc::new(AtomicBool::new(false));
    let busy = Arc::new(AtomicU32::new(0));
    tokio::spawn(run_participant(context, Arc::new(Desk { open: open.clone(), busy: busy.clone() })));
    tokio::spawn(service.orchestrator.run());
    let world = World { router: service.admin, bus, open, busy, audit, stats, _folder: folder, stop };
    // The verbs answer 503 until the loops have joined their group.
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while world.verb(u64::MAX >> 11, "cancel", json!({ "reason": "is anybody there" })).await.0 != StatusCode::NOT_FOUND
    {
        assert!(tokio::time::Instant::now() < limit, "the orchestrator's loops have not joined");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world
}

impl World {
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn saga(&self, id: u64) -> Value {
        self.call("GET", &format!("/admin/sagas/{id}?definition=parcel"), None).await.1
    }

    /// Starts a saga (again and again: the groups may not have joined yet) until it stands where it should.
    pub async fn bring(&self, id: u64, status: &str) -> Value {
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

    pub async fn verb(&self, id: u64, verb: &str, body: Value) -> (StatusCode, Value) {
        self.call("POST", &format!("/admin/sagas/{id}/{verb}?definition=parcel"), Some(body)).await
    }
}
