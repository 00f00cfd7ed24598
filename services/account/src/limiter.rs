//! Brute force is slow: failed log-ins are counted per account and per address.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use saga_core::Millis;
use saga_runtime::Clock;

/// Keys that are remembered; over that the oldest windows are forgotten first.
const MOST_KEYS: usize = 100_000;
const WINDOW: Millis = 60_000;

/// Counts failures in windows of a minute. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Failures {
    counts: Arc<Mutex<HashMap<String, (Millis, u32)>>>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failures")
    }
}

impl Failures {
    /// Nothing counted yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { counts: Arc::default(), clock }
    }

    /// How many seconds `key` has to wait, if it has failed `limit` times in its window.
    pub(crate) fn wait(&self, key: &str, limit: u32) -> Option<u64> {
        let now = self.clock.now();
        let counts = self.counts.lock();
        let (began, count) = counts.get(key)?;
        let left = (began + WINDOW).checked_sub(now).filter(|left| *left > 0)?;
        (*count >= limit).then_some(left.div_ceil(1_000))
    }

    /// Counts a failure.
    pub(crate) fn count(&self, key: &str) {
        let now = self.clock.now();
        let mut counts = self.counts.lock();
        if counts.len() >= MOST_KEYS {
            counts.retain(|_, (began, _)| *began + WINDOW > now);
            if counts.len() >= MOST_KEYS {
                counts.clear();
            }
        }
        let entry = counts.entry(key.to_owned()).or_insert((now, 0));
        if entry.0 + WINDOW <= now {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }

    /// Forgets the failures of `key`: it has succeeded.
    pub(crate) fn forget(&self, key: &str) {
        self.counts.lock().remove(key);
    }
}
