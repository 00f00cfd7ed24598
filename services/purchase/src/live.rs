//! Who is waiting for news of a purchase: streams and long polls. Costs two loads when nobody is.
//!
//! ```text
//!   consumer ─ after the commit ─► publish ─► by purchase: stream queues, long polls
//!                                         └─► by customer: stream queues
//! ```
//!
//! Events are rendered once and only if somebody waits; streams share the bytes. A queue that is full belongs to a slow
//! reader: it is dropped, the stream ends, and the reader resumes where it was. News are hints: who waits registers first,
//! reads the row, then listens, so nothing between is missed.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
// Its queues take no room while they are empty; tokio's have a block of 32 places from the beginning, 1.3 KiB a stream.
use futures_channel::mpsc;
use parking_lot::Mutex;
use saga_core::Millis;
use saga_core::protocol::ResultEvent;
use tokio::sync::Notify;

use crate::results::Entry;

/// Shards of each map: a few times the cores.
const SHARDS: usize = 16;
/// Frames that a stream of one purchase may lag behind: more than a purchase usually has.
/// (A queue has a place more than it is made with: its sender's own.)
const PURCHASE_QUEUE: usize = 64;
/// Batches that a stream of all purchases may lag behind.
const CUSTOMER_QUEUE: usize = 256;

/// One event for the streams of one purchase.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its number.
    pub seq: u32,
    /// Whether it is the last one.
    pub terminal: bool,
    /// What goes out.
    pub bytes: Bytes,
}

/// What a purchase has newly become.
#[derive(Clone, Debug)]
pub struct News<'b> {
    /// Which purchase.
    pub id: u64,
    /// Whose.
    pub customer_id: u64,
    /// The events, all new.
    pub events: &'b [ResultEvent],
    /// Whether it has ended.
    pub ended: bool,
}

enum Waiter {
    Stream(mpsc::Sender<Frame>),
    Poll { woken: Arc<Notify>, only_end: bool },
}

