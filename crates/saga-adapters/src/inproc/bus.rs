//! The bus in process: a bounded queue per consumer group and topic.
//!
//! A record that finds its queue full is dropped and counted, because waiting could lock two loops against each
//! other, and because whatever is outstanding is in a row and is sent again. Records published before a group first
//! subscribed are not for it. Dead letters go to a sink that keeps them.
//!
//! Several members of a group: a key belongs to whoever took a record with it, until that is committed.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use saga_core::Name;
use saga_runtime::Clock;
use saga_runtime::bus::{
    Bus, BusError, Delivery, GroupReading, Message, PartitionExtent, Peek, Peeked, PlaceReading, Position,
    Subscription, TopicExtent,
};
use saga_runtime::dead_letters::{DeadLetterSink, SUFFIX};
use tokio::sync::Notify;

use super::kept::Kept;

/// Keys are locked in this many groups: more members than that are of no use.
const SLOTS: usize = 64;

/// The bus. Cheap to clone.
#[derive(Clone)]
pub struct InProcBus(Arc<Shared>);

struct Shared {
    topics: HashMap<Name, Topic>,
    groups: Mutex<HashMap<String, Arc<Group>>>,
    dead_letters: Arc<dyn DeadLetterSink>,
    capacity: usize,
    members: AtomicU64,
    closed: AtomicBool,
    kept: Option<Kept>,
}

#[derive(Default)]
struct Topic {
    next_offset: AtomicU64,
    groups: RwLock<Vec<Arc<Group>>>,
}

struct Group {
    name: String,
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    queues: HashMap<Name, Queue>,
    /// Who holds the keys of this slot.
    holders: [Option<u64>; SLOTS],
    members: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Delivery>,
    dropped: u64,
}

/// How one queue stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueStats {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: Name,
    /// Records that wait.
    pub waiting: usize,
    /// Records that found the queue full since the start.
    pub dropped: u64,
}

impl InProcBus {
    /// A bus with these topics (and a `.dlq` for each) and queues of at most `capacity` records.
    pub fn new(topics: impl IntoIterator<Item = Name>, capacity: usize, dead_letters: Arc<dyn DeadLetterSink>) -> Self {
        Self::with(topics, capacity, dead_letters, None)
    }

    /// The same, and somebody may look at records: with a clock that says when each was written.
    pub fn observable(
        topics: impl IntoIterator<Item = Name>,
        capacity: usize,
        dead_letters: Arc<dyn DeadLetterSink>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self::with(topics, capacity, dead_letters, Some(Kept::new(clock)))
    }

    fn with(
        topics: impl IntoIterator<Item = Name>,
        capacity: usize,
        dead_letters: Arc<dyn DeadLetterSink>,
        kept: Option<Kept>,
    ) -> Self {
        let topics = topics.into_iter().map(|name| (name, Topic::default())).collect();
        let (groups, members, closed) = (Mutex::default(), AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Shared { topics, groups, dead_letters, capacity, members, closed, kept }))
    }

    /// Ends every subscription, now and later, with `Closed`.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        for group in self.0.groups.lock().values() {
            group.arrived.notify_waiters();
        }
    }

    /// Every queue, by group and topic.
    pub fn queues(&self) -> Vec<QueueStats> {
        let mut all = Vec::new();
        for group in self.0.groups.lock().values() {
            for (topic, queue) in &group.state.lock().queues {
                let (group, topic) = (group.name.clone(), topic.clone());
                all.push(QueueStats { group, topic, waiting: queue.waiting.len(), dropped: queue.dropped });
            }
        }
        all.sort_by(|a, b| (&a.group, &a.topic).cmp(&(&b.group, &b.topic)));
        all
    }
}

impl std::fmt::Debug for InProcBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InProcBus").field(&self.queues()).finish()
    }
}

impl Shared {
    fn topic(&self, name: &Name) -> Result<&Topic, BusError> {
        self.topics.get(name).ok_or_else(|| BusError::UnknownTopic(name.clone()))
    }

    fn open(&self) -> Result<(), BusError> {
        if self.closed.load(Ordering::Acquire) { Err(BusError::Closed) } else { Ok(()) }
    }

