#![allow(clippy::unwrap_used, reason = "tests")]

use saga_core::Json;

use super::*;

fn row(id: u64, updated_at: Millis) -> Outstanding {
    Outstanding { id, customer_id: 1, input: Json::null(), status: Status::Running, updated_at, cancel: None }
}

#[test]
fn the_waits_between_questions_grow_until_something_moves() {
    let asks = Asks::default();
    let mut now = 100_000;
    let mut waits = Vec::new();
    for _ in 0..9 {
        asks.note(&[row(1, 0)], now);
        let mut wait = 0;
        while asks.due(vec![row(1, 0)], now + wait, 1_000).is_empty() {
            wait += 500;
        }
        waits.push(wait);
        now += wait;
    }
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000, 64_000]);
    assert_eq!(asks.due(vec![row(1, now + 1)], now + 1_000, 1_000).len(), 1, "it moved: the first wait again");
}

#[test]
fn m16_what_the_bus_does_not_take_makes_nobody_wait_longer() {
    let asks = Asks::default();
    // Taken by the bus, and answered by nobody.
    (0..9).for_each(|at| asks.note(&[row(1, 0)], at));
    for now in [100_000, 101_000, 102_000] {
        asks.note(&[row(1, 0)], now);
        asks.take_back(&[row(1, 0)]);
        assert_eq!(asks.open(), 0);
        assert_eq!(asks.due(vec![row(1, 0)], now + 1_000, 1_000).len(), 1, "{now}");
    }
}

#[test]
fn an_answer_frees_its_place_once_and_a_lost_question_in_time() {
    let asks = Asks::default();
    asks.heard([1].into_iter(), &[]);
    asks.note(&[row(1, 0), row(2, 0), row(3, 0)], 10);
    asks.note(&[row(1, 0)], 11);
    assert_eq!(asks.open(), 3);
    asks.heard([1, 1, 99].into_iter(), &[]);
    assert_eq!(asks.open(), 2);
    asks.expire(9);
    assert_eq!(asks.open(), 2);
    asks.expire(10);
    assert_eq!(asks.open(), 0);
    asks.heard([2, 3].into_iter(), &[1, 2, 3]);
    assert_eq!(asks.open(), 0);
    assert!(asks.state.lock().asked.is_empty(), "what ended is forgotten");
    assert!(!asks.any.load(Ordering::Acquire));
}

#[test]
fn a_purchase_is_not_asked_for_at_once_again_and_again() {
    let asks = Asks::default();
    for _ in 0..10 {
        asks.at_once(1);
    }
    assert_eq!(asks.take_at_once(1_000), [1]);
    asks.note(&[row(1, 0)], 1_000);
    asks.at_once(1);
    assert!(asks.take_at_once(1_100).is_empty());
    asks.at_once(1);
    assert_eq!(asks.take_at_once(1_000 + AT_ONCE_EVERY), [1]);
}

#[test]
fn t01_a_clock_that_was_set_back_does_not_silence_the_questions() {
    let asks = Asks::default();
    asks.note(&[row(1, 0)], 10_000_000);
    assert_eq!(asks.due(vec![row(1, 0)], 5_000, 1_000).len(), 1);
    asks.at_once(1);
    assert_eq!(asks.take_at_once(5_000), [1]);
}
