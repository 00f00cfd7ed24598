//! The cache in process: bounded, with the expiry in the value, set only by newer versions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quick_cache::sync::{Cache as Entries, EntryAction, EntryResult};
use saga_core::Millis;
use saga_runtime::Clock;
use saga_runtime::cache::Cache;

/// How long an invalidation is remembered: longer than any read that began before it takes to finish.
const TOMBSTONE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Entry {
    version: u64,
    /// `None`: invalidated.
    value: Option<Bytes>,
    set_at: Millis,
    expires_at: Millis,
}

impl Entry {
    /// A clock that jumped back behind the setting makes it stale as well: better a read than an hour of old prices.
    fn fresh(&self, now: Millis) -> bool {
        (self.set_at..self.expires_at).contains(&now)
    }
}

/// The cache.
pub struct InProcCache {
    entries: Entries<String, Entry>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for InProcCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcCache").field("entries", &self.entries.len()).finish()
    }
}

impl InProcCache {
    /// A cache of at most about `capacity` entries.
    pub fn new(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self { entries: Entries::new(capacity.max(1)), clock }
    }

    /// Puts an entry unless a fresh one stands there that `keeps` says is to stay; all under the entry's lock.
    fn put(&self, key: &str, entry: Entry, keeps: impl Fn(&Entry) -> bool) {
        let now = entry.set_at;
        let overwrite = |_: &String, known: &mut Entry| {
            if !(known.fresh(now) && keeps(known)) {
                *known = entry.clone();
            }
            EntryAction::Retain(())
        };
        if let EntryResult::Vacant(guard) = self.entries.entry(key, None, overwrite) {
            // Fails only if the key was removed meanwhile, and then there is nothing to keep.
            drop(guard.insert(entry));
        }
    }
}

#[async_trait]
impl Cache for InProcCache {
    async fn get(&self, key: &str) -> Option<Bytes> {
        let entry = self.entries.get(key)?;
        if entry.fresh(self.clock.now()) { entry.value } else { None }
    }

    async fn set(&self, key: &str, version: u64, value: Bytes, ttl: Duration) {
        let now = self.clock.now();
        let entry = Entry { version, value: Some(value), set_at: now, expires_at: after(now, ttl) };
        self.put(key, entry, |known| known.version > version);
    }

    async fn invalidate(&self, key: &str, version: u64) {
        let now = self.clock.now();
        let entry = Entry { version, value: None, set_at: now, expires_at: after(now, TOMBSTONE) };
        self.put(key, entry, |known| known.version >= version);
    }
}

fn after(now: Millis, wait: Duration) -> Millis {
    now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}
