//! The pivot: charged once however often it is asked for, and nothing stays charged after an undo.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod desk;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contracts::purchase::PaymentOutput;
use desk::{ALICE, AMOUNT, Bank, Desk, Mood, code, command, input, pay, undo};
use payment::Gateway;
use payment::audit::Status;
use payment::gateway::{Charge, Charged};
use proptest::prelude::*;
use saga_adapters::sqlite::Db;
use saga_adapters::sqlite::watermark::SqliteWatermarks;
use saga_core::protocol::Outcome;
use saga_core::{Json, Op};
use saga_runtime::barrier::UNDONE_BEFORE_DO;
use saga_runtime::{Participant, StoreError, Watermark, Watermarks as _};
use serde_json::json;

#[tokio::test]
async fn a_charge_is_a_row_a_reference_and_an_output() {
    let desk = Desk::open();
    let Outcome::Done(output) = desk.outcome(pay(5)).await else { panic!("not charged") };
    let wanted = PaymentOutput { payment_id: 5, amount: AMOUNT, currency_code: "VND".to_owned() };
    assert_eq!(output.parse::<PaymentOutput>().unwrap(), wanted);
    let [payment] = desk.payments().await.try_into().unwrap();
    assert_eq!((payment.id, payment.customer_id, payment.amount, payment.status), (5, ALICE, AMOUNT, Status::Captured));
    assert_eq!(payment.reference.as_deref(), Some("ref-purchase-5"));
    assert_eq!(desk.bank.balance(), AMOUNT);
}

#[tokio::test]
async fn g04_m01_however_often_it_is_asked_for_it_is_charged_once() {
    let desk = Desk::open();
    let first = desk.handle(vec![pay(5), pay(5), pay(5)]).await;
    assert!(first.iter().all(|reply| reply.outcome == first[0].outcome), "{first:?}");
    let (one, two) = tokio::join!(desk.outcome(pay(5)), desk.outcome(pay(5)));
    assert_eq!((&one, &two), (&first[0].outcome, &first[0].outcome));
    let desk = desk.restart().await;
    assert_eq!(desk.outcome(pay(5)).await, first[0].outcome);
    assert_eq!((desk.bank.balance(), desk.payments().await.len()), (AMOUNT, 1));
}

#[tokio::test]
async fn p10_a_crash_between_the_charge_and_its_commit_charges_once() {
    let desk = Desk::open();
    desk.bank.will(&[Mood::TakesAndHangs]);
    let participant = desk.participant.clone();
    let dying = tokio::spawn(async move { participant.handle(vec![pay(5)]).await });
    tokio::time::timeout(Duration::from_secs(20), desk.bank.hanging.notified()).await.unwrap();
    dying.abort();
    assert!(dying.await.unwrap_err().is_cancelled());
    assert_eq!((desk.bank.balance(), desk.status(5).await), (AMOUNT, "-"), "charged, and nobody here knows");

    let desk = desk.restart().await;
    assert_eq!(code(&desk.outcome(pay(5)).await), "done");
    assert_eq!((desk.bank.balance(), desk.status(5).await), (AMOUNT, "CAPTURED"));
}

#[tokio::test]
async fn p10_a_crash_between_the_charge_and_its_commit_followed_by_an_undo_gives_it_back() {
    let desk = Desk::open();
    desk.bank.will(&[Mood::TakesAndHangs]);
    let participant = desk.participant.clone();
    let dying = tokio::spawn(async move { participant.handle(vec![pay(5)]).await });
    tokio::time::timeout(Duration::from_secs(20), desk.bank.hanging.notified()).await.unwrap();
    dying.abort();
    assert!(dying.await.is_err());

    let desk = desk.restart().await;
    assert_eq!(desk.outcome(undo(5)).await, Outcome::done());
    assert_eq!(desk.bank.balance(), 0);
    assert_eq!(code(&desk.outcome(pay(5)).await), UNDONE_BEFORE_DO);
    assert_eq!((desk.bank.balance(), desk.status(5).await), (0, "-"));
}

