//! The barrier on PostgreSQL: one effect, one answer, in the effects' transaction.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use proptest::prelude::*;
use saga_adapters::postgres::participant::{BARRIER_SQL, Effects, WATERMARK_SQL, settled, transact};
use saga_adapters::postgres::watermark::PgWatermarks;
use saga_adapters::postgres::{Options, Pg, PgError, Query, Row, Schema, bigs};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Op, SagaKey};
use saga_runtime::StoreError;
use saga_runtime::retention::{Watermark, Watermarks as _};

const EFFECTS: &str = "create table effect (saga_id bigint not null, step text not null, op text not null);";
const SCHEMA: Schema = Schema {
    name: "participant",
    migrations: &[("V1__barrier", BARRIER_SQL), ("V2__effect", EFFECTS), ("V3__watermark", WATERMARK_SQL)],
};

async fn open() -> Pg {
    Pg::connect(&Options::new(testkit::postgres::database()), &SCHEMA).await.unwrap()
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

/// Each counts itself, in the table.
#[derive(Default)]
struct Counted {
    rows: Vec<(u64, String, String)>,
    fails_on: Option<u64>,
}

impl Effects for Counted {
    fn load(&mut self, _: &[Command]) -> Vec<Query<'static>> {
        vec![]
    }

    fn loaded(&mut self, _: Vec<Vec<Row>>) -> Result<(), PgError> {
        Ok(())
    }

    fn effect(&mut self, command: &Command) -> Result<Outcome, PgError> {
        if self.fails_on == Some(command.saga.id) {
            return Err(PgError::fault("broken"));
        }
        self.rows.push((command.saga.id, command.step.to_string(), command.op.as_str().to_owned()));
        match command.saga.id % 3 {
            0 => Ok(Outcome::refused("no", "business said no")),
            _ => Ok(Outcome::Done(Json::of(&command.saga.id)?)),
        }
    }

    fn store(self) -> Result<Vec<Query<'static>>, PgError> {
        let steps: Vec<String> = self.rows.iter().map(|row| row.1.clone()).collect();
        let ops: Vec<String> = self.rows.iter().map(|row| row.2.clone()).collect();
        let insert = Query::new("insert into effect select * from unnest($1::bigint[], $2::text[], $3::text[])");
        Ok(vec![insert.bind(bigs(self.rows.iter().map(|row| row.0))).bind(steps).bind(ops)])
    }
}

async fn deliver(pg: &Pg, batch: &[Command]) -> Result<Vec<Reply>, StoreError> {
    Ok(transact(pg, batch, Counted::default(), 1000).await?)
}

async fn count(pg: &Pg, table: &str) -> i64 {
    pg.run(Query::new(format!("select count(*) from {table}"))).await.unwrap()[0].get(0)
}

#[tokio::test]
async fn g04_a_duplicate_gets_the_stored_answer_and_has_no_second_effect() {
    let pg = open().await;
    let first = deliver(&pg, &[command(1, Op::Do), command(3, Op::Do)]).await.unwrap();
    let mut again = command(1, Op::Do);
    again.attempt = 2;
    let second = deliver(&pg, &[again, command(3, Op::Do), command(3, Op::Do)]).await.unwrap();
    assert_eq!(second[0].outcome, first[0].outcome);
    assert_eq!(second[0].attempt, 2, "the answer is to this attempt");
    assert_eq!([&second[1], &second[2]], [&first[1], &first[1]]);
    assert!(second.iter().all(|reply| reply.repeated) && !first.iter().any(|reply| reply.repeated));
    assert_eq!(count(&pg, "effect").await, 2);
}

#[tokio::test]
async fn g06_an_undo_before_its_do_has_no_effect_and_blocks_it() {
    let pg = open().await;
    let undone = deliver(&pg, &[command(1, Op::Undo)]).await.unwrap();
    assert_eq!(undone[0].outcome, Outcome::done());
    let late = deliver(&pg, &[command(1, Op::Do)]).await.unwrap();
    assert!(matches!(&late[0].outcome, Outcome::Refused(r) if r.code == "undone_before_do"));
    assert_eq!(count(&pg, "effect").await, 0);
}

