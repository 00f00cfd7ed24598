//! The orchestrator's store on PostgreSQL: a small row a saga, updated in place, beside an append-only history.
//!
//! A batch is one statement (`sql/commit.sql`). The fence is a row that it locks against a claim: an owner that slept
//! through its replacement cannot write, and a replacement waits for a write that was under way. What the columns mean
//! stands in the migration.

mod audit;
mod listing;

use std::collections::HashMap;

use async_trait::async_trait;
use saga_core::{Event, Millis, Name, SagaKey, Status};
use saga_runtime::StoreError;
use saga_runtime::retention::{Marks, Removed, Watermark, Watermarks};
use saga_runtime::store::{
    Awaited, CommitError, InFlight, Owner, SagaCount, SagaFilter, SagaRow, SagaStore, Transition, Written,
};
use tokio_postgres::Row;

use super::watermark::PgWatermarks;
use super::{Columns as _, Pg, PgError, Query, Schema, bigs};

pub use audit::audit;

/// The orchestrator's database.
pub const SCHEMA: Schema = Schema {
    name: "orchestrator",
    migrations: &[
        ("V1__init", include_str!("saga_store/migrations/V1__init.sql")),
        ("V2__dead_letters", include_str!("saga_store/migrations/V2__dead_letters.sql")),
        ("V3__desk", include_str!("saga_store/migrations/V3__desk.sql")),
        ("V4__watermark", include_str!("saga_store/migrations/V4__watermark.sql")),
    ],
};

const CLAIM: &str = "insert into owner as o (partition, epoch) values ($1, 1)
    on conflict (partition) do update set epoch = o.epoch + 1 returning epoch";
const STANDS: &str = "select epoch from owner where partition = $1 and epoch = $2";
const COMMIT: &str = include_str!("saga_store/sql/commit.sql");
const HISTORIES: &str = "select k.place, h.version, h.events
    from unnest($1::bigint[], $2::text[]) with ordinality as k (id, definition, place)
    cross join lateral
        (select version, events from history where saga_id = k.id and definition = k.definition offset 0) as h
    order by k.place, h.version";
const COLUMNS: &str =
    "select id, definition, definition_version, version, status, awaiting, wake_at, started_at, updated_at from saga";

/// The store, over the database of [`SCHEMA`].
#[derive(Debug, Clone)]
pub struct PgSagaStore {
    pg: Pg,
}

impl PgSagaStore {
    /// Over a database connected with [`SCHEMA`].
    pub fn new(pg: Pg) -> Self {
        Self { pg }
    }
}

#[async_trait]
impl SagaStore for PgSagaStore {
    async fn claim(&self, partition: u32) -> Result<Owner, StoreError> {
        let rows = self.pg.run(Query::new(CLAIM).bind(number(partition)?)).await?;
        let row = rows.first().ok_or_else(|| PgError::fault("a claim without an epoch"))?;
        Ok(Owner { partition, epoch: row.big(0)? })
    }

    async fn commit(&self, owner: Owner, batch: Vec<Transition>) -> Result<Vec<Written>, CommitError> {
        let mut written = vec![Written::Conflict; batch.len()];
        let waves = waves(&batch);
        let mut queries = Vec::with_capacity(waves.len());
        for (follows, wave) in waves.iter().enumerate().map(|(at, wave)| (at > 0, wave)) {
            queries.push(commit(owner, wave.iter().map(|place| &batch[*place]), follows)?);
        }
        let answers = match (queries.len(), queries.pop()) {
            (0 | 1, Some(only)) => vec![self.pg.run(only).await],
            (_, Some(last)) => {
                queries.push(last);
                match self.pg.all(queries).await {
                    Ok(answers) => answers.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                }
            }
            (_, None) => {
                let stands = Query::new(STANDS).bind(number(owner.partition)?).big(owner.epoch);
                return if self.pg.run(stands).await?.is_empty() {
                    Err(CommitError::Fenced(owner))
                } else {
                    Ok(written)
                };
            }
        };
        for (wave, rows) in waves.iter().zip(answers) {
            for place in places(rows?, owner)? {
                let at = wave.get(place.wrapping_sub(1)).and_then(|at| written.get_mut(*at));
                *at.ok_or_else(|| StoreError::Fault("an answer to no transition".to_owned()))? = Written::Yes;
            }
        }
        Ok(written)
    }

