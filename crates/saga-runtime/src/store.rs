//! The orchestrator's store port and the errors that every store shares.
//!
//! A saga is a small row updated in place beside an append-only history, one entry a transition. The row is what a
//! look-up by state or age needs; the state itself is the fold of the history.

use async_trait::async_trait;
use saga_core::{Event, Millis, Name, SagaKey, Status};
use thiserror::Error;

use crate::retention::Watermarks;

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

/// Where a saga stands in a list: when it started, then its name.
pub type ListPlace = (Millis, SagaKey);

/// Which sagas to list. All conditions hold together; those that started last first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SagaFilter {
    /// Any of these states; empty: all.
    pub statuses: Vec<Status>,
    /// Only of this definition.
    pub definition: Option<Name>,
    /// Only those in flight that await this step.
    pub step: Option<Name>,
    /// Only those last changed before this moment, in ms since the epoch.
    pub updated_before: Option<Millis>,
    /// Only those that started at this moment or later.
    pub started_from: Option<Millis>,
    /// Only those that started before this moment.
    pub started_before: Option<Millis>,
    /// Only these ids; empty: all.
    pub ids: Vec<u64>,
    /// Only sagas below this place (from the page before).
    pub before: Option<ListPlace>,
    /// At most this many.
    pub limit: u32,
}

impl SagaFilter {
    /// The states that are wanted and possible: only what is in flight awaits a step.
    pub fn wanted(&self) -> Vec<Status> {
        let lawful = |s: &Status| {
            (self.statuses.is_empty() || self.statuses.contains(s)) && (self.step.is_none() || !s.is_terminal())
        };
        Status::ALL.into_iter().filter(lawful).collect()
    }

    /// Sagas that started at or after this moment are not wanted. Nothing changes before it starts, so a bound on the
    /// last change is one on the start, and of that there is an index.
    pub fn starts_before(&self) -> Option<Millis> {
        self.started_before.into_iter().chain(self.updated_before).min()
    }

    /// Whether a row is wanted, page and limit aside.
    pub fn admits(&self, row: &SagaRow) -> bool {
        let step = |step: &Name| {
            !row.status.is_terminal() && row.awaiting.rsplit_once('.').is_some_and(|(awaited, _)| step == awaited)
        };
        (self.statuses.is_empty() || self.statuses.contains(&row.status))
            && self.definition.as_ref().is_none_or(|name| *name == row.key.definition)
            && self.step.as_ref().is_none_or(step)
            && self.updated_before.is_none_or(|moment| row.updated_at < moment)
            && self.started_from.is_none_or(|moment| row.started_at >= moment)
            && self.started_before.is_none_or(|moment| row.started_at < moment)
            && (self.ids.is_empty() || self.ids.contains(&row.key.id))
    }
}

/// How many sagas of a definition are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaCount {
    /// The definition.
    pub definition: Name,
    /// The state.
    pub status: Status,
    /// How many.
    pub count: u64,
}

/// How many sagas in flight await a command's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Awaited {
    /// Of which definition.
    pub definition: Name,
    /// As `step.op`.
    pub awaiting: String,
    /// How many.
    pub count: u64,
    /// When the one of them last changed that has not for longest, in ms since the epoch.
    pub oldest_at: Millis,
}

/// How many sagas in flight stand in one state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InFlight {
    /// Of which definition.
    pub definition: Name,
    /// In which state; never a terminal one.
    pub status: Status,
    /// How many.
    pub count: u64,
    /// When the oldest of them started, in ms since the epoch.
    pub oldest_at: Millis,
}

/// The orchestrator's store. What its watermarks cover and is not there is never written again: a `commit` of version 1
/// of it is a [`Written::Conflict`], decided where the row would be written.
#[async_trait]
pub trait SagaStore: Watermarks {
    /// Takes a partition over: counts its epoch up, durably. Every older owner's `commit` fails from here on.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn claim(&self, partition: u32) -> Result<Owner, StoreError>;

    /// Writes a batch as one transaction, in order (two transitions of one saga may follow each other).
    /// Answers one [`Written`] per transition, when all of it is on disk. A conflict is only that saga's, and all that
    /// follows in its batch conflicts with it: it was decided on what is not there, whatever stands under that version.
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

    /// How many sagas are in flight, by definition and state; states that no saga is in are left out.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn count_in_flight(&self) -> Result<Vec<InFlight>, StoreError>;

    /// How many sagas in flight that no human is needed for await each command.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn count_awaited(&self) -> Result<Vec<Awaited>, StoreError>;

    /// How many sagas that started at this moment or later there are, by definition and state. What it costs grows with
    /// their number.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn count_started(&self, from: Millis) -> Result<Vec<SagaCount>, StoreError>;

    /// How many sagas have ended, by definition and state. Reads an index from end to end: not to be asked for often.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn count_ended(&self) -> Result<Vec<SagaCount>, StoreError>;
}
