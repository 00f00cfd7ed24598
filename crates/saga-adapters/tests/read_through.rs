//! Reads past a cache: fewer reads, never a wrong answer.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use saga_adapters::inproc::{InProcCache, InProcLock};
use saga_runtime::cache::Cache as _;
use saga_runtime::{Loaded, ReadThrough, SystemClock};

const TTL: Duration = Duration::from_secs(60);

/// A database with one row, which counts its reads.
#[derive(Default)]
struct Database(AtomicU32);

impl Database {
    async fn read(&self, keep: bool) -> Result<Option<Loaded<String>>, ()> {
        let reads = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(Some(Loaded { value: format!("read {reads}"), version: 1, keep }))
    }

    fn reads(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

fn past(cache: &Arc<InProcCache>) -> ReadThrough {
    ReadThrough::new(cache.clone(), Arc::new(InProcLock::new(Arc::new(SystemClock))), "cup", TTL)
}

fn cache() -> Arc<InProcCache> {
    Arc::new(InProcCache::new(100, Arc::new(SystemClock)))
}

#[tokio::test]
async fn c09_five_hundred_readers_of_one_row_are_one_read() {
    let (reader, database) = (past(&cache()), Arc::new(Database::default()));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (reader, database) = (reader.clone(), Arc::clone(&database));
        readers.spawn(async move { reader.get(7, async || database.read(true).await).await.unwrap().unwrap() });
    }
    for value in readers.join_all().await {
        assert_eq!(value, "read 1");
    }
    assert_eq!(database.reads(), 1);
    let stats = reader.stats();
    assert_eq!([&stats.locked, &stats.unlocked, &stats.shared].map(|count| count.get()), [1, 0, 499]);
    let waited = stats.waited.get();
    assert!((400..500).contains(&waited), "all but the first met a lock that was held: {waited}");
}

#[tokio::test]
async fn what_still_changes_is_read_each_time() {
    let (reader, database) = (past(&cache()), Database::default());
    for _ in 0..3 {
        reader.get(7, async || database.read(false).await).await.unwrap();
    }
    assert_eq!(database.reads(), 3);
}

#[tokio::test]
async fn c07_what_was_changed_is_read_again_and_an_older_value_is_not_kept() {
    let (reader, database) = (past(&cache()), Database::default());
    reader.get(7, async || database.read(true).await).await.unwrap();
    reader.changed(7, 2).await;
    // The row that is read now is still of version 1: somebody was slow.
    for expected in ["read 2", "read 3"] {
        assert_eq!(reader.get(7, async || database.read(true).await).await.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn c15_garbage_in_the_cache_is_a_miss() {
    let cache = cache();
    cache.set("cup:7", 1, Bytes::from_static(b"{\"half\":"), TTL).await;
    let (reader, database) = (past(&cache), Database::default());
    assert_eq!(reader.get(7, async || database.read(true).await).await.unwrap().unwrap(), "read 1");
}

#[tokio::test]
async fn without_a_cache_the_database_is_asked() {
    let database = Database::default();
    for _ in 0..2 {
        ReadThrough::none().get(7, async || database.read(true).await).await.unwrap();
    }
    assert_eq!(database.reads(), 2);
}
