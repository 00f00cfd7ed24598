//! The participants' barrier on PostgreSQL: one table in the participant's own database, in the effects' transaction.
//!
//! `saga_runtime::barrier` decides; here a batch's rows are loaded and stored, two packets for the whole batch:
//!
//! ```text
//!   begin · barrier rows · what the effects need (locked) ──► decide ──► barrier rows · effects · commit
//! ```
//!
//! Two replicas that answer the same commands at once (a rebalance) meet at the barrier's primary key: the second
//! one's transaction fails as `Transient` and finds the stored answers when it runs again.

use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Millis, Name, Op, SagaKey};
use saga_runtime::barrier::{self, BarrierKey, BarrierRow};
use saga_runtime::wire;
use tokio_postgres::Row;

use super::error::PgError;
use super::pool::Pg;
use super::query::{Columns as _, Query, bigs};
use super::snapshot::Snapshot;
use super::watermark;

/// The table, for a participant's first migration (`services/X/migrations/postgres/V1__init.sql` has the same text).
/// Keyed so that a saga's rows stand together and new sagas append: ids are time-ordered.
pub const BARRIER_SQL: &str = include_str!("participant/barrier.sql");

/// Beside it, for a later migration (`services/X/migrations/postgres/V2__watermark.sql` has the same text).
pub const WATERMARK_SQL: &str = include_str!("participant/watermark.sql");

const LOAD: &str = "select k.ord, b.outcome
    from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) with ordinality as k (saga_id, definition, step, op, ord)
    cross join lateral (select outcome from barrier where saga_id = k.saga_id and definition = k.definition
        and step = k.step and op = k.op offset 0) as b";
// A watermark that has risen since it was read: no outcome, which no row can be without. So the transaction fails, and
// finds it when it runs again.
const STORE: &str = "insert into barrier (saga_id, definition, step, op, outcome, at)
    select k.saga_id, k.definition, k.step, k.op,
        case when k.saga_id > coalesce((select up_to from watermark as w where w.definition = k.definition), -1)
            then k.outcome end,
        $6::bigint
    from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])
        as k (saga_id, definition, step, op, outcome)";
// In one statement: what is removed is covered before. A value, not `exists`, which may be answered by hashing the whole
// table: planned while it is small, each batch then reads all answers there have ever been.
const SETTLED: &str = "select k.ord
    from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) with ordinality as k (saga_id, definition, step, op, ord)
    where k.saga_id <= (select up_to from watermark as w where w.definition = k.definition)
        or (select true from barrier where saga_id = k.saga_id and definition = k.definition
            and step = k.step and op = k.op)";

/// What a batch of commands does to a participant's own rows. Works on what was loaded, in memory; writes it at the end.
pub trait Effects: Send {
    /// What is to be loaded, and locked in a fixed order.
    fn load(&mut self, batch: &[Command]) -> Vec<Query<'static>>;

    /// The rows of each of those.
    ///
    /// # Errors
    /// When they make no sense.
    fn loaded(&mut self, rows: Vec<Vec<Row>>) -> Result<(), PgError>;

    /// One command's effect on what was loaded.
    ///
    /// # Errors
    /// The batch must fail as a whole; nothing of it stays.
    fn effect(&mut self, command: &Command) -> Result<Outcome, PgError>;

    /// What is to be written, a statement a table.
    ///
    /// # Errors
    /// As above.
    fn store(self) -> Result<Vec<Query<'static>>, PgError>;
}

/// Handles a batch of commands: each has its effect at most once, each gets its answer, in the batch's order. What is
/// forgotten has no effect and gets none.
/// Answers, effects and barrier rows are one transaction.
///
/// # Errors
/// Nothing of it stays; for `Transient` it may have been committed, and running it again finds out.
pub async fn transact(
    pg: &Pg,
    batch: &[Command],
    mut effects: impl Effects,
    now: Millis,
) -> Result<Vec<Reply>, PgError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(command) = batch.iter().find(|command| i64::try_from(command.saga.id).is_err()) {
        return Err(PgError::Fault(format!("no saga can have the id {}", command.saga.id)));
    }
    let keys = barrier::keys_of(batch);
    // The watermarks after the rows: what is removed is covered before.
    let mut queries = vec![load(&keys), watermark::query()];
    queries.extend(effects.load(batch));
    let (tx, mut rows) = pg.begin(queries).await?;
    let own = rows.split_off(2);
    let marks = rows.pop().unwrap_or_default();
    let answered = rows.pop().unwrap_or_default();
    let decided = existing(&keys, &answered).and_then(|existing| {
        effects.loaded(own)?;
        let done = barrier::run(batch, existing, &watermark::read(&marks)?, |command| effects.effect(command))?;
        Ok((done, effects.store()?))
    });
    let (done, mut writes) = match decided {
        Ok(decided) => decided,
        Err(error) => {
            // Effects that were committed between our two looks make no sense beside the barrier that we saw before.
            let again = tx.also(vec![load(&keys)]).await;
            tx.roll_back().await;
            let raced = again?.first().is_some_and(|rows| rows.len() > answered.len());
            return Err(if raced {
                PgError::Transient(format!("answered elsewhere meanwhile: {error}"))
            } else {
                error
            });
        }
    };
    if done.new_rows.is_empty() && writes.is_empty() {
        tx.roll_back().await;
        return Ok(done.replies);
    }
    // Before the effects: whoever loses the race for a command shall not have waited for its rows.
    writes.insert(0, store(done.new_rows, now));
    tx.commit(writes).await?;
    Ok(done.replies)
}

