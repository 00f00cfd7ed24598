//! The dead letters port: records that could not be handled, kept for people.
//!
//! The loops publish them to `<topic>.dlq` (see `delivery`); whoever keeps that topic offers this port. Promised:
//! nothing leaves except by [`redrive`], `purge` or [`forget_old`], and a record comes back with its original bytes and headers.
//! Re-driving is at least once: the barrier makes the second one harmless.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use saga_core::{Millis, Name};
use thiserror::Error;

use crate::bus::{Bus, BusError, Delivery, Header, Message};
use crate::delivery::{dead_letter_topic, pause, subscribe};
use crate::participant::LoopContext;
use crate::store::StoreError;

/// What a dead-letter topic's name ends with.
pub const SUFFIX: &str = ".dlq";

/// The header that says where on a dead-letter topic a record was found.
pub const SOURCE: &str = "dlq_source";

/// How many letters one step of [`redrive`] moves: bounds its memory.
const STEP: u32 = 100;

/// A record that could not be handled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// In the dead-letter log; ascending with time.
    pub id: u64,
    /// The topic on which it arrived.
    pub topic: Name,
    /// Where on that topic.
    pub partition: u32,
    /// Where in that partition.
    pub offset: u64,
    /// When it was given up, in ms since the epoch.
    pub at: Millis,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was given up.
    pub reason: String,
    /// The original key.
    pub key: Bytes,
    /// The original headers.
    pub headers: Vec<Header>,
    /// The original payload.
    pub payload: Bytes,
}

impl DeadLetter {
    /// Reads a record of a `.dlq` topic. What its headers do not say is left at nothing: it is kept all the same.
    pub fn from_message(id: u64, message: Message) -> Self {
        let text = |name: &str| message.header(name).unwrap_or_default().to_owned();
        let number = |name: &str| text(name).parse::<u64>().unwrap_or_default();
        let small = |name: &str| u32::try_from(number(name)).unwrap_or(u32::MAX);
        let named = text("dlq_topic");
        let topic = if named.is_empty() { message.topic.as_str().trim_end_matches(SUFFIX) } else { &named };
        Self {
            id,
            topic: Name::new(topic),
            partition: small("dlq_partition"),
            offset: number("dlq_offset"),
            at: number("dlq_at"),
            attempts: small("dlq_attempts"),
            reason: text("dlq_reason"),
            headers: message.headers.iter().filter(|(n, _)| !n.starts_with("dlq_")).cloned().collect(),
            key: message.key,
            payload: message.payload,
        }
    }

    /// The record as it first arrived.
    pub fn original(&self) -> Message {
        Message {
            topic: self.topic.clone(),
            key: self.key.clone(),
            headers: self.headers.clone().into(),
            payload: self.payload.clone(),
        }
    }
}

/// A topic that has dead letters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetterCount {
    /// The original topic.
    pub topic: Name,
    /// How many.
    pub count: u64,
    /// When the oldest was given up, in ms since the epoch.
    pub oldest_at: Millis,
}

/// Which of a topic's letters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// All of them.
    All,
    /// These; ids that are not there are passed over.
    Ids(Vec<u64>),
}

/// Looks at dead letters and removes them.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// The topics that have any, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn topics(&self) -> Result<Vec<DeadLetterCount>, StoreError>;

    /// A page of a topic's letters, oldest first, those after the id `after`.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list(&self, topic: &Name, after: Option<u64>, limit: u32) -> Result<Vec<DeadLetter>, StoreError>;

    /// One letter.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn show(&self, topic: &Name, id: u64) -> Result<Option<DeadLetter>, StoreError>;

    /// Removes letters for good; tells how many there were.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn purge(&self, topic: &Name, which: Which) -> Result<u64, StoreError>;

    /// Removes letters of any topic that were given up before this moment, the oldest first, at most `limit`; tells how
    /// many.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn forget(&self, before: Millis, limit: u32) -> Result<u64, StoreError>;
}

/// Keeps what was published to `.dlq` topics. Of records with the same [`SOURCE`] it keeps one.
#[async_trait]
pub trait DeadLetterSink: Send + Sync + 'static {
    /// Keeps them, durably.
    ///
    /// # Errors
    /// See [`StoreError`]; none was kept.
    async fn bury(&self, messages: Vec<Message>) -> Result<(), StoreError>;
}

