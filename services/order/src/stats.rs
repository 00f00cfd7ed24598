//! What was sold, in numbers.

use std::collections::HashMap;

use chassis::metrics::{Once, Page, Source};
use contracts::purchase::PurchaseInput;
use saga_core::protocol::{Command, Outcome, Reply};
use saga_runtime::stats::Counter;

use crate::store::STEPS;

/// Counted since the start of the process.
#[derive(Debug, Default)]
pub struct Stats {
    /// Orders that were confirmed here.
    pub orders: Counter,
    /// The pieces in them.
    pub items: Counter,
    counted: Once,
}

impl Stats {
    /// Counts the orders whose confirmation was answered with *done*, each once, however often it is asked for.
    pub(crate) fn confirmed(&self, confirmations: &[Command], replies: &[Reply]) {
        if confirmations.is_empty() {
            return;
        }
        let confirmed = |reply: &&Reply| reply.step == STEPS.confirm && matches!(reply.outcome, Outcome::Done(_));
        let commands: HashMap<u64, &Command> = confirmations.iter().map(|command| (command.saga.id, command)).collect();
        for reply in replies.iter().filter(confirmed) {
            let Some(command) = commands.get(&reply.saga.id).filter(|_| self.counted.is_first(reply.saga.id)) else {
                continue;
            };
            self.orders.inc();
            if let Ok(input) = command.input.parse::<PurchaseInput>() {
                self.items.add(input.items.iter().map(|item| item.quantity.unsigned_abs()).sum());
            }
        }
    }
}

impl Source for Stats {
    fn collect(&self, page: &mut Page) {
        page.counter("orders_confirmed", "Orders that were confirmed.", &[], self.orders.get());
        page.counter("items_sold", "Pieces in confirmed orders.", &[], self.items.get());
    }
}
