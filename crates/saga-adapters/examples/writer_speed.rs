//! How fast one file is written: `cargo run --release -p saga-adapters --example writer_speed [folder]`.
//!
//! Each line is one shape of load; `rows` are small (about 100 bytes), in the tables of a participant.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use saga_adapters::sqlite::participant::{BARRIER_SQL, WATERMARK_SQL, transact};
use saga_adapters::sqlite::saga_store::{self, SqliteSagaStore};
use saga_adapters::sqlite::{Db, Durability, Options, Schema};
use saga_core::protocol::{Command, Outcome};
use saga_core::{Event, Json, Op, SagaKey, Status};
use saga_runtime::store::{SagaRow, SagaStore as _, Transition, Written};

const ITEMS: &str = "create table item (id integer primary key, a integer not null, b text not null) strict;";
const SCHEMA: Schema = Schema {
    name: "speed",
    migrations: &[("V1__barrier", BARRIER_SQL), ("V2__item", ITEMS), ("V3__watermark", WATERMARK_SQL)],
};

const FOR: Duration = Duration::from_secs(5);

fn command(id: u64) -> Command {
    Command {
        saga: SagaKey::new("purchase", id),
        definition_version: 1,
        step: "create-order".into(),
        op: Op::Do,
        attempt: 1,
        input: Json::null(),
        outputs: vec![],
        reason: None,
        reply_to: "reply".into(),
    }
}

/// One caller, each job a batch of commands with `rows` rows of effect each: a participant under load.
async fn participant(folder: &Path, batch: u64, rows: u64, durability: Durability) {
    let path = folder.join(format!("participant-{batch}-{rows}-{durability:?}.db"));
    let db = Db::open(&path, &SCHEMA, &Options::default()).unwrap();
    let began = Instant::now();
    let (mut next, mut waits) = (1, Vec::new());
    while began.elapsed() < FOR {
        let commands: Vec<Command> = (next..next + batch).map(command).collect();
        next += batch;
        let asked = Instant::now();
        let work = move |conn: &_| {
            transact(
                conn,
                &commands,
                |conn, command| {
                    let mut insert = conn.prepare_cached("insert into item (id, a, b) values (?1, ?2, ?3)")?;
                    for row in 0..rows {
                        insert.execute((
                            command.saga.id * 16 + row,
                            row,
                            "some text that is about this long, not more",
                        ))?;
                    }
                    Ok(Outcome::done())
                },
                1,
            )
        };
        db.write(durability, work).await.unwrap();
        waits.push(asked.elapsed());
    }
    report(&format!("participant batch {batch} × (1 + {rows} rows) {durability:?}"), next, 1 + rows, began, waits);
}

/// One caller, each job a batch of transitions: the orchestrator. Every saga takes five.
async fn orchestrator(folder: &Path, batch: u64) {
    let path = folder.join(format!("orchestrator-{batch}.db"));
    let store = SqliteSagaStore::new(Db::open(&path, &saga_store::SCHEMA, &Options::default()).unwrap());
    let owner = store.claim(0).await.unwrap();
    let began = Instant::now();
    let (mut first, mut count, mut waits) = (1, 0, Vec::new());
    while began.elapsed() < FOR {
        for version in 1..=5 {
            let transitions = (first..first + batch).map(|id| transition(id, version)).collect();
            let asked = Instant::now();
            let written = store.commit(owner, transitions).await.unwrap();
            assert!(written.iter().all(|w| *w == Written::Yes));
            waits.push(asked.elapsed());
            count += batch;
        }
        first += batch;
    }
    report(&format!("orchestrator batch {batch}"), count, 2, began, waits);
}

fn transition(id: u64, version: u64) -> Transition {
    let step: saga_core::Name = "create-order".into();
    let input = Json::of("an input of about two hundred bytes ".repeat(6).as_str()).unwrap();
    let first = match version {
        1 => Event::Started { definition_version: 1, input, deadline: None, trace: None, at: 1_700_000_000_000 },
        _ => Event::StepCompleted { step: step.clone(), output: Json::null(), work: None, at: 1_700_000_000_000 },
    };
    let second = Event::StepStarted { step, due: 1_700_000_005_000, at: 1_700_000_000_000 };
    let row = SagaRow {
        key: SagaKey::new("purchase", id),
        definition_version: 1,
        version,
        status: if version == 5 { Status::Completed } else { Status::Running },
        awaiting: "create-order.do".to_owned(),
        wake_at: Some(1_700_000_005_000),
        started_at: 1_700_000_000_000,
        updated_at: 1_700_000_000_000,
    };
    Transition { row, events: vec![first, second] }
}

/// Many callers, each job one row: what `POST /purchases` does.
async fn clients(folder: &Path, clients: u64) {
    let path: PathBuf = folder.join(format!("clients-{clients}.db"));
    let db = Db::open(&path, &SCHEMA, &Options::default()).unwrap();
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let db = db.clone();
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while began.elapsed() < FOR {
                let id = (waits.len() as u64) * clients + client;
                let asked = Instant::now();
                let work = move |conn: &saga_adapters::sqlite::rusqlite::Connection| {
                    conn.prepare_cached("insert into item (id, a, b) values (?1, 1, 'some text')")?.execute([id])?;
                    Ok(())
                };
                db.write(Durability::Durable, work).await.unwrap();
                waits.push(asked.elapsed());
            }
            waits
        });
    }
    let waits: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    report(&format!("{clients} clients, a row each, Durable"), waits.len() as u64, 1, began, waits);
}

fn report(what: &str, units: u64, rows: u64, began: Instant, mut waits: Vec<Duration>) {
    let seconds = began.elapsed().as_secs_f64();
    waits.sort();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{what}: {:.0} units/s, {:.0} rows/s, wait p50 {:.2} p99 {:.2} max {:.2} ms",
        units as f64 / seconds,
        (units * rows) as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or_else(|| ".".into())).unwrap();
    for (batch, rows) in [(1, 2), (16, 2), (64, 2), (256, 2), (64, 4)] {
        participant(folder.path(), batch, rows, Durability::Durable).await;
    }
    participant(folder.path(), 64, 2, Durability::Derivable).await;
    for batch in [16, 64, 256] {
        orchestrator(folder.path(), batch).await;
    }
    for count in [1, 16, 64] {
        clients(folder.path(), count).await;
    }
}
