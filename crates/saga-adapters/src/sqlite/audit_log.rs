//! The audit log on SQLite, in whichever file has the table `audit`.

use async_trait::async_trait;
use rusqlite::{Connection, Row};
use saga_runtime::StoreError;
use saga_runtime::audit::{AuditEntry, AuditFilter, AuditLine, AuditLog, BEGUN};

use super::{Db, Durability, SqlError};

const BEGIN: &str = "insert into audit (at, actor, action, target, reason, outcome, details)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7) returning id";
const END: &str = "update audit set outcome = ?2, details = ?3 where id = ?1 and outcome = ?4";
const WITHDRAW: &str = "delete from audit where id = ?1 and outcome = ?2";
const LIST: &str = "select id, at, actor, action, target, reason, outcome, details from audit
    where id < ?1 and (?2 is null or actor = ?2) and (?3 is null or action = ?3) and (?4 is null or target = ?4)
    order by id desc limit ?5";

/// The log, over a file whose schema has the table.
#[derive(Debug, Clone)]
pub struct SqliteAuditLog {
    db: Db,
}

impl SqliteAuditLog {
    /// Over an open file.
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl AuditLog for SqliteAuditLog {
    async fn begin(&self, entry: AuditEntry) -> Result<u64, StoreError> {
        let begin = move |conn: &Connection| {
            let AuditEntry { at, actor, action, target, reason, details } = &entry;
            let values = (at, actor, action, target, reason, BEGUN, details);
            Ok(conn.prepare_cached(BEGIN)?.query_row(values, |row| row.get(0))?)
        };
        self.db.write(Durability::Durable, begin).await
    }

    async fn end(&self, id: u64, outcome: String, details: String) -> Result<(), StoreError> {
        let end = move |conn: &Connection| {
            conn.prepare_cached(END)?.execute((id, &outcome, &details, BEGUN))?;
            Ok(())
        };
        self.db.write(Durability::Durable, end).await
    }

    async fn withdraw(&self, id: u64) -> Result<(), StoreError> {
        let withdraw = move |conn: &Connection| {
            conn.prepare_cached(WITHDRAW)?.execute((id, BEGUN))?;
            Ok(())
        };
        self.db.write(Durability::Durable, withdraw).await
    }

    async fn list(&self, filter: AuditFilter) -> Result<Vec<AuditLine>, StoreError> {
        let read = move |conn: &Connection| {
            let AuditFilter { actor, action, target, before, limit } = &filter;
            let before = before.unwrap_or(i64::MAX as u64).min(i64::MAX as u64);
            let mut statement = conn.prepare_cached(LIST)?;
            statement.query_and_then((before, actor, action, target, limit), line)?.collect()
        };
        self.db.read(read).await
    }
}

/// A row of [`LIST`].
fn line(row: &Row<'_>) -> Result<AuditLine, SqlError> {
    let entry = AuditEntry {
        at: row.get(1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        target: row.get(4)?,
        reason: row.get(5)?,
        details: row.get(7)?,
    };
    Ok(AuditLine { id: row.get(0)?, entry, outcome: row.get(6)? })
}
