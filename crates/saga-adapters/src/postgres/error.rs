//! PostgreSQL's errors, sorted by who must act.

use std::error::Error as _;

use deadpool_postgres::PoolError;
use saga_runtime::StoreError;
use saga_runtime::store::CommitError;
use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::stats::DatabaseStats;

/// Why a statement did not succeed. Its transaction is rolled back, or its fate is unknown and it says `Transient`.
#[derive(Debug, Error)]
pub enum PgError {
    /// The server, or the way to it, said no.
    #[error("{}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// What was found in a row, or what the code did, is impossible.
    #[error("{0}")]
    Fault(String),
    /// Run the whole unit again.
    #[error("{0}")]
    Transient(String),
    /// No session was to be had in time: nothing was begun. Whoever has waited for one does not wait again.
    #[error("all sessions are in use, or the server does not answer")]
    Busy,
}

impl PgError {
    /// A fault, described by anything that can be shown.
    pub fn fault(detail: impl std::fmt::Display) -> Self {
        Self::Fault(detail.to_string())
    }

    /// Whether it was the session that was lost, not the statement that was wrong.
    pub(super) fn lost_the_session(&self) -> bool {
        let Self::Database(error) = self else { return false };
        // 57P01 to 57P04: the server ended it.
        error.code().map_or_else(|| is_lost(error), |state| state.code().starts_with("57P"))
    }

    /// Counts it. A row that a constraint does not allow is an answer, no trouble.
    pub(super) fn count(&self, stats: &DatabaseStats) {
        match self {
            Self::Database(error) if error.code().is_some_and(|state| state.code().starts_with("23")) => {}
            Self::Database(error) => stats.failed(&classify(error)),
            Self::Fault(_) => stats.faults.inc(),
            Self::Transient(_) | Self::Busy => stats.transient.inc(),
        }
    }

    /// Whether it is a row that this constraint (or unique index) does not allow.
    pub fn violates(&self, constraint: &str) -> bool {
        let Self::Database(error) = self else { return false };
        error.as_db_error().is_some_and(|server| server.constraint() == Some(constraint))
    }
}

impl From<serde_json::Error> for PgError {
    fn from(error: serde_json::Error) -> Self {
        Self::Fault(format!("JSON in a row: {error}"))
    }
}

impl From<saga_runtime::wire::Poison> for PgError {
    fn from(error: saga_runtime::wire::Poison) -> Self {
        Self::Fault(format!("outcome in a row: {error}"))
    }
}

impl From<PoolError> for PgError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => match classify(&error) {
                // Whatever keeps us from connecting to a server that we were connected to is a matter of waiting.
                StoreError::Fault(detail) | StoreError::Transient(detail) | StoreError::Full(detail) => {
                    Self::Transient(format!("no connection: {detail}"))
                }
            },
            PoolError::Timeout(_) => Self::Busy,
            PoolError::Closed => Self::Transient("the database is being closed".into()),
            other => Self::Transient(other.to_string()),
        }
    }
}

impl From<PgError> for StoreError {
    fn from(error: PgError) -> Self {
        match error {
            PgError::Database(error) => classify(&error),
            PgError::Fault(detail) => Self::Fault(detail),
            PgError::Transient(detail) => Self::Transient(detail),
            busy @ PgError::Busy => Self::Transient(busy.to_string()),
        }
    }
}

impl From<PgError> for CommitError {
    fn from(error: PgError) -> Self {
        Self::Store(error.into())
    }
}

/// Sorts an error into the three gravities.
pub(super) fn classify(error: &tokio_postgres::Error) -> StoreError {
    let detail = describe(error);
    let Some(server) = error.as_db_error() else {
        return if is_lost(error) { StoreError::Transient(detail) } else { StoreError::Fault(detail) };
    };
    // Another replica answered the same commands between our look and our write: its answers are there now.
    let raced = server.code() == &SqlState::UNIQUE_VIOLATION && server.constraint() == Some("barrier_pkey");
    // A watermark rose between: it is found there now.
    let forgotten = server.code() == &SqlState::NOT_NULL_VIOLATION
        && (server.table(), server.column()) == (Some("barrier"), Some("outcome"));
    if raced || forgotten || may_heal(server.code()) {
        StoreError::Transient(detail)
    } else {
        worse(server.code(), detail)
    }
}

/// Whether it was the way to the server; the client keeps its own kinds to itself.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    error.is_closed() || ["timeout", "unexpected message"].iter().any(|text| error.to_string().contains(text))
}

/// What running the unit again, later, can heal.
pub(super) fn may_heal(state: &SqlState) -> bool {
    let code = state.code();
    let healing = [
        SqlState::QUERY_CANCELED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        SqlState::READ_ONLY_SQL_TRANSACTION, // a standby that is about to be the primary, or was
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::OUT_OF_MEMORY,
    ];
    // 08: connection exceptions. 40: serialization failure, deadlock, completion unknown.
    code.starts_with("08") || code.starts_with("40") || healing.contains(state)
}

fn worse(state: &SqlState, detail: String) -> StoreError {
    if *state == SqlState::DISK_FULL { StoreError::Full(detail) } else { StoreError::Fault(detail) }
}

/// With what the server said; the client's own text is only "db error".
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} ({})", server.message(), server.code().code()),
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
