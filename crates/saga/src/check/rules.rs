//! The invariants about one id, and the sums over all of them. Pure: a dossier in, violations out.
//!
//! | | |
//! |---|---|
//! | 1 | stock: `initial + restocked = available + taken`, none negative, equal to the ledger |
//! | 2 | a COMPLETED purchase has one CONFIRMED order, one captured payment, one stock entry a line; amounts agree |
//! | 3 | a COMPENSATED purchase has no live order, no captured payment, no taken stock |
//! | 4 | no orphans in any database, either way |
//! | 5 | every saga has ended, is on its way, or says why it is stuck |
//! | 6 | one effect per saga, step and op; none that was not commanded |
//! | 7 | each history replays to exactly the stored state |
//! | 8 | results count up without gaps; one terminal event, the last; they follow from the history |
//! | 9 | an Idempotency-Key has one purchase at most |
//! | 10 | Σ captured − Σ refunded = Σ completed purchases, per currency |
//!
//! Participants are read after the orchestrator: whatever a saga that had ended then led to is there. What is on its way
//! may be further along in their files than in its own, so only its past is judged.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use saga_adapters::sqlite::saga_store::Audited;
use saga_core::protocol::ResultEvent;
use saga_core::{Event, Op, Saga, Status, replay, results};

use super::facts::{Dossier, Line, Money, Order, Payment, Purchase, Stock};
use super::report::{Report, Sums};

/// What is asked for beside the invariants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Nothing may be on its way.
    pub settled: bool,
    /// At least this many must have completed.
    pub completed: u64,
    /// At least this many must have been compensated.
    pub compensated: u64,
}

/// Invariant 1.
pub fn judge_stock(stock: &Stock, report: &mut Report) {
    report.products += 1;
    let Stock { product_id, available, taken, stocked, ledger_stocked, ledger_taken } = *stock;
    let subject = || format!("product {product_id}");
    if available < 0 || taken < 0 {
        report.violation(1, subject(), format!("negative: available {available}, taken {taken}"));
    }
    if i128::from(stocked) != i128::from(available) + i128::from(taken) {
        let sum = format!("put in {stocked} ≠ available {available} + taken {taken}");
        report.violation(1, subject(), sum);
    }
    if (stocked, taken) != (ledger_stocked, ledger_taken) {
        let sums = format!("put in {ledger_stocked}, taken {ledger_taken}");
        report.violation(1, subject(), format!("the ledgers say {sums}; the row {stocked} and {taken}"));
    }
}

/// Invariants 2 to 8 for one id. Answers whether the id has no saga but should have: it may be younger than what was
/// read, so the caller looks again before it is an orphan.
pub fn judge(dossier: &Dossier, wanted: Wanted, report: &mut Report) -> bool {
    for other in &dossier.others {
        report.sagas += 1;
        judge_history(other, report);
    }
    if dossier.purchase.is_some() {
        report.purchases += 1;
    }
    match &dossier.saga {
        Some(audited) => {
            report.sagas += 1;
            if let Some((saga, history)) = judge_history(audited, report) {
                judge_saga(dossier, &saga, history, wanted, report);
            }
            false
        }
        None if dossier.forgotten => {
            judge_forgotten(dossier, report);
            false
        }
        None => judge_without_saga(dossier, wanted, report),
    }
}

/// Its saga has ended and was removed: what it led to must still fit together.
fn judge_forgotten(dossier: &Dossier, report: &mut Report) {
    let Some(purchase) = &dossier.purchase else {
        if is_touched(dossier) {
            judge_orphan(dossier, report);
        }
        return;
    };
    judge_numbers(dossier, purchase, report);
    match Status::from_text(&purchase.status) {
        Some(status @ Status::Completed) => {
            report.completed += 1;
            judge_money(dossier, purchase, status, report);
            judge_completed(dossier, purchase, report);
        }
        Some(status @ Status::Compensated) => {
            report.compensated += 1;
            judge_money(dossier, purchase, status, report);
            judge_compensated(dossier, report);
        }
        _ => report.violation(5, subject(dossier), format!("{}, and its saga is forgotten", purchase.status)),
    }
}

/// The keys that were seen, by their hashes: eight bytes for each purchase of the last days, all else is forgotten.
#[derive(Default)]
pub struct Keys {
    seen: HashSet<u64>,
    hasher: RandomState,
}

/// Half of invariant 9: that a 202 has its purchase is for whoever got it to say.
pub fn judge_key(keys: &mut Keys, dossier: &Dossier, report: &mut Report) {
    let Some(purchase) = &dossier.purchase else { return };
    let Some(key) = &purchase.idempotency_key else { return };
    if !keys.seen.insert(keys.hasher.hash_one((purchase.customer_id, key))) {
        report.violation(9, subject(dossier), "another purchase of its customer has the same Idempotency-Key");
    }
}

