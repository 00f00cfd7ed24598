//! What becomes of sagas, counted and said.

use saga_core::{Decision, Event, Name, Saga, Status};

use super::Orchestrator;
use crate::trace::id_in;

impl Orchestrator {
    /// Of a transition that is durable.
    pub(super) fn count(&self, decision: &Decision) {
        let stats = &self.context.stats;
        stats.transitions.inc();
        for event in &decision.events {
            match event {
                Event::Started { .. } => {
                    log_life(&decision.next, "saga began");
                    stats.started.inc();
                }
                Event::CompensationBegun { .. } => log_life(&decision.next, "compensation begins"),
                Event::Completed { .. } | Event::Resolved { status: Status::Completed, .. } => {
                    log_life(&decision.next, "saga ended");
                    stats.completed.inc();
                }
                Event::Compensated { .. } | Event::Resolved { .. } => {
                    log_life(&decision.next, "saga ended");
                    stats.compensated.inc();
                }
                Event::StepStuck { step, op, detail, .. } => {
                    let saga = &decision.next;
                    let trace_id = id_in(saga.trace.as_ref().map(Name::as_str));
                    let saga_id = saga.key.id;
                    tracing::error!(key = %saga.key, saga_id, trace_id, %step, %op, detail, "saga stuck: an operator is needed");
                    stats.stuck.inc();
                }
                Event::StepRepeated { .. } => stats.repeated.inc(),
                _ => {}
            }
        }
    }
}

/// The life of every saga, for whoever looks that closely: silent unless the filter asks for `saga_runtime=debug`.
fn log_life(saga: &Saga, what: &str) {
    tracing::debug!(
        key = %saga.key,
        saga_id = saga.key.id,
        trace_id = id_in(saga.trace.as_ref().map(Name::as_str)),
        status = saga.status.as_str(),
        "{what}"
    );
}
