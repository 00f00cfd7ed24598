//! The cache in the cluster (L2), and one in the process in front of it (L1).
//!
//! A value is stored as `<version, 20 digits><v>value`, an invalidation as `<version><t>`: what is compared is text, as
//! Lua's numbers are not exact beyond 2^53. Whatever else stands at a key (garbage) is a miss and is written over.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use saga_runtime::cache::Cache;

use super::Cluster;
use super::script::Script;
use crate::inproc::InProcCache;

/// How long an invalidation is remembered: longer than any read that began before it takes to finish.
const TOMBSTONE: Duration = Duration::from_secs(60);

/// Digits of a version.
const VERSION: usize = 20;

/// Sets, unless what is there is newer (a value) or as new (for a tombstone).
const PUT: &str = r"
local known = redis.pcall('getrange', KEYS[1], 0, 20)
if type(known) == 'string' and string.match(known, '^%d+[vt]$') and #known == 21 then
  local version = string.sub(known, 1, 20)
  local newer = version > ARGV[1] or (ARGV[2] == 't' and version == ARGV[1])
  if newer and version <= '18446744073709551615' then return 0 end
end
redis.call('set', KEYS[1], ARGV[1] .. ARGV[2] .. ARGV[3], 'px', ARGV[4])
return 1";

/// The cache in the cluster.
#[derive(Debug, Clone)]
pub struct RedisCache {
    cluster: Cluster,
    prefix: Arc<str>,
    put: Arc<Script>,
}

impl RedisCache {
    /// Values whose keys begin with `prefix`, which tells services and tests apart.
    pub fn new(cluster: Cluster, prefix: &str) -> Self {
        Self { cluster, prefix: prefix.into(), put: Arc::new(Script::new(PUT)) }
    }

    /// The value and the version that it was set with.
    pub async fn get_versioned(&self, key: &str) -> Option<(u64, Bytes)> {
        let key = self.key(key);
        let stored: Option<Option<Bytes>> = self.cluster.call(&key, redis::cmd("GET").arg(&key)).await;
        let found = stored.map(|stored| stored.and_then(open));
        let stats = self.cluster.stats();
        match &found {
            Some(Some(_)) => stats.hits.fetch_add(1, Relaxed),
            Some(None) => stats.misses.fetch_add(1, Relaxed),
            None => 0,
        };
        found.flatten()
    }

    async fn put(&self, key: &str, version: u64, kind: &str, value: &[u8], ttl: Duration) {
        let version = format!("{version:0VERSION$}");
        let ttl = ttl.as_millis().clamp(1, u128::from(u32::MAX)).to_string();
        let arguments = [version.as_bytes(), kind.as_bytes(), value, ttl.as_bytes()];
        // Unknown whether it was put: a value is read again, and an invalidation that was lost is bounded by the ttl.
        let _: Option<u8> = self.put.run(&self.cluster, &self.key(key), &arguments).await;
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// Nothing for a tombstone and for garbage.
fn open(stored: Bytes) -> Option<(u64, Bytes)> {
    let version = std::str::from_utf8(stored.get(..VERSION)?).ok()?;
    let version = version.bytes().all(|digit| digit.is_ascii_digit()).then(|| version.parse().ok())??;
    (stored.get(VERSION) == Some(&b'v')).then(|| (version, stored.slice(VERSION + 1..)))
}

#[async_trait]
impl Cache for RedisCache {
    async fn get(&self, key: &str) -> Option<Bytes> {
        Some(self.get_versioned(key).await?.1)
    }

    async fn set(&self, key: &str, version: u64, value: Bytes, ttl: Duration) {
        self.put(key, version, "v", &value, ttl).await;
    }

    async fn invalidate(&self, key: &str, version: u64) {
        self.put(key, version, "t", &[], TOMBSTONE).await;
    }
}

/// Two caches, one in front of the other. What another process invalidates is in this one's L1 for its short ttl more.
#[derive(Debug)]
pub struct Layered {
    l1: InProcCache,
    l2: RedisCache,
    short: Duration,
}

impl Layered {
    /// `short`: how long a value stays in L1, which bounds how stale one is that another process invalidated.
    pub fn new(l1: InProcCache, l2: RedisCache, short: Duration) -> Self {
        Self { l1, l2, short }
    }
}

#[async_trait]
impl Cache for Layered {
    async fn get(&self, key: &str) -> Option<Bytes> {
        if let Some(value) = self.l1.get(key).await {
            return Some(value);
        }
        let (version, value) = self.l2.get_versioned(key).await?;
        self.l1.set(key, version, value, self.short).await;
        // Not what L2 said: L1 may know of an invalidation that did not reach L2.
        self.l1.get(key).await
    }

    async fn set(&self, key: &str, version: u64, value: Bytes, ttl: Duration) {
        self.l1.set(key, version, value.clone(), ttl.min(self.short)).await;
        self.l2.set(key, version, value, ttl).await;
    }

    async fn invalidate(&self, key: &str, version: u64) {
        self.l1.invalidate(key, version).await;
        self.l2.invalidate(key, version).await;
    }
}
