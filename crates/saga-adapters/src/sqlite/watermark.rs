//! Watermarks on SQLite, and what they allow to be removed: of the orchestrator's file sagas with their histories, of a
//! participant's its barrier rows. There is one writer, so what is looked at in a job is so until it ends.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _};
use saga_core::Name;
use saga_runtime::StoreError;
use saga_runtime::retention::{Marks, Removed, Watermark, Watermarks};

use super::{Db, Durability, SqlError};

const RAISE: &str = "insert into watermark (definition, up_to) values (?1, ?2)
    on conflict (definition) do update set up_to = max(up_to, excluded.up_to) returning up_to";
const MARKS: &str = "select definition, up_to from watermark where up_to >= 0 order by definition";
const STANDS: &str = "select removed, up_to from watermark where definition = ?1";
const LOWEST_OPEN: &str = "select min(id) from saga indexed by saga_open where open = 1 and definition = ?1";

/// What hangs on a watermark.
#[derive(Clone, Copy, Debug)]
enum Of {
    Sagas,
    Barrier,
}

/// A file's watermarks.
#[derive(Clone, Debug)]
pub struct SqliteWatermarks {
    db: Db,
    of: Of,
}

impl SqliteWatermarks {
    /// Of a participant's file, which has the tables of [`super::participant`].
    pub fn of_barrier(db: Db) -> Self {
        Self { db, of: Of::Barrier }
    }

    pub(super) fn of_sagas(db: Db) -> Self {
        Self { db, of: Of::Sagas }
    }
}

#[async_trait]
impl Watermarks for SqliteWatermarks {
    async fn raise(&self, mark: Watermark) -> Result<Option<u64>, StoreError> {
        let of = self.of;
        self.db.write(Durability::Durable, move |conn| raise(conn, of, &mark)).await
    }

    async fn marks(&self) -> Result<Marks, StoreError> {
        self.db.read(marks).await
    }

    async fn remove(&self, mark: Watermark, limit: u32) -> Result<Removed, StoreError> {
        let of = self.of;
        // A power loss may bring rows back, with where we were: they are removed again.
        self.db.write(Durability::Derivable, move |conn| remove(conn, of, &mark, limit)).await
    }
}

/// Where a file's watermarks stand.
///
/// # Errors
/// SQLite's.
pub fn marks(conn: &Connection) -> Result<Marks, SqlError> {
    let mut statement = conn.prepare_cached(MARKS)?;
    let rows = statement
        .query_map([], |row| Ok(Watermark { definition: Name::new(row.get::<_, String>(0)?), up_to: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn raise(conn: &Connection, of: Of, mark: &Watermark) -> Result<Option<u64>, SqlError> {
    let definition = mark.definition.as_str();
    let lowest_open: Option<i64> = match of {
        Of::Sagas => conn.prepare_cached(LOWEST_OPEN)?.query_row([definition], |row| row.get(0))?,
        Of::Barrier => None,
    };
    let wanted = i64::try_from(mark.up_to).map_err(SqlError::fault)?;
    let wanted = lowest_open.map_or(wanted, |lowest| wanted.min(lowest - 1));
    let stands: i64 = conn.prepare_cached(RAISE)?.query_row((definition, wanted), |row| row.get(0))?;
    Ok(u64::try_from(stands).ok())
}

fn remove(conn: &Connection, of: Of, mark: &Watermark, limit: u32) -> Result<Removed, SqlError> {
    let definition = mark.definition.as_str();
    let stands: Option<(i64, i64)> =
        conn.prepare_cached(STANDS)?.query_row([definition], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((removed, up_to)) = stands else { return Ok(Removed::default()) };
    let end = up_to.min(i64::try_from(mark.up_to).map_err(SqlError::fault)?);
    if removed >= end {
        return Ok(Removed::default());
    }
    // A bite is a range of ids: of other definitions there may be any number between ours, and nobody walks them twice.
    let bite = match of {
        Of::Sagas => "select id from saga where id > ?1 and id <= ?2 order by id limit 1 offset ?3",
        Of::Barrier => {
            "select saga_id from barrier where saga_id > ?1 and saga_id <= ?2 order by saga_id limit 1 offset ?3"
        }
    };
    let full: Option<i64> = conn.prepare_cached(bite)?.query_row((removed, end, limit), |row| row.get(0)).optional()?;
    let until = full.unwrap_or(end);
    let count = match of {
        Of::Sagas => {
            conn.prepare_cached(include_str!("saga_store/sql/remove_history.sql"))?
                .execute((definition, removed, until))?;
            let sql = "delete from saga where definition = ?1 and id > ?2 and id <= ?3 and open = 0";
            conn.prepare_cached(sql)?.execute((definition, removed, until))?
        }
        Of::Barrier => {
            let sql = "delete from barrier where definition = ?1 and saga_id > ?2 and saga_id <= ?3";
            conn.prepare_cached(sql)?.execute((definition, removed, until))?
        }
    };
    conn.prepare_cached("update watermark set removed = ?2 where definition = ?1")?.execute((definition, until))?;
    Ok(Removed { count: count as u64, more: until < end })
}
