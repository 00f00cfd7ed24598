//! The store on SQLite: one file, group-committed.

use std::sync::Arc;

use async_trait::async_trait;
use saga_adapters::sqlite::rusqlite::types::Type;
use saga_adapters::sqlite::rusqlite::{self, Connection, OptionalExtension as _, params};
use saga_adapters::sqlite::{Db, Durability, Schema, SqlError};
use saga_core::protocol::Refusal;
use saga_core::{Json, Millis, Name};
use saga_runtime::StoreError;

use super::standing::{Change, Standing, is_too_late};
use super::{
    Applied, CLOCK_SET_BACK, Cancelled, Group, Idle, Keyed, NewPurchase, Outstanding, Placed, Promised, Row, Store,
};
use crate::domain::Status;
use crate::results;

/// This service's tables.
pub const SCHEMA: Schema = Schema {
    name: "purchase",
    migrations: &[
        ("V1__init", include_str!("../../migrations/V1__init.sql")),
        ("V2__promise", include_str!("../../migrations/V2__promise.sql")),
    ],
};

const ROW: &str = "select id, customer_id, status, amount, currency_code, input, last_seq, results, reason, \
                   created_at, updated_at, ended_at, cancel_requested_at from purchase";

/// Purchases in a SQLite file. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqliteStore(Db);

