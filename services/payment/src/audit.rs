//! What `saga check` reads: every payment, by id.

use saga_adapters::postgres::{PgError, Snapshot};
use saga_adapters::sqlite::SqlError;
use saga_adapters::sqlite::rusqlite::Connection;

pub use crate::domain::{Payment, Status};

/// Hands every payment to `f`, in the order of ids.
///
/// # Errors
/// When the file cannot be read.
pub fn read(conn: &Connection, f: &mut dyn FnMut(Payment)) -> Result<(), SqlError> {
    crate::store::sqlite::each(conn, f)
}

/// The same on PostgreSQL, at one moment.
///
/// # Errors
/// When the database cannot be read.
pub async fn read_pg(at: &Snapshot, f: &mut (dyn FnMut(Payment) + Send)) -> Result<(), PgError> {
    crate::store::postgres::each(at, f).await
}
