//! The orchestrator's store port and the errors that every store shares.

use thiserror::Error;

/// Why a store could not. The three differ in who must act: nobody, an operator with a disk, a developer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Busy, deadlock, lost connection: run the whole unit again. It may have committed.
    #[error("the database is not available right now: {0}")]
    Transient(String),
    /// No room to write. Nothing was changed; resumes when there is room.
    #[error("the database has no room left: {0}")]
    Full(String),
    /// A bug or corruption. Running the unit again will not help.
    #[error("the database refused: {0}")]
    Fault(String),
}