    async fn histories(&self, keys: Vec<SagaKey>) -> Result<Vec<Vec<Vec<Event>>>, StoreError> {
        let rows = self.pg.read(by_keys(HISTORIES, &keys)).await?;
        let mut histories = vec![Vec::new(); keys.len()];
        for row in &rows {
            let place = usize::try_from(row.big(0)?).unwrap_or_default().wrapping_sub(1);
            let (Some(history), Some(key)) = (histories.get_mut(place), keys.get(place)) else { continue };
            take_up(history, key, row)?;
        }
        Ok(histories)
    }

    async fn in_flight(&self, partition: u32, after: Option<SagaKey>, limit: u32) -> Result<Vec<SagaRow>, StoreError> {
        self.rows(listing::in_flight(number(partition)?, after, limit)).await
    }

    async fn list(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
        if filter.wanted().is_empty() {
            return Ok(Vec::new());
        }
        self.rows(listing::list(&filter)).await
    }

    async fn count_in_flight(&self) -> Result<Vec<InFlight>, StoreError> {
        let rows = self.pg.read(Query::new(listing::COUNT_IN_FLIGHT)).await?;
        let in_flight = |row: &Row| {
            let SagaCount { definition, status, count } = listing::count(row)?;
            Ok(InFlight { definition, status, count, oldest_at: row.big(3)? })
        };
        Ok(rows.iter().map(in_flight).collect::<Result<_, PgError>>()?)
    }

    async fn count_awaited(&self) -> Result<Vec<Awaited>, StoreError> {
        let rows = self.pg.read(Query::new(listing::COUNT_AWAITED)).await?;
        let awaited = |row: &Row| {
            let definition = Name::new(row.col::<&str>(0)?);
            Ok(Awaited { definition, awaiting: row.col(1)?, count: row.big(2)?, oldest_at: row.big(3)? })
        };
        Ok(rows.iter().map(awaited).collect::<Result<_, PgError>>()?)
    }

    async fn count_started(&self, from: Millis) -> Result<Vec<SagaCount>, StoreError> {
        let rows = self.pg.read(listing::count_started(from)).await?;
        Ok(rows.iter().map(listing::count).collect::<Result<_, PgError>>()?)
    }

    async fn count_ended(&self) -> Result<Vec<SagaCount>, StoreError> {
        let rows = self.pg.read(Query::new(listing::COUNT_ENDED)).await?;
        Ok(rows.iter().map(listing::count).collect::<Result<_, PgError>>()?)
    }
}

#[async_trait]
impl Watermarks for PgSagaStore {
    async fn raise(&self, mark: Watermark) -> Result<Option<u64>, StoreError> {
        PgWatermarks::of_sagas(self.pg.clone()).raise(mark).await
    }

    async fn marks(&self) -> Result<Marks, StoreError> {
        PgWatermarks::of_sagas(self.pg.clone()).marks().await
    }

    async fn remove(&self, mark: Watermark, limit: u32) -> Result<Removed, StoreError> {
        PgWatermarks::of_sagas(self.pg.clone()).remove(mark, limit).await
    }
}

impl PgSagaStore {
    async fn rows(&self, query: Query<'_>) -> Result<Vec<SagaRow>, StoreError> {
        Ok(self.pg.read(query).await?.iter().map(row).collect::<Result<_, _>>()?)
    }
}

/// The places of the batch in waves: in none of them does a saga stand twice, in each saga's order they follow.
fn waves(batch: &[Transition]) -> Vec<Vec<usize>> {
    let mut seen: HashMap<&SagaKey, usize> = HashMap::with_capacity(batch.len());
    let mut waves: Vec<Vec<usize>> = Vec::with_capacity(1);
    for (place, transition) in batch.iter().enumerate() {
        let wave = seen.entry(&transition.row.key).and_modify(|wave| *wave += 1).or_insert(0);
        match waves.get_mut(*wave) {
            Some(wave) => wave.push(place),
            None => waves.push(vec![place]),
        }
    }
    waves
}

