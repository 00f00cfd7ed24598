//! Whole partitions, each with a reader of its own, for loops that drive what is in a partition.
//!
//! ```text
//!   the client ──► pump (one task) ──┬─► shelf of partition 0 ──► the loop that drives it
//!                                    └─► shelf of partition 3 ──► the loop that drives it
//! ```
//!
//! The pump always asks the client, so a slow loop never costs the membership. A shelf that is full pauses its
//! partition at the broker. When the group is balanced anew, a partition that comes back to us keeps its loop: only
//! what had waited on its shelf is delivered again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::{ClientConfig, ClientContext, TopicPartitionList};
use saga_core::Name;
use saga_runtime::bus::{Assignment, BusError, Delivery, Membership, Subscription};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::subscription::{Names, Returned, check, tell};
use super::unavailable;

/// A shelf with more than this is not filled further.
const FULL: usize = 4_000;
/// Below this it is filled again.
const ROOM: usize = 1_000;

type Consumer = StreamConsumer<Context>;

/// What the group did with partitions: the topic's name on the cluster, and the number.
enum Change {
    Assigned(Vec<(String, u32)>),
    Revoked(Vec<(String, u32)>),
}

struct Context {
    group: String,
    changes: mpsc::UnboundedSender<Change>,
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        tell(&self.group, rebalance);
        let change = match rebalance {
            Rebalance::Assign(list) => Change::Assigned(places(list)),
            Rebalance::Revoke(list) => Change::Revoked(places(list)),
            Rebalance::Error(_) => return,
        };
        // The pump is gone only when nobody wants to know.
        let _ = self.changes.send(change);
    }
}

fn places(list: &TopicPartitionList) -> Vec<(String, u32)> {
    let place = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        (e.topic().to_owned(), u32::try_from(e.partition()).unwrap_or_default())
    };
    list.elements().iter().map(place).collect()
}

/// What waits for one partition's loop.
#[derive(Default)]
struct Shelf {
    state: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<Delivery>,
    paused: bool,
    closed: bool,
}

/// The membership.
pub(super) struct KafkaMembership {
    news: mpsc::UnboundedReceiver<Assignment>,
    _stop: DropGuard,
}

impl KafkaMembership {
    pub(super) fn join(config: &ClientConfig, names: Names, tasks: &TaskTracker) -> Result<Self, BusError> {
        let group = config.get("group.id").unwrap_or_default().to_owned();
        let (changes, changed) = mpsc::unbounded_channel();
        let consumer: Consumer =
            config.create_with_context(Context { group, changes }).map_err(|error| unavailable(&error))?;
        consumer.subscribe(&names.remote()).map_err(|error| unavailable(&error))?;
        let (tell, news) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let pump = Pump {
            consumer: Arc::new(consumer),
            names,
            changed,
            tell,
            here: BTreeMap::new(),
            shelves: BTreeMap::new(),
            stop: stop.clone(),
        };
        let leaving = tasks.clone();
        tasks.spawn(async move {
            let consumer = pump.run().await;
            // The last one says good-bye to the group, which takes a round trip or two.
            leaving.spawn_blocking(move || drop(consumer));
        });
        Ok(Self { news, _stop: stop.drop_guard() })
    }
}

#[async_trait]
impl Membership for KafkaMembership {
    async fn next(&mut self) -> Result<Assignment, BusError> {
        self.news.recv().await.ok_or(BusError::Closed)
    }
}

struct Pump {
    consumer: Arc<Consumer>,
    names: Names,
    changed: mpsc::UnboundedReceiver<Change>,
    tell: mpsc::UnboundedSender<Assignment>,
    /// By partition: the topics of it that are ours now.
    here: BTreeMap<u32, BTreeSet<Name>>,
    /// By partition that a loop drives.
    shelves: BTreeMap<u32, Arc<Shelf>>,
    stop: CancellationToken,
}

