//! What was said before is said once more: a duplicate may mean that it was lost.

use std::collections::HashSet;

use saga_core::state::Phase;
use saga_core::{Effect, Event, Name, Op, Saga, SagaKey, outstanding, replay, results};

use super::Orchestrator;
use super::unit::Out;

impl Orchestrator {
    /// What is outstanding, if it has been out for a while.
    pub(super) fn repeat_if_old(&self, saga: &Saga, out: &mut Out) {
        let Some(definition) = self.definitions.version(&saga.key.definition, saga.definition_version) else { return };
        let now = self.context.clock.now();
        if saga.updated_at.saturating_add(self.options.resend_after) <= now {
            out.add(definition, self.trace_of(saga), outstanding(definition, saga));
        }
    }

    /// All results of these sagas once more, and their outstanding commands if they are old.
    pub(super) async fn republish(&mut self, keys: HashSet<SagaKey>, out: &mut Out) {
        let mut keys: Vec<SagaKey> = keys.into_iter().collect();
        keys.sort();
        if keys.is_empty() {
            return;
        }
        let histories: Vec<Vec<Vec<Event>>> = match self.store.histories(keys.clone()).await {
            Ok(histories) => histories,
            Err(error) => {
                // The asker asks again.
                tracing::warn!(%error, "reading histories to publish them again failed");
                return;
            }
        };
        for (key, history) in keys.iter().zip(&histories) {
            if history.is_empty() {
                // It could not be written, and it is not there: it has ended and was removed.
                self.context.stats.late_starts.inc();
                continue;
            }
            let slices = || history.iter().map(Vec::as_slice);
            let (Ok(events), Ok(saga)) = (results(key, slices()), replay(key, slices())) else { continue };
            let Some(definition) = self.definitions.version(&key.definition, saga.definition_version) else { continue };
            out.add(definition, self.trace_of(&saga), events.into_iter().map(Effect::PublishResult));
            self.repeat_if_old(&saga, out);
        }
    }
}

/// Whether this command is out.
pub(super) fn is_out(saga: &Saga, step: &Name, op: Op) -> bool {
    match saga.step(step.as_str()).map(|s| &s.phase) {
        Some(Phase::Doing { .. }) => op == Op::Do,
        Some(Phase::Undoing { .. }) => op == Op::Undo,
        _ => false,
    }
}
