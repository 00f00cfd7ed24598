//! A saga of your own, from definition to outcome: book a hotel and a flight side by side, then pay.
//!
//! ```text
//!   book-hotel ─┐
//!               ├─► charge (pivot) ─► send-tickets
//!   book-flight ┘
//! ```
//!
//! Run it with `cargo run --release -p trip -- 1000`: that many trips; every tenth finds no seat and is taken back.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "its tasks end with it")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use saga_adapters::inproc::InProcBus;
use saga_adapters::sqlite::dead_letters::SqliteDeadLetters;
use saga_adapters::sqlite::participant::{self, BARRIER_SQL, WATERMARK_SQL};
use saga_adapters::sqlite::{Db, Durability, Options, Schema, saga_store};
use saga_core::protocol::{Command, Outcome, Reply, Start};
use saga_core::{Definition, DefinitionError, Json, Name, Op, SagaKey};
use saga_runtime::{
    Bus as _, Clock, Definitions, LoopContext, LoopOptions, Orchestrator, OrchestratorOptions, Participant, Stats,
    StoreError, SystemClock, run_participant, wire,
};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

/// The saga, top to bottom. The same in a YAML file passes the same checks.
fn trip() -> Result<Definition, DefinitionError> {
    Definition::builder("trip", 1)
        .deadline(60_000)
        .compensatable("book-hotel", "book-hotel", "cancel-hotel")
        .compensatable("book-flight", "book-flight", "cancel-flight")
        .after(&[])
        .pivot("charge", "charge", None)
        .after(&["book-hotel", "book-flight"])
        .retriable("send-tickets", "send-tickets")
        .build()
}

/// A participant that keeps its bookings in a file of its own, effect and answer in one transaction.
struct Desk {
    name: &'static str,
    topics: Vec<Name>,
    db: Db,
    clock: Arc<dyn Clock>,
}

/// One row a booking; cancelling leaves a tombstone.
const BOOKINGS: &str = "create table booking (saga_id integer, step text, live integer not null check (live in (0, 1)), primary key (saga_id, step)) strict;";

#[async_trait]
impl Participant for Desk {
    fn group(&self) -> &str {
        self.name
    }

    fn topics(&self) -> Vec<Name> {
        self.topics.clone()
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let now = self.clock.now();
        self.db
            .write(Durability::Durable, move |conn| {
                // The barrier calls this at most once for each command, however often the command arrives.
                participant::transact(
                    conn,
                    &batch,
                    |conn, command| {
                        let of = (command.saga.id, command.step.as_str());
                        if command.op == Op::Undo {
                            conn.execute("update booking set live = 0 where saga_id = ?1 and step = ?2", of)?;
                            return Ok(Outcome::done());
                        }
                        if command.step == "book-flight" && command.saga.id.is_multiple_of(10) {
                            return Ok(Outcome::refused("no_seat", "the flight is full"));
                        }
                        conn.execute("insert into booking (saga_id, step, live) values (?1, ?2, 1)", of)?;
                        Ok(Outcome::done())
                    },
                    now,
                )
            })
            .await
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let trips: u64 = std::env::args().nth(1).map_or(Ok(100), |n| n.parse())?;
    let folder = tempfile::tempdir()?;
    let open = |name: &'static str, sql: &'static str| {
        let migrations: &'static [(&str, &str)] = Box::leak(Box::new([("V1__init", sql)]));
        Db::open(&folder.path().join(format!("{name}.db")), &Schema { name, migrations }, &Options::default())
    };
    let definition = trip()?;
    println!("{}", saga_core::render::definition_text(&definition));

    let bus_db =
        Db::open(&folder.path().join("bus.db"), &saga_adapters::sqlite::dead_letters::SCHEMA, &Options::default())?;
    let bus = Arc::new(InProcBus::new(definition.topics(), 100_000, Arc::new(SqliteDeadLetters::new(bus_db))));
    let context = LoopContext {
        bus: bus.clone(),
        clock: Arc::new(SystemClock),
        stop: CancellationToken::new(),
        stats: Arc::new(Stats::default()),
        options: LoopOptions::default(),
        tracer: saga_runtime::trace::Tracer::default(),
    };

    let desk_sql: &'static str = Box::leak(format!("{BARRIER_SQL}\n{WATERMARK_SQL}\n{BOOKINGS}").into_boxed_str());
    let desks: [(&'static str, &[&str]); 3] = [
        ("hotel", &["book-hotel", "cancel-hotel"]),
        ("flight", &["book-flight", "cancel-flight"]),
        ("office", &["charge", "send-tickets"]),
    ];
    let mut running = Vec::new();
    for (name, topics) in desks {
        let topics = topics.iter().map(|t| Name::new(*t)).collect();
        let desk = Desk { name, topics, db: open(name, desk_sql)?, clock: context.clock.clone() };
        running.push(tokio::spawn(run_participant(context.clone(), Arc::new(desk))));
    }
    let store_db = Db::open(&folder.path().join("sagas.db"), &saga_store::SCHEMA, &Options::default())?;
    let store = Arc::new(saga_store::SqliteSagaStore::new(store_db));
    let definitions = Arc::new(Definitions::new([definition]));
    let (orchestrator, _handle) =
        Orchestrator::new(context.clone(), store, definitions, OrchestratorOptions::default());
    let orchestrator = tokio::spawn(orchestrator.run());
    tokio::time::sleep(Duration::from_millis(100)).await;

    let began = context.clock.now();
    let starts = (1..=trips).map(|id| Start { saga: SagaKey::new("trip", id), input: Json::null() });
    bus.publish(starts.map(|start| wire::start_message(&"trip".into(), &start)).collect()).await?;
    let stats = &context.stats;
    while stats.completed.get() + stats.compensated.get() < trips {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = (context.clock.now() - began).max(1);
    println!(
        "{} trips booked, {} taken back, in {took} ms: {} sagas/s",
        stats.completed.get(),
        stats.compensated.get(),
        trips * 1_000 / took
    );
    for (name, count) in stats.all() {
        println!("  {name}: {count}");
    }
    context.stop.cancel();
    orchestrator.await??;
    for desk in running {
        desk.await?;
    }
    Ok(())
}
