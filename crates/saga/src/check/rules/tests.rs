#![allow(clippy::unwrap_used, reason = "tests")]

use saga_core::protocol::Refusal;
use saga_core::{Json, Name, SagaKey};
use saga_runtime::store::SagaRow;

use super::*;
use crate::check::facts::Effect;

const STEPS: [&str; 4] = ["update-product-inventory", "create-order", "create-payment", "confirm-order"];

fn completed_history() -> Vec<Vec<Event>> {
    let mut history =
        vec![vec![Event::Started { definition_version: 1, input: Json::null(), deadline: None, trace: None, at: 1 }]];
    for step in STEPS {
        let step = Name::new(step);
        history.last_mut().unwrap().push(Event::StepStarted { step: step.clone(), due: 100, at: 1 });
        history.push(vec![Event::StepCompleted { step, output: Json::null(), work: None, at: 2 }]);
    }
    history.last_mut().unwrap().push(Event::Completed { at: 2 });
    history
}

fn declined_history() -> Vec<Vec<Event>> {
    let mut history = completed_history();
    history.truncate(3);
    let reason = Refusal::new("payment_declined", "no");
    let step = |name: &str| Name::new(name);
    history.push(vec![
        Event::StepRefused { step: step(STEPS[2]), refusal: reason.clone(), work: None, at: 3 },
        Event::CompensationBegun { reason, at: 3 },
        Event::UndoStarted { step: step(STEPS[1]), due: 9, at: 3 },
    ]);
    history.push(vec![
        Event::StepUndone { step: step(STEPS[1]), work: None, at: 4 },
        Event::UndoStarted { step: step(STEPS[0]), due: 9, at: 4 },
    ]);
    history.push(vec![Event::StepUndone { step: step(STEPS[0]), work: None, at: 5 }, Event::Compensated { at: 5 }]);
    history
}

fn audited(history: Vec<Vec<Event>>) -> Audited {
    let key = SagaKey::new("purchase", 7);
    let saga = replay(&key, history.iter().map(Vec::as_slice)).unwrap();
    let row = SagaRow {
        key: key.clone(),
        definition_version: saga.definition_version,
        version: saga.version,
        status: saga.status,
        awaiting: String::new(),
        wake_at: saga.wake_at(),
        started_at: saga.started_at,
        updated_at: saga.updated_at,
    };
    Audited { key, row: Some(row), history: Ok(history) }
}

fn dossier(history: Vec<Vec<Event>>) -> Dossier {
    let audited = audited(history);
    let history = audited.history.clone().unwrap();
    let saga = replay(&audited.key, history.iter().map(Vec::as_slice)).unwrap();
    let results = results(&audited.key, history.iter().map(Vec::as_slice)).unwrap();
    let lines = vec![Line { product_id: 3, quantity: 4, unit_price: 10 }];
    let all = saga.status == Status::Completed;
    let effects = history.iter().flatten().filter_map(|event| {
        let (step, op, done) = match event {
            Event::StepCompleted { step, .. } => (step, Op::Do, true),
            Event::StepRefused { step, .. } => (step, Op::Do, false),
            Event::StepUndone { step, .. } => (step, Op::Undo, true),
            _ => return None,
        };
        Some(Effect { definition: "purchase".into(), step: step.to_string(), op, done })
    });
    Dossier {
        id: 7,
        effects: effects.collect(),
        purchase: Some(Purchase {
            customer_id: 5,
            status: saga.status.as_str().into(),
            amount: 40,
            currency_code: "VND".into(),
            lines: lines.clone(),
            last_seq: u32::try_from(results.len()).unwrap(),
            results,
            ended: saga.status.is_terminal(),
            idempotency_key: None,
        }),
        order: Some(Order {
            customer_id: 5,
            status: if all { "CONFIRMED" } else { "CANCELLED" }.into(),
            lines,
            amount: 40,
            currency_code: "VND".into(),
        }),
        payment: all.then(|| Payment {
            customer_id: 5,
            amount: 40,
            currency_code: "VND".into(),
            money: Money::Captured,
        }),
        stock: [(3, if all { 4 } else { 0 })].into(),
        entries: [(3, if all { (1, 0) } else { (1, 1) })].into(),
        saga: Some(audited),
        ..Dossier::default()
    }
}

fn judged(dossier: &Dossier, wanted: Wanted) -> Report {
    let mut report = Report::default();
    if judge(dossier, wanted, &mut report) {
        judge_orphan(dossier, &mut report);
    }
    conclude(wanted, &mut report);
    report
}

/// The invariants that a changed dossier breaks.
fn broken(history: Vec<Vec<Event>>, change: impl FnOnce(&mut Dossier)) -> Vec<u8> {
    let mut dossier = dossier(history);
    change(&mut dossier);
    let mut found: Vec<u8> =
        judged(&dossier, Wanted::default()).found.iter().map(|violation| violation.invariant).collect();
    found.dedup();
    found
}

const SETTLED: Wanted = Wanted { settled: true, completed: 0, compensated: 0 };

