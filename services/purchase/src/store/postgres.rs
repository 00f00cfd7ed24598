//! The store on PostgreSQL: purchases are written in groups, results in batches.

mod place;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use saga_adapters::postgres::{Columns as _, Groups, Pg, PgError, Query, Row as PgRow, Schema, bigs};
use saga_core::protocol::Refusal;
use saga_core::{Json, Millis, Name};
use saga_runtime::StoreError;

use super::standing::{Change, Standing, is_too_late};
use super::{
    Applied, CLOCK_SET_BACK, Cancelled, Group, Idle, Keyed, NewPurchase, Outstanding, Placed, Promised, Row, Store,
};
use crate::domain::Status;

/// This service's tables.
pub const PG_SCHEMA: Schema = Schema {
    name: "purchase",
    migrations: &[
        ("V1__init", include_str!("../../migrations/postgres/V1__init.sql")),
        ("V2__promise", include_str!("../../migrations/postgres/V2__promise.sql")),
    ],
};

const ROW: &str = "select id, customer_id, status, amount, currency_code, input, last_seq, results, reason, \
                   created_at, updated_at, ended_at, cancel_requested_at from purchase";
const KEYED: &str = "select id, fingerprint from purchase where customer_id = $1 and idempotency_key = $2";
const OUTSTANDING: &str = "select id, customer_id, input, status, updated_at, cancel_reason \
                           from purchase where id = any($1) and ended_at is null order by id";
const LOCK: &str = "select id, customer_id, status, last_seq, results, reason from purchase \
                    where id = any($1) order by id for no key update";
const CANCEL: &str = "update purchase set cancel_requested_at = $2, cancel_reason = $3, \
                      updated_at = greatest(updated_at, $2) where id = $1 and cancel_requested_at is null";

/// Requests in one transaction, at most.
const MOST_TOGETHER: usize = 256;

/// Purchases in a PostgreSQL database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PgStore {
    pg: Pg,
    places: Groups<NewPurchase, Placed>,
}

impl PgStore {
    /// Over a database that was connected with [`PG_SCHEMA`]. Needs a runtime.
    pub fn new(pg: Pg) -> Self {
        let writing = pg.clone();
        let places = Groups::new(MOST_TOGETHER, pg.pace(), move |batch| {
            let pg = writing.clone();
            async move { place::place(&pg, &batch).await }
        });
        Self { pg, places }
    }

    async fn read<T>(&self, query: Query<'_>, of: fn(&PgRow) -> Result<T, PgError>) -> Result<Vec<T>, StoreError> {
        Ok(self.pg.read(query).await?.iter().map(of).collect::<Result<_, _>>()?)
    }
}

#[async_trait]
impl Store for PgStore {
    async fn place(&self, purchase: NewPurchase) -> Result<Placed, StoreError> {
        self.places.put(purchase).await
    }

    async fn of_key(&self, customer_id: u64, key: String) -> Result<Option<Keyed>, StoreError> {
        let keyed = |row: &PgRow| Ok(Keyed { id: row.big(0)?, fingerprint: row.bytes(1)? });
        Ok(self.read(Query::new(KEYED).big(customer_id).bind(key), keyed).await?.pop())
    }

    async fn apply(&self, batch: Arc<[Group]>, now: Millis) -> Result<Vec<Applied>, StoreError> {
        Ok(apply(&self.pg, &batch, now).await?)
    }

    async fn get(&self, customer_id: u64, id: u64) -> Result<Option<Row>, StoreError> {
        let query = Query::new(format!("{ROW} where id = $1 and customer_id = $2")).big(id).big(customer_id);
        Ok(self.read(query, row).await?.pop())
    }

    async fn page(&self, customer_id: u64, before: u64, limit: u32) -> Result<Vec<Row>, StoreError> {
        let sql = format!("{ROW} where customer_id = $1 and id < $2 order by id desc limit $3");
        self.read(Query::new(sql).big(customer_id).big(before).bind(i64::from(limit)), row).await
    }

    async fn changed(&self, customer_id: u64, since: Millis, newest: u32) -> Result<Vec<(Millis, u64)>, StoreError> {
        let query = Query::new(include_str!("../../sql/postgres/changed.sql")).big(customer_id).big(since);
        self.read(query.bind(i64::from(newest)), |row| Ok((row.big(0)?, row.big(1)?))).await
    }

