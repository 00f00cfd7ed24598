//! A machine's clock: virtual time, and whatever it is wrong by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use saga_core::Millis;
use saga_runtime::Clock;

use super::Sim;

/// What virtual time begins at: far enough from zero for every jump back.
pub const BEGINNING: Millis = 1_700_000_000_000;

/// A clock that can be set wrong. Waiting takes as long as it takes; only the reading jumps.
#[derive(Debug)]
pub struct SimClock {
    sim: Arc<Sim>,
    base: AtomicU64,
}

impl SimClock {
    /// A right one.
    pub fn new(sim: Arc<Sim>) -> Self {
        Self { sim, base: AtomicU64::new(BEGINNING) }
    }

    /// Sets it wrong by this many ms more.
    pub fn jump(&self, by: i64) {
        let base = self.base.load(Ordering::Relaxed);
        self.base.store(base.saturating_add_signed(by), Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Clock for SimClock {
    fn now(&self) -> Millis {
        self.base.load(Ordering::Relaxed) + self.sim.elapsed()
    }
}