/// No participant forgets what the orchestrator does not; `theirs` were read before `ours`.
pub fn judge_marks(theirs: Option<u64>, ours: Option<u64>, report: &mut Report) {
    if theirs > ours {
        report.violation(6, "watermarks", format!("a participant forgets up to {theirs:?}, the orchestrator {ours:?}"));
    }
}

fn subject(dossier: &Dossier) -> String {
    format!("purchase {}", dossier.id)
}

fn is_touched(dossier: &Dossier) -> bool {
    dossier.order.is_some()
        || dossier.payment.is_some()
        || !dossier.entries.is_empty()
        || dossier.effects.iter().any(|effect| effect.definition == "purchase")
}

/// Accepted, and the orchestrator has not seen it yet; or an orphan.
fn judge_without_saga(dossier: &Dossier, wanted: Wanted, report: &mut Report) -> bool {
    match &dossier.purchase {
        Some(purchase) if !purchase.ended => {
            report.in_flight += 1;
            if wanted.settled {
                report.violation(5, subject(dossier), "accepted, and there is no saga");
            }
            judge_numbers(dossier, purchase, report);
            false
        }
        Some(_) => true,
        None => is_touched(dossier),
    }
}

/// What an orphan is told.
pub fn judge_orphan(dossier: &Dossier, report: &mut Report) {
    let mut found = Vec::new();
    let mut note = |there: bool, what: &str| there.then(|| found.push(what.to_owned()));
    note(dossier.purchase.is_some(), "an ended purchase");
    note(dossier.order.is_some(), "an order");
    note(dossier.payment.is_some(), "a payment");
    note(!dossier.entries.is_empty(), "stock entries");
    note(!dossier.effects.is_empty(), "barrier rows");
    report.violation(4, subject(dossier), format!("{}, and no saga", found.join(", ")));
}

/// Invariant 7. Answers the replayed saga and its events.
fn judge_history<'a>(audited: &'a Audited, report: &mut Report) -> Option<(Saga, &'a [Vec<Event>])> {
    let subject = || format!("saga {}", audited.key);
    let history = match &audited.history {
        Ok(history) => history,
        Err(error) => {
            report.violation(7, subject(), format!("its history cannot be read: {error}"));
            return None;
        }
    };
    let saga = match replay(&audited.key, history.iter().map(Vec::as_slice)) {
        Ok(saga) => saga,
        Err(error) => {
            report.violation(7, subject(), error.to_string());
            return None;
        }
    };
    let Some(row) = &audited.row else {
        report.violation(7, subject(), "a history without a row");
        return None;
    };
    let stored = (row.status, row.version, row.definition_version, row.started_at, row.updated_at, row.wake_at);
    let replayed =
        (saga.status, saga.version, saga.definition_version, saga.started_at, saga.updated_at, saga.wake_at());
    if stored != replayed {
        report.violation(7, subject(), format!("the row says {stored:?}, the history {replayed:?}"));
    }
    Some((saga, history))
}

fn judge_saga(dossier: &Dossier, saga: &Saga, history: &[Vec<Event>], wanted: Wanted, report: &mut Report) {
    let by_hand = history.iter().flatten().any(|event| matches!(event, Event::Skipped { .. } | Event::Resolved { .. }));
    report.by_hand += u64::from(by_hand);
    match saga.status {
        Status::Completed => report.completed += 1,
        Status::Compensated => report.compensated += 1,
        Status::Stuck | Status::CompensationStuck => {
            report.stuck += 1;
            if !history.iter().flatten().any(|event| matches!(event, Event::StepStuck { .. })) {
                report.violation(5, subject(dossier), "stuck, and its history does not say why");
            }
        }
        Status::Running | Status::Compensating => {
            report.in_flight += 1;
            if wanted.settled {
                let awaited = saga.awaited().map(|(step, op)| format!("{step}.{op}")).unwrap_or_default();
                report.violation(5, subject(dossier), format!("still {}, awaiting {awaited}", saga.status.as_str()));
            }
        }
    }
    let Some(purchase) = &dossier.purchase else {
        report.violation(4, subject(dossier), "a saga, and no purchase");
        return;
    };
    if dossier.forgotten && (!saga.status.is_terminal() || !purchase.ended) {
        let (theirs, ours) = (saga.status.as_str(), &purchase.status);
        report.violation(5, subject(dossier), format!("forgotten, and the saga is {theirs}, the purchase {ours}"));
    }
    judge_numbers(dossier, purchase, report);
    judge_results(dossier, purchase, saga, history, wanted, report);
    if !saga.status.is_terminal() {
        return;
    }
    judge_money(dossier, purchase, saga.status, report);
    if by_hand {
        return;
    }
    if !dossier.answers_forgotten {
        judge_effects(dossier, history, report);
    }
    match saga.status {
        Status::Completed => judge_completed(dossier, purchase, report),
        _ => judge_compensated(dossier, report),
    }
}