impl Pump {
    async fn run(mut self) -> Arc<Consumer> {
        let consumer = Arc::clone(&self.consumer);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(change) = self.changed.recv() => self.change(change),
                received = consumer.recv() => match received {
                    Ok(message) => {
                        let delivery = self.names.delivery(&message);
                        // The client may have told of a balancing just before this record.
                        while let Ok(change) = self.changed.try_recv() {
                            self.change(change);
                        }
                        self.shelve(delivery);
                    }
                    Err(error) => if let Err(error) = check(&error) {
                        tracing::warn!(%error, "receiving failed; going on");
                    },
                },
            }
        }
        for shelf in self.shelves.values() {
            shelf.state.lock().closed = true;
            shelf.arrived.notify_one();
        }
        consumer
    }

    fn shelve(&mut self, delivery: Delivery) {
        let partition = delivery.position.partition;
        // Of a partition that was taken away meanwhile: whoever has it gets it.
        let Some(shelf) = self.shelves.get(&partition) else { return };
        let mut state = shelf.state.lock();
        state.records.push_back(delivery);
        if state.records.len() > FULL && !state.paused {
            state.paused = true;
            pause(&self.consumer, &self.names, partition, true);
        }
        drop(state);
        shelf.arrived.notify_one();
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Revoked(places) => {
                for (topic, partition) in places {
                    let topic = self.names.topic(&topic);
                    if let Some(topics) = self.here.get_mut(&partition) {
                        topics.remove(&topic);
                    }
                    if let Some(shelf) = self.shelves.get(&partition) {
                        let mut state = shelf.state.lock();
                        state.records.retain(|delivery| delivery.position.topic != topic);
                        state.paused = false;
                    }
                }
            }
            Change::Assigned(places) => {
                let mut partitions = BTreeSet::new();
                for (topic, partition) in places {
                    let topic = self.names.topic(&topic);
                    self.here.entry(partition).or_default().insert(topic);
                    partitions.insert(partition);
                }
                self.here.retain(|_, topics| !topics.is_empty());
                self.settle();
                // The client keeps a pause over a balancing; the shelf that it was for is empty.
                for partition in partitions {
                    pause(&self.consumer, &self.names, partition, false);
                }
            }
        }
    }

    /// After a balancing: loops for what is new, an end for those whose partition did not come back.
    fn settle(&mut self) {
        let (here, tell) = (&self.here, &self.tell);
        self.shelves.retain(|partition, shelf| {
            let stays = here.contains_key(partition);
            if !stays {
                shelf.state.lock().closed = true;
                shelf.arrived.notify_one();
                let _ = tell.send(Assignment::Revoked { partition: *partition });
            }
            stays
        });
        for partition in self.here.keys() {
            if self.shelves.contains_key(partition) {
                continue;
            }
            let shelf = Arc::new(Shelf::default());
            self.shelves.insert(*partition, Arc::clone(&shelf));
            let subscription = Box::new(Reader {
                consumer: Arc::clone(&self.consumer),
                names: self.names.clone(),
                partition: *partition,
                shelf,
                returned: Returned::default(),
            });
            let _ = self.tell.send(Assignment::Assigned { partition: *partition, subscription });
        }
    }
}

fn pause(consumer: &Consumer, names: &Names, partition: u32, paused: bool) {
    let mut list = TopicPartitionList::new();
    for topic in names.remote() {
        list.add_partition(topic, i32::try_from(partition).unwrap_or_default());
    }
    let done = if paused { consumer.pause(&list) } else { consumer.resume(&list) };
    if let Err(error) = done {
        tracing::debug!(%error, partition, paused, "a partition could not be paused or resumed");
    }
}

/// One partition's records, for its loop.
struct Reader {
    consumer: Arc<Consumer>,
    names: Names,
    partition: u32,
    shelf: Arc<Shelf>,
    returned: Returned,
}

impl Reader {
    /// What waits, if anything does.
    fn take(&mut self, max: usize) -> Result<Vec<Delivery>, BusError> {
        let mut state = self.shelf.state.lock();
        let count = state.records.len().min(max);
        if count == 0 && state.closed {
            return Err(BusError::Closed);
        }
        let taken: Vec<Delivery> = state.records.drain(..count).collect();
        if state.paused && state.records.len() < ROOM {
            state.paused = false;
            pause(&self.consumer, &self.names, self.partition, false);
        }
        drop(state);
        self.returned.note(&taken);
        Ok(taken)
    }
}

#[async_trait]
impl Subscription for Reader {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BusError> {
        loop {
            let taken = self.take(max)?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            self.shelf.arrived.notified().await;
        }
    }

    async fn commit(&mut self) -> Result<(), BusError> {
        self.returned.store(&self.consumer, &self.names)
    }
}
