//! A database at one moment, read from its first row to its last: what `saga check` does beside running services.

use super::Row;
use super::error::PgError;
use super::pool::{Pg, Tx};
use super::query::Query;

/// Rows that are fetched at a time: bounds the memory.
const LOT: usize = 1_000;

/// Large reads want other plans than look-ups, and take their time.
const BEGIN: &[&str] = &[
    "begin isolation level repeatable read, read only",
    "set local statement_timeout = 0",
    "set local idle_in_transaction_session_timeout = 0",
    "set local enable_seqscan = on",
    "set local enable_bitmapscan = on",
    "set local enable_hashjoin = on",
    "set local enable_mergejoin = on",
    "set local enable_material = on",
];

/// One moment of a database. It holds a session, and keeps the server from cleaning up: not for long.
pub struct Snapshot {
    tx: Tx,
}

impl Pg {
    /// The moment of this call.
    ///
    /// # Errors
    /// When there is no session.
    pub async fn snapshot(&self) -> Result<Snapshot, PgError> {
        // The first statement is what fixes the moment.
        Ok(Snapshot { tx: self.begin_with(BEGIN, vec![Query::new("select 1")]).await? })
    }
}

impl Snapshot {
    /// One statement's rows.
    ///
    /// # Errors
    /// The snapshot can only be dropped then.
    pub async fn read(&self, query: Query<'_>) -> Result<Vec<Row>, PgError> {
        Ok(self.tx.also(vec![query]).await?.pop().unwrap_or_default())
    }

    /// Hands every row of a statement without values to `each`.
    ///
    /// # Errors
    /// The first of `each`, or when the database cannot be read; the snapshot can only be dropped then.
    pub async fn each(
        &self,
        sql: &str,
        each: &mut (dyn FnMut(&Row) -> Result<(), PgError> + Send),
    ) -> Result<(), PgError> {
        self.tx.say(&format!("declare snapshot_rows no scroll cursor for {sql}")).await?;
        loop {
            let rows = self.tx.ask(&format!("fetch {LOT} from snapshot_rows")).await?;
            rows.iter().try_for_each(&mut *each)?;
            if rows.len() < LOT {
                return self.tx.say("close snapshot_rows").await;
            }
        }
    }
}