#[tokio::test]
async fn a_declined_payment_is_kept_as_such_and_its_undo_gives_nothing_back() {
    let desk = Desk::open();
    desk.bank.will(&[Mood::Declines]);
    let Outcome::Refused(refusal) = desk.outcome(pay(5)).await else { panic!("not refused") };
    assert_eq!((refusal.code.as_str(), refusal.detail.as_str()), ("payment_declined", "no cover"));
    assert_eq!(desk.status(5).await, "DECLINED");
    assert_eq!(desk.outcome(undo(5)).await, Outcome::done(), "there is nothing to give back");
    assert_eq!((desk.status(5).await, desk.bank.entry(5).voids), ("DECLINED", 0));
    assert_eq!(desk.bank.balance(), 0);
}

#[tokio::test]
async fn a_late_duplicate_of_a_declined_payment_charges_nothing() {
    let desk = Desk::open();
    desk.bank.will(&[Mood::Declines]);
    for _ in 0..3 {
        assert_eq!(code(&desk.outcome(pay(5)).await), "payment_declined");
    }
    assert_eq!((desk.bank.balance(), desk.status(5).await), (0, "DECLINED"));
}

#[tokio::test]
async fn an_unknown_answer_is_asked_for_again_under_the_same_key() {
    for mood in [Mood::TakesAndForgets, Mood::Forgets] {
        let desk = Desk::open();
        desk.bank.will(&[mood]);
        let mut again = pay(5);
        assert_eq!(code(&desk.outcome(again.clone()).await), "unknown");
        assert!(desk.payments().await.is_empty(), "nothing is known, so nothing is written");
        again.attempt = 2;
        assert_eq!(code(&desk.outcome(again).await), "done");
        let entry = desk.bank.entry(5);
        assert_eq!((entry.asked, entry.last_attempt, desk.bank.balance()), (2, 2, AMOUNT), "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bank_that_never_answers_holds_up_nobody_else() {
    let desk = Desk::open();
    desk.bank.will(&[Mood::TakesAndHangs]);
    // No limit around it: a stopped clock jumps to whatever is due next while the file is being written.
    let replies = desk.handle(vec![pay(5), pay(6)]).await;
    assert_eq!(replies.iter().map(|reply| code(&reply.outcome)).collect::<Vec<_>>(), ["unknown", "done"]);
    assert_eq!((desk.status(5).await, desk.status(6).await), ("-", "CAPTURED"));
    // What it had done shows when it is asked again; taken once.
    assert_eq!(code(&desk.outcome(pay(5)).await), "done");
    assert_eq!(desk.bank.balance(), 2 * AMOUNT);
}

#[tokio::test]
async fn a_busy_bank_is_asked_again() {
    let desk = Desk::open();
    desk.bank.will(&[Mood::Busy, Mood::Busy]);
    for wanted in ["retry", "retry", "done"] {
        assert_eq!(code(&desk.outcome(pay(5)).await), wanted);
    }
    assert_eq!(desk.bank.balance(), AMOUNT);
}

#[tokio::test]
async fn an_undo_gives_back_what_was_charged_once() {
    let desk = Desk::open();
    desk.outcome(pay(5)).await;
    let replies = desk.handle(vec![undo(5), undo(5)]).await;
    assert!(replies.iter().all(|reply| reply.outcome == Outcome::done()));
    assert_eq!((desk.bank.balance(), desk.status(5).await), (0, "VOIDED"));
    let voids = desk.bank.entry(5).voids;
    assert_eq!(desk.outcome(undo(5)).await, Outcome::done());
    assert_eq!(desk.bank.entry(5).voids, voids, "what is given back is not given back again");
    // The do's duplicate answers what it did then; the money stays where it is.
    assert_eq!(code(&desk.outcome(pay(5)).await), "done");
    assert_eq!((desk.bank.balance(), desk.status(5).await), (0, "VOIDED"));
}

#[tokio::test]
async fn an_undo_while_the_outcome_is_unknown_gives_back_what_may_have_been_charged() {
    let desk = Desk::open();
    desk.bank.will(&[Mood::TakesAndForgets]);
    assert_eq!(code(&desk.outcome(pay(5)).await), "unknown");
    assert_eq!(desk.bank.balance(), AMOUNT);
    assert_eq!(desk.outcome(undo(5)).await, Outcome::done());
    assert_eq!((desk.bank.balance(), desk.status(5).await), (0, "-"));
    assert_eq!(code(&desk.outcome(pay(5)).await), UNDONE_BEFORE_DO);
    assert_eq!(desk.bank.balance(), 0);
}

#[tokio::test]
async fn g06_m02_a_do_that_comes_after_its_undo_does_not_keep_its_charge() {
    let desk = Desk::open();
    assert_eq!(desk.outcome(undo(5)).await, Outcome::done());
    assert_eq!(code(&desk.outcome(pay(5)).await), UNDONE_BEFORE_DO);
    assert_eq!((desk.bank.balance(), desk.status(5).await), (0, "-"));
    assert_eq!(desk.bank.entry(5).asked, 0, "what may not be charged is not asked for");
    assert_eq!(desk.outcome(undo(5)).await, Outcome::done());
}

#[tokio::test]
async fn a_do_that_comes_after_its_undo_while_the_bank_is_closed_charges_nothing() {
    let desk = Desk::open();
    assert_eq!(desk.outcome(undo(5)).await, Outcome::done());
    *desk.bank.refuses_voids.lock() = 1;
    let failed = desk.participant.handle(vec![pay(5)]).await;
    assert!(matches!(failed, Err(StoreError::Transient(_))), "{failed:?}");
    assert_eq!(desk.bank.balance(), 0);
}

#[tokio::test]
async fn s04_a_void_that_fails_is_tried_again_and_meanwhile_nothing_is_charged() {
    let desk = Desk::open();
    desk.outcome(pay(5)).await;
    *desk.bank.refuses_voids.lock() = 2;
    for wanted in ["retry", "retry", "done", "done"] {
        assert_eq!(code(&desk.outcome(undo(5)).await), wanted);
    }
    assert_eq!((desk.bank.balance(), desk.status(5).await), (0, "VOIDED"));
}

#[tokio::test]
async fn a_blocked_charge_that_cannot_be_given_back_is_not_forgotten() {
    let desk = Desk::open();
    desk.bank.will(&[Mood::TakesAndForgets]);
    assert_eq!(code(&desk.outcome(pay(5)).await), "unknown");
    *desk.bank.refuses_voids.lock() = 2;
    assert_eq!(code(&desk.outcome(undo(5)).await), "retry");
    let failed = desk.participant.handle(vec![pay(5)]).await;
    assert!(matches!(failed, Err(StoreError::Transient(_))), "the command must come again: {failed:?}");
    assert_eq!(desk.bank.balance(), AMOUNT);
    assert_eq!(code(&desk.outcome(pay(5)).await), UNDONE_BEFORE_DO);
    assert_eq!(desk.bank.balance(), 0);
}

#[tokio::test]
async fn one_void_that_fails_does_not_hold_up_its_neighbours() {
    let desk = Desk::open();
    desk.handle((1..=4).map(pay).collect()).await;
    *desk.bank.refuses_voids.lock() = 1;
    let replies = desk.handle((1..=4).map(undo).collect()).await;
    let codes: Vec<_> = replies.iter().map(|reply| (reply.saga.id, code(&reply.outcome))).collect();
    assert_eq!(codes, [(1, "retry"), (2, "done"), (3, "done"), (4, "done")]);
    assert_eq!(desk.bank.balance(), AMOUNT);
}

#[tokio::test]
async fn a_mixed_batch_is_answered_one_by_one_in_its_order() {
    let desk = Desk::open();
    desk.handle(vec![pay(1), pay(2)]).await;
    let mut impossible = pay(4);
    impossible.input = Json::of(&input(4, ALICE, -1)).unwrap();
    let mut nonsense = pay(6);
    nonsense.input = Json::of(&json!([])).unwrap();
    let batch = vec![undo(1), pay(3), impossible, pay(2), undo(3), pay(3), nonsense, undo(7)];
    let replies = desk.handle(batch.clone()).await;
    let asked: Vec<_> = batch.iter().map(|command| (command.saga.id, command.op)).collect();
    let answered: Vec<_> = replies.iter().map(|reply| (reply.saga.id, reply.op)).collect();
    assert_eq!(answered, asked);
    for reply in &replies {
        let wanted = if [4, 6].contains(&reply.saga.id) { "invalid_payment" } else { "done" };
        assert_eq!(code(&reply.outcome), wanted, "{reply:?}");
    }
    assert_eq!(desk.bank.balance(), AMOUNT, "of the second only");
}

#[tokio::test]
async fn what_cannot_be_charged_is_refused_and_the_bank_is_not_asked() {
    let desk = Desk::open();
    let most = (1 << 53) - 1;
    for (saga, amount, currency) in
        [(1, -1, "VND"), (2, most + 1, "VND"), (3, 1, "VN"), (4, 1, "₫"), (5, i64::MIN, "VND")]
    {
        let mut input = input(saga, ALICE, amount);
        input.currency_code = currency.to_owned();
        assert_eq!(code(&desk.outcome(command(Op::Do, &input)).await), "invalid_payment", "{amount} {currency}");
        assert_eq!(desk.bank.entry(saga).asked, 0);
    }
    let mut anothers = pay(6);
    anothers.input = Json::of(&input(7, ALICE, 1)).unwrap();
    assert_eq!(code(&desk.outcome(anothers).await), "invalid_payment");
    assert!(desk.payments().await.is_empty());
    for (saga, amount) in [(8, 0), (9, most)] {
        assert_eq!(code(&desk.outcome(command(Op::Do, &input(saga, ALICE, amount))).await), "done", "{amount}");
    }
}

#[tokio::test]
async fn a_do_that_overtakes_a_slow_undo_does_not_keep_its_charge() {
    let desk = Desk::open();
    *desk.bank.slow_void.lock() = true;
    let participant = desk.participant.clone();
    let undoing = tokio::spawn(async move { participant.handle(vec![undo(5)]).await });
    tokio::time::timeout(Duration::from_secs(20), desk.bank.voided.notified()).await.unwrap();
    // The bank has given back nothing (there was nothing), and only now the do comes.
    assert_eq!(code(&desk.outcome(pay(5)).await), UNDONE_BEFORE_DO);
    desk.bank.answer_void.notify_one();
    assert_eq!(undoing.await.unwrap().unwrap()[0].outcome, Outcome::done());
    assert_eq!((desk.bank.balance(), desk.status(5).await), (0, "-"));
}

#[tokio::test]
async fn a_blocked_do_whose_answer_is_lost_does_not_keep_its_charge() {
    let desk = Desk::open();
    desk.outcome(undo(5)).await;
    desk.bank.will(&[Mood::TakesAndForgets]);
    // Its answer is final: nobody asks a second time.
    assert_eq!(code(&desk.outcome(pay(5)).await), UNDONE_BEFORE_DO);
    assert_eq!(desk.bank.balance(), 0);
}

#[tokio::test]
async fn a_do_and_its_undo_at_once_leave_nothing_charged() {
    let desk = Arc::new(Desk::open());
    let racers: Vec<_> = (1..=40)
        .flat_map(|saga| [pay(saga), undo(saga), pay(saga)])
        .map(|command| {
            let desk = desk.clone();
            tokio::spawn(async move { desk.outcome(command).await })
        })
        .collect();
    for racer in racers {
        racer.await.unwrap();
    }
    assert_eq!(desk.bank.balance(), 0);
    assert!(desk.payments().await.iter().all(|payment| payment.status == Status::Voided));
}

fn mood() -> impl Strategy<Value = Option<Mood>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(Mood::Declines)),
        1 => Just(Some(Mood::Busy)),
        1 => Just(Some(Mood::Forgets)),
        1 => Just(Some(Mood::TakesAndForgets)),
    ]
}

