//! The orchestrator's store on SQLite: a small row a saga, updated in place, beside an append-only history.
//!
//! The fence is a row too: a commit reads the partition's epoch in its own transaction, so an owner that slept
//! through its replacement cannot write. What the columns mean stands in the migration.

mod audit;
mod listing;

use std::collections::HashSet;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};
use saga_core::{Event, Millis, Name, SagaKey, Status};
use saga_runtime::StoreError;
use saga_runtime::retention::{Marks, Removed, Watermark, Watermarks};
use saga_runtime::store::{
    Awaited, CommitError, InFlight, Owner, SagaCount, SagaFilter, SagaRow, SagaStore, Transition, Written,
};

use super::watermark::SqliteWatermarks;
use super::{Db, Durability, Schema, SqlError};

pub use audit::{Audited, audit};

/// The orchestrator's file.
pub const SCHEMA: Schema = Schema {
    name: "orchestrator",
    migrations: &[
        ("V1__init", include_str!("saga_store/migrations/V1__init.sql")),
        ("V2__drop_syncs", include_str!("saga_store/migrations/V2__drop_syncs.sql")),
        ("V3__desk", include_str!("saga_store/migrations/V3__desk.sql")),
        ("V4__watermark", include_str!("saga_store/migrations/V4__watermark.sql")),
    ],
};

const CLAIM: &str = "insert into owner (partition, epoch) values (?1, 1)
    on conflict (partition) do update set epoch = epoch + 1 returning epoch";
const EPOCH: &str = "select epoch from owner where partition = ?1";
const START: &str = include_str!("saga_store/sql/start.sql");
const STEP: &str = include_str!("saga_store/sql/step.sql");
const FINISH: &str = include_str!("saga_store/sql/finish.sql");
const APPEND: &str = "insert into history (saga_id, definition, version, events) values (?1, ?2, ?3, ?4)";
const HISTORY: &str = "select version, events from history where saga_id = ?1 and definition = ?2 order by version";
const COLUMNS: &str =
    "select id, definition, definition_version, version, status, awaiting, wake_at, started_at, updated_at from saga";

/// The store, over the file of [`SCHEMA`].
#[derive(Debug, Clone)]
pub struct SqliteSagaStore {
    db: Db,
}

impl SqliteSagaStore {
    /// Over a file opened with [`SCHEMA`].
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl SagaStore for SqliteSagaStore {
    async fn claim(&self, partition: u32) -> Result<Owner, StoreError> {
        let claim = move |conn: &Connection| {
            let epoch = conn.prepare_cached(CLAIM)?.query_row([partition], |row| row.get(0))?;
            Ok(Owner { partition, epoch })
        };
        self.db.write(Durability::Durable, claim).await
    }

    async fn commit(&self, owner: Owner, batch: Vec<Transition>) -> Result<Vec<Written>, CommitError> {
        let written = self.db.write(Durability::Durable, move |conn| commit(conn, owner, &batch)).await?;
        written.ok_or(CommitError::Fenced(owner))
    }

    async fn histories(&self, keys: Vec<SagaKey>) -> Result<Vec<Vec<Vec<Event>>>, StoreError> {
        self.db.read(move |conn| keys.iter().map(|key| history(conn, key)).collect()).await
    }

    async fn in_flight(&self, partition: u32, after: Option<SagaKey>, limit: u32) -> Result<Vec<SagaRow>, StoreError> {
        self.db.read(move |conn| listing::in_flight(conn, partition, after.as_ref(), limit)).await
    }

    async fn list(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
        self.db.read(move |conn| listing::list(conn, &filter)).await
    }

    async fn count_in_flight(&self) -> Result<Vec<InFlight>, StoreError> {
        self.db.read(listing::count_in_flight).await
    }

    async fn count_awaited(&self) -> Result<Vec<Awaited>, StoreError> {
        self.db.read(listing::count_awaited).await
    }

    async fn count_started(&self, from: Millis) -> Result<Vec<SagaCount>, StoreError> {
        self.db.read(move |conn| listing::count_started(conn, from)).await
    }

    async fn count_ended(&self) -> Result<Vec<SagaCount>, StoreError> {
        self.db.read(listing::count_ended).await
    }
}

#[async_trait]
impl Watermarks for SqliteSagaStore {
    async fn raise(&self, mark: Watermark) -> Result<Option<u64>, StoreError> {
        SqliteWatermarks::of_sagas(self.db.clone()).raise(mark).await
    }

