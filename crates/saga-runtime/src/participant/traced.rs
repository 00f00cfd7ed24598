//! What a participant's batch tells the tracer. Empty, and without cost, when no command belongs to a kept trace.

use std::collections::HashMap;

use saga_core::protocol::{Outcome, Reply};
use saga_core::{Name, Op, SagaKey};

use super::LoopContext;
use crate::bus::{Delivery, Message};
use crate::trace::units::{Handled, Took, mark};
use crate::trace::{Kind, Span};
use crate::wire;

/// The kept traces of a batch.
#[derive(Default)]
pub(super) struct Batch {
    size: usize,
    took: Took,
    handled: Vec<Handled>,
    /// By command: which of the handled, and what became of it. A command that came twice is in it once.
    commands: HashMap<(SagaKey, Name, Op), (usize, Option<&'static str>)>,
}

impl Batch {
    pub(super) fn of(context: &LoopContext, deliveries: &[Delivery]) -> Self {
        let mut batch = Self::default();
        for delivery in deliveries {
            let Some(handled) = Handled::of(&context.tracer, delivery) else { continue };
            if let Ok(wire::Inbound::Command(command)) = wire::parse(&delivery.message) {
                batch.commands.insert((command.saga, command.step, command.op), (batch.handled.len(), None));
            }
            batch.handled.push(handled);
        }
        if !batch.handled.is_empty() {
            batch.size = deliveries.len();
            batch.took.from = context.clock.nanos();
        }
        batch
    }

    pub(super) fn begun(&mut self, context: &LoopContext) {
        if !self.handled.is_empty() {
            let now = context.clock.nanos();
            self.took.transaction = Some((now, now));
        }
    }

    pub(super) fn committed(&mut self, context: &LoopContext) {
        if let Some((_, until)) = &mut self.took.transaction {
            *until = context.clock.nanos();
        }
    }

    /// Marks the reply, and records its sending.
    pub(super) fn answered(&mut self, context: &LoopContext, topic: &Name, reply: &Reply, message: &mut Message) {
        if self.commands.is_empty() {
            return;
        }
        let key = (reply.saga.clone(), reply.step.clone(), reply.op);
        let Some((place, outcome)) = self.commands.get_mut(&key) else { return };
        *outcome = Some(match reply.outcome {
            Outcome::Done(_) => "done",
            Outcome::Refused(_) => "refused",
            Outcome::Retry(_) => "retry",
            Outcome::Unknown(_) => "unknown",
        });
        let handled = self.handled[*place].context;
        let own = handled.at(context.tracer.fresh());
        mark(message, own);
        let span = Span::new(own, handled.span, format!("send {topic}"), Kind::Producer, context.clock.nanos())
            .message("send", topic, &reply.saga.id.to_string())
            .with("saga.step", &reply.step)
            .with("saga.op", reply.op.as_str());
        context.tracer.record(span);
    }

    /// What was handled, once its replies are out.
    pub(super) fn record(mut self, context: &LoopContext, group: &str) {
        if self.handled.is_empty() {
            return;
        }
        self.took.until = context.clock.nanos();
        let mut outcomes = vec![None; self.handled.len()];
        for (place, outcome) in self.commands.into_values() {
            outcomes[place] = outcome;
        }
        for (handled, outcome) in self.handled.iter().zip(outcomes) {
            handled.record(&context.tracer, group, self.size, self.took, outcome);
        }
    }
}
