//! What was found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Violations that are kept with their words; the others are counted.
const KEPT: usize = 100;

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Violation {
    /// Its number in the list of invariants (docs/operations.md).
    pub invariant: u8,
    /// What it is about: `purchase 5`, `product 7`, a file.
    pub subject: String,
    /// What is wrong.
    pub detail: String,
}

/// Sums in one currency, in minor units.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sums {
    /// Of all captured payments of ended sagas, refunded ones included.
    pub captured: i128,
    /// Of those, given back.
    pub refunded: i128,
    /// Of all completed purchases.
    pub completed: i128,
}

/// The result of a check.
#[derive(Clone, Default, Debug, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// How many invariants were found broken.
    pub violations: u64,
    /// The first of them.
    pub found: Vec<Violation>,
    /// Sagas looked at, of all definitions.
    pub sagas: u64,
    /// Purchases looked at.
    pub purchases: u64,
    /// Purchase sagas that ended with all of it.
    pub completed: u64,
    /// Purchase sagas that ended with none of it.
    pub compensated: u64,
    /// On their way.
    pub in_flight: u64,
    /// Waiting for a human.
    pub stuck: u64,
    /// Ended or pushed on by an operator: their effects are the operator's business.
    pub by_hand: u64,
    /// Products looked at.
    pub products: u64,
    /// Money by currency.
    pub money: BTreeMap<String, Sums>,
}

impl Report {
    /// Notes a broken invariant.
    pub fn violation(&mut self, invariant: u8, subject: impl Into<String>, detail: impl Into<String>) {
        self.violations += 1;
        if self.found.len() < KEPT {
            self.found.push(Violation { invariant, subject: subject.into(), detail: detail.into() });
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut lines = vec![
            format!("purchases    {:>10}", self.purchases),
            format!("sagas        {:>10}", self.sagas),
            format!("completed    {:>10}", self.completed),
            format!("compensated  {:>10}", self.compensated),
            format!("on their way {:>10}", self.in_flight),
            format!("stuck        {:>10}", self.stuck),
            format!("by hand      {:>10}", self.by_hand),
            format!("products     {:>10}", self.products),
        ];
        for (currency, sums) in &self.money {
            let Sums { captured, refunded, completed } = sums;
            lines
                .push(format!("{currency}: captured {captured}, refunded {refunded}, completed purchases {completed}"));
        }
        for Violation { invariant, subject, detail } in &self.found {
            lines.push(format!("INVARIANT {invariant} BROKEN: {subject}: {detail}"));
        }
        let more = self.violations - self.found.len() as u64;
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines.push(match self.violations {
            0 => "the books balance".to_owned(),
            1 => "1 violation".to_owned(),
            n => format!("{n} violations"),
        });
        lines.join("\n")
    }
}