    async fn cancel(
        &self,
        customer_id: u64,
        id: u64,
        reason: String,
        pivot: Option<Name>,
        now: Millis,
    ) -> Result<Cancelled, StoreError> {
        let of = || Query::new(format!("{ROW} where id = $1 and customer_id = $2")).big(id).big(customer_id);
        let lock = Query::new(format!("{ROW} where id = $1 and customer_id = $2 for no key update"));
        let (tx, rows) = self.pg.begin(vec![lock.big(id).big(customer_id)]).await?;
        let found = rows.into_iter().flatten().next();
        let Some(found) = found else {
            tx.roll_back().await;
            return Ok(Cancelled::NotFound);
        };
        let found = row(&found)?;
        if is_too_late(&found, pivot.as_ref()).map_err(PgError::fault)? {
            tx.roll_back().await;
            return Ok(Cancelled::TooLate(found.status));
        }
        let rows = tx.commit(vec![Query::new(CANCEL).big(id).big(now).bind(reason), of()]).await?;
        let after = rows.into_iter().flatten().next().ok_or_else(|| PgError::fault("the purchase is gone"))?;
        Ok(Cancelled::Accepted(Box::new(row(&after)?)))
    }

    async fn promise(&self, before: Millis, limit: u32) -> Result<Promised, StoreError> {
        Ok(promise(&self.pg, before, limit).await?)
    }

    async fn lowest_in_flight(&self) -> Result<Option<u64>, StoreError> {
        let query = Query::new("select min(id) from purchase where ended_at is null");
        Ok(self.read(query, |row| row.opt_big(0)).await?.pop().flatten())
    }

    async fn count_in_flight(&self) -> Result<u64, StoreError> {
        let query = Query::new("select count(*) from purchase where ended_at is null");
        Ok(self.read(query, |row| row.big(0)).await?.pop().unwrap_or_default())
    }

    async fn idle(&self, wanted: Idle) -> Result<Vec<Outstanding>, StoreError> {
        let Idle { after, since, now, unseen, limit } = wanted;
        let query = Query::new(include_str!("../../sql/postgres/idle.sql"))
            .big(after)
            .big(since)
            .big(now.saturating_add(CLOCK_SET_BACK))
            .bind(unseen)
            .bind(i64::from(limit));
        self.read(query, outstanding).await
    }

    async fn outstanding(&self, ids: Vec<u64>) -> Result<Vec<Outstanding>, StoreError> {
        self.read(Query::new(OUTSTANDING).bind(bigs(ids)), outstanding).await
    }

    async fn forget_keys(&self, before: Millis, limit: u32) -> Result<bool, StoreError> {
        Ok(forget_keys(&self.pg, before, limit).await?)
    }
}

async fn apply(pg: &Pg, batch: &[Group], now: Millis) -> Result<Vec<Applied>, PgError> {
    let ids = Query::new(LOCK).bind(bigs(batch.iter().map(|group| group.id)));
    let (tx, rows) = pg.begin(vec![ids]).await?;
    let decided = standings(rows.into_iter().flatten()).and_then(|mut rows| {
        let mut changes: HashMap<u64, Change> = HashMap::with_capacity(rows.len());
        let mut all = Vec::with_capacity(batch.len());
        for group in batch {
            let Some(standing) = rows.get_mut(&group.id) else {
                all.push(Applied::Unknown);
                continue;
            };
            let (applied, change) = standing.apply(group)?;
            all.push(applied);
            changes.entry(group.id).and_modify(|before| *before = change.max(*before)).or_insert(change);
        }
        changes.retain(|_, change| *change != Change::Nothing);
        Ok((all, rows, changes))
    });
    match decided {
        Ok((all, _, changes)) if changes.is_empty() => {
            tx.roll_back().await;
            Ok(all)
        }
        Ok((all, rows, changes)) => {
            tx.commit(vec![write(&rows, &changes, now).lazy()]).await?;
            Ok(all)
        }
        Err(error) => {
            tx.roll_back().await;
            Err(error)
        }
    }
}

fn standings(rows: impl Iterator<Item = PgRow>) -> Result<HashMap<u64, Standing>, PgError> {
    let standing = |row: &PgRow| {
        let (last_seq, results, reason) = (row.small(3)?, row.col(4)?, row.col(5)?);
        let standing = Standing { customer_id: row.big(1)?, status: status(row.col(2)?)?, last_seq, results, reason };
        Ok((row.big(0)?, standing))
    };
    rows.map(|row| standing(&row)).collect()
}

