//! The lock: one at a time, never for ever.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use std::sync::Arc;
use std::time::Duration;

use saga_runtime::cache::Lock;

use super::within;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(20);

/// Makes a test of every case.
#[macro_export]
macro_rules! lock_conformance {
    ($make:expr) => {
        $crate::conformance_tests!(lock, $make;
            a_held_lock_is_not_to_be_had,
            locks_of_different_names_do_not_meet,
            a_waiting_one_gets_the_lock_when_it_is_given_back,
            a_lock_expires,
            a_late_release_does_not_free_somebody_else_s_lock,
        );
    };
}

/// And the waiting for it is bounded.
pub async fn a_held_lock_is_not_to_be_had(lock: &Arc<dyn Lock>) {
    let held = lock.acquire("one", LONG, SHORT).await.unwrap();
    assert!(within("giving up", lock.acquire("one", LONG, SHORT)).await.is_none());
    assert!(within("giving up at once", lock.acquire("one", LONG, Duration::ZERO)).await.is_none());
    drop(held);
    assert!(lock.acquire("one", LONG, LONG).await.is_some());
}

/// By name.
pub async fn locks_of_different_names_do_not_meet(lock: &Arc<dyn Lock>) {
    let _one = lock.acquire("one", LONG, SHORT).await.unwrap();
    assert!(lock.acquire("two", LONG, SHORT).await.is_some());
}

/// Not only after the holder's time.
#[expect(clippy::disallowed_methods, reason = "joined below")]
pub async fn a_waiting_one_gets_the_lock_when_it_is_given_back(lock: &Arc<dyn Lock>) {
    let held = lock.acquire("one", LONG, SHORT).await.unwrap();
    let waiting = tokio::spawn({
        let lock = Arc::clone(lock);
        async move { lock.acquire("one", LONG, LONG).await.is_some() }
    });
    tokio::task::yield_now().await;
    drop(held);
    assert!(within("the lock", waiting).await.unwrap());
}

/// Whoever held it has died.
pub async fn a_lock_expires(lock: &Arc<dyn Lock>) {
    let held = lock.acquire("one", SHORT, SHORT).await.unwrap();
    assert!(within("the lock", lock.acquire("one", LONG, LONG)).await.is_some());
    drop(held);
}

/// Compare-and-delete.
pub async fn a_late_release_does_not_free_somebody_else_s_lock(lock: &Arc<dyn Lock>) {
    let late = lock.acquire("one", SHORT, SHORT).await.unwrap();
    let held = within("the lock", lock.acquire("one", LONG, LONG)).await.unwrap();
    drop(late);
    assert!(lock.acquire("one", LONG, SHORT).await.is_none());
    drop(held);
}
