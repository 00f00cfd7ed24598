//! Pacing: a loop's units begin apart, the further the more each of them finds.
//!
//! ```text
//!   busy:  unit ▪▪▪▪▪···  unit ▪▪▪▪▪▪▪··  unit ▪▪▪▪▪▪··    what arrives meanwhile is the next batch
//!   idle:  unit ▪  unit ▪                                 a single message holds up a few milliseconds
//! ```
//!
//! Not a linger: whatever arrives at an idle loop is taken up at once. But a loop that has just begun a unit of several
//! messages lets the next one fill: a few milliseconds for each of them, up to the pace. A unit costs a commit, a round of
//! requests to the broker and some wake-ups, however few messages it has; without a pace a loop at half load runs as many
//! units as it can, each of a message or two, and that fills the machine. With one whatever the load, each hop of a
//! purchase that is alone would wait for the hop before it.
//!
//! Where the machine is full units take long, and the next one fills for as long again as the last one took: the fewer
//! units there are, the more of the machine is left for what is in them. Not so the loop that all sagas come back to after
//! each step ([`Pace::hub`]): what it waits they all wait, once for every step, and it is one loop among many. It waits
//! less for each message, and never for longer than its pace. A unit that was as large as one may be leaves others behind,
//! and nothing is waited for.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// What each message of a unit holds the next one up.
const EACH: Duration = Duration::from_millis(3);
/// The same at the loop that all come back to: what one saga waits there it waits once for every step.
const EACH_AT_HUB: Duration = Duration::from_millis(1);
/// How many paces apart units begin at most, however long they take.
const STRETCH: u32 = 4;

/// When the next unit may begin.
#[derive(Debug)]
pub struct Pace {
    pace: Duration,
    /// What each message of a unit holds the next one up.
    each: Duration,
    /// How far apart units begin at most, however long they take.
    longest: Duration,
    /// The most messages in one unit.
    room: usize,
    /// In the last one; none: the next one need not wait.
    messages: usize,
    /// When the last one began, in ns since the epoch.
    begun: u64,
}

impl Pace {
    /// Units of many messages, of which each has `room` for so many, begin so far apart; zero: one right after the other.
    pub fn new(pace: Duration, room: usize) -> Self {
        Self { pace, each: EACH, longest: pace.saturating_mul(STRETCH), room, messages: 0, begun: 0 }
    }

    /// The same for a loop that a saga comes back to after every step: however long its units take, no further apart.
    pub fn hub(pace: Duration, room: usize) -> Self {
        Self { each: EACH_AT_HUB, longest: pace, ..Self::new(pace, room) }
    }

    /// How long the next unit is let fill after one of so many messages, which took so long.
    pub fn rest(&self, messages: usize, took: Duration) -> Duration {
        // A full one has left others behind.
        if messages >= self.room {
            return Duration::ZERO;
        }
        let each = self.each.saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX));
        each.min(self.pace.max(took.saturating_mul(2)).min(self.longest)).saturating_sub(took)
    }

    /// The last unit is done: waits until another may begin. `false`: stopped meanwhile. Cancel-safe.
    pub async fn turn(&self, clock: &dyn Clock, stop: &CancellationToken) -> bool {
        let wait = self.left(clock);
        if wait.is_zero() {
            return true;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = clock.sleep(wait) => true,
        }
    }

    /// A unit of so many messages begins.
    pub fn begin(&mut self, clock: &dyn Clock, messages: usize) {
        if !self.pace.is_zero() {
            self.begun = clock.nanos();
            self.messages = messages;
        }
    }

    /// A unit of messages of these sagas begins. Those of one are no company for each other: they count as one, unless
    /// the unit is full of them.
    pub fn begin_of<K: Eq + Hash>(&mut self, clock: &dyn Clock, sagas: impl ExactSizeIterator<Item = K>) {
        if self.pace.is_zero() {
            return;
        }
        let messages = sagas.len();
        let company = if messages < self.room { sagas.collect::<HashSet<_>>().len() } else { messages };
        self.begin(clock, company);
    }

    fn left(&self, clock: &dyn Clock) -> Duration {
        if self.messages == 0 {
            return Duration::ZERO;
        }
        // A clock that was set back makes it wait once, and no longer than usual.
        let took = Duration::from_nanos(clock.nanos().saturating_sub(self.begun));
        self.rest(self.messages, took)
    }
}

