//! The participants' barrier on SQLite: one table in the participant's own file, in the effects' transaction.
//!
//! `saga_runtime::barrier` decides; here rows are loaded and stored.

use rusqlite::{Connection, OptionalExtension as _};
use saga_core::Millis;
use saga_core::protocol::{Command, Outcome, Reply};
use saga_runtime::barrier::{self, BarrierKey, BarrierRow};
use saga_runtime::wire;

use super::error::SqlError;
use super::watermark;

/// The table, for a participant's first migration (`services/X/migrations/V1__init.sql` has the same text).
/// Keyed so that a saga's rows stand together and new sagas append: ids are time-ordered.
pub const BARRIER_SQL: &str = include_str!("participant/barrier.sql");

/// Beside it, for a later migration (`services/X/migrations/V2__watermark.sql` has the same text).
pub const WATERMARK_SQL: &str = include_str!("participant/watermark.sql");

const LOAD: &str = "select outcome from barrier where saga_id = ?1 and definition = ?2 and step = ?3 and op = ?4";
const STORE: &str = "insert into barrier (saga_id, definition, step, op, outcome, at) values (?1, ?2, ?3, ?4, ?5, ?6)";

/// Handles a batch of commands: each has its effect at most once, each gets its answer, in the batch's order. What is
/// forgotten has no effect and gets none.
///
/// Runs inside a `Db::write` job: answers, effects and barrier rows are one transaction.
///
/// # Errors
/// The first error of `effect`, or of SQLite: the job must fail as a whole (nothing of it stays), and the runtime
/// hands the commands in one by one.
pub fn transact(
    conn: &Connection,
    batch: &[Command],
    mut effect: impl FnMut(&Connection, &Command) -> Result<Outcome, SqlError>,
    now: Millis,
) -> Result<Vec<Reply>, SqlError> {
    let existing = load(conn, &barrier::keys_of(batch))?;
    let done = barrier::run(batch, existing, &watermark::marks(conn)?, |command| effect(conn, command))?;
    store(conn, &done.new_rows, now)?;
    Ok(done.replies)
}

/// Which commands, in the batch's order, have their final answer at this moment, or are forgotten: they had one.
///
/// # Errors
/// SQLite's.
pub fn settled(conn: &Connection, batch: &[Command]) -> Result<Vec<bool>, SqlError> {
    let mut statement = conn.prepare_cached(LOAD)?;
    let marks = watermark::marks(conn)?;
    let exists = |c: &Command| {
        let row = (c.saga.id, c.saga.definition.as_str(), c.step.as_str(), c.op.as_str());
        Ok(marks.covers(&c.saga) || statement.exists(row)?)
    };
    batch.iter().map(exists).collect()
}

fn load(conn: &Connection, keys: &[BarrierKey]) -> Result<Vec<BarrierRow>, SqlError> {
    let mut statement = conn.prepare_cached(LOAD)?;
    let mut rows = Vec::new();
    for key in keys {
        let of = (key.saga.id, key.saga.definition.as_str(), key.step.as_str(), key.op.as_str());
        let outcome =
            statement.query_row(of, |row| Ok(row.get_ref(0)?.as_bytes().map(wire::outcome_from_json)?)).optional()?;
        if let Some(outcome) = outcome {
            rows.push(BarrierRow { key: key.clone(), outcome: outcome? });
        }
    }
    Ok(rows)
}

fn store(conn: &Connection, rows: &[BarrierRow], now: Millis) -> Result<(), SqlError> {
    let mut statement = conn.prepare_cached(STORE)?;
    for BarrierRow { key, outcome } in rows {
        let outcome = wire::outcome_to_json(outcome);
        let of = (key.saga.id, key.saga.definition.as_str(), key.step.as_str(), key.op.as_str());
        statement.execute((of.0, of.1, of.2, of.3, outcome, now))?;
    }
    Ok(())
}
