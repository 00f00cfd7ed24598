//! Ports for what can be rebuilt: cache, filter, lock. Nothing is ever decided from them.
//!
//! **Architecture Invariant:** no method here can fail. An adapter whose server is down answers *I do not know*
//! (`None`, `true`, no guard), and the caller asks the database.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// Values by key, each with the version of the row that it was read from.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// A value that was set and has not expired, or nothing.
    async fn get(&self, key: &str) -> Option<Bytes>;

    /// Keeps a value, unless one of a newer version (or a newer [`invalidate`](Self::invalidate)) was seen: a slow
    /// reader cannot put an old value over a new one.
    async fn set(&self, key: &str, version: u64, value: Bytes, ttl: Duration);

    /// Forgets what is older than `version` and refuses it from now on. To be called after the commit that made
    /// `version`; if the process dies between, the value's `ttl` bounds how long it is stale.
    async fn invalidate(&self, key: &str, version: u64);
}

/// Tells apart ids that may exist from ids that certainly do not, before the database is asked.
///
/// Filled like this: [`begin`](Self::begin), [`add`](Self::add) everything that exists, [`ready`](Self::ready); and
/// every new id is added *before* its row becomes visible. Until ready, and whenever the filter has lost its
/// contents, everything may exist: a wrong *no* is never answered. Nothing is removed.
#[async_trait]
pub trait Filter: Send + Sync + 'static {
    /// Starts over: everything may exist until [`ready`](Self::ready). `expected` sizes it; more fit all the same.
    async fn begin(&self, expected: u64);

    /// Adds ids. An adapter that cannot must answer `true` to everything until it is filled again.
    async fn add(&self, ids: &[u64]);

    /// All ids that exist have been added.
    async fn ready(&self);

    /// For each id, in order; `false`: it certainly does not exist.
    async fn may_contain_each(&self, ids: &[u64]) -> Vec<bool>;

    /// `false`: it certainly does not exist.
    async fn may_contain(&self, id: u64) -> bool {
        self.may_contain_each(&[id]).await.first().copied().unwrap_or(true)
    }
}

/// Lets one of many do what all want done (reading a row that just left the cache). A hint: two may hold it after a
/// pause, and then there is a second read, nothing worse.
#[async_trait]
pub trait Lock: Send + Sync + 'static {
    /// Takes the lock for at most `ttl`, waiting at most `wait` for it. `None`: it was not to be had; do the work
    /// without it. Cancel-safe.
    async fn acquire(&self, name: &str, ttl: Duration, wait: Duration) -> Option<LockGuard>;
}

/// A lock that is held; dropped, it is given back (if it is still ours).
pub struct LockGuard {
    release: Option<Box<dyn FnOnce() + Send>>,
    waited: bool,
}

impl LockGuard {
    /// A guard that runs `release` when dropped.
    pub fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Self { release: Some(Box::new(release)), waited: false }
    }

    /// The same, of a lock that another held when it was asked for.
    #[must_use]
    pub fn waited_for(mut self, waited: bool) -> Self {
        self.waited = waited;
        self
    }

    /// Whether another held it when it was asked for.
    pub fn waited(&self) -> bool {
        self.waited
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockGuard")
    }
}
