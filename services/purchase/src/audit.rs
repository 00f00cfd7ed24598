//! What `saga check` reads: every purchase with its events, one after the other, from a file that may be in use.

use contracts::purchase::PurchaseInput;
use saga_adapters::postgres::{Columns as _, PgError, Row as PgRow, Snapshot};
use saga_adapters::sqlite::SqlError;
use saga_adapters::sqlite::rusqlite::Connection;
use saga_core::protocol::ResultEvent;
use saga_core::{Millis, Name};

use crate::results;

/// One purchase.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The saga's id.
    pub id: u64,
    /// Whose.
    pub customer_id: u64,
    /// One of [`Status`](crate::domain::Status).
    pub status: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// The saga's input.
    pub input: PurchaseInput,
    /// The last result event that was applied.
    pub last_seq: u32,
    /// Those events. Their numbers are their places: whether there are `last_seq` of them is for the checker to say.
    pub results: Vec<ResultEvent>,
    /// The key, if there is one and it is not forgotten.
    pub idempotency_key: Option<String>,
    /// In ms since the epoch.
    pub ended_at: Option<Millis>,
}

/// Reads every purchase, by id; the file is read while it streams.
///
/// # Errors
/// When a row cannot be read: it is corrupt.
pub fn read(conn: &Connection, f: &mut dyn FnMut(Row)) -> Result<(), SqlError> {
    let mut statement = conn.prepare(include_str!("../sql/audit.sql"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: u64 = row.get(0)?;
        let impossible = |what: &dyn std::fmt::Display| SqlError::fault(format!("purchase {id}: {what}"));
        let (input, text): (String, String) = (row.get(5)?, row.get(7)?);
        f(Row {
            id,
            customer_id: row.get(1)?,
            status: row.get(2)?,
            amount: row.get(3)?,
            currency_code: row.get(4)?,
            input: serde_json::from_str(&input).map_err(|e| impossible(&e))?,
            last_seq: row.get(6)?,
            results: events(id, &text).map_err(|e| impossible(&e))?,
            idempotency_key: row.get(8)?,
            ended_at: row.get(9)?,
        });
    }
    Ok(())
}

/// The same on PostgreSQL, at one moment.
///
/// # Errors
/// When a row cannot be read: it is corrupt.
pub async fn read_pg(at: &Snapshot, f: &mut (dyn FnMut(Row) + Send)) -> Result<(), PgError> {
    let mut purchase = |row: &PgRow| {
        let id = row.big(0)?;
        let impossible = |what: &dyn std::fmt::Display| PgError::fault(format!("purchase {id}: {what}"));
        f(Row {
            id,
            customer_id: row.big(1)?,
            status: row.col(2)?,
            amount: row.col(3)?,
            currency_code: row.col(4)?,
            input: serde_json::from_str(row.col(5)?).map_err(|e| impossible(&e))?,
            last_seq: row.small(6)?,
            results: events(id, row.col(7)?).map_err(|e| impossible(&e))?,
            idempotency_key: row.col(8)?,
            ended_at: row.opt_big(9)?,
        });
        Ok(())
    };
    at.each(include_str!("../sql/audit.sql"), &mut purchase).await
}

fn events(id: u64, text: &str) -> Result<Vec<ResultEvent>, results::CorruptResults> {
    let event = |entry: results::Entry<'_>| ResultEvent {
        saga_id: id,
        seq: entry.seq,
        step: Name::new(entry.step),
        status: entry.status,
        terminal: entry.terminal,
        reason: entry.reason,
        at: entry.at,
    };
    Ok(results::parse(text)?.into_iter().map(event).collect())
}