/// Invariant 8, as far as the purchase's own row goes.
fn judge_numbers(dossier: &Dossier, purchase: &Purchase, report: &mut Report) {
    let wrong = |event: &(usize, &ResultEvent)| usize::try_from(event.1.seq).ok() != Some(event.0 + 1);
    if let Some((at, event)) = purchase.results.iter().enumerate().find(wrong) {
        report.violation(8, subject(dossier), format!("result {} has the number {}", at + 1, event.seq));
    }
    if usize::try_from(purchase.last_seq).ok() != Some(purchase.results.len()) {
        let (seq, count) = (purchase.last_seq, purchase.results.len());
        report.violation(8, subject(dossier), format!("the last number is {seq}, and there are {count} results"));
    }
    let terminals = purchase.results.iter().filter(|event| event.terminal).count();
    let last = purchase.results.last().is_some_and(|event| event.terminal);
    let lawful = if purchase.ended { terminals == 1 && last } else { terminals == 0 };
    if !lawful {
        report.violation(8, subject(dossier), format!("{terminals} terminal results, ended: {}", purchase.ended));
    }
}

/// Invariant 8 against the history; and the two services' words for the end.
fn judge_results(
    dossier: &Dossier,
    purchase: &Purchase,
    saga: &Saga,
    history: &[Vec<Event>],
    wanted: Wanted,
    report: &mut Report,
) {
    let Ok(published) = results(&saga.key, history.iter().map(Vec::as_slice)) else { return };
    let words = |event: &ResultEvent| (event.seq, event.step.clone(), event.status, event.terminal);
    let differs = published.iter().zip(&purchase.results).find(|(theirs, ours)| words(theirs) != words(ours));
    if let Some((theirs, ours)) = differs {
        let detail = format!("result {:?} is {:?} in its history", words(ours), words(theirs));
        report.violation(8, subject(dossier), detail);
    }
    if !saga.status.is_terminal() {
        return;
    }
    if purchase.results.len() > published.len() {
        report.violation(8, subject(dossier), "more results than its history has");
    }
    let meant = saga.status.as_str();
    if purchase.ended && (purchase.results.len() != published.len() || purchase.status != meant) {
        report.violation(8, subject(dossier), format!("the purchase is {}, its saga {meant}", purchase.status));
    }
    if wanted.settled && !purchase.ended {
        report.violation(5, subject(dossier), format!("the saga is {meant}, the purchase {}", purchase.status));
    }
}

/// Invariant 2.
fn judge_completed(dossier: &Dossier, purchase: &Purchase, report: &mut Report) {
    match &dossier.order {
        None => report.violation(2, subject(dossier), "completed without an order"),
        Some(order) => judge_order(dossier, purchase, order, report),
    }
    match &dossier.payment {
        None => report.violation(2, subject(dossier), "completed without a payment"),
        Some(payment) => {
            let Payment { customer_id, amount, currency_code, money } = payment;
            let agrees = (*customer_id, *amount, currency_code, *money)
                == (purchase.customer_id, purchase.amount, &purchase.currency_code, Money::Captured);
            if !agrees {
                report.violation(2, subject(dossier), format!("completed, and the payment is {payment:?}"));
            }
        }
    }
    let bought: BTreeMap<u64, i64> = purchase.lines.iter().map(|line| (line.product_id, line.quantity)).collect();
    if dossier.stock != bought {
        let taken = &dossier.stock;
        report.violation(2, subject(dossier), format!("bought {bought:?} (product: pieces), taken {taken:?}"));
    }
    if let Some((product, entries)) = dossier.entries.iter().find(|(_, entries)| **entries != (1, 0)) {
        let (taken, back) = entries;
        let detail = format!("product {product} was taken {taken} times and put back {back} times");
        report.violation(2, subject(dossier), detail);
    }
    if line_total(&purchase.lines) != Some(purchase.amount) {
        report.violation(2, subject(dossier), format!("the lines do not add up to {}", purchase.amount));
    }
}

fn judge_order(dossier: &Dossier, purchase: &Purchase, order: &Order, report: &mut Report) {
    if order.status != "CONFIRMED" {
        report.violation(2, subject(dossier), format!("completed, and the order is {}", order.status));
    }
    let ours = (purchase.customer_id, purchase.amount, &purchase.currency_code, sorted(&purchase.lines));
    let theirs = (order.customer_id, order.amount, &order.currency_code, sorted(&order.lines));
    if ours != theirs {
        report.violation(2, subject(dossier), format!("the purchase is {ours:?}, the order {theirs:?}"));
    }
}

