//! What both loops do around their work: dead letters, and publishing until it is acknowledged.

use std::time::Duration;

use bytes::Bytes;
use saga_core::{Millis, Name};
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError, Delivery, Message, Position};
use crate::clock::Clock;
use crate::stats::Stats;
use crate::wire::Poison;

/// How a loop behaves.
#[derive(Clone, Copy, Debug)]
pub struct LoopOptions {
    /// The most records in one unit of work: bounds memory and how long the write lock is held.
    pub batch: usize,
    /// How often a record may make its handler fail before it becomes a dead letter.
    pub poison_after: u32,
    /// The first wait after a failure that time can heal; doubles up to a hundred times this.
    pub backoff: Duration,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self { batch: 256, poison_after: 5, backoff: Duration::from_millis(50) }
    }
}

/// The topic of the dead letters of `topic`.
pub fn dead_letter_topic(topic: &Name) -> Name {
    Name::new(format!("{topic}.dlq"))
}

/// The original bytes and headers, and why they could not be handled.
pub fn dead_letter(delivery: &Delivery, poison: &Poison, now: Millis) -> Message {
    let Position { topic, partition, offset } = &delivery.position;
    let attempts = match poison {
        Poison::Unhandled { attempts, .. } => *attempts,
        _ => 1,
    };
    let mut message = delivery.message.clone();
    message.headers.retain(|(name, _)| !name.as_str().starts_with("dlq_"));
    message.headers.extend([
        (Name::new("dlq_reason"), Bytes::from(poison.to_string())),
        (Name::new("dlq_topic"), Bytes::from(topic.to_string())),
        (Name::new("dlq_partition"), Bytes::from(partition.to_string())),
        (Name::new("dlq_offset"), Bytes::from(offset.to_string())),
        (Name::new("dlq_at"), Bytes::from(now.to_string())),
        (Name::new("dlq_attempts"), Bytes::from(attempts.to_string())),
    ]);
    message.topic = dead_letter_topic(topic);
    message
}

/// Publishes until acknowledged. `false`: stopped or closed before that; the rows know what is outstanding.
pub(crate) async fn publish(
    bus: &dyn Bus,
    clock: &dyn Clock,
    messages: Vec<Message>,
    stop: &CancellationToken,
    stats: &Stats,
    options: LoopOptions,
) -> bool {
    if messages.is_empty() {
        return true;
    }
    let mut failures = 0;
    loop {
        match bus.publish(messages.clone()).await {
            Ok(()) => {
                stats.published.add(messages.len() as u64);
                return true;
            }
            Err(BusError::Closed) => return false,
            Err(error) => {
                tracing::warn!(%error, count = messages.len(), "publishing failed; trying again");
                stats.retried_units.inc();
                if !pause(clock, stop, options, &mut failures).await {
                    return false;
                }
            }
        }
    }
}

/// Waits a little longer each time. `false`: stopped.
pub(crate) async fn pause(
    clock: &dyn Clock,
    stop: &CancellationToken,
    options: LoopOptions,
    failures: &mut u32,
) -> bool {
    let wait = options.backoff * 2u32.pow((*failures).min(6));
    *failures += 1;
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = clock.sleep(wait) => true,
    }
}

/// Joins a group, waiting for the bus to be there. `None`: stopped.
pub(crate) async fn subscribe(
    bus: &dyn Bus,
    clock: &dyn Clock,
    group: &str,
    topics: &[Name],
    stop: &CancellationToken,
    options: LoopOptions,
) -> Option<Box<dyn crate::bus::Subscription>> {
    let mut failures = 0;
    loop {
        match bus.subscribe(group, topics).await {
            Ok(subscription) => return Some(subscription),
            Err(BusError::Closed) => return None,
            Err(error) => {
                tracing::warn!(%error, group, "subscribing failed; trying again");
                if !pause(clock, stop, options, &mut failures).await {
                    return None;
                }
            }
        }
    }
}
