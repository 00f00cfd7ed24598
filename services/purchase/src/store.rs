//! The store port: purchases as rows. What each adapter promises is said at the method.

pub mod postgres;
pub mod sqlite;

mod standing;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use saga_core::protocol::{Refusal, ResultEvent};
use saga_core::{Json, Millis, Name};
use saga_runtime::StoreError;

use crate::domain::Status;

/// A row that changed this long after now did so before the clock was set back, in ms.
const CLOCK_SET_BACK: Millis = 60_000;

/// A purchase to be written.
#[derive(Clone, Debug)]
pub struct NewPurchase {
    /// The saga's id.
    pub id: u64,
    /// Whose.
    pub customer_id: u64,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// The saga's input.
    pub input: Json,
    /// The idempotency key, if the customer sent one.
    pub key: Option<String>,
    /// Of the request; see [`Cart::fingerprint`](crate::domain::Cart::fingerprint).
    pub fingerprint: [u8; 16],
    /// In ms since the epoch.
    pub now: Millis,
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placed {
    /// It is on disk.
    New,
    /// The customer used the key before.
    Before(Keyed),
}

/// The purchase that a key stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keyed {
    /// Its id.
    pub id: u64,
    /// Of the request that brought the key.
    pub fingerprint: [u8; 16],
}

/// A purchase's row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The saga's id.
    pub id: u64,
    /// Whose.
    pub customer_id: u64,
    /// Where it stands.
    pub status: Status,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// The saga's input, JSON.
    pub input: String,
    /// The last result event that was applied.
    pub last_seq: u32,
    /// Those events; see [`results`](crate::results).
    pub results: String,
    /// Why not.
    pub reason: Option<Refusal>,
    /// In ms since the epoch.
    pub created_at: Millis,
    /// In ms since the epoch.
    pub updated_at: Millis,
    /// In ms since the epoch.
    pub ended_at: Option<Millis>,
    /// In ms since the epoch.
    pub cancel_requested_at: Option<Millis>,
}

/// The events of one purchase in a batch, ascending, each number once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Which purchase.
    pub id: u64,
    /// Its events.
    pub events: Vec<ResultEvent>,
}

/// Groups a batch's events by purchase, in ascending order, each number once.
pub(crate) fn grouped(events: impl IntoIterator<Item = ResultEvent>) -> Vec<Group> {
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for event in events {
        let place = *places.entry(event.saga_id).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Group { id: event.saga_id, events: Vec::with_capacity(4) });
        }
        groups[place].events.push(event);
    }
    for group in &mut groups {
        if !group.events.is_sorted_by(|a, b| a.seq < b.seq) {
            group.events.sort_by_key(|event| event.seq);
            group.events.dedup_by_key(|event| event.seq);
        }
    }
    groups
}

/// What became of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// There is such a purchase.
    Known {
        /// Whose.
        customer_id: u64,
        /// Where it stands now.
        status: Status,
        /// Which of the group's events were new.
        fresh: Range<usize>,
        /// How many were not.
        duplicates: usize,
        /// Whether events between the row's and the group's are missing.
        gap: bool,
        /// Whether it ended by this.
        ended: bool,
    },
    /// There is none.
    Unknown,
    /// The row or the events make no sense; the row was left alone.
    Corrupt(String),
}

/// What is to be sent again: a purchase that has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outstanding {
    /// The saga's id.
    pub id: u64,
    /// Whose.
    pub customer_id: u64,
    /// The saga's input.
    pub input: Json,
    /// Where it stands.
    pub status: Status,
    /// In ms since the epoch.
    pub updated_at: Millis,
    /// What the customer said when cancelling.
    pub cancel: Option<String>,
}

/// What became of a wish to cancel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// It is on disk; the purchase as it is now.
    Accepted(Box<Row>),
    /// The pivot is done, or everything has ended.
    TooLate(Status),
    /// No such purchase of this customer.
    NotFound,
}

/// Which rows are looked after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Idle {
    /// Only ids above.
    pub after: u64,
    /// Only rows that have not changed since, in ms since the epoch ...
    pub since: Millis,
    /// ... or that claim to have changed long after now, because the clock was set back.
    pub now: Millis,
    /// Only those of which the orchestrator has never said anything.
    pub unseen: bool,
    /// At most this many.
    pub limit: u32,
}

/// How far the promise goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promised {
    /// Up to this purchase; 0: none.
    pub up_to: u64,
    /// Whether it may be raised further at once.
    pub more: bool,
}

/// Purchases as rows.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes a purchase and its key as one, durably; or finds the purchase that the key stands for.
    ///
    /// # Errors
    /// Nothing was written; for `Transient` it may have been.
    async fn place(&self, purchase: NewPurchase) -> Result<Placed, StoreError>;

    /// The purchase that a key stands for.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn of_key(&self, customer_id: u64, key: String) -> Result<Option<Keyed>, StoreError>;

    /// Applies a batch of result events as one transaction, derivable: of each group only what follows the row's last
    /// number without a gap. Answers one [`Applied`] per group.
    ///
    /// # Errors
    /// Nothing was written; for `Transient` it may have been.
    async fn apply(&self, batch: Arc<[Group]>, now: Millis) -> Result<Vec<Applied>, StoreError>;

    /// One purchase of a customer.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn get(&self, customer_id: u64, id: u64) -> Result<Option<Row>, StoreError>;

    /// A customer's purchases with ids below `before`, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn page(&self, customer_id: u64, before: u64, limit: u32) -> Result<Vec<Row>, StoreError>;

    /// Of a customer's `newest` purchases those that changed at `since` or later: (changed, id), in the order of change.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn changed(&self, customer_id: u64, since: Millis, newest: u32) -> Result<Vec<(Millis, u64)>, StoreError>;

    /// Notes, durably, that the customer wants no more of it, if `pivot` has not succeeded.
    ///
    /// # Errors
    /// Nothing was written; for `Transient` it may have been.
    async fn cancel(
        &self,
        customer_id: u64,
        id: u64,
        reason: String,
        pivot: Option<Name>,
        now: Millis,
    ) -> Result<Cancelled, StoreError>;

    /// How many have not ended.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn count_in_flight(&self) -> Result<u64, StoreError>;

    /// A page of those that have not ended, by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn idle(&self, wanted: Idle) -> Result<Vec<Outstanding>, StoreError>;

    /// Those of `ids` that have not ended.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn outstanding(&self, ids: Vec<u64>) -> Result<Vec<Outstanding>, StoreError>;

    /// Forgets the keys of purchases made before `before`, at most `limit` of them. Answers whether there are more.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn forget_keys(&self, before: Millis, limit: u32) -> Result<bool, StoreError>;

    /// Raises the promise, durably, over the next purchases, at most `limit` of them, that all ended before `before`:
    /// no purchase is ever written at or below it again.
    ///
    /// # Errors
    /// See [`StoreError`]; it may have been raised.
    async fn promise(&self, before: Millis, limit: u32) -> Result<Promised, StoreError>;

    /// The lowest purchase that has not ended.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn lowest_in_flight(&self) -> Result<Option<u64>, StoreError>;
}
