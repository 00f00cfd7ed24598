//! A histogram of atomics: one addition to a bucket and one to the sum, from any thread, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds for durations, in microseconds: from what memory takes to what a person gives up on.
const DURATIONS: &[u64] = &[
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// Upper bounds for the sizes of batches.
const SIZES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// How often values up to some bounds were seen.
#[derive(Debug)]
pub struct Histogram {
    /// Ascending.
    bounds: &'static [u64],
    /// One more than there are bounds: what is above all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A histogram at one moment. Values that arrive meanwhile may be in the sum and not yet in a count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Upper bounds, ascending, each included.
    pub bounds: &'static [u64],
    /// Values up to each bound and above the one before; the last: above all.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::durations()
    }
}

impl Histogram {
    /// For durations, in microseconds.
    pub fn durations() -> Self {
        Self::new(DURATIONS)
    }

    /// For sizes.
    pub fn sizes() -> Self {
        Self::new(SIZES)
    }

    fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a duration that was measured in milliseconds.
    pub fn observe_millis(&self, millis: u64) {
        self.observe(millis.saturating_mul(1_000));
    }

    /// Counts what lies between two readings of [`crate::Clock::nanos`]; a clock that was set back gives nothing.
    pub fn observe_between(&self, from: u64, until: u64) {
        self.observe(micros(from, until));
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Snapshot { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// Microseconds between two readings in nanoseconds.
pub fn micros(from: u64, until: u64) -> u64 {
    until.saturating_sub(from) / 1_000
}

impl Snapshot {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_below_the_bound_that_it_does_not_exceed() {
        let histogram = Histogram::sizes();
        for value in [0, 1, 2, 3, 1_024, 1_025, 9_999] {
            histogram.observe(value);
        }
        let Snapshot { counts, sum, .. } = histogram.snapshot();
        assert_eq!(counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(sum, 12_054);
        assert_eq!(histogram.snapshot().count(), 7);
    }

    #[test]
    fn a_clock_that_was_set_back_gives_nothing() {
        let histogram = Histogram::durations();
        histogram.observe_between(5_000_000, 1_000_000);
        histogram.observe_between(1_000_000, 5_000_000);
        histogram.observe_millis(7);
        assert_eq!((histogram.snapshot().sum, histogram.snapshot().count()), (11_000, 3));
    }

    #[test]
    fn many_threads_lose_nothing() {
        let histogram = Histogram::durations();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|value| histogram.observe(value)));
            }
        });
        assert_eq!(histogram.snapshot().count(), 40_000);
        assert_eq!(histogram.snapshot().sum, 4 * (9_999 * 10_000 / 2));
    }
}