fn sorted(lines: &[Line]) -> Vec<Line> {
    let mut lines = lines.to_vec();
    lines.sort();
    lines
}

fn line_total(lines: &[Line]) -> Option<i64> {
    lines.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.quantity.checked_mul(line.unit_price)?))
}

/// Invariant 3.
fn judge_compensated(dossier: &Dossier, report: &mut Report) {
    if let Some(order) = &dossier.order
        && order.status != "CANCELLED"
    {
        report.violation(3, subject(dossier), format!("compensated, and the order is {}", order.status));
    }
    if let Some(payment) = &dossier.payment
        && payment.money == Money::Captured
    {
        report.violation(3, subject(dossier), "compensated, and the payment stands");
    }
    let left: BTreeMap<_, _> = dossier.stock.iter().filter(|(_, pieces)| **pieces != 0).collect();
    if !left.is_empty() {
        report.violation(3, subject(dossier), format!("compensated, and this is still taken: {left:?}"));
    }
    if let Some((product, (taken, back))) = dossier.entries.iter().find(|(_, (taken, back))| *taken > 1 || *back > 1) {
        let detail = format!("product {product} was taken {taken} times and put back {back} times");
        report.violation(6, subject(dossier), detail);
    }
}

/// Invariant 6: what the participants remember is what the history says.
fn judge_effects(dossier: &Dossier, history: &[Vec<Event>], report: &mut Report) {
    let effects: Vec<_> = dossier.effects.iter().filter(|effect| effect.definition == "purchase").collect();
    for (at, effect) in effects.iter().enumerate() {
        let commanded = history.iter().flatten().any(|event| match (event, effect.op) {
            (Event::StepStarted { step, .. }, Op::Do) | (Event::UndoStarted { step, .. }, Op::Undo) => {
                *step == effect.step.as_str()
            }
            _ => false,
        });
        let (step, op) = (&effect.step, effect.op);
        if !commanded {
            report.violation(6, subject(dossier), format!("{step}.{op} was handled and never commanded"));
        }
        if effects[..at].iter().any(|before| (&before.step, before.op) == (step, op)) {
            report.violation(6, subject(dossier), format!("{step}.{op} was handled twice"));
        }
    }
    let handled = |step: &str, op: Op| effects.iter().find(|e| e.step == step && e.op == op).map(|e| e.done);
    for event in history.iter().flatten() {
        let (step, op, done) = match event {
            Event::StepCompleted { step, .. } => (step, Op::Do, true),
            Event::StepRefused { step, .. } => (step, Op::Do, false),
            Event::StepUndone { step, .. } => (step, Op::Undo, true),
            _ => continue,
        };
        let found = handled(step.as_str(), op);
        if found != Some(done) {
            let detail = format!("{step}.{op}: its history says done: {done}, the participant {found:?}");
            report.violation(6, subject(dossier), detail);
        }
    }
}

/// For invariant 10: only sagas that have ended are counted.
fn judge_money(dossier: &Dossier, purchase: &Purchase, status: Status, report: &mut Report) {
    if status == Status::Completed {
        let sums = report.money.entry(purchase.currency_code.clone()).or_default();
        sums.completed += i128::from(purchase.amount);
    }
    let Some(payment) = &dossier.payment else { return };
    let sums = report.money.entry(payment.currency_code.clone()).or_default();
    match payment.money {
        Money::Captured => sums.captured += i128::from(payment.amount),
        Money::Refunded => {
            sums.captured += i128::from(payment.amount);
            sums.refunded += i128::from(payment.amount);
        }
        Money::None => {}
    }
}

/// Invariants 10 and 12, when everything has been read.
pub fn conclude(wanted: Wanted, report: &mut Report) {
    let unequal: Vec<(String, Sums)> = report
        .money
        .iter()
        .filter(|(_, sums)| sums.captured - sums.refunded != sums.completed)
        .map(|(currency, sums)| (currency.clone(), *sums))
        .collect();
    // A saga that an operator ended by hand may have left money where it was.
    if report.by_hand == 0 {
        for (currency, sums) in unequal {
            report.violation(10, currency, format!("{sums:?}"));
        }
    }
    let at_least =
        [("completed", report.completed, wanted.completed), ("compensated", report.compensated, wanted.compensated)];
    for (word, found, least) in at_least {
        if found < least {
            report.violation(12, "the run", format!("only {found} {word}, at least {least} were expected"));
        }
    }
}

#[cfg(test)]
mod tests;