/// Letters that are removed at a time: a short transaction, off the hot path.
const FORGOTTEN_AT_ONCE: u32 = 200;
/// Between two rounds: age is counted in days.
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Removes letters that were given up longer ago than `keep`, little by little, until it is stopped. Nothing else refers to
/// a letter, so nothing is missed.
pub async fn forget_old(context: LoopContext, letters: Arc<dyn DeadLetters>, keep: Duration) {
    let LoopContext { clock, stop, .. } = &context;
    let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    loop {
        let pause = match letters.forget(clock.now().saturating_sub(keep), FORGOTTEN_AT_ONCE).await {
            Ok(0) => FORGET_EVERY,
            Ok(count) => {
                tracing::info!(count, "dead letters older than their retention were removed");
                Duration::from_millis(100)
            }
            Err(error) => {
                tracing::warn!(%error, "old dead letters could not be removed; trying again later");
                FORGET_EVERY
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = clock.sleep(pause) => {}
        }
    }
}

/// Why re-driving stopped; what was re-driven before stays so.
#[derive(Debug, Error)]
pub enum RedriveError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`BusError`].
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Publishes letters to the topic they came from, then removes them. Tells how many were published: of two processes that do
/// it at once both may, and participants know what they have done.
///
/// Letters that die again while this runs are not taken twice.
///
/// # Errors
/// [`RedriveError`]; running it again goes on where it stopped.
pub async fn redrive(
    letters: &dyn DeadLetters,
    bus: &dyn Bus,
    topic: &Name,
    which: Which,
) -> Result<u64, RedriveError> {
    let mut moved = 0;
    match which {
        Which::Ids(ids) => {
            for id in ids {
                if let Some(letter) = letters.show(topic, id).await? {
                    moved += step(letters, bus, topic, vec![letter]).await?;
                }
            }
        }
        Which::All => {
            let count = letters.topics().await?.into_iter().find(|t| t.topic == *topic).map_or(0, |t| t.count);
            let mut left = u32::try_from(count).unwrap_or(u32::MAX);
            let mut after = None;
            while left > 0 {
                let page = letters.list(topic, after, left.min(STEP)).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                left = left.saturating_sub(u32::try_from(page.len()).unwrap_or(u32::MAX));
                moved += step(letters, bus, topic, page).await?;
            }
        }
    }
    Ok(moved)
}

async fn step(
    letters: &dyn DeadLetters,
    bus: &dyn Bus,
    topic: &Name,
    page: Vec<DeadLetter>,
) -> Result<u64, RedriveError> {
    let ids: Vec<u64> = page.iter().map(|letter| letter.id).collect();
    let sent = ids.len() as u64;
    bus.publish(page.iter().map(DeadLetter::original).collect()).await?;
    letters.purge(topic, Which::Ids(ids)).await?;
    Ok(sent)
}

/// Brings what is on dead-letter topics to where it can be looked at, until stopped. For a bus that has such topics.
///
/// Brought twice (after a crash), a letter stands there once: it carries where it was found.
pub async fn collect(context: LoopContext, sink: Arc<dyn DeadLetterSink>, topics: Vec<Name>) {
    let LoopContext { bus, clock, stop, options, .. } = &context;
    let topics: Vec<Name> = topics.iter().map(dead_letter_topic).collect();
    let group = "dead-letters";
    let Some(mut subscription) = subscribe(&**bus, &**clock, group, &topics, stop, *options).await else { return };
    let mut failures = 0;
    loop {
        let arrived = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            arrived = subscription.next(options.batch) => arrived,
        };
        let letters: Vec<Message> = match arrived {
            Ok(deliveries) => deliveries.into_iter().map(found).collect(),
            Err(BusError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, group, "receiving failed; trying again");
                if pause(&**clock, stop, *options, &mut failures).await {
                    continue;
                }
                return;
            }
        };
        while let Err(error) = sink.bury(letters.clone()).await {
            tracing::warn!(%error, count = letters.len(), "dead letters could not be kept; trying again");
            if !pause(&**clock, stop, *options, &mut failures).await {
                return;
            }
        }
        failures = 0;
        if let Err(error) = subscription.commit().await {
            tracing::warn!(%error, group, "committing the offsets failed; the letters will be delivered again");
        }
    }
}

/// A record of a dead-letter topic, with where it was.
fn found(delivery: Delivery) -> Message {
    let Delivery { position, mut message } = delivery;
    let place = format!("{}/{}/{}", position.topic, position.partition, position.offset);
    message.headers.retain(|(name, _)| name != SOURCE);
    message.headers.push((SOURCE.into(), Bytes::from(place)));
    message
}
