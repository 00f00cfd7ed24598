//! The lock in the cluster: `SET NX PX` with a token, compare-and-delete, a bounded wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use saga_runtime::cache::{Lock, LockGuard};

use super::Cluster;
use super::script::{Answer, Script};

/// Between looks, in milliseconds: a little at random, so that those who wait do not come all at once.
const LOOK_AGAIN: std::ops::Range<u64> = 5..40;

/// Nobody waits a year; and a moment that far away can be computed.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

const RELEASE: &str = r"
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0";

/// Locks by name.
#[derive(Debug)]
pub struct RedisLock {
    cluster: Cluster,
    prefix: String,
    release: Arc<Script>,
    /// Tells this process's tokens apart from all others'.
    nonce: u64,
    tokens: AtomicU64,
}

impl RedisLock {
    /// Locks whose keys begin with `prefix`, which tells services and tests apart.
    pub fn new(cluster: Cluster, prefix: &str) -> Self {
        let release = Arc::new(Script::new(RELEASE));
        Self { cluster, prefix: prefix.to_owned(), release, nonce: super::nonce(), tokens: AtomicU64::new(0) }
    }
}

/// Gives a lock back that was taken, or may have been: an answer that did not come says nothing.
struct Taken {
    cluster: Cluster,
    release: Arc<Script>,
    key: String,
    token: String,
    armed: bool,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (cluster, release) = (self.cluster.clone(), Arc::clone(&self.release));
        let (key, token) = (std::mem::take(&mut self.key), std::mem::take(&mut self.token));
        self.cluster.spawn(async move {
            // If this fails the lock expires.
            let _: Option<u8> = release.run(&cluster, &key, &[token.as_bytes()]).await;
        });
    }
}

#[async_trait]
impl Lock for RedisLock {
    async fn acquire(&self, name: &str, ttl: Duration, wait: Duration) -> Option<LockGuard> {
        let until = super::now() + wait.min(LONGEST);
        let key = format!("{}{name}", self.prefix);
        let number = self.tokens.fetch_add(1, Relaxed);
        let mut random = SmallRng::seed_from_u64(self.nonce ^ number);
        let token = format!("{:016x}-{number}", self.nonce);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(&token).arg("NX").arg("PX").arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
        let mut waited = false;
        loop {
            // Armed while the answer is awaited: who leaves meanwhile leaves no lock behind.
            let mut taken = Taken {
                cluster: self.cluster.clone(),
                release: Arc::clone(&self.release),
                key: key.clone(),
                token: token.clone(),
                armed: true,
            };
            match self.cluster.ask::<Option<String>>(&key, &set).await {
                Answer::Of(Some(_)) => return Some(LockGuard::new(move || drop(taken)).waited_for(waited)),
                Answer::Of(None) => {
                    taken.armed = false;
                    waited = true;
                }
                Answer::NoScript | Answer::Unknown => return None,
            }
            let left = until.saturating_duration_since(super::now());
            if left.is_zero() {
                return None;
            }
            super::sleep(Duration::from_millis(random.random_range(LOOK_AGAIN)).min(left)).await;
        }
    }
}
