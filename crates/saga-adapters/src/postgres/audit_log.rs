//! The audit log on PostgreSQL, in whichever database has the table `audit`.

use async_trait::async_trait;
use saga_runtime::StoreError;
use saga_runtime::audit::{AuditEntry, AuditFilter, AuditLine, AuditLog, BEGUN};
use tokio_postgres::Row;

use super::{Columns as _, Pg, PgError, Query};

const BEGIN: &str = "insert into audit (at, actor, action, target, reason, outcome, details)
    values ($1, $2, $3, $4, $5, $6, $7) returning id";
const END: &str = "update audit set outcome = $2, details = $3 where id = $1 and outcome = $4";
const WITHDRAW: &str = "delete from audit where id = $1 and outcome = $2";
const LIST: &str = "select id, at, actor, action, target, reason, outcome, details from audit
    where id < $1 and ($2::text is null or actor = $2) and ($3::text is null or action = $3)
        and ($4::text is null or target = $4)
    order by id desc limit $5";

/// The log, over a database whose schema has the table.
#[derive(Debug, Clone)]
pub struct PgAuditLog {
    pg: Pg,
}

impl PgAuditLog {
    /// Over an open database.
    pub fn new(pg: Pg) -> Self {
        Self { pg }
    }
}

#[async_trait]
impl AuditLog for PgAuditLog {
    async fn begin(&self, entry: AuditEntry) -> Result<u64, StoreError> {
        let AuditEntry { at, actor, action, target, reason, details } = entry;
        let query = Query::new(BEGIN).big(at).bind(actor).bind(action).bind(target).bind(reason).bind(BEGUN);
        let rows = self.pg.run(query.bind(details)).await?;
        let row = rows.first().ok_or_else(|| PgError::fault("a line without an id"))?;
        Ok(row.big(0)?)
    }

    async fn end(&self, id: u64, outcome: String, details: String) -> Result<(), StoreError> {
        self.pg.run(Query::new(END).big(id).bind(outcome).bind(details).bind(BEGUN)).await?;
        Ok(())
    }

    async fn withdraw(&self, id: u64) -> Result<(), StoreError> {
        self.pg.run(Query::new(WITHDRAW).big(id).bind(BEGUN)).await?;
        Ok(())
    }

    async fn list(&self, filter: AuditFilter) -> Result<Vec<AuditLine>, StoreError> {
        let AuditFilter { actor, action, target, before, limit } = filter;
        let query = Query::new(LIST).big(before.unwrap_or(u64::MAX)).bind(actor).bind(action).bind(target);
        let rows = self.pg.run(query.bind(i64::from(limit))).await?;
        Ok(rows.iter().map(line).collect::<Result<_, PgError>>()?)
    }
}

/// A row of [`LIST`].
fn line(row: &Row) -> Result<AuditLine, PgError> {
    let entry = AuditEntry {
        at: row.big(1)?,
        actor: row.col(2)?,
        action: row.col(3)?,
        target: row.col(4)?,
        reason: row.col(5)?,
        details: row.col(7)?,
    };
    Ok(AuditLine { id: row.big(0)?, entry, outcome: row.col(6)? })
}
