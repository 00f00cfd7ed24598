//! The filter: never a wrong no.

use std::sync::Arc;

use saga_runtime::cache::Filter;

/// Makes a test of every case.
#[macro_export]
macro_rules! filter_conformance {
    ($make:expr) => {
        $crate::conformance_tests!(filter, $make;
            until_it_is_filled_everything_may_exist,
            what_was_added_is_never_denied,
            c10_random_ids_are_absorbed,
            of_many_each_is_answered_for_itself,
            c11_starting_over_denies_nothing,
            c12_more_than_expected_fits,
            adding_twice_changes_nothing,
        );
    };
}

async fn fill(filter: &Arc<dyn Filter>, ids: &[u64]) {
    filter.begin(ids.len() as u64).await;
    filter.add(ids).await;
    filter.ready().await;
}

async fn denied(filter: &Arc<dyn Filter>, ids: impl IntoIterator<Item = u64>) -> usize {
    let ids: Vec<u64> = ids.into_iter().collect();
    let answers = filter.may_contain_each(&ids).await;
    assert_eq!(answers.len(), ids.len(), "an answer each");
    answers.into_iter().filter(|maybe| !maybe).count()
}

/// Fresh, and while it is being filled.
pub async fn until_it_is_filled_everything_may_exist(filter: &Arc<dyn Filter>) {
    assert_eq!(denied(filter, 0..100).await, 0);
    filter.begin(10).await;
    filter.add(&[1]).await;
    assert_eq!(denied(filter, 0..100).await, 0);
}

/// While it is being filled, and after.
pub async fn what_was_added_is_never_denied(filter: &Arc<dyn Filter>) {
    fill(filter, &(0..1000).collect::<Vec<_>>()).await;
    filter.add(&(1000..1100).collect::<Vec<_>>()).await;
    assert_eq!(denied(filter, 0..1100).await, 0);
}

/// Nearly all of them.
pub async fn c10_random_ids_are_absorbed(filter: &Arc<dyn Filter>) {
    fill(filter, &(0..1000).collect::<Vec<_>>()).await;
    let denied = denied(filter, 1_000_000..1_010_000).await;
    assert!(denied > 9_800, "only {denied} of 10000 were denied");
}

/// Also of more than fit one question.
pub async fn of_many_each_is_answered_for_itself(filter: &Arc<dyn Filter>) {
    let known: Vec<u64> = (0..1000).step_by(3).collect();
    fill(filter, &known).await;
    let answers = filter.may_contain_each(&(0..1000).collect::<Vec<_>>()).await;
    assert_eq!(answers.len(), 1000, "an answer each");
    assert_eq!(answers[500], filter.may_contain(500).await);
    assert!(answers.iter().step_by(3).all(|maybe| *maybe), "a wrong no");
    let maybe = answers.into_iter().filter(|maybe| *maybe).count();
    assert!(maybe < known.len() + 20, "{maybe} of {} may exist", known.len());
    assert!(filter.may_contain_each(&[]).await.is_empty());
}

/// A filter that lost its contents does not deny what it no longer knows.
pub async fn c11_starting_over_denies_nothing(filter: &Arc<dyn Filter>) {
    fill(filter, &[1, 2, 3]).await;
    filter.begin(3).await;
    assert_eq!(denied(filter, 0..100).await, 0);
    filter.ready().await;
    assert!(denied(filter, 0..100).await > 95, "empty and ready: nothing exists");
}

/// It is sized for few.
pub async fn c12_more_than_expected_fits(filter: &Arc<dyn Filter>) {
    fill(filter, &[]).await;
    let many: Vec<u64> = (0..20_000).collect();
    for some in many.chunks(1000) {
        filter.add(some).await;
    }
    assert_eq!(denied(filter, many).await, 0);
}

/// An insert that is retried adds its id again.
pub async fn adding_twice_changes_nothing(filter: &Arc<dyn Filter>) {
    fill(filter, &[]).await;
    for _ in 0..1000 {
        filter.add(&[7]).await;
    }
    assert!(filter.may_contain(7).await);
    assert!(denied(filter, 100..200).await > 95);
}
