//! The orchestrator's store port and the errors that every store shares.
//!
//! A saga is a small row updated in place beside an append-only history, one entry a transition. The row is what a
//! look-up by state or age needs; the state itself is the fold of the history.

use async_trait::async_trait;
use saga_core::{Event, Millis, Name, SagaKey, Status};
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

/// The right to drive the sagas of a partition. A newer epoch fences every older one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Which share of the sagas; 0 in process.
    pub partition: u32,
    /// Counts the owners.
    pub epoch: u64,
}

/// A saga's row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SagaRow {
    /// Its name.
    pub key: SagaKey,
    /// The definition's version that it is pinned to.
    pub definition_version: u32,
    /// Transitions so far.
    pub version: u64,
    /// One word.
    pub status: Status,
    /// What is awaited, as `step.op`, for people; empty when nothing is.
    pub awaiting: String,
    /// When it wants to be looked at, in ms since the epoch.
    pub wake_at: Option<Millis>,
    /// In ms since the epoch.
    pub started_at: Millis,
    /// In ms since the epoch.
    pub updated_at: Millis,
}

/// One decision to be written: `row.version` is the version after it, and compare-and-set demands `row.version - 1`
/// (no row at all for version 1).
#[derive(Clone, PartialEq, Debug)]
pub struct Transition {
    /// The row after it.
    pub row: SagaRow,
    /// Its entry in the history.
    pub events: Vec<Event>,
}

/// What became of a transition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// Committed.
    Yes,
    /// The saga is at another version: nothing was written for it.
    Conflict,
}

/// Why a whole commit was not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// Another owner has taken over: stop.
    #[error("partition {} is owned by a newer epoch than {}", .0.partition, .0.epoch)]
    Fenced(Owner),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partition {} epoch {}", self.partition, self.epoch)
    }
}

/// Which sagas to list. All conditions hold together; the newest (highest id) first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SagaFilter {
    /// Any of these states; empty: all.
    pub statuses: Vec<Status>,
    /// Only of this definition.
    pub definition: Option<Name>,
    /// Only those that await this step.
    pub step: Option<Name>,
    /// Only those last changed before this moment, in ms since the epoch.
    pub updated_before: Option<Millis>,
    /// Only this id.
    pub id: Option<u64>,
    /// Only keys below this one (from the page before).
    pub before: Option<SagaKey>,
    /// At most this many.
    pub limit: u32,
}

/// The orchestrator's store.
#[async_trait]
pub trait SagaStore: Send + Sync + 'static {
    /// Takes a partition over: counts its epoch up, durably. Every older owner's `commit` fails from here on.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn claim(&self, partition: u32) -> Result<Owner, StoreError>;

    /// Writes a batch as one transaction, in order (two transitions of one saga may follow each other).
    /// Answers one [`Written`] per transition, when all of it is on disk. A conflict is only that saga's.
    ///
    /// # Errors
    /// Nothing was written; for `Transient` it may have been.
    async fn commit(&self, owner: Owner, batch: Vec<Transition>) -> Result<Vec<Written>, CommitError>;

    /// The histories of these sagas: per key one entry a transition, in order; empty where there is no such saga.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn histories(&self, keys: Vec<SagaKey>) -> Result<Vec<Vec<Vec<Event>>>, StoreError>;

    /// A page of a partition's sagas that are not terminal, ordered by key, after `after`.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn in_flight(&self, partition: u32, after: Option<SagaKey>, limit: u32) -> Result<Vec<SagaRow>, StoreError>;

    /// A page for people.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, StoreError>;
}
