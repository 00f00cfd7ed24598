//! What both loops do around their work: dead letters, and publishing until it is acknowledged.

use std::time::Duration;

use bytes::Bytes;
use saga_core::{Millis, Name};
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError, Delivery, Message, Position};
use crate::clock::Clock;
use crate::stats::Stats;
use crate::trace;
use crate::wire::Poison;

/// How a loop behaves.
#[derive(Clone, Copy, Debug)]
pub struct LoopOptions {
    /// The most records in one unit of work: bounds memory and how long the write lock is held.
    pub batch: usize,
    /// How often a record may make its handler fail before it becomes a dead letter.
    pub poison_after: u32,
    /// How long the next unit may fill; see [`crate::pace`].
    pub pace: Duration,
    /// The first wait after a failure that time can heal; doubles up to a hundred times this.
    pub backoff: Duration,
    /// How far apart looks at what is forgotten are. What one has found is removed in the next: by then no statement or
    /// transaction is alive that began before, so this is longer than any may live; see [`crate::retention`].
    pub sweep: Duration,
}

/// Of PostgreSQL's limits of ten seconds a statement, and between two, no transaction of ours has room for as many.
const SWEEP: Duration = Duration::from_secs(120);

impl Default for LoopOptions {
    fn default() -> Self {
        Self { batch: 256, poison_after: 5, pace: Duration::ZERO, backoff: Duration::from_millis(50), sweep: SWEEP }
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
    message.headers.retain(|(name, _)| !name.starts_with("dlq_"));
    message.headers.extend([
        ("dlq_reason".into(), Bytes::from(poison.to_string())),
        ("dlq_topic".into(), Bytes::from(topic.to_string())),
        ("dlq_partition".into(), Bytes::from(partition.to_string())),
        ("dlq_offset".into(), Bytes::from(offset.to_string())),
        ("dlq_at".into(), Bytes::from(now.to_string())),
        ("dlq_attempts".into(), Bytes::from(attempts.to_string())),
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
    !matches!(publish_unless(bus, clock, &messages, stop, stats, options, |_| false).await, Published::Stopped)
}

/// What became of messages that were to be published.
pub(crate) enum Published {
    /// All are acknowledged.
    All,
    /// Stopped or closed before that.
    Stopped,
    /// They cannot be: this topic does not exist.
    Nowhere(Name),
}

/// Publishes until acknowledged. A topic that does not exist is waited for, too, unless `hopeless` says that nobody is
/// going to make it.
pub(crate) async fn publish_unless(
    bus: &dyn Bus,
    clock: &dyn Clock,
    messages: &[Message],
    stop: &CancellationToken,
    stats: &Stats,
    options: LoopOptions,
    hopeless: impl Fn(&Name) -> bool,
) -> Published {
    if messages.is_empty() {
        return Published::All;
    }
    let mut failures = 0;
    loop {
        match bus.publish(messages.to_vec()).await {
            Ok(()) => {
                stats.published.add(messages.len() as u64);
                return Published::All;
            }
            Err(BusError::Closed) => return Published::Stopped,
            Err(BusError::UnknownTopic(topic)) if failures >= options.poison_after && hopeless(&topic) => {
                return Published::Nowhere(topic);
            }
            Err(error) => {
                tracing::warn!(%error, count = messages.len(), "publishing failed; trying again");
                stats.retried_units.inc();
                if !pause(clock, stop, options, &mut failures).await {
                    return Published::Stopped;
                }
            }
        }
    }
}

/// Says that a record is given up, and which saga and trace it belongs to.
pub fn log_dead_letter(delivery: &Delivery, poison: &Poison) {
    let message = &delivery.message;
    // A number, as wherever else it is logged: who searches for a saga finds all of its lines.
    let saga_id = message.header("saga_id").and_then(|id| id.parse::<u64>().ok());
    let trace_id = trace::id_in(message.header(trace::TRACEPARENT));
    tracing::warn!(%poison, position = ?delivery.position, saga_id, trace_id, "dead letter");
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
