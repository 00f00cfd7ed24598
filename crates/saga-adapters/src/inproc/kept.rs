//! The last records of a topic, for whoever wants to look: kept only while somebody does.
//!
//! Until somebody looks, a record costs one look at a flag. From then on each topic keeps its last records, within
//! [`MOST`] and [`LARGEST`], until nobody has looked for [`PATIENCE`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use saga_core::{Millis, Name};
use saga_runtime::Clock;
use saga_runtime::bus::{Delivery, Peek, Peeked, PeekedRecord};

/// Records of a topic.
const MOST: usize = 1_000;
/// Bytes of a topic's records, keys and headers included.
const LARGEST: usize = 1 << 20;
/// How long records are kept after somebody looked, in ms.
const PATIENCE: Millis = 10 * 60_000;

/// The records of all topics.
pub(super) struct Kept {
    clock: Arc<dyn Clock>,
    on: AtomicBool,
    looked_at: AtomicU64,
    topics: Mutex<Topics>,
}

#[derive(Default)]
struct Topics {
    since: Millis,
    rings: HashMap<Name, Ring>,
}

#[derive(Default)]
struct Ring {
    records: VecDeque<PeekedRecord>,
    bytes: usize,
}

impl Kept {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let (on, looked_at, topics) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::default());
        Self { clock, on, looked_at, topics }
    }

    /// Keeps a record, if somebody has looked lately.
    pub(super) fn keep(&self, delivery: &Delivery) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let now = self.clock.now();
        let mut topics = self.topics.lock();
        if self.looked_at.load(Ordering::Relaxed).saturating_add(PATIENCE) < now {
            self.on.store(false, Ordering::Relaxed);
            topics.rings.clear();
            return;
        }
        topics.rings.entry(delivery.position.topic.clone()).or_default().push(delivery, now);
    }

    /// Notes that somebody looks.
    fn look(&self) -> parking_lot::MutexGuard<'_, Topics> {
        let now = self.clock.now();
        let mut topics = self.topics.lock();
        self.looked_at.store(now, Ordering::Relaxed);
        if !self.on.swap(true, Ordering::Relaxed) {
            topics.since = now;
        }
        topics
    }

    /// The first record of a topic that is kept.
    pub(super) fn begin(&self, topic: &Name) -> Option<u64> {
        let topics = self.look();
        topics.rings.get(topic)?.records.front().map(|record| record.offset)
    }

    pub(super) fn peek(&self, peek: &Peek) -> Peeked {
        let topics = self.look();
        let kept_since = Some(topics.since);
        let other = peek.partition.is_some_and(|partition| partition != 0);
        let Some(ring) = topics.rings.get(&peek.topic).filter(|_| !other) else {
            return Peeked { kept_since, ..Peeked::default() };
        };
        let wanted = |record: &&PeekedRecord| {
            peek.from.is_none_or(|from| record.offset <= from)
                && peek.key.as_ref().is_none_or(|key| record.message.key == *key)
        };
        let mut found = ring.records.iter().rev().filter(wanted);
        let records: Vec<PeekedRecord> = found.by_ref().take(peek.limit).cloned().collect();
        Peeked { records, next_from: found.next().map(|record| record.offset), kept_since }
    }
}

impl Ring {
    fn push(&mut self, delivery: &Delivery, now: Millis) {
        let record = PeekedRecord {
            partition: 0,
            offset: delivery.position.offset,
            at: Some(now),
            message: delivery.message.clone(),
        };
        self.bytes += size(&record);
        self.records.push_back(record);
        while self.records.len() > MOST || self.bytes > LARGEST {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= size(&oldest);
        }
    }
}

fn size(record: &PeekedRecord) -> usize {
    let message = &record.message;
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.key.len() + message.payload.len() + headers
}