impl SqliteStore {
    /// Over a file that was opened with [`SCHEMA`].
    pub fn new(db: Db) -> Self {
        Self(db)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn place(&self, purchase: NewPurchase) -> Result<Placed, StoreError> {
        self.0.write(Durability::Durable, move |conn| place(conn, &purchase)).await
    }

    async fn of_key(&self, customer_id: u64, key: String) -> Result<Option<Keyed>, StoreError> {
        self.0.read(move |conn| of_key(conn, customer_id, &key)).await
    }

    async fn apply(&self, batch: Arc<[Group]>, now: Millis) -> Result<Vec<Applied>, StoreError> {
        let work = move |conn: &Connection| batch.iter().map(|group| apply(conn, group, now)).collect();
        self.0.write(Durability::Derivable, work).await
    }

    async fn get(&self, customer_id: u64, id: u64) -> Result<Option<Row>, StoreError> {
        self.0.read(move |conn| get(conn, customer_id, id)).await
    }

    async fn page(&self, customer_id: u64, before: u64, limit: u32) -> Result<Vec<Row>, StoreError> {
        let work = move |conn: &Connection| {
            let sql = format!("{ROW} where customer_id = ?1 and id < ?2 order by id desc limit ?3");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![customer_id, before, limit], row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.0.read(work).await
    }

    async fn changed(&self, customer_id: u64, since: Millis, newest: u32) -> Result<Vec<(Millis, u64)>, StoreError> {
        let work = move |conn: &Connection| {
            let mut statement = conn.prepare_cached(include_str!("../../sql/changed.sql"))?;
            let rows =
                statement.query_map(params![customer_id, since, newest], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.0.read(work).await
    }

    async fn cancel(
        &self,
        customer_id: u64,
        id: u64,
        reason: String,
        pivot: Option<Name>,
        now: Millis,
    ) -> Result<Cancelled, StoreError> {
        let work = move |conn: &Connection| cancel(conn, customer_id, id, &reason, pivot.as_ref(), now);
        self.0.write(Durability::Durable, work).await
    }

    async fn promise(&self, before: Millis, limit: u32) -> Result<Promised, StoreError> {
        self.0.write(Durability::Durable, move |conn| promise(conn, before, limit)).await
    }

    async fn lowest_in_flight(&self) -> Result<Option<u64>, StoreError> {
        let sql = "select min(id) from purchase indexed by purchase_in_flight where ended_at is null";
        self.0.read(move |conn| Ok(conn.query_row(sql, [], |row| row.get(0))?)).await
    }

    async fn count_in_flight(&self) -> Result<u64, StoreError> {
        let sql = "select count(*) from purchase indexed by purchase_in_flight where ended_at is null";
        self.0.read(move |conn| Ok(conn.query_row(sql, [], |row| row.get(0))?)).await
    }

    async fn idle(&self, wanted: Idle) -> Result<Vec<Outstanding>, StoreError> {
        let work = move |conn: &Connection| {
            let Idle { after, since, now, unseen, limit } = wanted;
            let future = now.saturating_add(CLOCK_SET_BACK);
            let mut statement = conn.prepare_cached(include_str!("../../sql/idle.sql"))?;
            let rows = statement.query_map(params![after, since, future, unseen, limit], outstanding)?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.0.read(work).await
    }

    async fn outstanding(&self, ids: Vec<u64>) -> Result<Vec<Outstanding>, StoreError> {
        let work = move |conn: &Connection| {
            let sql = "select id, customer_id, input, status, updated_at, cancel_reason \
                       from purchase where id = ?1 and ended_at is null";
            let mut statement = conn.prepare_cached(sql)?;
            let found = ids.iter().map(|id| statement.query_row([id], outstanding).optional());
            Ok(found.filter_map(Result::transpose).collect::<Result<_, _>>()?)
        };
        self.0.read(work).await
    }

    async fn forget_keys(&self, before: Millis, limit: u32) -> Result<bool, StoreError> {
        let work = move |conn: &Connection| forget_keys(conn, before, limit);
        self.0.write(Durability::Derivable, work).await
    }
}

fn place(conn: &Connection, new: &NewPurchase) -> Result<Placed, SqlError> {
    let fingerprint = new.key.as_ref().map(|_| new.fingerprint);
    let row = params![
        new.id,
        new.customer_id,
        new.amount,
        new.currency_code,
        new.input.as_str(),
        results::empty(),
        new.now,
        new.key,
        fingerprint,
    ];
    if conn.prepare_cached(include_str!("../../sql/place.sql"))?.execute(row)? == 1 {
        return Ok(Placed::New);
    }
    let key = new.key.as_deref().unwrap_or_default();
    let before = of_key(conn, new.customer_id, key)?;
    before.map(Placed::Before).ok_or_else(|| SqlError::fault("a key that is taken belongs to no purchase"))
}

fn of_key(conn: &Connection, customer_id: u64, key: &str) -> Result<Option<Keyed>, SqlError> {
    let sql = "select id, fingerprint from purchase where customer_id = ?1 and idempotency_key = ?2";
    let keyed = |row: &rusqlite::Row<'_>| Ok(Keyed { id: row.get(0)?, fingerprint: row.get(1)? });
    Ok(conn.prepare_cached(sql)?.query_row(params![customer_id, key], keyed).optional()?)
}

fn apply(conn: &Connection, group: &Group, now: Millis) -> Result<Applied, SqlError> {
    let sql = "select customer_id, status, last_seq, results, reason from purchase where id = ?1";
    let standing = |row: &rusqlite::Row<'_>| {
        Ok(Standing {
            customer_id: row.get(0)?,
            status: status(row, 1)?,
            last_seq: row.get(2)?,
            results: row.get(3)?,
            reason: row.get(4)?,
        })
    };
    let Some(mut standing) = conn.prepare_cached(sql)?.query_row([group.id], standing).optional()? else {
        return Ok(Applied::Unknown);
    };
    let (applied, change) = standing.apply(group)?;
    if change != Change::Nothing {
        write(conn, group.id, &standing, change == Change::End, now)?;
    }
    Ok(applied)
}

fn write(conn: &Connection, id: u64, standing: &Standing, ended: bool, now: Millis) -> Result<(), SqlError> {
    let sql = if ended { include_str!("../../sql/end.sql") } else { include_str!("../../sql/progress.sql") };
    let Standing { status, last_seq, results, reason, .. } = standing;
    conn.prepare_cached(sql)?.execute(params![id, status.as_str(), last_seq, results, reason, now])?;
    Ok(())
}

fn get(conn: &Connection, customer_id: u64, id: u64) -> Result<Option<Row>, SqlError> {
    let sql = format!("{ROW} where id = ?1 and customer_id = ?2");
    Ok(conn.prepare_cached(&sql)?.query_row(params![id, customer_id], row).optional()?)
}

fn cancel(
    conn: &Connection,
    customer_id: u64,
    id: u64,
    reason: &str,
    pivot: Option<&Name>,
    now: Millis,
) -> Result<Cancelled, SqlError> {
    let Some(row) = get(conn, customer_id, id)? else { return Ok(Cancelled::NotFound) };
    if is_too_late(&row, pivot).map_err(SqlError::fault)? {
        return Ok(Cancelled::TooLate(row.status));
    }
    conn.prepare_cached(include_str!("../../sql/cancel.sql"))?.execute(params![id, customer_id, now, reason])?;
    let row = get(conn, customer_id, id)?.ok_or_else(|| SqlError::fault("the purchase is gone"))?;
    Ok(Cancelled::Accepted(Box::new(row)))
}

/// Walks up the ids, which ascend with time, and stops at the first row that is too young.
fn forget_keys(conn: &Connection, before: Millis, limit: u32) -> Result<bool, SqlError> {
    let after: u64 = conn.query_row("select up_to from forgotten_keys", [], |row| row.get(0))?;
    let sql = "select id, created_at from purchase where id > ?1 order by id limit ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![after, limit])?;
    let (mut last, mut looked_at) = (after, 0);
    while let Some(row) = rows.next()? {
        if row.get::<_, Millis>(1)? >= before {
            break;
        }
        last = row.get(0)?;
        looked_at += 1;
    }
    if last > after {
        conn.prepare_cached(include_str!("../../sql/forget_keys.sql"))?.execute(params![after, last, before])?;
        conn.prepare_cached("update forgotten_keys set up_to = ?1")?.execute([last])?;
    }
    Ok(looked_at == limit)
}

/// Walks up the ids and stops at the first purchase that has not ended, or not long ago.
fn promise(conn: &Connection, before: Millis, limit: u32) -> Result<Promised, SqlError> {
    let after: u64 = conn.query_row("select up_to from promise", [], |row| row.get(0))?;
    let mut statement = conn.prepare_cached("select id, ended_at from purchase where id > ?1 order by id limit ?2")?;
    let mut rows = statement.query(params![after, limit])?;
    let (mut up_to, mut seen) = (after, 0);
    while let Some(row) = rows.next()? {
        if row.get::<_, Option<Millis>>(1)?.is_none_or(|ended| ended >= before) {
            break;
        }
        up_to = row.get(0)?;
        seen += 1;
    }
    if up_to > after {
        conn.prepare_cached("update promise set up_to = ?1")?.execute([up_to])?;
    }
    Ok(Promised { up_to, more: seen == limit })
}

fn status(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Status> {
    let text = row.get_ref(column)?.as_str()?;
    Status::from_text(text).ok_or_else(|| {
        let unknown = format!("{text:?} is no status");
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, unknown.into())
    })
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let reason: Option<String> = row.get(8)?;
    let reason: Option<Refusal> = reason
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(8, Type::Text, e.into()))?;
    Ok(Row {
        id: row.get(0)?,
        customer_id: row.get(1)?,
        status: status(row, 2)?,
        amount: row.get(3)?,
        currency_code: row.get(4)?,
        input: row.get(5)?,
        last_seq: row.get(6)?,
        results: row.get(7)?,
        reason,
        created_at: row.get(9)?,
        updated_at: row.get(10)?,
        ended_at: row.get(11)?,
        cancel_requested_at: row.get(12)?,
    })
}

fn outstanding(row: &rusqlite::Row<'_>) -> rusqlite::Result<Outstanding> {
    let text: String = row.get(2)?;
    let input: Json =
        serde_json::from_str(&text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(2, Type::Text, e.into()))?;
    Ok(Outstanding {
        id: row.get(0)?,
        customer_id: row.get(1)?,
        input,
        status: status(row, 3)?,
        updated_at: row.get(4)?,
        cancel: row.get(5)?,
    })
}
