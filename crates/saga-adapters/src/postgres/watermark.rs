//! Watermarks on PostgreSQL, and what they allow to be removed: of the orchestrator's database sagas with their
//! histories, of a participant's its barrier rows.
//!
//! Whoever writes such a row reads the watermark in the same statement, without a lock. So it may have been raised
//! meanwhile; see [`saga_runtime::retention`] for why that is harmless.

use async_trait::async_trait;
use saga_core::Name;
use saga_runtime::StoreError;
use saga_runtime::retention::{Marks, Removed, Watermark, Watermarks};
use tokio_postgres::Row;

use super::{Columns as _, Pg, PgError, Query, Snapshot};

const RAISE_SAGAS: &str = "insert into watermark as w (definition, up_to)
    select $1, least($2::bigint, (select min(id) - 1 from saga where open and definition = $1))
    on conflict (definition) do update set up_to = greatest(w.up_to, excluded.up_to) returning up_to";
const RAISE_BARRIER: &str = "insert into watermark as w (definition, up_to) values ($1, $2::bigint)
    on conflict (definition) do update set up_to = greatest(w.up_to, excluded.up_to) returning up_to";
const MARKS: &str = "select definition, up_to from watermark where up_to >= 0 order by definition";
const STANDS: &str = "select removed, up_to from watermark where definition = $1 for update";
const BITE_OF_SAGAS: &str = "select id from saga where id > $1 and id <= $2 order by id limit 1 offset $3";
const BITE_OF_BARRIER: &str =
    "select saga_id from barrier where saga_id > $1 and saga_id <= $2 order by saga_id limit 1 offset $3";
const REMOVE_SAGAS: &str = "with gone as (
        delete from saga where definition = $1 and id > $2 and id <= $3 and not open returning id
    ),
    histories as (
        delete from history
        -- `is true` keeps it a hashed look-up: as a join it would be every pair.
        where definition = $1 and saga_id > $2 and saga_id <= $3 and (saga_id in (select id from gone)) is true
    )
    select count(*) from gone";
const REMOVE_BARRIER: &str = "with gone as (
        delete from barrier where definition = $1 and saga_id > $2 and saga_id <= $3 returning 1
    )
    select count(*) from gone";
const NOTE: &str = "update watermark set removed = $2 where definition = $1";

/// What hangs on a watermark.
#[derive(Clone, Copy, Debug)]
enum Of {
    Sagas,
    Barrier,
}

/// A database's watermarks.
#[derive(Clone, Debug)]
pub struct PgWatermarks {
    pg: Pg,
    of: Of,
}

impl PgWatermarks {
    /// Of a participant's database, which has the tables of [`super::participant`].
    pub fn of_barrier(pg: Pg) -> Self {
        Self { pg, of: Of::Barrier }
    }

    pub(super) fn of_sagas(pg: Pg) -> Self {
        Self { pg, of: Of::Sagas }
    }
}

#[async_trait]
impl Watermarks for PgWatermarks {
    async fn raise(&self, mark: Watermark) -> Result<Option<u64>, StoreError> {
        let sql = match self.of {
            Of::Sagas => RAISE_SAGAS,
            Of::Barrier => RAISE_BARRIER,
        };
        let query = Query::new(sql).bind(mark.definition.as_str().to_owned()).bind(id(mark.up_to)?);
        let rows = self.pg.run(query).await?;
        let row = rows.first().ok_or_else(|| PgError::fault("a watermark without an answer"))?;
        Ok(u64::try_from(row.col::<i64>(0)?).ok())
    }

    async fn marks(&self) -> Result<Marks, StoreError> {
        Ok(read(&self.pg.read(Query::new(MARKS)).await?)?)
    }

    async fn remove(&self, mark: Watermark, limit: u32) -> Result<Removed, StoreError> {
        Ok(remove(&self.pg, self.of, mark, limit).await?)
    }
}

/// Where the watermarks stood at this moment: what `saga check` reads.
///
/// # Errors
/// When the database cannot be read.
pub async fn audit(at: &Snapshot) -> Result<Marks, PgError> {
    read(&at.read(Query::new(MARKS)).await?)
}

/// Asks where the watermarks stand, for [`read`].
pub fn query() -> Query<'static> {
    Query::new(MARKS)
}

/// What [`query`] was answered.
///
/// # Errors
/// When the rows make no sense.
pub fn read(rows: &[Row]) -> Result<Marks, PgError> {
    let mark = |row: &Row| Ok(Watermark { definition: Name::new(row.col::<&str>(0)?), up_to: row.big(1)? });
    rows.iter().map(mark).collect()
}

async fn remove(pg: &Pg, of: Of, mark: Watermark, limit: u32) -> Result<Removed, PgError> {
    let definition = mark.definition.as_str().to_owned();
    // Locked only against whoever else removes: those who write sagas read it as it was.
    let (tx, rows) = pg.begin(vec![Query::new(STANDS).bind(definition.clone())]).await?;
    let stands = rows.iter().flatten().next().map(|row| Ok::<_, PgError>((row.col::<i64>(0)?, row.col::<i64>(1)?)));
    let (removed, up_to) = stands.transpose()?.unwrap_or((-1, -1));
    let end = up_to.min(id(mark.up_to)?);
    if removed >= end {
        tx.roll_back().await;
        return Ok(Removed::default());
    }
    // A bite is a range of ids: of other definitions there may be any number between ours, and nobody walks them twice.
    let (bite, delete) = match of {
        Of::Sagas => (BITE_OF_SAGAS, REMOVE_SAGAS),
        Of::Barrier => (BITE_OF_BARRIER, REMOVE_BARRIER),
    };
    let bite = tx.also(vec![Query::new(bite).bind(removed).bind(end).bind(i64::from(limit))]).await?;
    let full = bite.iter().flatten().next().map(|row| row.col::<i64>(0)).transpose()?;
    let until = full.unwrap_or(end);
    let delete = Query::new(delete).bind(definition.clone()).bind(removed).bind(until);
    // A power loss may bring rows back, with where we were: they are removed again.
    let rows = tx.commit(vec![delete, Query::new(NOTE).bind(definition).bind(until).lazy()]).await?;
    let count = rows.iter().flatten().next().map(|row| row.big(0)).transpose()?.unwrap_or_default();
    Ok(Removed { count, more: until < end })
}

fn id(id: u64) -> Result<i64, PgError> {
    i64::try_from(id).map_err(PgError::fault)
}