#[test]
fn a_sound_completed_purchase_breaks_nothing() {
    let report = judged(&dossier(completed_history()), SETTLED);
    assert_eq!((report.violations, report.completed), (0, 1), "{}", report.text());
    assert_eq!(report.money["VND"], Sums { captured: 40, refunded: 0, completed: 40 });
}

#[test]
fn a_sound_compensated_purchase_breaks_nothing() {
    let report = judged(&dossier(declined_history()), SETTLED);
    assert_eq!((report.violations, report.compensated), (0, 1), "{}", report.text());
}

#[test]
fn a_completed_purchase_needs_order_payment_and_stock() {
    assert_eq!(broken(completed_history(), |d| d.order = None), [2]);
    assert_eq!(broken(completed_history(), |d| d.order.as_mut().unwrap().status = "PENDING".into()), [2]);
    assert_eq!(broken(completed_history(), |d| d.order.as_mut().unwrap().amount = 41), [2]);
    assert_eq!(broken(completed_history(), |d| d.order.as_mut().unwrap().customer_id = 6), [2]);
    assert_eq!(broken(completed_history(), |d| d.payment = None), [2, 10]);
    assert_eq!(broken(completed_history(), |d| d.payment.as_mut().unwrap().currency_code = "USD".into()), [2, 10]);
    assert_eq!(broken(completed_history(), |d| d.stock = [(3, 3)].into()), [2]);
    assert_eq!(broken(completed_history(), |d| d.entries = [(3, (2, 1))].into()), [2]);
}

#[test]
fn a_compensated_purchase_leaves_nothing_behind() {
    assert_eq!(broken(declined_history(), |d| d.order.as_mut().unwrap().status = "PENDING".into()), [3]);
    assert_eq!(broken(declined_history(), |d| d.stock = [(3, 4)].into()), [3]);
    let payment = Payment { customer_id: 5, amount: 40, currency_code: "VND".into(), money: Money::Captured };
    assert_eq!(broken(declined_history(), |d| d.payment = Some(payment)), [3, 10]);
    assert_eq!(broken(declined_history(), |d| d.entries = [(3, (2, 2))].into()), [6]);
}

#[test]
fn orphans_are_found_either_way() {
    assert_eq!(broken(completed_history(), |d| d.purchase = None), [4]);
    assert_eq!(broken(completed_history(), |d| d.saga = None), [4]);
    let alone = |d: &mut Dossier| (d.saga, d.purchase) = (None, None);
    assert_eq!(broken(completed_history(), alone), [4]);
}

#[test]
fn an_accepted_purchase_without_a_saga_is_on_its_way_until_the_shop_is_at_rest() {
    let mut dossier = Dossier { id: 7, purchase: dossier(completed_history()).purchase, ..Dossier::default() };
    let purchase = dossier.purchase.as_mut().unwrap();
    (purchase.ended, purchase.last_seq, purchase.results) = (false, 0, Vec::new());
    assert_eq!(judged(&dossier, Wanted::default()).violations, 0);
    assert_eq!(judged(&dossier, SETTLED).found[0].invariant, 5);
}

#[test]
fn a_history_must_replay_to_the_row() {
    assert_eq!(broken(completed_history(), |d| d.saga.as_mut().unwrap().row.as_mut().unwrap().version += 1), [7]);
    assert_eq!(broken(completed_history(), |d| d.saga.as_mut().unwrap().row = None), [7]);
    assert_eq!(broken(completed_history(), |d| d.saga.as_mut().unwrap().history = Err("torn".into())), [7]);
    let gap = |d: &mut Dossier| drop(d.saga.as_mut().unwrap().history.as_mut().unwrap().remove(1));
    assert_eq!(broken(completed_history(), gap), [7]);
}

#[test]
fn results_count_up_and_follow_from_the_history() {
    let results = |d: &mut Dossier, f: &dyn Fn(&mut Purchase)| f(d.purchase.as_mut().unwrap());
    assert_eq!(broken(completed_history(), |d| results(d, &|p| p.results[2].seq = 9)), [8]);
    assert_eq!(broken(completed_history(), |d| results(d, &|p| p.last_seq = 3)), [8]);
    assert_eq!(broken(completed_history(), |d| results(d, &|p| p.ended = false)), [8]);
    assert_eq!(broken(completed_history(), |d| results(d, &|p| p.status = "COMPENSATED".into())), [8]);
    assert_eq!(broken(completed_history(), |d| results(d, &|p| p.results[0].step = Name::new("other"))), [8]);
}

#[test]
fn a_purchase_may_lag_behind_its_ended_saga_until_the_shop_is_at_rest() {
    let mut dossier = dossier(completed_history());
    let purchase = dossier.purchase.as_mut().unwrap();
    purchase.results.truncate(3);
    (purchase.ended, purchase.last_seq, purchase.status) = (false, 3, "RUNNING".into());
    assert_eq!(judged(&dossier, Wanted::default()).violations, 0);
    assert_eq!(judged(&dossier, SETTLED).found[0].invariant, 5);
}

