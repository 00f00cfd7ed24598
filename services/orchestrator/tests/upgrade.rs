//! An upgrade finds sagas parked at every step: they end under the definition that they began with (d14).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use saga_adapters::inproc::InProcBus;
use saga_adapters::sqlite::audit_log::SqliteAuditLog;
use saga_adapters::sqlite::dead_letters::{self, SqliteDeadLetters};
use saga_adapters::sqlite::saga_store::{self, SqliteSagaStore};
use saga_adapters::sqlite::{Db, Options};
use saga_core::protocol::{Command, Outcome, Reply, Start};
use saga_core::{Definition, Json, Name, Op, SagaKey};
use saga_runtime::orchestrator::OrchestratorError;
use saga_runtime::store::{SagaFilter, SagaRow, SagaStore as _};
use saga_runtime::{
    Bus as _, Definitions, LoopContext, LoopOptions, Participant, Stats, StoreError, SystemClock, run_participant, wire,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const V1: &str = "
saga: trip
version: 1
retry: { initial: 1ms, max: 5ms }
undo_retry: { initial: 1ms, max: 5ms }
steps:
  - { step: fly, undo: no-fly }
  - { step: sleep, undo: no-sleep }
  - { step: pay, kind: pivot }
  - { step: tell, kind: retriable }
";

/// Without one of the old steps, with one more, and in another order.
const V2: &str = "
saga: trip
version: 2
retry: { initial: 1ms, max: 5ms }
steps:
  - { step: sleep, undo: no-sleep }
  - { step: insure, undo: no-insure }
  - { step: pay, kind: pivot }
  - { step: tell, kind: retriable }
";

/// By saga: the step at which it is parked. The last two are parked on their way back.
const PARKED: [(u64, &str, Op); 6] = [
    (1, "fly", Op::Do),
    (2, "sleep", Op::Do),
    (3, "pay", Op::Do),
    (4, "tell", Op::Do),
    (5, "sleep", Op::Undo),
    (6, "fly", Op::Undo),
];

/// Keeps each parked saga where it is until it is told to go on.
struct Agency(Arc<AtomicBool>);

#[async_trait]
impl Participant for Agency {
    fn group(&self) -> &str {
        "agency"
    }

    fn topics(&self) -> Vec<Name> {
        let topics = ["fly", "no-fly", "sleep", "no-sleep", "insure", "no-insure", "pay", "tell"];
        topics.map(Name::new).to_vec()
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let goes_on = self.0.load(Ordering::SeqCst);
        let answer = |command: &Command| {
            let (id, step, op) = (command.saga.id, command.step.as_str(), command.op);
            if !goes_on && PARKED.contains(&(id, step, op)) {
                return Outcome::Retry("later".to_owned());
            }
            // What is to be taken back was refused before.
            if step == "pay" && (5..=6).contains(&id) { Outcome::refused("broke", "no money") } else { Outcome::done() }
        };
        Ok(batch.iter().map(|command| command.reply(answer(command))).collect())
    }
}

struct Office {
    store: Arc<SqliteSagaStore>,
    bus: Arc<InProcBus>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), OrchestratorError>>,
    agency: JoinHandle<()>,
    dbs: [Db; 2],
}

impl Office {
    async fn open(folder: &TempDir, definitions: &[&str], goes_on: bool) -> Self {
        let open = |name: &str, schema| Db::open(&folder.path().join(name), &schema, &Options::default()).unwrap();
        let dbs = [open("bus.db", dead_letters::SCHEMA), open("orchestrator.db", saga_store::SCHEMA)];
        let letters = Arc::new(SqliteDeadLetters::new(dbs[0].clone()));
        let store = Arc::new(SqliteSagaStore::new(dbs[1].clone()));
        let definitions: Vec<_> = definitions.iter().map(|yaml| Definition::from_yaml(yaml).unwrap()).collect();
        let agency = Agency(Arc::new(AtomicBool::new(goes_on)));
        let topics = definitions.iter().flat_map(Definition::topics).chain(agency.topics());
        let bus = Arc::new(InProcBus::new(topics, 1_000, letters.clone()));
        let stop = CancellationToken::new();
        let context = LoopContext {
            bus: bus.clone(),
            clock: Arc::new(SystemClock),
            stop: stop.clone(),
            stats: Arc::new(Stats::default()),
            options: LoopOptions::default(),
            tracer: saga_runtime::trace::Tracer::default(),
        };
        let agency = tokio::spawn(run_participant(context.clone(), Arc::new(agency)));
        let definitions = Arc::new(Definitions::new(definitions));
        let config = orchestrator::Config::default();
        let audit = Arc::new(SqliteAuditLog::new(dbs[1].clone()));
        let stores = orchestrator::Stores { sagas: store.clone(), dead_letters: letters, audit };
        let service = orchestrator::build(&config, context, stores, definitions, orchestrator::About::default());
        let running = tokio::spawn(service.orchestrator.run());
        Self { store, bus, stop, running, agency, dbs }
    }

    /// Starts a saga, again and again, until it stands as it should; its row.
    async fn bring(&self, id: u64, there: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let start = Start { saga: SagaKey::new("trip", id), input: Json::null() };
        let limit = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            self.bus.publish(vec![wire::start_message(&"trip".into(), &start)]).await.unwrap();
            let filter = SagaFilter { ids: vec![id], limit: 1, ..SagaFilter::default() };
            let row = self.store.list(filter).await.unwrap().pop();
            if let Some(row) = row.as_ref().filter(|row| there(row)) {
                return row.clone();
            }
            assert!(tokio::time::Instant::now() < limit, "saga {id} is {row:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn close(self) -> Result<(), OrchestratorError> {
        self.stop.cancel();
        let ended = self.running.await.unwrap();
        self.agency.await.unwrap();
        drop((self.store, self.bus));
        for db in self.dbs {
            db.close().await;
        }
        ended
    }
}

#[tokio::test]
async fn d14_sagas_parked_at_every_step_end_under_the_definition_that_they_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let old = Office::open(&folder, &[V1], false).await;
    for (id, step, op) in PARKED {
        old.bring(id, |row| row.awaiting == format!("{step}.{op}")).await;
    }
    old.close().await.unwrap();

    // Without the file that they need nothing is guessed.
    let forgetful = Office::open(&folder, &[V2], true).await;
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while !forgetful.running.is_finished() {
        assert!(tokio::time::Instant::now() < limit, "it runs without their definition");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = forgetful.close().await.unwrap_err().to_string();
    assert!(refused.contains("trip version 1"), "{refused}");

    let new = Office::open(&folder, &[V1, V2], true).await;
    for (id, ..) in PARKED {
        let row = new.bring(id, |row| row.status.is_terminal()).await;
        let end = if id < 5 { "COMPLETED" } else { "COMPENSATED" };
        assert_eq!((row.status.as_str(), row.definition_version), (end, 1), "saga {id}");
        let steps = format!("{:?}", new.store.histories(vec![row.key]).await.unwrap());
        assert!(steps.contains("fly") && !steps.contains("insure"), "saga {id}: {steps}");
    }
    let row = new.bring(7, |row| row.status.is_terminal()).await;
    assert_eq!((row.status.as_str(), row.definition_version), ("COMPLETED", 2));
    new.close().await.unwrap();
}
