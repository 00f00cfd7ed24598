//! Money that moved, by currency. ISO 4217 bounds how many there are: a charge in anything else is refused before.

use std::collections::BTreeMap;

use chassis::metrics::{Once, Page, Source};
use parking_lot::Mutex;
use saga_core::protocol::{Outcome, Reply};

use crate::gateway::Charge;

/// Counted since the start of the process: what it wrote itself, each charge once. A charge whose answer came from
/// the barrier (another process wrote it, or this one in another life) is not in it. The books are in the database.
#[derive(Debug, Default)]
pub struct Stats {
    moved: Mutex<BTreeMap<String, Moved>>,
    captured: Once,
    refunded: Once,
}

/// In minor units, and how often.
#[derive(Debug, Default)]
struct Moved {
    captured: u64,
    captures: u64,
    refunded: u64,
    refunds: u64,
}

impl Stats {
    /// Counts the charges that were asked for and answered with *done*.
    pub(crate) fn captured(&self, charges: &[(u64, Charge)], replies: &[Reply]) {
        self.count(charges, replies, &self.captured, |moved, amount| {
            moved.captured += amount;
            moved.captures += 1;
        });
    }

    /// Counts those that were given back.
    pub(crate) fn refunded(&self, charges: &[(u64, Charge)], replies: &[Reply]) {
        self.count(charges, replies, &self.refunded, |moved, amount| {
            moved.refunded += amount;
            moved.refunds += 1;
        });
    }

    fn count(&self, charges: &[(u64, Charge)], replies: &[Reply], once: &Once, count: fn(&mut Moved, u64)) {
        if charges.is_empty() {
            return;
        }
        let done: Vec<u64> =
            replies.iter().filter(|r| matches!(r.outcome, Outcome::Done(_))).map(|reply| reply.saga.id).collect();
        let mut all = self.moved.lock();
        for (id, Charge { amount, currency_code, .. }) in charges {
            if done.contains(id) && once.is_first(*id) {
                let moved = all.entry(currency_code.clone()).or_default();
                count(moved, amount.unsigned_abs());
            }
        }
    }
}

impl Source for Stats {
    fn collect(&self, page: &mut Page) {
        for (currency, moved) in &*self.moved.lock() {
            let labels = [("currency", currency.as_str())];
            let Moved { captured, captures, refunded, refunds } = *moved;
            page.counter("money_captured_minor_units", "Money that was charged, in minor units.", &labels, captured);
            page.counter("money_captures", "Charges.", &labels, captures);
            page.counter("money_refunded_minor_units", "Money that was given back, in minor units.", &labels, refunded);
            page.counter("money_refunds", "Charges that were given back.", &labels, refunds);
        }
    }
}