    async fn marks(&self) -> Result<Marks, StoreError> {
        SqliteWatermarks::of_sagas(self.db.clone()).marks().await
    }

    async fn remove(&self, mark: Watermark, limit: u32) -> Result<Removed, StoreError> {
        SqliteWatermarks::of_sagas(self.db.clone()).remove(mark, limit).await
    }
}

/// `None`: another owner has taken over, nothing was written.
fn commit(conn: &Connection, owner: Owner, batch: &[Transition]) -> Result<Option<Vec<Written>>, SqlError> {
    let epoch: Option<u64> = conn.prepare_cached(EPOCH)?.query_row([owner.partition], |row| row.get(0)).optional()?;
    if epoch != Some(owner.epoch) {
        return Ok(None);
    }
    let mut append = conn.prepare_cached(APPEND)?;
    let mut written = Vec::with_capacity(batch.len());
    let mut lost: HashSet<&SagaKey> = HashSet::new();
    for Transition { row, events } in batch {
        if lost.contains(&row.key) || set(conn, owner.partition, row)? == 0 {
            lost.insert(&row.key);
            written.push(Written::Conflict);
            continue;
        }
        let events = serde_json::to_string(events)?;
        append.execute((row.key.id, row.key.definition.as_str(), row.version, events))?;
        written.push(Written::Yes);
    }
    Ok(Some(written))
}

/// Compare-and-set of one row; tells how many rows it found as expected.
fn set(conn: &Connection, partition: u32, row: &SagaRow) -> Result<usize, SqlError> {
    let (id, definition, status) = (row.key.id, row.key.definition.as_str(), row.status.as_str());
    let open = !row.status.is_terminal();
    if row.version == 1 {
        let values = (
            id,
            definition,
            row.definition_version,
            partition,
            open,
            status,
            row.awaiting.as_str(),
            row.wake_at,
            row.started_at,
            row.updated_at,
        );
        return Ok(conn.prepare_cached(START)?.execute(values)?);
    }
    let sql = if open { STEP } else { FINISH };
    let values = (id, definition, row.version, status, row.awaiting.as_str(), row.wake_at, row.updated_at);
    Ok(conn.prepare_cached(sql)?.execute(values)?)
}

fn history(conn: &Connection, key: &SagaKey) -> Result<Vec<Vec<Event>>, SqlError> {
    let mut statement = conn.prepare_cached(HISTORY)?;
    let mut rows = statement.query((key.id, key.definition.as_str()))?;
    let mut history = Vec::new();
    while let Some(row) = rows.next()? {
        let (version, events): (usize, _) = (row.get(0)?, row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?);
        match parse(version, events, history.len()) {
            Ok(events) => history.push(events),
            Err(detail) => {
                // One saga's impossible row must not stop the others: a history without a beginning does not
                // replay, which is what quarantines this saga.
                tracing::error!(%key, detail, "a row of this saga's history cannot be read");
                return Ok(vec![Vec::new()]);
            }
        }
    }
    Ok(history)
}

/// The events of one row, which must be the one after `known` others.
fn parse(version: usize, events: &str, known: usize) -> Result<Vec<Event>, String> {
    if version != known + 1 {
        return Err(format!("transition {version} follows transition {known}"));
    }
    serde_json::from_str(events).map_err(|e| format!("transition {version}: {e}"))
}

/// A row of [`COLUMNS`].
fn row(row: &Row<'_>) -> Result<SagaRow, SqlError> {
    let status = row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?;
    let status = Status::from_text(status).ok_or_else(|| SqlError::Fault(format!("a saga cannot be {status}")))?;
    Ok(SagaRow {
        key: SagaKey { id: row.get(0)?, definition: Name::new(row.get::<_, String>(1)?) },
        definition_version: row.get(2)?,
        version: row.get(3)?,
        status,
        awaiting: row.get(5)?,
        wake_at: row.get(6)?,
        started_at: row.get(7)?,
        updated_at: row.get(8)?,
    })
}
