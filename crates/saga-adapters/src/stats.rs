//! What one database of a process did, whichever brand: for metrics.

use saga_runtime::StoreError;
use saga_runtime::stats::{Counter, Histogram};

/// Counted since the database was opened.
#[derive(Debug)]
pub struct DatabaseStats {
    /// How long transactions took, in microseconds. SQLite: each of the writer's, to the disk. PostgreSQL: each packet of
    /// statements, to its answer.
    pub transaction: Histogram,
    /// Writes that shared one of SQLite's transactions.
    pub batch: Histogram,
    /// How long sessions of PostgreSQL were waited for, in microseconds.
    pub waited: Histogram,
    /// Errors that pass: busy, no connection, a session lost.
    pub transient: Counter,
    /// Errors for want of room.
    pub full: Counter,
    /// Errors that do not pass by themselves.
    pub faults: Counter,
}

impl Default for DatabaseStats {
    fn default() -> Self {
        Self {
            transaction: Histogram::durations(),
            batch: Histogram::sizes(),
            waited: Histogram::durations(),
            transient: Counter::default(),
            full: Counter::default(),
            faults: Counter::default(),
        }
    }
}

impl DatabaseStats {
    /// Counts an error by who must act.
    pub(crate) fn failed(&self, error: &StoreError) {
        match error {
            StoreError::Transient(_) => &self.transient,
            StoreError::Full(_) => &self.full,
            StoreError::Fault(_) => &self.faults,
        }
        .inc();
    }
}