    /// Puts one record into every group's queue; remembers whom to wake.
    fn deliver(&self, message: Message, touched: &mut Vec<Arc<Group>>) -> Result<(), BusError> {
        let topic = self.topic(&message.topic)?;
        let groups = topic.groups.read();
        let Some((last, others)) = groups.split_last() else { return Ok(()) };
        let offset = topic.next_offset.fetch_add(1, Ordering::Relaxed);
        let position = Position { topic: message.topic.clone(), partition: 0, offset };
        let delivery = Delivery { position, message };
        self.kept.iter().for_each(|kept| kept.keep(&delivery));
        for group in others {
            group.put(delivery.clone(), self.capacity);
        }
        last.put(delivery, self.capacity);
        for group in groups.iter() {
            if !touched.iter().any(|known| Arc::ptr_eq(known, group)) {
                touched.push(Arc::clone(group));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Bus for InProcBus {
    async fn reading(&self) -> Result<Vec<GroupReading>, BusError> {
        let reading = |group: &Arc<Group>| {
            let state = group.state.lock();
            let place = |(topic, queue): (&Name, &Queue)| PlaceReading {
                topic: topic.clone(),
                partition: 0,
                waiting: queue.waiting.len() as u64,
                end: None,
            };
            let mut places: Vec<PlaceReading> = state.queues.iter().map(place).collect();
            places.sort_by(|a, b| a.topic.cmp(&b.topic));
            let members = (1..=state.members).map(|number| format!("this process, {number}")).collect();
            GroupReading { group: group.name.clone(), members, places }
        };
        let mut groups: Vec<GroupReading> = self.0.groups.lock().values().map(reading).collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    async fn extents(&self) -> Result<Vec<TopicExtent>, BusError> {
        let kept = self.0.kept.as_ref();
        let extent = |(name, topic): (&Name, &Topic)| {
            let end = topic.next_offset.load(Ordering::Relaxed);
            let begin = kept.and_then(|kept| kept.begin(name)).unwrap_or(end).min(end);
            TopicExtent { topic: name.clone(), partitions: vec![PartitionExtent { partition: 0, begin, end }] }
        };
        let mut all: Vec<TopicExtent> = self.0.topics.iter().map(extent).collect();
        all.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(all)
    }

    async fn peek(&self, peek: Peek) -> Result<Peeked, BusError> {
        self.0.topic(&peek.topic)?;
        Ok(self.0.kept.as_ref().map(|kept| kept.peek(&peek)).unwrap_or_default())
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), BusError> {
        self.0.open()?;
        let mut buried = Vec::new();
        let mut alive = Vec::with_capacity(messages.len());
        for message in messages {
            match message.topic.as_str().strip_suffix(SUFFIX) {
                Some(original) if self.0.topics.contains_key(original) => buried.push(message),
                _ => {
                    // All or nothing as far as names go.
                    self.0.topic(&message.topic)?;
                    alive.push(message);
                }
            }
        }
        if !buried.is_empty() {
            self.0.dead_letters.bury(buried).await.map_err(|e| BusError::Unavailable(e.to_string()))?;
        }
        let mut touched = Vec::new();
        for message in alive {
            self.0.deliver(message, &mut touched)?;
        }
        for group in touched {
            group.arrived.notify_waiters();
        }
        Ok(())
    }

    async fn subscribe(&self, group: &str, topics: &[Name]) -> Result<Box<dyn Subscription>, BusError> {
        self.0.open()?;
        for topic in topics {
            self.0.topic(topic)?;
        }
        let group = Arc::clone(self.0.groups.lock().entry(group.to_owned()).or_insert_with_key(|name| {
            let state = State { queues: HashMap::new(), holders: [None; SLOTS], members: 0 };
            Arc::new(Group { name: name.clone(), state: Mutex::new(state), arrived: Notify::new() })
        }));
        group.state.lock().members += 1;
        for name in topics {
            group.state.lock().queues.entry(name.clone()).or_default();
            let mut groups = self.0.topic(name)?.groups.write();
            if !groups.iter().any(|known| Arc::ptr_eq(known, &group)) {
                groups.push(Arc::clone(&group));
            }
        }
        let id = self.0.members.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&self.0);
        Ok(Box::new(Member { shared, group, id, topics: topics.to_vec(), next_topic: 0, uncommitted: Vec::new() }))
    }
}

impl Group {
    fn put(&self, delivery: Delivery, capacity: usize) {
        let mut state = self.state.lock();
        let Some(queue) = state.queues.get_mut(&delivery.position.topic) else { return };
        if queue.waiting.len() < capacity {
            queue.waiting.push_back(delivery);
        } else {
            if queue.dropped == 0 {
                let topic = &delivery.position.topic;
                tracing::warn!(group = self.name, %topic, "queue full: records are dropped and will be sent again");
            }
            queue.dropped += 1;
        }
    }
}

/// One member of a group.
struct Member {
    shared: Arc<Shared>,
    group: Arc<Group>,
    id: u64,
    topics: Vec<Name>,
    /// Where the next look begins, so that a busy topic does not starve the others.
    next_topic: usize,
    /// Copies of what was taken and not committed.
    uncommitted: Vec<Delivery>,
}

impl Member {
    fn take(&mut self, max: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        let mut state = self.group.state.lock();
        let State { queues, holders, members } = &mut *state;
        for turn in 0..self.topics.len() {
            let topic = &self.topics[(self.next_topic + turn) % self.topics.len()];
            let Some(queue) = queues.get_mut(topic) else { continue };
            let room = max - taken.len();
            if *members == 1 {
                taken.extend(queue.waiting.drain(..room.min(queue.waiting.len())));
            } else {
                take_free_keys(&mut queue.waiting, holders, self.id, room, &mut taken);
            }
            if taken.len() == max {
                break;
            }
        }
        for delivery in &taken {
            holders[slot(delivery)] = Some(self.id);
        }
        self.next_topic = self.next_topic.wrapping_add(1);
        self.uncommitted.extend(taken.iter().cloned());
        taken
    }

    /// Lets go of the keys; the others may take them.
    fn release(&mut self) {
        let mut state = self.group.state.lock();
        for holder in &mut state.holders {
            holder.take_if(|id| *id == self.id);
        }
        if state.members > 1 {
            drop(state);
            self.group.arrived.notify_waiters();
        }
    }
}

/// Takes records, in order, whose keys nobody else holds.
fn take_free_keys(
    waiting: &mut VecDeque<Delivery>,
    holders: &[Option<u64>; SLOTS],
    member: u64,
    room: usize,
    taken: &mut Vec<Delivery>,
) {
    let mut left = room;
    let mut kept = VecDeque::with_capacity(waiting.len());
    for delivery in waiting.drain(..) {
        if left > 0 && holders[slot(&delivery)].is_none_or(|id| id == member) {
            left -= 1;
            taken.push(delivery);
        } else {
            kept.push_back(delivery);
        }
    }
    *waiting = kept;
}

fn slot(delivery: &Delivery) -> usize {
    let mut hasher = DefaultHasher::new();
    delivery.message.key.hash(&mut hasher);
    usize::try_from(hasher.finish() % SLOTS as u64).unwrap_or(0)
}

#[async_trait]
impl Subscription for Member {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BusError> {
        let group = Arc::clone(&self.group);
        loop {
            let mut arrived = std::pin::pin!(group.arrived.notified());
            // Listening begins before the look, so that nothing slips between.
            arrived.as_mut().enable();
            self.shared.open()?;
            let taken = self.take(max.max(1));
            if !taken.is_empty() {
                return Ok(taken);
            }
            arrived.await;
        }
    }

    async fn commit(&mut self) -> Result<(), BusError> {
        self.uncommitted.clear();
        self.release();
        Ok(())
    }
}

impl Drop for Member {
    /// What was not committed goes back to where it stood.
    fn drop(&mut self) {
        {
            let mut state = self.group.state.lock();
            for delivery in self.uncommitted.drain(..).rev() {
                if let Some(queue) = state.queues.get_mut(&delivery.position.topic) {
                    queue.waiting.push_front(delivery);
                }
            }
        }
        self.release();
        self.group.state.lock().members -= 1;
        self.group.arrived.notify_waiters();
    }
}
