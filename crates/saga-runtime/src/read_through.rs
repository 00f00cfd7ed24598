//! Reading past a cache: the cache, else one of many asks the database and the others find what it found.
//!
//! Nothing is ever decided from what comes out of here. Every failure of cache or lock, and whatever in the cache makes
//! no sense, opens to the database.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Cache, Lock, LockGuard};
use crate::stats::Counter;

/// How long a read may take: a lock that is held for longer is held by nobody.
const HELD: Duration = Duration::from_secs(2);
/// How long the others wait for the one that reads, before they read, too.
const WAIT: Duration = Duration::from_millis(250);

/// Values of one call that are asked for, or kept, at a time: others want a part of the cache's attention, too.
const AT_A_TIME: usize = 32;

/// What the database said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded<T> {
    /// The value.
    pub value: T,
    /// Its row's version: an older one never replaces it.
    pub version: u64,
    /// Whether it may be kept: what still changes by the hands of others may not.
    pub keep: bool,
}

/// What was counted, for all kinds of values that share a cache.
#[derive(Debug, Default)]
pub struct ReadStats {
    /// Values that were in the cache.
    pub hits: Counter,
    /// Values that were not, or of which the cache did not know.
    pub misses: Counter,
    /// Reads of the database under the lock.
    pub locked: Counter,
    /// Reads of the database without it: another holds it for too long, or it cannot be had.
    pub unlocked: Counter,
    /// Reads of the database that were spared: whoever had the lock before had put the value there.
    pub shared: Counter,
    /// Locks that another held when they were asked for, and that were got within the wait.
    pub waited: Counter,
}

/// One kind of value, by id. Cheap to clone.
#[derive(Clone)]
pub struct ReadThrough {
    /// `None`: there is no cache.
    backing: Option<(Arc<dyn Cache>, Arc<dyn Lock>)>,
    kind: &'static str,
    ttl: Duration,
    stats: Arc<ReadStats>,
}

impl std::fmt::Debug for ReadThrough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadThrough").field("kind", &self.kind).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl ReadThrough {
    /// Over a cache and a lock. `kind` tells apart whose ids they are.
    pub fn new(cache: Arc<dyn Cache>, lock: Arc<dyn Lock>, kind: &'static str, ttl: Duration) -> Self {
        Self { backing: Some((cache, lock)), kind, ttl, stats: Arc::default() }
    }

    /// The same for another kind of value.
    #[must_use]
    pub fn of(&self, kind: &'static str, ttl: Duration) -> Self {
        Self { kind, ttl, ..self.clone() }
    }

    /// Asks the database each time.
    pub fn none() -> Self {
        Self { backing: None, kind: "", ttl: Duration::ZERO, stats: Arc::default() }
    }

    /// Whether there is a cache at all.
    pub fn is_some(&self) -> bool {
        self.backing.is_some()
    }

    /// What was counted.
    pub fn stats(&self) -> Arc<ReadStats> {
        Arc::clone(&self.stats)
    }

    fn key(&self, id: u64) -> String {
        format!("{}:{id}", self.kind)
    }

    /// The value of an id: from the cache, or as `load` finds it.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get<T, E>(
        &self,
        id: u64,
        load: impl AsyncFnOnce() -> Result<Option<Loaded<T>>, E>,
    ) -> Result<Option<T>, E>
    where
        T: Serialize + DeserializeOwned,
    {
        let Some((_, lock)) = &self.backing else {
            return Ok(load().await?.map(|loaded| loaded.value));
        };
        if let Some(known) = self.peek(id).await {
            return Ok(Some(known));
        }
        let guard = lock.acquire(&self.key(id), HELD, WAIT).await;
        if guard.as_ref().is_some_and(LockGuard::waited) {
            self.stats.waited.inc();
        }
        // Whoever had the lock before has put it there.
        if let Some(known) = self.peek(id).await {
            self.stats.shared.inc();
            return Ok(Some(known));
        }
        if guard.is_some() { &self.stats.locked } else { &self.stats.unlocked }.inc();
        let loaded = load().await?;
        if let Some(loaded) = &loaded {
            self.put(id, loaded).await;
        }
        drop(guard);
        Ok(loaded.map(|loaded| loaded.value))
    }

    /// The value of an id, if it is in the cache.
    pub async fn peek<T: DeserializeOwned>(&self, id: u64) -> Option<T> {
        let (cache, _) = self.backing.as_ref()?;
        let found = cache.get(&self.key(id)).await.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if found.is_some() { &self.stats.hits } else { &self.stats.misses }.inc();
        found
    }

    /// The same of several, in their order, many at a time.
    pub async fn peek_each<T: DeserializeOwned>(&self, ids: &[u64]) -> Vec<Option<T>> {
        let mut known = Vec::with_capacity(ids.len());
        for some in ids.chunks(AT_A_TIME) {
            known.extend(join_all(some.iter().map(|id| self.peek(*id))).await);
        }
        known
    }

    /// Keeps what was read, by id, many at a time.
    pub async fn put_each<T: Serialize>(&self, read: &[(u64, Loaded<T>)]) {
        for some in read.chunks(AT_A_TIME) {
            join_all(some.iter().map(|(id, loaded)| self.put(*id, loaded))).await;
        }
    }

    async fn put<T: Serialize>(&self, id: u64, loaded: &Loaded<T>) {
        let Some((cache, _)) = self.backing.as_ref().filter(|_| loaded.keep) else { return };
        if let Ok(bytes) = serde_json::to_vec(&loaded.value) {
            cache.set(&self.key(id), loaded.version, Bytes::from(bytes), self.ttl).await;
        }
    }

    /// To be called after the commit that made `version`: what is older is forgotten.
    pub async fn changed(&self, id: u64, version: u64) {
        if let Some((cache, _)) = &self.backing {
            cache.invalidate(&self.key(id), version).await;
        }
    }
}
