//! What `saga check` reads: every order, by id.

use saga_adapters::postgres::{PgError, Snapshot};
use saga_adapters::sqlite::SqlError;
use saga_adapters::sqlite::rusqlite::Connection;

pub use crate::domain::{Line, Order, Status};

/// Hands every order to `f`, in the order of ids.
///
/// # Errors
/// When the file cannot be read.
pub fn read(conn: &Connection, f: &mut dyn FnMut(Order)) -> Result<(), SqlError> {
    crate::store::sqlite::each(conn, f)
}

/// The same on PostgreSQL, at one moment.
///
/// # Errors
/// When the database cannot be read.
pub async fn read_pg(at: &Snapshot, f: &mut (dyn FnMut(Order) + Send)) -> Result<(), PgError> {
    crate::store::postgres::each(at, f).await
}
