//! The cuckoo filter in process. Its sentinel is a flag: until it is set, everything may exist.

use async_trait::async_trait;
use parking_lot::RwLock;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use saga_runtime::cache::Filter;
use scalable_cuckoo_filter::{DefaultHasher, ScalableCuckooFilter, ScalableCuckooFilterBuilder};

/// One wrong *maybe* in a thousand: a forged id costs a database read that often.
const FALSE_POSITIVES: f64 = 0.001;

/// The smallest filter that is made.
const SMALLEST: usize = 1024;

/// The filter; it grows, so it is never full.
pub struct InProcFilter(RwLock<State>);

struct State {
    ids: ScalableCuckooFilter<u64, DefaultHasher, SmallRng>,
    ready: bool,
}

impl std::fmt::Debug for InProcFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.read();
        f.debug_struct("InProcFilter").field("ids", &state.ids.len()).field("ready", &state.ready).finish()
    }
}

impl Default for InProcFilter {
    fn default() -> Self {
        Self(RwLock::new(empty(0)))
    }
}

fn empty(expected: u64) -> State {
    let expected = usize::try_from(expected).unwrap_or(usize::MAX).clamp(SMALLEST, 1 << 26);
    // The generator only picks which entry makes room for another: nothing is secret about it.
    let builder = ScalableCuckooFilterBuilder::new().rng(SmallRng::seed_from_u64(expected as u64));
    State { ids: builder.initial_capacity(expected).false_positive_probability(FALSE_POSITIVES).finish(), ready: false }
}

#[async_trait]
impl Filter for InProcFilter {
    async fn begin(&self, expected: u64) {
        *self.0.write() = empty(expected);
    }

    async fn add(&self, ids: &[u64]) {
        let mut state = self.0.write();
        for id in ids {
            // Again and again the same id (a retried insert) must not fill it up.
            state.ids.insert_if_not_contained(id);
        }
    }

    async fn ready(&self) {
        self.0.write().ready = true;
    }

    async fn may_contain_each(&self, ids: &[u64]) -> Vec<bool> {
        let state = self.0.read();
        ids.iter().map(|id| !state.ready || state.ids.contains(id)).collect()
    }
}
