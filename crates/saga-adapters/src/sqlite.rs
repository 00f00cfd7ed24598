//! SQLite as the services use it: one writer thread a file that commits in groups, a few reader threads.
//!
//! ```text
//!   write(job) ─┐                          ┌─ savepoint · job · release ─┐
//!   write(job) ─┼─► bounded queue ─► begin immediate ─┤    (each job on its own)    ├─► commit (one fsync) ─► answers
//!   write(job) ─┘                          └─ savepoint · job · release ─┘
//! ```
//!
//! Promised: when [`Db::write`] answers `Ok` for a [`Durability::Durable`] job, its changes survive a power loss;
//! a job that fails or panics takes nothing of its neighbours with it; a file that is not ours is refused by name.
//! Not here: retries (the caller's), SQL (the services').

mod db;
mod error;
mod options;
mod readers;
mod schema;
mod writer;

pub mod audit_log;
pub mod backup;
pub mod dead_letters;
pub mod participant;
pub mod saga_store;
pub mod watermark;

pub use db::Db;
pub use error::SqlError;
pub use options::{Durability, Options};
pub use rusqlite;
pub use schema::{OpenError, OpenReason, Schema, open_read_only};