#[tokio::test]
async fn an_effect_that_errs_leaves_nothing_of_its_batch() {
    let pg = open().await;
    let batch = [command(1, Op::Do), command(2, Op::Do)];
    let failed = transact(&pg, &batch, Counted { fails_on: Some(2), ..Counted::default() }, 1000).await;
    assert_eq!(failed.map_err(StoreError::from), Err(StoreError::Fault("broken".into())));
    assert_eq!((count(&pg, "effect").await, count(&pg, "barrier").await), (0, 0));
    assert_eq!(deliver(&pg, &batch[..1]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_impossible_stored_answer_is_a_fault() {
    let pg = open().await;
    deliver(&pg, &[command(1, Op::Do)]).await.unwrap();
    pg.run(Query::new("update barrier set outcome = '{}'")).await.unwrap();
    assert!(matches!(deliver(&pg, &[command(1, Op::Do)]).await, Err(StoreError::Fault(_))));
}

#[tokio::test]
async fn looking_for_answers_reads_no_others() {
    // One session: its statistics are complete when it says so.
    let options = Options { pool_size: 1, ..Options::new(testkit::postgres::database()) };
    let pg = Pg::connect(&options, &SCHEMA).await.unwrap();
    let fill = "insert into barrier select id, 'purchase', 'take', 'do', '{}', 1 from generate_series(1, 5000) as id";
    let batch: Vec<Command> = (4_990..5_010).map(|id| command(id, Op::Do)).collect();
    // Planned while there is nothing, as in a new shop.
    for _ in 0..10 {
        settled(&pg, &batch).await.unwrap();
    }
    pg.run(Query::new(fill)).await.unwrap();
    let read = async || -> i64 {
        pg.run(Query::new("select pg_stat_force_next_flush()")).await.unwrap();
        let read = "select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 'barrier'";
        pg.run(Query::new(read)).await.unwrap()[0].get(0)
    };
    let before = read().await;
    for _ in 0..10 {
        assert_eq!(settled(&pg, &batch).await.unwrap().iter().filter(|settled| **settled).count(), 11);
    }
    let rows = read().await - before;
    assert!((1..=10 * 20).contains(&rows), "{rows} rows read for 110 answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_the_race_for_a_command_runs_again_and_finds_the_answer() {
    let pg = open().await;
    // Another replica is about to commit the same command's answer.
    let row =
        "insert into barrier values (1, 'purchase', 'take', 'do', '{\"outcome\":\"done\",\"output\":\"theirs\"}', 1)";
    let (theirs, _) = pg.begin(vec![Query::new(row)]).await.unwrap();
    let (batch, ours) = ([command(1, Op::Do)], pg.clone());
    let racing = async { transact(&ours, &batch, Counted::default(), 1000).await };
    let committing = async {
        testkit::conformance::until("we wait for them", || async {
            let waiting = "select 1 from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
            !pg.run(Query::new(waiting)).await.unwrap().is_empty()
        })
        .await;
        theirs.commit(vec![]).await.unwrap();
    };
    let (lost, ()) = tokio::join!(racing, committing);
    let lost = lost.map_err(StoreError::from);
    assert!(matches!(&lost, Err(StoreError::Transient(detail)) if detail.contains("barrier_pkey")), "{lost:?}");
    let found = deliver(&pg, &batch).await.unwrap();
    assert_eq!(found[0].outcome, Outcome::Done(Json::of("theirs").unwrap()));
    assert_eq!(count(&pg, "effect").await, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// M-01, M-02: whatever comes, how often, in whatever order and cut into whatever batches.
    #[test]
    fn any_deliveries_have_each_effect_at_most_once_and_one_answer(
        batches in prop::collection::vec(prop::collection::vec((1_u64..5, any::<bool>()), 0..8), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pg = open().await;
            let mut answers: HashMap<(u64, Op), Outcome> = HashMap::new();
            for batch in &batches {
                let op = |undo| if undo { Op::Undo } else { Op::Do };
                let batch: Vec<Command> = batch.iter().map(|(id, undo)| command(*id, op(*undo))).collect();
                let replies = deliver(&pg, &batch).await.unwrap();
                assert_eq!(replies.len(), batch.len());
                for (command, reply) in batch.iter().zip(replies) {
                    assert_eq!((&reply.saga, reply.op), (&command.saga, command.op));
                    let known = answers.entry((reply.saga.id, reply.op)).or_insert(reply.outcome.clone());
                    assert_eq!(*known, reply.outcome);
                }
            }
            let twice = "(select 1 from effect group by saga_id, step, op having count(*) > 1) as twice";
            assert_eq!(count(&pg, twice).await, 0);
            let undone_alone = "effect as e where op = 'undo' and not exists
                (select 1 from effect as d where d.saga_id = e.saga_id and d.op = 'do')";
            assert_eq!(count(&pg, undone_alone).await, 0);
        });
    }
}

#[tokio::test]
async fn what_is_forgotten_has_no_effect_and_no_answer_whether_its_rows_are_still_there_or_not() {
    let pg = open().await;
    let batch = vec![command(1, Op::Do), command(2, Op::Do), command(4, Op::Do)];
    deliver(&pg, &batch).await.unwrap();
    let marks = PgWatermarks::of_barrier(pg.clone());
    let mark = Watermark { definition: "purchase".into(), up_to: 3 };
    assert_eq!(marks.raise(mark.clone()).await.unwrap(), Some(3));
    assert_eq!(deliver(&pg, &batch).await.unwrap().len(), 3, "answers that are still there are given");
    assert!(deliver(&pg, &[command(3, Op::Do), command(3, Op::Undo)]).await.unwrap().is_empty());
    while marks.remove(mark.clone(), 1).await.unwrap().more {}
    assert_eq!(count(&pg, "barrier").await, 1);
    let answers = deliver(&pg, &batch).await.unwrap();
    assert_eq!(answers.iter().map(|reply| reply.saga.id).collect::<Vec<_>>(), [4]);
    assert_eq!((count(&pg, "effect").await, count(&pg, "barrier").await), (3, 1));
    assert_eq!(settled(&pg, &[command(1, Op::Do), command(5, Op::Do)]).await.unwrap(), [true, false]);
}

/// Raises the watermark between the look at it and the write.
#[derive(Default)]
struct Overtaken(Counted);

impl Effects for Overtaken {
    fn load(&mut self, _: &[Command]) -> Vec<Query<'static>> {
        vec![Query::new("insert into watermark (definition, up_to) values ('purchase', 7) on conflict do nothing")]
    }

    fn loaded(&mut self, _: Vec<Vec<Row>>) -> Result<(), PgError> {
        Ok(())
    }

    fn effect(&mut self, command: &Command) -> Result<Outcome, PgError> {
        self.0.effect(command)
    }

    fn store(self) -> Result<Vec<Query<'static>>, PgError> {
        self.0.store()
    }
}

#[tokio::test]
async fn a_watermark_that_rises_before_the_write_takes_the_whole_transaction_back() {
    let pg = open().await;
    let raced = transact(&pg, &[command(7, Op::Do)], Overtaken::default(), 1000).await.map_err(StoreError::from);
    assert!(matches!(raced, Err(StoreError::Transient(_))), "{raced:?}");
    assert_eq!((count(&pg, "effect").await, count(&pg, "barrier").await), (0, 0));
    let above = transact(&pg, &[command(8, Op::Do)], Overtaken::default(), 1000).await.unwrap();
    assert_eq!((above.len(), count(&pg, "effect").await), (1, 1));
}