/// Commands as (saga, undo?), the moods in which they find the bank, and how many voids it refuses.
type Batch = (Vec<(u64, bool)>, Vec<Option<Mood>>, u32);

/// Batches, each met by a bank in some moods; in the end everything is asked until it is answered.
async fn play(batches: Vec<Batch>) {
    let desk = Desk::open();
    let command = |(saga, is_undo): (u64, bool)| if is_undo { undo(saga) } else { pay(saga) };
    let mut undone = HashSet::new();
    for (batch, moods, refusals) in batches {
        desk.bank.will(&moods.into_iter().flatten().collect::<Vec<_>>());
        *desk.bank.refuses_voids.lock() = refusals;
        undone.extend(batch.iter().filter(|(_, is_undo)| *is_undo).map(|(saga, _)| *saga));
        // An error is redelivery: the loop at the end.
        let _ = desk.participant.handle(batch.into_iter().map(command).collect()).await;
    }
    desk.bank.moods.lock().clear();
    *desk.bank.refuses_voids.lock() = 0;
    for saga in 1..5 {
        assert!(desk.outcome(pay(saga)).await.is_final());
        if undone.contains(&saga) {
            assert_eq!(desk.outcome(undo(saga)).await, Outcome::done());
        }
        // Invariant 10: the bank's money is that of the captured rows.
        let entry = desk.bank.entry(saga);
        let held = if desk.status(saga).await == "CAPTURED" { AMOUNT } else { 0 };
        assert_eq!(entry.taken - entry.given_back, held, "saga {saga}: {entry:?}");
        assert!(!undone.contains(&saga) || held == 0, "saga {saga} was undone");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_bank_and_bus_do_the_money_is_where_the_rows_say(
        batches in proptest::collection::vec(
            (
                proptest::collection::vec((1..5_u64, prop::bool::weighted(0.3)), 1..6),
                proptest::collection::vec(mood(), 0..4),
                0..2_u32,
            ),
            1..6,
        ),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(batches));
    }
}

