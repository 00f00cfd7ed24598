//! Orders under sagas: placed, cancelled and confirmed once, in whatever order the commands arrive.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod desk;

use contracts::purchase::PurchaseItem;
use desk::{ALICE, Desk, cancel, code, command, confirm, input, place};
use order::audit::Status;
use proptest::prelude::*;
use saga_core::protocol::{Command, Outcome};
use saga_core::{Json, Op};
use saga_runtime::barrier::UNDONE_BEFORE_DO;
use serde_json::json;

#[tokio::test]
async fn an_order_is_pending_until_it_is_confirmed() {
    let desk = Desk::open();
    assert_eq!(desk.outcome(place(5)).await, Outcome::done());
    assert_eq!(desk.statuses().await[&5], Status::Pending);
    assert_eq!(desk.outcome(confirm(5)).await, Outcome::done());
    assert_eq!(desk.statuses().await[&5], Status::Confirmed);
}

#[tokio::test]
async fn a_cancelled_order_stays_as_a_tombstone() {
    let desk = Desk::open();
    desk.outcome(place(5)).await;
    assert_eq!(desk.outcome(cancel(5)).await, Outcome::done());
    assert_eq!(desk.statuses().await[&5], Status::Cancelled);
    assert_eq!(code(&desk.outcome(confirm(5)).await), "order_cancelled");
    assert_eq!(desk.statuses().await[&5], Status::Cancelled);
}

#[tokio::test]
async fn g04_m01_duplicates_get_the_stored_answer_also_after_a_restart() {
    let desk = Desk::open();
    let batch = vec![place(5), place(5), confirm(5), confirm(5), place(6), cancel(6), cancel(6), confirm(7)];
    let first = desk.handle(batch.clone()).await;
    let codes: Vec<&str> = first.iter().map(|reply| code(&reply.outcome)).collect();
    assert_eq!(codes, ["done", "done", "done", "done", "done", "done", "done", "order_not_found"]);
    let before = desk.statuses().await;
    assert_eq!(desk.handle(batch.clone()).await, first);
    let desk = desk.restart().await;
    assert_eq!(desk.handle(batch).await, first);
    assert_eq!(desk.statuses().await, before);
}

#[tokio::test]
async fn a_late_duplicate_of_the_do_does_not_revive_a_cancelled_order() {
    let desk = Desk::open();
    for command in [place(5), cancel(5), place(5), cancel(5), place(5)] {
        assert_eq!(desk.outcome(command).await, Outcome::done());
    }
    assert_eq!(desk.statuses().await[&5], Status::Cancelled);
}

#[tokio::test]
async fn g06_m02_a_cancel_before_its_order_leaves_nothing_and_blocks_it() {
    let desk = Desk::open();
    assert_eq!(desk.outcome(cancel(5)).await, Outcome::done());
    assert_eq!(code(&desk.outcome(place(5)).await), UNDONE_BEFORE_DO);
    assert_eq!(code(&desk.outcome(confirm(5)).await), "order_not_found");
    let replies = desk.handle(vec![cancel(6), place(6), confirm(6)]).await;
    assert_eq!(code(&replies[1].outcome), UNDONE_BEFORE_DO);
    assert!(desk.statuses().await.is_empty());
}

#[tokio::test]
async fn a_do_and_its_undo_at_once_never_leave_a_live_order() {
    let desk = Desk::open();
    for saga in 1..=20 {
        let (_, undone) = tokio::join!(desk.outcome(place(saga)), desk.outcome(cancel(saga)));
        assert_eq!(undone, Outcome::done());
    }
    assert!(desk.statuses().await.values().all(|status| *status == Status::Cancelled));
}

