//! A circuit breaker: after some failures in a row it answers for the server, and lets one probe through at times.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Of one part of the cluster. Times are milliseconds since some start.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    probe_at: AtomicU64,
}

impl Breaker {
    /// Whether an operation may go to the server. A probe that is never answered for (its caller left) blocks nothing:
    /// the next is let through after another `open_for`.
    pub(super) fn admits(&self, now: u64, limit: u32, open_for: u64) -> bool {
        if self.failures.load(Relaxed) < limit {
            return true;
        }
        let probe_at = self.probe_at.load(Relaxed);
        let next = now.saturating_add(open_for);
        now >= probe_at && self.probe_at.compare_exchange(probe_at, next, Relaxed, Relaxed).is_ok()
    }

    /// The server answered.
    pub(super) fn succeeded(&self) {
        self.failures.store(0, Relaxed);
    }

    /// It did not, or badly.
    pub(super) fn failed(&self, now: u64, limit: u32, open_for: u64) {
        if self.failures.fetch_add(1, Relaxed).saturating_add(1) >= limit {
            self.probe_at.fetch_max(now.saturating_add(open_for), Relaxed);
        }
    }

    /// Whether it is open now.
    pub(super) fn is_open(&self, limit: u32) -> bool {
        self.failures.load(Relaxed) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_one_good_probe() {
        let breaker = Breaker::default();
        breaker.failed(0, 2, 100);
        breaker.succeeded();
        breaker.failed(0, 2, 100);
        assert!(breaker.admits(1, 2, 100), "not in a row");
        breaker.failed(10, 2, 100);
        assert!(!breaker.admits(11, 2, 100));
        assert!(breaker.admits(110, 2, 100), "the probe");
        assert!(!breaker.admits(111, 2, 100), "only one");
        assert!(breaker.admits(210, 2, 100), "the first probe never came back");
        breaker.succeeded();
        assert!(breaker.admits(211, 2, 100));
    }
}
