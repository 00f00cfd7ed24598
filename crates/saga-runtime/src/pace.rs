//! Pacing: a loop's units begin at least so far apart.
//!
//! ```text
//!   busy:  unit ▪▪▪··  unit ▪▪▪▪·  unit ▪▪···       what arrives meanwhile is the next batch
//!   idle:                     ·  ▪▪                 nothing waits: the last beginning is long ago
//! ```
//!
//! Not a linger: whatever arrives at an idle loop is taken up at once. But a loop that has just begun a unit lets the
//! next one fill. A unit costs a commit, a round of requests to the broker and some wake-ups, however few messages it has;
//! without a pace a loop at half load runs as many units as it can, each of a message or two, and that fills the machine.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// When the next unit may begin.
#[derive(Debug)]
pub struct Pace {
    /// In ns; 0: always.
    apart: u64,
    /// When the last one began, in ns since the epoch.
    begun: u64,
}

impl Pace {
    /// Units begin at least so far apart; zero: one right after the other.
    pub fn new(apart: Duration) -> Self {
        Self { apart: u64::try_from(apart.as_nanos()).unwrap_or(u64::MAX), begun: 0 }
    }

    /// Waits until a unit may begin. `false`: stopped meanwhile. Cancel-safe.
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

    /// A unit begins.
    pub fn begin(&mut self, clock: &dyn Clock) {
        if self.apart > 0 {
            self.begun = clock.nanos();
        }
    }

    fn left(&self, clock: &dyn Clock) -> Duration {
        if self.apart == 0 {
            return Duration::ZERO;
        }
        // A clock that was set back makes it wait once, and no longer than usual.
        let since = clock.nanos().saturating_sub(self.begun);
        Duration::from_nanos(self.apart.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use saga_core::Millis;

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

    async fn units(apart: u64, work: &[u64]) -> Vec<u64> {
        let (clock, stop) = (Hands::default(), CancellationToken::new());
        clock.now.store(1_000, Ordering::Relaxed);
        let mut pace = Pace::new(Duration::from_millis(apart));
        for ms in work {
            assert!(pace.turn(&clock, &stop).await);
            pace.begin(&clock);
            clock.now.fetch_add(*ms, Ordering::Relaxed);
        }
        clock.waits.into_inner()
    }

    #[tokio::test]
    async fn a_busy_loops_units_begin_apart() {
        assert_eq!(units(5, &[1, 2, 5, 9, 0]).await, [4, 3]);
    }

    #[tokio::test]
    async fn without_a_pace_nothing_waits() {
        assert!(units(0, &[0, 0, 3]).await.is_empty());
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_delays_one_unit_by_no_more_than_the_pace() {
        let (clock, stop) = (Hands::default(), CancellationToken::new());
        clock.now.store(1_000_000, Ordering::Relaxed);
        let mut pace = Pace::new(Duration::from_millis(5));
        pace.begin(&clock);
        clock.now.store(1_000, Ordering::Relaxed);
        assert!(pace.turn(&clock, &stop).await);
        assert_eq!(*clock.waits.lock(), [5]);
    }

    #[tokio::test]
    async fn a_stop_does_not_wait() {
        let (clock, stop) = (Hands::default(), CancellationToken::new());
        let mut pace = Pace::new(Duration::from_secs(3600));
        pace.begin(&clock);
        stop.cancel();
        assert!(!pace.turn(&clock, &stop).await);
        assert!(clock.waits.lock().is_empty());
    }
}
