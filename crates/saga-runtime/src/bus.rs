//! The bus port: records on topics, in order per key, delivered at least once.
//!
//! Promised to the runtime: a record that `publish` acknowledged is delivered to every group at least once *or*
//! lost only together with the process or broker; nothing here is load-bearing for correctness, because whatever
//! is outstanding is in a row and is sent again.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use saga_core::{Millis, Name};

/// A header's name and value. Names that we know are borrowed: nothing is counted when they are copied.
pub type Header = (Cow<'static, str>, Bytes);

/// A record's headers, shared by its copies: a record is copied for each group that reads it and for each try to publish it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers(Arc<Vec<Header>>);

impl Headers {
    /// Adds one at the end.
    pub fn push(&mut self, header: Header) {
        Arc::make_mut(&mut self.0).push(header);
    }

    /// Keeps those that `wanted` says.
    pub fn retain(&mut self, wanted: impl FnMut(&Header) -> bool) {
        Arc::make_mut(&mut self.0).retain(wanted);
    }
}

impl Deref for Headers {
    type Target = [Header];

    fn deref(&self) -> &[Header] {
        &self.0
    }
}

impl From<Vec<Header>> for Headers {
    fn from(headers: Vec<Header>) -> Self {
        Self(Arc::new(headers))
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(headers: I) -> Self {
        Vec::from_iter(headers).into()
    }
}

impl Extend<Header> for Headers {
    fn extend<I: IntoIterator<Item = Header>>(&mut self, headers: I) {
        Arc::make_mut(&mut self.0).extend(headers);
    }
}

/// A record to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Where to.
    pub topic: Name,
    /// What keeps its order: the saga's id in decimal.
    pub key: Bytes,
    /// CloudEvents attributes and ours; see `wire`.
    pub headers: Headers,
    /// JSON.
    pub payload: Bytes,
}

impl Message {
    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).and_then(|(_, v)| std::str::from_utf8(v).ok())
    }
}

/// Where a delivered record stood.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// The topic.
    pub topic: Name,
    /// The partition; 0 in process.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: u64,
}

/// A record as it arrived.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it stood.
    pub position: Position,
    /// The record.
    pub message: Message,
}

/// Why the bus could not.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Try again; `publish` may have delivered some.
    #[error("the bus is not reachable: {0}")]
    Unavailable(String),
    /// A topic that is not there (it is never created silently).
    #[error("topic {0} does not exist: run `saga migrate`")]
    UnknownTopic(Name),
    /// The bus was shut down.
    #[error("the bus is closed")]
    Closed,
}

/// Publishes and subscribes.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Publishes all, in order per key; returns when all are acknowledged.
    ///
    /// # Errors
    /// Some may have been delivered: publish the whole batch again.
    async fn publish(&self, messages: Vec<Message>) -> Result<(), BusError>;

    /// Joins a consumer group. In one group each record goes to one subscription.
    ///
    /// # Errors
    /// When a topic does not exist or the bus cannot be reached.
    async fn subscribe(&self, group: &str, topics: &[Name]) -> Result<Box<dyn Subscription>, BusError>;

    /// How far every consumer group has read, for people.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    async fn reading(&self) -> Result<Vec<GroupReading>, BusError>;

    /// The topics that there are, by name, and what is in them.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    async fn extents(&self) -> Result<Vec<TopicExtent>, BusError> {
        Err(BusError::Unavailable("this bus cannot be looked into".to_owned()))
    }

    /// Looks at records without taking them: no group is joined, nothing is committed. Bounded in records, bytes and time.
    ///
    /// # Errors
    /// When the topic does not exist or the bus cannot be reached.
    async fn peek(&self, peek: Peek) -> Result<Peeked, BusError> {
        let _ = peek;
        Err(BusError::Unavailable("this bus cannot be looked into".to_owned()))
    }

    /// Joins a group that drives whole partitions. A bus without partitions has one, number 0.
    ///
    /// # Errors
    /// See [`subscribe`](Self::subscribe).
    async fn join(&self, group: &str, topics: &[Name]) -> Result<Box<dyn Membership>, BusError> {
        Ok(Box::new(Whole(Some(self.subscribe(group, topics).await?))))
    }
}

/// A topic and what is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicExtent {
    /// The topic.
    pub topic: Name,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionExtent>,
}

/// Which records of a partition can be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionExtent {
    /// The partition.
    pub partition: u32,
    /// The first of them.
    pub begin: u64,
    /// The next record that will be written.
    pub end: u64,
}

/// Which records to look at, the newest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peek {
    /// The topic.
    pub topic: Name,
    /// Only of this partition.
    pub partition: Option<u32>,
    /// Only this record and older ones; with a partition.
    pub from: Option<u64>,
    /// Only with this key.
    pub key: Option<Bytes>,
    /// At most this many.
    pub limit: usize,
}

/// Records that were looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peeked {
    /// The newest first.
    pub records: Vec<PeekedRecord>,
    /// Of one partition: where the next look goes on; `None` when there is no more.
    pub next_from: Option<u64>,
    /// Since when records are kept, in ms since the epoch, where the bus keeps them only while somebody looks.
    pub kept_since: Option<Millis>,
}

/// A record that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeekedRecord {
    /// Where it stands.
    pub partition: u32,
    /// Where in the partition.
    pub offset: u64,
    /// When it was written, in ms since the epoch, if the bus knows.
    pub at: Option<Millis>,
    /// The record.
    pub message: Message,
}

/// How far a consumer group has read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupReading {
    /// The group.
    pub group: String,
    /// What its members call themselves: processes over Kafka, who reads in this one within it.
    pub members: Vec<String>,
    /// By topic and partition.
    pub places: Vec<PlaceReading>,
}

/// How far a group has read a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlaceReading {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: u32,
    /// Records that wait.
    pub waiting: u64,
    /// The next record that will be written, where records are numbered.
    pub end: Option<u64>,
}

/// The membership of a bus without partitions.
struct Whole(Option<Box<dyn Subscription>>);

#[async_trait]
impl Membership for Whole {
    async fn next(&mut self) -> Result<Assignment, BusError> {
        match self.0.take() {
            Some(subscription) => Ok(Assignment::Assigned { partition: 0, subscription }),
            None => std::future::pending().await,
        }
    }
}

/// A change of the partitions that a member drives.
pub enum Assignment {
    /// This partition is ours from now on, with the records of all joined topics in it.
    Assigned {
        /// Which one.
        partition: u32,
        /// Its records.
        subscription: Box<dyn Subscription>,
    },
    /// This partition goes to another member: stop driving it.
    Revoked {
        /// Which one.
        partition: u32,
    },
}

impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Assignment::Assigned { partition, .. } => write!(f, "Assigned({partition})"),
            Assignment::Revoked { partition } => write!(f, "Revoked({partition})"),
        }
    }
}

/// A member of a group that drives whole partitions: partition `p` of every joined topic goes to the same member.
#[async_trait]
pub trait Membership: Send {
    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// `Closed` at shutdown; otherwise try again.
    async fn next(&mut self) -> Result<Assignment, BusError>;
}

/// One member of a consumer group.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for at least one record, then returns what has arrived, up to `max`, without lingering. Cancel-safe.
    ///
    /// # Errors
    /// `Closed` at shutdown; otherwise try again.
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BusError>;

    /// Records that everything returned by `next` so far is dealt with; what is not committed is delivered again.
    ///
    /// # Errors
    /// The records will be delivered again.
    async fn commit(&mut self) -> Result<(), BusError>;
}