#[tokio::test]
async fn g12_g14_g23_an_order_that_cannot_be_is_refused_and_its_neighbours_are_not() {
    let desk = Desk::open();
    let with = |saga: u64, items: &[(u64, i64, i64)], amount: i64| {
        let item = |&(product_id, quantity, unit_price)| PurchaseItem { product_id, quantity, unit_price };
        let mut input = input(saga, ALICE);
        (input.items, input.amount) = (items.iter().map(item).collect(), amount);
        command("create-order", Op::Do, &input)
    };
    let mut nonsense = place(8);
    nonsense.input = Json::of(&json!("tea")).unwrap();
    let mut anothers = place(9);
    anothers.input = Json::of(&input(10, ALICE)).unwrap();
    let batch = vec![
        place(1),
        with(2, &[], 0),
        with(3, &[(1, 0, 5)], 0),
        with(4, &[(1, i64::MAX, 2)], -2),
        with(5, &[(1, i64::MAX, 1), (2, 1, 1)], i64::MIN),
        with(6, &[(1, 1, -5)], -5),
        with(7, &[(1, 2, 5)], 11),
        nonsense,
        anothers,
        place(11),
    ];
    let replies = desk.handle(batch).await;
    for reply in &replies {
        let wanted = if [1, 11].contains(&reply.saga.id) { "done" } else { "invalid_order" };
        assert_eq!(code(&reply.outcome), wanted, "{reply:?}");
    }
    assert_eq!(desk.statuses().await.into_keys().collect::<Vec<_>>(), [1, 11]);
}

#[tokio::test]
async fn an_amount_beyond_what_json_can_hold_is_refused_like_every_other_wrong_order() {
    let desk = Desk::open();
    let mut input = input(5, ALICE);
    input.items = vec![PurchaseItem { product_id: 1, quantity: 2, unit_price: 1 << 53 }];
    input.amount = 1 << 54;
    assert_eq!(code(&desk.outcome(command("create-order", Op::Do, &input)).await), "invalid_order");
    input.items[0] = PurchaseItem { product_id: 1, quantity: 1, unit_price: (1 << 53) - 1 };
    (input.purchase_id, input.amount) = (6, (1 << 53) - 1);
    assert_eq!(desk.outcome(command("create-order", Op::Do, &input)).await, Outcome::done());
}

#[tokio::test]
async fn a_currency_that_is_none_is_refused_like_every_other_wrong_order() {
    let desk = Desk::open();
    let mut input = input(5, ALICE);
    for currency in ["", "VNDX", "₫₫₫₫"] {
        input.currency_code = currency.to_owned();
        input.purchase_id += 1;
        let outcome = desk.outcome(command("create-order", Op::Do, &input)).await;
        assert_eq!(code(&outcome), "invalid_order", "{currency}");
    }
}

#[tokio::test]
async fn a_command_for_a_step_that_it_does_not_know_fails_and_changes_nothing() {
    let desk = Desk::open();
    let unknown = command("ship-order", Op::Do, &input(5, ALICE));
    assert!(desk.participant.handle(vec![place(4), unknown]).await.is_err());
    assert!(desk.statuses().await.is_empty(), "the batch is one transaction");
    assert_eq!(desk.outcome(place(4)).await, Outcome::done(), "alone it goes");
}

/// What one saga's order must be after these commands: the first do or undo of a step decides.
fn model(commands: &[(u64, u8)], saga: u64) -> Option<Status> {
    let (mut status, mut undone, mut confirmed) = (None, false, false);
    let mut placed = false;
    for (_, what) in commands.iter().filter(|(id, _)| *id == saga) {
        match what {
            0 if !placed && !undone => (placed, status) = (true, Some(Status::Pending)),
            1 => (undone, status) = (true, status.map(|_| Status::Cancelled)),
            // Its answer is stored, whatever it was.
            2 if !confirmed => {
                confirmed = true;
                status = status.map(|s| if s == Status::Pending { Status::Confirmed } else { s });
            }
            _ => {}
        }
    }
    status
}

async fn play(batches: Vec<Vec<(u64, u8)>>) {
    let desk = Desk::open();
    for batch in &batches {
        let commands: Vec<Command> = batch
            .iter()
            .map(|&(saga, what)| match what {
                0 => place(saga),
                1 => cancel(saga),
                _ => confirm(saga),
            })
            .collect();
        let replies = desk.handle(commands.clone()).await;
        assert!(replies.iter().zip(&commands).all(|(r, c)| (&r.saga, &r.step, r.op) == (&c.saga, &c.step, c.op)));
        assert_eq!(desk.handle(commands).await, replies, "redelivery changes nothing");
    }
    let all: Vec<(u64, u8)> = batches.concat();
    let statuses = desk.statuses().await;
    for saga in 1..4 {
        assert_eq!(statuses.get(&saga).copied(), model(&all, saga), "saga {saga} of {all:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_every_order_and_however_often_the_first_of_each_command_decides(
        batches in proptest::collection::vec(proptest::collection::vec((1..4_u64, 0..3_u8), 1..7), 1..5),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(batches));
    }
}
