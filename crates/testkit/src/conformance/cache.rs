//! The cache: what is newer wins, in whatever order it comes.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use saga_runtime::cache::Cache;

use super::until;

const LONG: Duration = Duration::from_secs(600);

/// Makes a test of every case.
#[macro_export]
macro_rules! cache_conformance {
    ($make:expr) => {
        $crate::conformance_tests!(cache, $make;
            what_was_set_is_there_and_nothing_else,
            an_older_version_never_replaces_a_newer_one,
            the_same_version_may_be_set_again,
            an_invalidated_value_is_gone,
            c07_a_slow_reader_cannot_set_what_was_invalidated_meanwhile,
            an_invalidation_of_an_older_version_leaves_a_newer_value,
            values_expire,
        );
    };
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// By key.
pub async fn what_was_set_is_there_and_nothing_else(cache: &Arc<dyn Cache>) {
    cache.set("one", 1, value("a"), LONG).await;
    assert_eq!(cache.get("one").await, Some(value("a")));
    assert_eq!(cache.get("two").await, None);
}

/// A slow reader comes late.
pub async fn an_older_version_never_replaces_a_newer_one(cache: &Arc<dyn Cache>) {
    cache.set("one", 2, value("new"), LONG).await;
    cache.set("one", 1, value("old"), LONG).await;
    assert_eq!(cache.get("one").await, Some(value("new")));
    cache.set("one", 3, value("newer"), LONG).await;
    assert_eq!(cache.get("one").await, Some(value("newer")));
}

/// Two readers of one row.
pub async fn the_same_version_may_be_set_again(cache: &Arc<dyn Cache>) {
    for _ in 0..2 {
        cache.set("one", 1, value("a"), LONG).await;
        assert_eq!(cache.get("one").await, Some(value("a")));
    }
}

/// After the commit that made version 2.
pub async fn an_invalidated_value_is_gone(cache: &Arc<dyn Cache>) {
    cache.set("one", 1, value("a"), LONG).await;
    cache.invalidate("one", 2).await;
    assert_eq!(cache.get("one").await, None);
}

/// It read version 1 before the commit of version 2 and sets it after; who read version 2 may set.
pub async fn c07_a_slow_reader_cannot_set_what_was_invalidated_meanwhile(cache: &Arc<dyn Cache>) {
    cache.invalidate("one", 2).await;
    cache.set("one", 1, value("old"), LONG).await;
    assert_eq!(cache.get("one").await, None);
    cache.set("one", 2, value("new"), LONG).await;
    assert_eq!(cache.get("one").await, Some(value("new")));
}

/// Invalidations come late, too.
pub async fn an_invalidation_of_an_older_version_leaves_a_newer_value(cache: &Arc<dyn Cache>) {
    cache.set("one", 3, value("new"), LONG).await;
    cache.invalidate("one", 2).await;
    cache.invalidate("one", 3).await;
    assert_eq!(cache.get("one").await, Some(value("new")));
}

/// That is what bounds staleness.
pub async fn values_expire(cache: &Arc<dyn Cache>) {
    cache.set("one", 5, value("a"), Duration::from_millis(20)).await;
    until("the value expires", || async { cache.get("one").await.is_none() }).await;
}