#[test]
fn effects_are_those_that_were_commanded_each_once() {
    assert_eq!(broken(completed_history(), |d| drop(d.effects.remove(0))), [6]);
    assert_eq!(broken(completed_history(), |d| d.effects.push(d.effects[0].clone())), [6]);
    let uncommanded = Effect { definition: "purchase".into(), step: STEPS[0].into(), op: Op::Undo, done: true };
    assert_eq!(broken(completed_history(), |d| d.effects.push(uncommanded)), [6]);
    assert_eq!(broken(declined_history(), |d| d.effects[2].done = true), [6]);
}

#[test]
fn stock_must_add_up_to_the_ledger() {
    let sound = Stock { product_id: 1, available: 5, taken: 3, stocked: 8, ledger_stocked: 8, ledger_taken: 3 };
    let count = |stock: Stock| {
        let mut report = Report::default();
        judge_stock(&stock, &mut report);
        report.violations
    };
    assert_eq!(count(sound), 0);
    assert_eq!(count(Stock { available: 6, ..sound }), 1);
    assert_eq!(count(Stock { ledger_stocked: 9, ..sound }), 1);
    assert_eq!(count(Stock { ledger_taken: 2, ..sound }), 1);
    assert_eq!(count(Stock { available: -1, taken: 9, ledger_taken: 9, ..sound }), 1);
}

#[test]
fn a_run_that_did_nothing_is_no_proof() {
    let wanted = Wanted { settled: true, completed: 1, compensated: 1 };
    let mut report = Report::default();
    conclude(wanted, &mut report);
    assert_eq!(report.found.iter().map(|v| v.invariant).collect::<Vec<_>>(), [12, 12]);
}

#[test]
fn what_an_operator_ended_by_hand_is_the_operators_business() {
    let mut history = declined_history();
    history.truncate(4);
    let resolved = Event::Resolved { status: Status::Compensated, actor: "a".into(), reason: "b".into(), at: 9 };
    history.push(vec![resolved]);
    let report = judged(&dossier(history), Wanted::default());
    assert_eq!((report.violations, report.by_hand), (0, 1), "{}", report.text());
}

fn removed(dossier: &mut Dossier) {
    (dossier.forgotten, dossier.answers_forgotten) = (true, true);
    (dossier.saga, dossier.effects) = (None, Vec::new());
}

#[test]
fn what_is_forgotten_may_be_gone_and_what_it_led_to_must_still_fit_together() {
    for history in [completed_history, declined_history] {
        assert_eq!(broken(history(), removed), [0; 0]);
        // Not yet removed by the orchestrator, but by the participants.
        assert_eq!(broken(history(), |d| (d.answers_forgotten, d.effects) = (true, Vec::new())), [0; 0]);
    }
    let without = |change: fn(&mut Dossier)| {
        broken(completed_history(), |dossier| {
            removed(dossier);
            change(dossier);
        })
    };
    assert_eq!(without(|d| d.forgotten = false), [4], "above the watermark nothing may be gone");
    assert_eq!(without(|d| d.order = None), [2]);
    assert_eq!(without(|d| d.stock = [(3, 8)].into()), [2]);
    assert_eq!(without(|d| d.purchase = None), [4]);
    assert!(without(|d| d.payment = None).contains(&2));
    let running = |d: &mut Dossier| {
        let purchase = d.purchase.as_mut().unwrap();
        (purchase.ended, purchase.status) = (false, "RUNNING".into());
        purchase.results.retain(|event| !event.terminal);
        purchase.last_seq = u32::try_from(purchase.results.len()).unwrap();
    };
    assert!(without(running).contains(&5), "only what has ended is forgotten");
}

#[test]
fn no_participant_forgets_more_than_the_orchestrator() {
    for (theirs, ours, violations) in
        [(None, Some(3), 0), (Some(3), Some(3), 0), (Some(4), Some(3), 1), (Some(1), None, 1)]
    {
        let mut report = Report::default();
        judge_marks(theirs, ours, &mut report);
        assert_eq!(report.violations, violations, "{theirs:?} {ours:?}");
    }
}

#[test]
fn a_key_has_one_purchase_of_a_customer() {
    let with = |customer_id: u64, key: Option<&str>| {
        let mut dossier = dossier(completed_history());
        let purchase = dossier.purchase.as_mut().unwrap();
        (purchase.customer_id, purchase.idempotency_key) = (customer_id, key.map(str::to_owned));
        dossier
    };
    let (mut keys, mut report) = (Keys::default(), Report::default());
    for sound in [with(5, Some("a")), with(6, Some("a")), with(5, Some("b")), with(5, None), with(5, None)] {
        judge_key(&mut keys, &sound, &mut report);
    }
    assert_eq!(report.violations, 0);
    judge_key(&mut keys, &with(5, Some("a")), &mut report);
    assert_eq!(report.found.iter().map(|found| found.invariant).collect::<Vec<_>>(), [9]);
}