/// One wave. If it `follows` another, each of its sagas has a transition in the one before.
fn commit<'t>(
    owner: Owner,
    wave: impl Iterator<Item = &'t Transition> + Clone,
    follows: bool,
) -> Result<Query<'static>, PgError> {
    let rows = || wave.clone().map(|transition| &transition.row);
    if let Some(row) = rows().find(|row| i64::try_from(row.key.id).is_err()) {
        return Err(PgError::Fault(format!("no saga can have the id {}", row.key.id)));
    }
    let texts = |of: fn(&SagaRow) -> &str| rows().map(|row| of(row).to_owned()).collect::<Vec<String>>();
    let versions = rows().map(|row| number(row.definition_version)).collect::<Result<Vec<i32>, _>>()?;
    let events = wave.clone().map(|t| serde_json::to_string(&t.events)).collect::<Result<Vec<String>, _>>()?;
    let wake_ups: Vec<Option<i64>> = rows().map(|row| row.wake_at.map(super::big)).collect();
    Ok(Query::new(COMMIT)
        .bind(number(owner.partition)?)
        .big(owner.epoch)
        .bind(bigs(rows().map(|row| row.key.id)))
        .bind(texts(|row| row.key.definition.as_str()))
        .bind(versions)
        .bind(bigs(rows().map(|row| row.version)))
        .bind(texts(|row| row.status.as_str()))
        .bind(texts(|row| &row.awaiting))
        .bind(wake_ups)
        .bind(bigs(rows().map(|row| row.started_at)))
        .bind(bigs(rows().map(|row| row.updated_at)))
        .bind(events)
        .bind(follows))
}

/// What one wave's statement answered: the places, from 1, of what it wrote.
fn places(rows: Vec<Row>, owner: Owner) -> Result<Vec<usize>, CommitError> {
    let read = || {
        let row = rows.first().ok_or_else(|| PgError::fault("a commit without an answer"))?;
        Ok::<_, PgError>((row.col::<bool>(0)?, row.col::<Vec<i64>>(1)?))
    };
    let (stands, places) = read()?;
    if !stands {
        return Err(CommitError::Fenced(owner));
    }
    Ok(places.into_iter().map(|place| usize::try_from(place).unwrap_or_default()).collect())
}

/// One row of [`HISTORIES`]. One saga's impossible row must not stop the others: a history without a beginning does not
/// replay, which is what quarantines this saga.
fn take_up(history: &mut Vec<Vec<Event>>, key: &SagaKey, row: &Row) -> Result<(), PgError> {
    if history.first().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    match parse(row.big(1)?, row.col(2)?, history.len()) {
        Ok(events) => history.push(events),
        Err(detail) => {
            tracing::error!(%key, detail, "a row of this saga's history cannot be read");
            *history = vec![Vec::new()];
        }
    }
    Ok(())
}

/// The events of one row, which must be the one after `known` others.
fn parse(version: u64, events: &str, known: usize) -> Result<Vec<Event>, String> {
    if usize::try_from(version) != Ok(known + 1) {
        return Err(format!("transition {version} follows transition {known}"));
    }
    serde_json::from_str(events).map_err(|e| format!("transition {version}: {e}"))
}

/// A row of [`COLUMNS`].
fn row(row: &Row) -> Result<SagaRow, PgError> {
    let status: &str = row.col(4)?;
    let status = Status::from_text(status).ok_or_else(|| PgError::Fault(format!("a saga cannot be {status}")))?;
    Ok(SagaRow {
        key: SagaKey { id: row.big(0)?, definition: Name::new(row.col::<&str>(1)?) },
        definition_version: row.small(2)?,
        version: row.big(3)?,
        status,
        awaiting: row.col(5)?,
        wake_at: row.opt_big(6)?,
        started_at: row.big(7)?,
        updated_at: row.big(8)?,
    })
}

fn by_keys(sql: &'static str, keys: &[SagaKey]) -> Query<'static> {
    let definitions: Vec<String> = keys.iter().map(|key| key.definition.as_str().to_owned()).collect();
    Query::new(sql).bind(bigs(keys.iter().map(|key| key.id))).bind(definitions)
}

/// Partitions and definitions' versions are small.
fn number(small: u32) -> Result<i32, PgError> {
    i32::try_from(small).map_err(PgError::fault)
}
