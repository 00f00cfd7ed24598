#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use saga_runtime::SystemClock;

use super::*;

const LIMITS: Limits = Limits { in_flight: 3, outstanding: 6, waiting: 2, wait: Duration::from_millis(20) };

fn taken(admission: &Arc<Admission>) -> usize {
    let mut permits = Vec::new();
    while let Ok(permit) = admission.try_admit() {
        permits.push(permit);
    }
    permits.len()
}

#[test]
fn a_slot_that_is_dropped_is_free_and_one_that_is_kept_is_not() {
    let admission = Admission::new(LIMITS, 0);
    drop(admission.try_admit().unwrap());
    admission.try_admit().unwrap().keep();
    assert_eq!((taken(&admission), admission.outstanding()), (2, 1));
    admission.ended(&[7]);
    assert_eq!((taken(&admission), admission.outstanding()), (3, 0));
}

#[test]
fn what_was_in_flight_at_the_start_holds_slots_and_may_owe_some() {
    let admission = Admission::new(LIMITS, 5);
    assert_eq!((taken(&admission), admission.outstanding()), (0, 5));
    admission.ended(&[1, 2]);
    assert_eq!(taken(&admission), 0, "two were owed");
    admission.ended(&[3]);
    assert_eq!(taken(&admission), 1);
    admission.ended(&[4, 5]);
    assert_eq!((taken(&admission), admission.outstanding()), (3, 0));
}

#[test]
fn there_are_never_more_slots_than_there_were() {
    let admission = Admission::new(LIMITS, 0);
    admission.ended(&[1, 2, 3]);
    assert_eq!((taken(&admission), admission.outstanding()), (3, 0));
}

#[test]
fn s04_purchases_that_do_not_move_do_not_close_the_shop() {
    let admission = Admission::new(LIMITS, 3);
    for id in [1, 2, 3, 3] {
        admission.park(id);
    }
    assert_eq!((taken(&admission), admission.parked()), (3, 3));
    admission.ended(&[1, 2, 3]);
    assert_eq!((taken(&admission), admission.parked(), admission.outstanding()), (3, 0, 0));
}

#[test]
fn m16_when_nothing_ends_the_backlog_has_a_bound() {
    let admission = Admission::new(LIMITS, 0);
    for id in 1..=6 {
        admission.try_admit().unwrap().keep();
        admission.park(id);
    }
    assert_eq!(admission.try_admit().unwrap_err(), Refused::Backlog);
}

#[tokio::test]
async fn a_request_waits_for_a_moment_and_takes_the_slot_that_comes_free() {
    let admission = Admission::new(Limits { wait: Duration::from_secs(60), ..LIMITS }, 3);
    let waiting = tokio::spawn({
        let admission = Arc::clone(&admission);
        async move { admission.admit(&SystemClock).await.map(Permit::keep) }
    });
    while admission.waiting.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    admission.ended(&[1]);
    waiting.await.unwrap().unwrap();
    assert_eq!(admission.outstanding(), 3);
}

#[tokio::test]
async fn s17_a_request_that_finds_no_slot_in_time_is_refused() {
    let admission = Admission::new(LIMITS, 3);
    assert_eq!(admission.admit(&SystemClock).await.unwrap_err(), Refused::Busy);
    assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn s17_only_so_many_requests_wait() {
    let admission = Admission::new(Limits { wait: Duration::from_secs(60), ..LIMITS }, 3);
    let admit = || {
        let admission = Arc::clone(&admission);
        tokio::spawn(async move { admission.admit(&SystemClock).await.map(Permit::keep) })
    };
    let waiting = [admit(), admit()];
    while admission.waiting.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(admission.admit(&SystemClock).await.unwrap_err(), Refused::Busy);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    for request in waiting {
        assert!(request.await.unwrap_err().is_cancelled());
    }
    assert_eq!(admission.waiting.load(Ordering::Relaxed), 0, "who goes away waits no more");
}
