//! The barrier on SQLite: one effect, one answer, in the effects' transaction.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use proptest::prelude::*;
use saga_adapters::sqlite::participant::{BARRIER_SQL, WATERMARK_SQL, settled, transact};
use saga_adapters::sqlite::rusqlite::Connection;
use saga_adapters::sqlite::watermark::SqliteWatermarks;
use saga_adapters::sqlite::{Db, Durability, Options, Schema, SqlError};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Op, SagaKey};
use saga_runtime::StoreError;
use saga_runtime::retention::{Watermark, Watermarks as _};
use tempfile::TempDir;

const EFFECTS: &str = "create table effect (saga_id integer not null, step text not null, op text not null) strict;";
const SCHEMA: Schema = Schema {
    name: "participant",
    migrations: &[("V1__barrier", BARRIER_SQL), ("V2__effect", EFFECTS), ("V3__watermark", WATERMARK_SQL)],
};

fn open() -> (Db, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Db::open(&folder.path().join("test.db"), &SCHEMA, &Options::default()).unwrap(), folder)
}

fn command(id: u64, op: Op) -> Command {
    Command {
        saga: SagaKey::new("purchase", id),
        definition_version: 1,
        step: "take".into(),
        op,
        attempt: 1,
        input: Json::null(),
        outputs: vec![],
        reason: None,
        reply_to: "reply".into(),
    }
}

/// Counts itself, in the table.
fn effect(conn: &Connection, command: &Command) -> Result<Outcome, SqlError> {
    let row = (command.saga.id, command.step.as_str(), command.op.as_str());
    conn.execute("insert into effect (saga_id, step, op) values (?1, ?2, ?3)", row)?;
    match command.saga.id % 3 {
        0 => Ok(Outcome::refused("no", "business said no")),
        _ => Ok(Outcome::Done(Json::of(&command.saga.id)?)),
    }
}

async fn deliver(db: &Db, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
    db.write(Durability::Durable, move |conn| transact(conn, &batch, effect, 1000)).await
}

async fn count(db: &Db, table: &'static str) -> i64 {
    db.read(move |conn| Ok(conn.query_row(&format!("select count(*) from {table}"), [], |r| r.get(0))?)).await.unwrap()
}

#[tokio::test]
async fn g04_a_duplicate_gets_the_stored_answer_and_has_no_second_effect() {
    let (db, _folder) = open();
    let first = deliver(&db, vec![command(1, Op::Do), command(3, Op::Do)]).await.unwrap();
    let mut again = command(1, Op::Do);
    again.attempt = 2;
    let second = deliver(&db, vec![again, command(3, Op::Do), command(3, Op::Do)]).await.unwrap();
    assert_eq!(second[0].outcome, first[0].outcome);
    assert_eq!(second[0].attempt, 2, "the answer is to this attempt");
    assert_eq!([&second[1], &second[2]], [&first[1], &first[1]]);
    assert!(second.iter().all(|reply| reply.repeated) && !first.iter().any(|reply| reply.repeated));
    assert_eq!(count(&db, "effect").await, 2);
}

#[tokio::test]
async fn g06_an_undo_before_its_do_has_no_effect_and_blocks_it() {
    let (db, _folder) = open();
    let undone = deliver(&db, vec![command(1, Op::Undo)]).await.unwrap();
    assert_eq!(undone[0].outcome, Outcome::done());
    let late = deliver(&db, vec![command(1, Op::Do)]).await.unwrap();
    assert!(matches!(&late[0].outcome, Outcome::Refused(r) if r.code == "undone_before_do"));
    assert_eq!(count(&db, "effect").await, 0);
}

#[tokio::test]
async fn an_effect_that_errs_leaves_nothing_of_its_batch() {
    let (db, _folder) = open();
    let batch = vec![command(1, Op::Do), command(2, Op::Do)];
    let failed = db
        .write(Durability::Durable, move |conn| {
            let fails_on_two = |conn: &Connection, c: &Command| {
                let outcome = effect(conn, c)?;
                if c.saga.id == 2 { Err(SqlError::fault("broken")) } else { Ok(outcome) }
            };
            transact(conn, &batch, fails_on_two, 1000)
        })
        .await;
    assert_eq!(failed, Err(StoreError::Fault("broken".into())));
    assert_eq!((count(&db, "effect").await, count(&db, "barrier").await), (0, 0));
    assert_eq!(deliver(&db, vec![command(1, Op::Do)]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_impossible_stored_answer_is_a_fault() {
    let (db, _folder) = open();
    deliver(&db, vec![command(1, Op::Do)]).await.unwrap();
    db.write(Durability::Durable, |conn| Ok(conn.execute("update barrier set outcome = '{}'", [])?)).await.unwrap();
    assert!(matches!(deliver(&db, vec![command(1, Op::Do)]).await, Err(StoreError::Fault(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// M-01, M-02: whatever comes, how often, in whatever order and cut into whatever batches.
    #[test]
    fn any_deliveries_have_each_effect_at_most_once_and_one_answer(
        batches in prop::collection::vec(prop::collection::vec((1_u64..5, any::<bool>()), 0..8), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (db, _folder) = open();
            let mut answers: HashMap<(u64, Op), Outcome> = HashMap::new();
            for batch in &batches {
                let op = |undo| if undo { Op::Undo } else { Op::Do };
                let batch: Vec<Command> = batch.iter().map(|(id, undo)| command(*id, op(*undo))).collect();
                let replies = deliver(&db, batch.clone()).await.unwrap();
                assert_eq!(replies.len(), batch.len());
                for (command, reply) in batch.iter().zip(replies) {
                    assert_eq!((&reply.saga, reply.op), (&command.saga, command.op));
                    let known = answers.entry((reply.saga.id, reply.op)).or_insert(reply.outcome.clone());
                    assert_eq!(*known, reply.outcome);
                }
            }
            let twice = "(select 1 from effect group by saga_id, step, op having count(*) > 1)";
            assert_eq!(count(&db, twice).await, 0);
            let undone_alone = "effect as e where op = 'undo' and not exists
                (select 1 from effect as d where d.saga_id = e.saga_id and d.op = 'do')";
            assert_eq!(count(&db, undone_alone).await, 0);
        });
    }
}

#[tokio::test]
async fn what_is_forgotten_has_no_effect_and_no_answer_whether_its_rows_are_still_there_or_not() {
    let (db, _folder) = open();
    let batch = vec![command(1, Op::Do), command(2, Op::Do), command(4, Op::Do)];
    deliver(&db, batch.clone()).await.unwrap();
    let marks = SqliteWatermarks::of_barrier(db.clone());
    let mark = Watermark { definition: "purchase".into(), up_to: 3 };
    assert_eq!(marks.raise(mark.clone()).await.unwrap(), Some(3));
    assert_eq!(deliver(&db, batch.clone()).await.unwrap().len(), 3, "answers that are still there are given");
    assert!(deliver(&db, vec![command(3, Op::Do), command(3, Op::Undo)]).await.unwrap().is_empty());
    while marks.remove(mark.clone(), 1).await.unwrap().more {}
    assert_eq!(count(&db, "barrier").await, 1);
    let answers = deliver(&db, batch.clone()).await.unwrap();
    assert_eq!(answers.iter().map(|reply| reply.saga.id).collect::<Vec<_>>(), [4]);
    assert_eq!((count(&db, "effect").await, count(&db, "barrier").await), (3, 1));
    let settled = db.read(move |conn| settled(conn, &[command(1, Op::Do), command(5, Op::Do)])).await.unwrap();
    assert_eq!(settled, [true, false]);
}
