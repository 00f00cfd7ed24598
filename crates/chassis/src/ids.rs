//! Ids: 53-bit, time-ordered numbers that every JSON client can hold.
//!
//! 41 bits of milliseconds since 2025 · 5 bits of node · 7 bits of sequence. Good until 2094. The node number is
//! the setting `node`, which no two processes of a service may share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use saga_runtime::Clock;

/// 2025-01-01T00:00:00Z in ms since the Unix epoch.
const EPOCH: u64 = 1_735_689_600_000;
const SEQUENCE_BITS: u32 = 7;
const NODE_BITS: u32 = 5;

/// The highest node number.
pub const MAX_NODE: u16 = (1 << NODE_BITS) - 1;

/// Which node made an id.
pub fn node_of(id: u64) -> u16 {
    // Five bits fit.
    u16::try_from((id >> SEQUENCE_BITS) & u64::from(MAX_NODE)).unwrap_or(MAX_NODE)
}

/// Hands out ids, each greater than the one before.
pub struct IdGen {
    node: u64,
    clock: Arc<dyn Clock>,
    /// Milliseconds and sequence of the last id, as one number.
    last: AtomicU64,
}

impl std::fmt::Debug for IdGen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdGen").field("node", &self.node).finish_non_exhaustive()
    }
}

impl IdGen {
    /// A generator for one node (0 to [`MAX_NODE`]; higher bits are cut off).
    pub fn new(node: u16, clock: Arc<dyn Clock>) -> Self {
        Self { node: u64::from(node & MAX_NODE), clock, last: AtomicU64::new(0) }
    }

    /// The next id. Never repeats or goes back in this process, even when the clock does: it then borrows from the
    /// future, 128 ids a millisecond.
    pub fn next(&self) -> u64 {
        let now = self.clock.now().saturating_sub(EPOCH) << SEQUENCE_BITS;
        let step = |last: u64| Some(now.max(last + 1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        let tick = now.max(last.unwrap_or_else(|last| last) + 1);
        let (ms, sequence) = (tick >> SEQUENCE_BITS, tick & ((1 << SEQUENCE_BITS) - 1));
        (ms << (NODE_BITS + SEQUENCE_BITS)) | (self.node << SEQUENCE_BITS) | sequence
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use saga_runtime::SystemClock;

    use super::*;

    #[test]
    fn g24_ids_fit_53_bits_and_only_grow() {
        let ids = IdGen::new(31, Arc::new(SystemClock));
        let all: Vec<u64> = (0..100_000).map(|_| ids.next()).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(all.iter().all(|id| *id < 1 << 53));
    }

    #[test]
    fn two_nodes_never_meet() {
        let (a, b) = (IdGen::new(1, Arc::new(SystemClock)), IdGen::new(2, Arc::new(SystemClock)));
        let all: HashSet<u64> = (0..10_000).flat_map(|_| [a.next(), b.next()]).collect();
        assert_eq!(all.len(), 20_000);
        assert_eq!((node_of(a.next()), node_of(b.next())), (1, 2));
    }
}
