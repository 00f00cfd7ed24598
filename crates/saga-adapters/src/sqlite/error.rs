//! SQLite's errors, sorted by who must act.

use rusqlite::ErrorCode;
use rusqlite::ffi;
use saga_runtime::StoreError;
use thiserror::Error;

/// Why a job did not succeed. Its changes are rolled back; those of its neighbours are not.
#[derive(Debug, Error)]
pub enum SqlError {
    /// SQLite said no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// What was found in a row, or what the code did, is impossible.
    #[error("{0}")]
    Fault(String),
    /// Run the whole unit again.
    #[error("{0}")]
    Transient(String),
}

impl SqlError {
    /// A fault, described by anything that can be shown.
    pub fn fault(detail: impl std::fmt::Display) -> Self {
        Self::Fault(detail.to_string())
    }
}

impl From<serde_json::Error> for SqlError {
    fn from(error: serde_json::Error) -> Self {
        Self::Fault(format!("JSON in a row: {error}"))
    }
}

impl From<saga_runtime::wire::Poison> for SqlError {
    fn from(error: saga_runtime::wire::Poison) -> Self {
        Self::Fault(format!("outcome in a row: {error}"))
    }
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Sqlite(error) => classify(&error),
            SqlError::Fault(detail) => Self::Fault(detail),
            SqlError::Transient(detail) => Self::Transient(detail),
        }
    }
}

/// Sorts an error of SQLite into the three gravities.
pub(super) fn classify(error: &rusqlite::Error) -> StoreError {
    let detail = error.to_string();
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return StoreError::Fault(detail);
    };
    match failure.code {
        ErrorCode::DiskFull => StoreError::Full(detail),
        ErrorCode::SystemIoFailure => match failure.extended_code {
            // A disk that answers reads with errors is broken, not full.
            ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS => {
                StoreError::Fault(detail)
            }
            // What was written may or may not be on the disk: the unit is run again, and identities tell.
            ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => StoreError::Transient(detail),
            _ => StoreError::Full(detail),
        },
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::OperationInterrupted
        | ErrorCode::OutOfMemory
        | ErrorCode::FileLockingProtocolFailed => StoreError::Transient(detail),
        _ => StoreError::Fault(detail),
    }
}