/// Which commands, in the batch's order, have their final answer at this moment, or are forgotten: they had one.
///
/// # Errors
/// The database's.
pub async fn settled(pg: &Pg, batch: &[Command]) -> Result<Vec<bool>, PgError> {
    let keys: Vec<BarrierKey> = batch.iter().map(BarrierKey::of).collect();
    let mut settled = vec![false; keys.len()];
    for row in &pg.read(by_keys(SETTLED, &keys)).await? {
        let at = usize::try_from(row.big(0)?).ok().and_then(|ord| ord.checked_sub(1));
        if let Some(answer) = at.and_then(|at| settled.get_mut(at)) {
            *answer = true;
        }
    }
    Ok(settled)
}

/// Hands every answer of this moment to `each`, in the order of sagas: what `saga check` reads.
///
/// # Errors
/// When the database cannot be read.
pub async fn audit(at: &Snapshot, each: &mut (dyn FnMut(BarrierRow) + Send)) -> Result<(), PgError> {
    let sql = "select saga_id, definition, step, op, outcome from barrier order by saga_id, definition, step, op";
    let mut row = |row: &Row| {
        let saga = SagaKey { id: row.big(0)?, definition: Name::new(row.col::<&str>(1)?) };
        let op = if row.col::<&str>(3)? == Op::Do.as_str() { Op::Do } else { Op::Undo };
        let key = BarrierKey { saga, step: Name::new(row.col::<&str>(2)?), op };
        each(BarrierRow { key, outcome: wire::outcome_from_json(row.col::<&str>(4)?.as_bytes())? });
        Ok(())
    };
    at.each(sql, &mut row).await
}

fn load(keys: &[BarrierKey]) -> Query<'static> {
    by_keys(LOAD, keys)
}

fn by_keys(sql: &'static str, keys: &[BarrierKey]) -> Query<'static> {
    let [definitions, steps, ops] = names(keys.iter());
    Query::new(sql).bind(bigs(keys.iter().map(|k| k.saga.id))).bind(definitions).bind(steps).bind(ops)
}

fn existing(keys: &[BarrierKey], rows: &[Row]) -> Result<Vec<BarrierRow>, PgError> {
    let row = |row: &Row| {
        let at = usize::try_from(row.big(0)?).map_err(PgError::fault)?;
        let key = keys.get(at.wrapping_sub(1)).ok_or_else(|| PgError::fault("an answer to no question"))?;
        let outcome = wire::outcome_from_json(row.col::<&str>(1)?.as_bytes())?;
        Ok(BarrierRow { key: key.clone(), outcome })
    };
    rows.iter().map(row).collect()
}

/// In the key's order, so that two replicas with the same commands wait for each other in one direction only.
fn store(mut rows: Vec<BarrierRow>, now: Millis) -> Query<'static> {
    rows.sort_by(|a, b| order(&a.key).cmp(&order(&b.key)));
    let [definitions, steps, ops] = names(rows.iter().map(|row| &row.key));
    let outcomes: Vec<String> = rows.iter().map(|row| wire::outcome_to_json(&row.outcome)).collect();
    let ids = bigs(rows.iter().map(|row| row.key.saga.id));
    Query::new(STORE).bind(ids).bind(definitions).bind(steps).bind(ops).bind(outcomes).big(now)
}

fn order(key: &BarrierKey) -> (u64, &str, &str, &str) {
    (key.saga.id, key.saga.definition.as_str(), key.step.as_str(), key.op.as_str())
}

fn names<'k>(keys: impl Iterator<Item = &'k BarrierKey>) -> [Vec<String>; 3] {
    let mut names: [Vec<String>; 3] = Default::default();
    for key in keys {
        names[0].push(key.saga.definition.as_str().to_owned());
        names[1].push(key.step.as_str().to_owned());
        names[2].push(key.op.as_str().to_owned());
    }
    names
}