/// While it is asked, another replica does the work, the saga ends, and all of it is forgotten.
struct WhileAsked {
    bank: Arc<Bank>,
    db: Db,
    other: Option<Arc<dyn Participant>>,
}

#[async_trait]
impl Gateway for WhileAsked {
    async fn charge(&self, charge: Charge) -> Charged {
        let answer = self.bank.charge(charge).await;
        if let Some(other) = &self.other {
            assert_eq!(other.handle(vec![pay(5)]).await.unwrap().len(), 1);
        }
        let marks = SqliteWatermarks::of_barrier(self.db.clone());
        let mark = Watermark { definition: "purchase".into(), up_to: 5 };
        marks.raise(mark.clone()).await.unwrap();
        marks.remove(mark, 100).await.unwrap();
        answer
    }

    async fn void(&self, key: &str) -> Result<(), String> {
        self.bank.void(key).await
    }
}

#[tokio::test]
async fn what_is_forgotten_is_not_charged_and_a_charge_that_was_overtaken_is_given_back_unless_it_stands() {
    for (other_works, stays) in [(false, 0), (true, AMOUNT)] {
        let desk = Desk::open();
        let other = other_works.then(|| desk.participant.clone());
        let slow = desk.behind(Arc::new(WhileAsked { bank: desk.bank.clone(), db: desk.db.clone(), other }));
        assert!(slow.handle(vec![pay(5)]).await.unwrap().is_empty(), "there is nobody to answer");
        assert_eq!((desk.bank.balance(), desk.payments().await.len()), (stays, usize::from(other_works)));
        let before = desk.bank.entry(5);
        assert!(desk.handle(vec![pay(5), undo(5)]).await.is_empty());
        let after = desk.bank.entry(5);
        assert_eq!((after.asked, after.voids), (before.asked, before.voids), "the bank is not asked again");
        assert_eq!(desk.bank.balance(), stays);
    }
}