/// Receives what waits in a queue, up to `room`, and what those are about to send who were woken together with the first:
/// the answers of a group commit wake a request each, and the runtime lets whoever waits for the first of them run before
/// the second. Without that moment a unit of one begins, and all the others are the next one. Answers how many there are in
/// `batch`; zero: all senders are gone. Cancel-safe as far as `batch` is kept.
pub async fn gather<T>(queue: &mut mpsc::Receiver<T>, batch: &mut Vec<T>, room: usize) -> usize {
    if queue.recv_many(batch, room).await == 0 {
        return batch.len();
    }
    tokio::task::yield_now().await;
    while batch.len() < room
        && let Ok(more) = queue.try_recv()
    {
        batch.push(more);
    }
    batch.len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use saga_core::Millis;
    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    /// Shows what it is set to; notes what was waited for.
    #[derive(Default)]
    struct Hands {
        now: AtomicU64,
        waits: Mutex<Vec<u64>>,
    }

    #[async_trait]
    impl Clock for Hands {
        fn now(&self) -> Millis {
            self.now.load(Ordering::Relaxed)
        }

        async fn sleep(&self, wait: Duration) {
            let wait = u64::try_from(wait.as_millis()).unwrap();
            self.waits.lock().push(wait);
            self.now.fetch_add(wait, Ordering::Relaxed);
        }
    }

    /// What was waited for between units of so many messages, each of which took so many ms.
    async fn units(most: u64, work: &[(usize, u64)]) -> Vec<u64> {
        units_at(Pace::new(Duration::from_millis(most), 100), work).await
    }

    async fn units_at(mut pace: Pace, work: &[(usize, u64)]) -> Vec<u64> {
        let (clock, stop) = (Hands::default(), CancellationToken::new());
        clock.now.store(1_000, Ordering::Relaxed);
        for (messages, ms) in work {
            assert!(pace.turn(&clock, &stop).await);
            pace.begin(&clock, *messages);
            clock.now.fetch_add(*ms, Ordering::Relaxed);
        }
        clock.waits.into_inner()
    }

    #[tokio::test]
    async fn a_busy_loops_units_begin_apart() {
        assert_eq!(units(5, &[(9, 1), (5, 2), (7, 3), (6, 9), (8, 0)]).await, [4, 3, 3, 9]);
    }

    #[tokio::test]
    async fn few_messages_hold_up_the_next_ones_no_longer_than_they_are_many() {
        assert_eq!(units(15, &[(1, 1), (2, 1), (40, 1), (0, 0), (1, 0)]).await, [2, 5, 14]);
    }

    #[tokio::test]
    async fn units_that_take_long_let_the_next_one_fill_as_long_again() {
        let work = [(50, 20), (50, 35), (50, 200), (8, 20), (0, 0)];
        // Up to four paces, and three milliseconds a message.
        assert_eq!(units(15, &work).await, [20, 25, 4]);
    }

    #[tokio::test]
    async fn the_loop_that_all_come_back_to_lets_nothing_fill_for_longer_than_its_pace() {
        let hub = Pace::hub(Duration::from_millis(5), 100);
        // Where a participant would wait for three, a saga that is alone waits one.
        assert_eq!(units_at(hub, &[(50, 2), (50, 5), (50, 20), (2, 1), (100, 1), (1, 0), (0, 0)]).await, [3, 1, 1]);
    }

    #[tokio::test]
    async fn what_a_full_unit_left_behind_is_not_waited_for() {
        assert_eq!(units(5, &[(100, 1), (99, 1), (101, 0), (1, 0)]).await, [4]);
    }

    #[tokio::test]
    async fn the_messages_of_one_saga_hold_up_the_next_ones_as_one_and_a_full_unit_of_them_nobody() {
        let (clock, stop) = (Hands::default(), CancellationToken::new());
        let mut pace = Pace::new(Duration::from_millis(25), 100);
        for sagas in [vec![7; 9], vec![7, 8, 7, 9], vec![7; 100], vec![], vec![7]] {
            assert!(pace.turn(&clock, &stop).await);
            pace.begin_of(&clock, sagas.iter());
        }
        assert_eq!(*clock.waits.lock(), [3, 9]);
    }

    #[tokio::test]
    async fn without_a_pace_nothing_waits() {
        assert!(units(0, &[(1, 0), (90, 0), (1, 3)]).await.is_empty());
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_delays_one_unit_by_no_more_than_the_pace() {
        let (clock, stop) = (Hands::default(), CancellationToken::new());
        clock.now.store(1_000_000, Ordering::Relaxed);
        let mut pace = Pace::new(Duration::from_millis(5), 100);
        pace.begin(&clock, 9);
        clock.now.store(1_000, Ordering::Relaxed);
        assert!(pace.turn(&clock, &stop).await);
        assert_eq!(*clock.waits.lock(), [5]);
    }

    #[tokio::test]
    async fn a_stop_does_not_wait() {
        let (clock, stop) = (Hands::default(), CancellationToken::new());
        let mut pace = Pace::new(Duration::from_secs(3600), 100);
        pace.begin(&clock, 9);
        stop.cancel();
        assert!(!pace.turn(&clock, &stop).await);
        assert!(clock.waits.lock().is_empty());
    }

    // All on the one worker, as a service's loops are.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn those_who_are_woken_together_are_gathered_together() {
        let (queue, mut waiting) = mpsc::channel(16);
        let (gathered, counted) = oneshot::channel();
        let mut gatherer = JoinSet::new();
        gatherer.spawn(async move {
            gathered.send(gather(&mut waiting, &mut Vec::new(), 8).await).unwrap();
            gather(&mut waiting, &mut Vec::new(), 8).await
        });
        let mut answers = JoinSet::new();
        answers.spawn(async move {
            let (mut wakes, mut asking) = (Vec::new(), JoinSet::new());
            for number in 0..8 {
                let (wake, woken) = oneshot::channel::<()>();
                let queue = queue.clone();
                asking.spawn(async move {
                    woken.await.unwrap();
                    queue.send(number).await.unwrap();
                    // As a request that waits for its answer: to end would wake somebody else first.
                    std::future::pending::<()>().await;
                });
                wakes.push(wake);
            }
            tokio::task::yield_now().await;
            wakes.into_iter().for_each(|wake| wake.send(()).unwrap());
            counted.await.unwrap()
        });
        assert_eq!(answers.join_all().await, [8]);
        assert_eq!(gatherer.join_all().await, [0]);
    }
}
