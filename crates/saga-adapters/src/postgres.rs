//! PostgreSQL as the services use it: a small pool, statements in sets, two round trips a transaction.
//!
//! ```text
//!   begin · read · read ──►      ──► decide in memory ──►      write · write · commit ──►
//!          (one packet)                                             (one packet)
//! ```
//!
//! Promised: what [`Tx::commit`] or a single [`Pg::run`] answered `Ok` is on disk, unless it was [`Query::lazy`];
//! a transaction that is dropped leaves nothing open; a database that is not ours is refused by name.
//! Not here: retries of writes (the caller's), SQL (the services').

mod connect;
mod error;
mod groups;
mod options;
mod pool;
mod query;
mod schema;
mod snapshot;

pub mod audit_log;
pub mod dead_letters;
pub mod participant;
pub mod saga_store;
pub mod watermark;

pub use connect::{ConnectError, ConnectReason};
pub use error::PgError;
pub use groups::Groups;
pub use options::Options;
pub use pool::{Pg, Tx};
pub use query::{Columns, Query, Value, big, bigs};
pub use snapshot::Snapshot;
pub use tokio_postgres::Row;

/// A service's tables, as on SQLite: its name, and the migrations that make them.
pub use crate::sqlite::Schema;