fn write(rows: &HashMap<u64, Standing>, changes: &HashMap<u64, Change>, now: Millis) -> Query<'static> {
    let changed: Vec<(u64, &Standing, bool)> =
        changes.iter().filter_map(|(id, change)| Some((*id, rows.get(id)?, *change == Change::End))).collect();
    Query::new(include_str!("../../sql/postgres/apply.sql"))
        .bind(bigs(changed.iter().map(|(id, ..)| *id)))
        .bind(changed.iter().map(|(_, s, _)| s.status.as_str().to_owned()).collect::<Vec<_>>())
        .bind(changed.iter().map(|(_, s, _)| i32::try_from(s.last_seq).unwrap_or(i32::MAX)).collect::<Vec<i32>>())
        .bind(changed.iter().map(|(_, s, _)| s.results.clone()).collect::<Vec<_>>())
        .bind(changed.iter().map(|(_, s, _)| s.reason.clone()).collect::<Vec<_>>())
        .bind(changed.iter().map(|(.., ended)| *ended).collect::<Vec<bool>>())
        .big(now)
}

/// Walks up the ids, which ascend with time, and stops at the first row that is too young.
async fn forget_keys(pg: &Pg, before: Millis, limit: u32) -> Result<bool, PgError> {
    let (tx, rows) = pg.begin(vec![Query::new("select up_to from forgotten_keys for update")]).await?;
    let after = rows.iter().flatten().next().ok_or_else(|| PgError::fault("no row says what is forgotten"))?.big(0)?;
    let sql = "select id, created_at from purchase where id > $1 order by id limit $2";
    let rows = tx.also(vec![Query::new(sql).big(after).bind(i64::from(limit))]).await?;
    let (mut last, mut looked_at) = (after, 0);
    for row in rows.iter().flatten() {
        if row.big(1)? >= before {
            break;
        }
        last = row.big(0)?;
        looked_at += 1;
    }
    if last > after {
        let forget = Query::new(include_str!("../../sql/postgres/forget_keys.sql")).big(after).big(last).big(before);
        tx.commit(vec![forget, Query::new("update forgotten_keys set up_to = $1").big(last).lazy()]).await?;
    } else {
        tx.roll_back().await;
    }
    Ok(looked_at == limit)
}

/// Walks up the ids and stops at the first purchase that has not ended, or not long ago.
async fn promise(pg: &Pg, before: Millis, limit: u32) -> Result<Promised, PgError> {
    let (tx, rows) = pg.begin(vec![Query::new("select up_to from promise for update")]).await?;
    let after = rows.iter().flatten().next().ok_or_else(|| PgError::fault("no row says what is promised"))?.big(0)?;
    let sql = "select id, ended_at from purchase where id > $1 order by id limit $2";
    let rows = tx.also(vec![Query::new(sql).big(after).bind(i64::from(limit))]).await?;
    let (mut up_to, mut seen) = (after, 0);
    for row in rows.iter().flatten() {
        if row.opt_big(1)?.is_none_or(|ended| ended >= before) {
            break;
        }
        up_to = row.big(0)?;
        seen += 1;
    }
    if up_to > after {
        // Not lazy: with it, the ends that it relies on are on disk.
        tx.commit(vec![Query::new("update promise set up_to = $1").big(up_to)]).await?;
    } else {
        tx.roll_back().await;
    }
    Ok(Promised { up_to, more: seen == limit })
}

fn status(text: &str) -> Result<Status, PgError> {
    Status::from_text(text).ok_or_else(|| PgError::Fault(format!("{text:?} is no status")))
}

/// A row of [`ROW`].
fn row(row: &PgRow) -> Result<Row, PgError> {
    let reason: Option<&str> = row.col(8)?;
    let reason: Option<Refusal> = reason.map(serde_json::from_str).transpose()?;
    Ok(Row {
        id: row.big(0)?,
        customer_id: row.big(1)?,
        status: status(row.col(2)?)?,
        amount: row.col(3)?,
        currency_code: row.col(4)?,
        input: row.col(5)?,
        last_seq: row.small(6)?,
        results: row.col(7)?,
        reason,
        created_at: row.big(9)?,
        updated_at: row.big(10)?,
        ended_at: row.opt_big(11)?,
        cancel_requested_at: row.opt_big(12)?,
    })
}

fn outstanding(row: &PgRow) -> Result<Outstanding, PgError> {
    let input: Json = serde_json::from_str(row.col(2)?)?;
    Ok(Outstanding {
        id: row.big(0)?,
        customer_id: row.big(1)?,
        input,
        status: status(row.col(3)?)?,
        updated_at: row.big(4)?,
        cancel: row.col(5)?,
    })
}
