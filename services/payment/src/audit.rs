//! What `saga check` reads: every payment, by id.

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