/// Everybody who waits.
#[derive(Default)]
pub struct Live {
    purchases: Board<Waiter>,
    /// Streams of all that becomes of a customer's purchases …
    customers: Board<mpsc::Sender<Bytes>>,
    /// … and of how they end.
    ends: Board<mpsc::Sender<Bytes>>,
    streams: Mutex<HashMap<u64, usize>>,
    came: Notify,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl Live {
    /// Tells everybody who waits. `at` is the moment of the commit: the resume point of customers' streams.
    pub fn publish(&self, batch: &[News<'_>], at: Millis) {
        if self.purchases.len() > 0 {
            for news in batch {
                self.tell_purchase(news);
            }
        }
        tell_customers(&self.customers, batch, at, false);
        tell_customers(&self.ends, batch, at, true);
    }

    /// Whether somebody may wait for the next thing that becomes of this purchase, its end or not.
    pub fn is_watched(&self, id: u64) -> bool {
        let watches = |waiter: &Waiter| !matches!(waiter, Waiter::Poll { only_end: true, .. });
        self.customers.len() > 0 || (self.purchases.len() > 0 && self.purchases.any(id, watches))
    }

    /// Waits until somebody new watches.
    pub async fn somebody_came(&self) {
        self.came.notified().await;
    }

    /// Something of this purchase that is no event has changed.
    pub fn changed(&self, id: u64) {
        if self.purchases.len() > 0 {
            self.purchases.each(id, |waiter| {
                if let Waiter::Poll { woken, only_end: false } = waiter {
                    woken.notify_one();
                }
                true
            });
        }
    }

    fn tell_purchase(&self, news: &News<'_>) {
        let mut frames: Vec<Frame> = Vec::new();
        self.purchases.each(news.id, |waiter| match waiter {
            Waiter::Poll { woken, only_end } => {
                if news.ended || !*only_end {
                    woken.notify_one();
                }
                true
            }
            Waiter::Stream(queue) => {
                if frames.is_empty() {
                    frames.extend(news.events.iter().map(|event| frame(news.id, event)));
                }
                frames.iter().all(|frame| queue.try_send(frame.clone()).is_ok())
            }
        });
    }

    /// Waits for the events of one purchase, as frames.
    pub fn purchase_stream(self: &Arc<Self>, id: u64) -> (mpsc::Receiver<Frame>, Registration) {
        let (queue, frames) = mpsc::channel(PURCHASE_QUEUE - 1);
        let number = self.purchases.add(id, Waiter::Stream(queue));
        self.came.notify_one();
        (frames, Registration { live: Arc::clone(self), board: Kind::Purchase, key: id, number })
    }

    /// Waits for a change (or only the end) of one purchase.
    pub fn poll(self: &Arc<Self>, id: u64, only_end: bool) -> (Arc<Notify>, Registration) {
        let woken = Arc::new(Notify::new());
        let number = self.purchases.add(id, Waiter::Poll { woken: Arc::clone(&woken), only_end });
        if !only_end {
            self.came.notify_one();
        }
        (woken, Registration { live: Arc::clone(self), board: Kind::Purchase, key: id, number })
    }

    /// Waits for the events (or only the ends) of all purchases of a customer, as bytes of whole events.
    pub fn customer_stream(self: &Arc<Self>, id: u64, only_ends: bool) -> (mpsc::Receiver<Bytes>, Registration) {
        let (queue, bytes) = mpsc::channel(CUSTOMER_QUEUE - 1);
        let (board, kind) = if only_ends { (&self.ends, Kind::Ends) } else { (&self.customers, Kind::Customer) };
        let number = board.add(id, queue);
        if !only_ends {
            self.came.notify_one();
        }
        (bytes, Registration { live: Arc::clone(self), board: kind, key: id, number })
    }

    /// Counts one more stream of a customer, if that is not more than `limit`.
    pub fn open_stream(self: &Arc<Self>, customer_id: u64, limit: usize) -> Option<OpenStream> {
        let mut streams = self.streams.lock();
        let open = streams.entry(customer_id).or_insert(0);
        if *open >= limit {
            return None;
        }
        *open += 1;
        Some(OpenStream { live: Arc::clone(self), customer_id })
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.streams.lock().values().sum()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.purchases.len() + self.customers.len() + self.ends.len()
    }
}

/// An event of one purchase as its streams send it.
pub fn frame(id: u64, event: &ResultEvent) -> Frame {
    let ResultEvent { seq, terminal, .. } = *event;
    Frame { seq, terminal, bytes: Entry::from(event).frame(id) }
}

fn tell_customers(board: &Board<mpsc::Sender<Bytes>>, batch: &[News<'_>], at: Millis, only_ends: bool) {
    if board.len() == 0 {
        return;
    }
    let mut by_customer: HashMap<u64, Vec<&News<'_>>> = HashMap::new();
    for news in batch.iter().filter(|news| (news.ended || !only_ends) && board.has(news.customer_id)) {
        by_customer.entry(news.customer_id).or_default().push(news);
    }
    for (customer, news) in by_customer {
        let bytes = joined(&news, at, only_ends);
        board.each(customer, |queue| bytes.is_empty() || queue.try_send(bytes.clone()).is_ok());
    }
}

fn joined(news: &[&News<'_>], at: Millis, only_ends: bool) -> Bytes {
    let mut out = BytesMut::new();
    for news in news {
        for event in news.events.iter().filter(|event| event.terminal || !only_ends) {
            Entry::from(event).render(news.id, at, &mut out);
        }
    }
    out.freeze()
}

#[derive(Clone, Copy)]
enum Kind {
    Purchase,
    Customer,
    Ends,
}

/// Somebody who waits, until this is dropped.
pub struct Registration {
    live: Arc<Live>,
    board: Kind,
    key: u64,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        match self.board {
            Kind::Purchase => self.live.purchases.remove(self.key, self.number),
            Kind::Customer => self.live.customers.remove(self.key, self.number),
            Kind::Ends => self.live.ends.remove(self.key, self.number),
        }
    }
}

/// One of a customer's streams, until this is dropped.
pub struct OpenStream {
    live: Arc<Live>,
    customer_id: u64,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Slot::Occupied(mut open) = self.live.streams.lock().entry(self.customer_id) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// Waiters by key, in shards.
struct Board<W> {
    shards: [Mutex<HashMap<u64, Waiters<W>>>; SHARDS],
    count: AtomicUsize,
    numbers: AtomicU64,
}

/// Waiters of one key, by number.
type Waiters<W> = Vec<(u64, W)>;

impl<W> Default for Board<W> {
    fn default() -> Self {
        Self { shards: Default::default(), count: AtomicUsize::new(0), numbers: AtomicU64::new(0) }
    }
}

impl<W> Board<W> {
    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, Vec<(u64, W)>>> {
        // Ids end in a sequence and a node number; the bits above spread as well.

        let mixed = key ^ (key >> 12);
        &self.shards[usize::try_from(mixed % SHARDS as u64).unwrap_or(0)]
    }

    fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn has(&self, key: u64) -> bool {
        self.shard(key).lock().contains_key(&key)
    }

    fn any(&self, key: u64, is: impl Fn(&W) -> bool) -> bool {
        self.shard(key).lock().get(&key).is_some_and(|waiters| waiters.iter().any(|(_, waiter)| is(waiter)))
    }

    fn add(&self, key: u64, waiter: W) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.shard(key).lock().entry(key).or_default().push((number, waiter));
        self.count.fetch_add(1, Ordering::AcqRel);
        number
    }

    fn remove(&self, key: u64, number: u64) {
        let mut shard = self.shard(key).lock();
        let Slot::Occupied(mut waiters) = shard.entry(key) else { return };
        let before = waiters.get().len();
        waiters.get_mut().retain(|(n, _)| *n != number);
        self.count.fetch_sub(before - waiters.get().len(), Ordering::AcqRel);
        if waiters.get().is_empty() {
            waiters.remove();
        }
    }

    /// Calls `tell` for each waiter of a key; drops those for which it answers `false`.
    fn each(&self, key: u64, mut tell: impl FnMut(&mut W) -> bool) {
        let mut shard = self.shard(key).lock();
        let Slot::Occupied(mut waiters) = shard.entry(key) else { return };
        let before = waiters.get().len();
        waiters.get_mut().retain_mut(|(_, waiter)| tell(waiter));
        self.count.fetch_sub(before - waiters.get().len(), Ordering::AcqRel);
        if waiters.get().is_empty() {
            waiters.remove();
        }
    }
}

#[cfg(test)]
mod tests;
