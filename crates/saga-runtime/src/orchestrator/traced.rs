//! What the orchestrator tells the tracer: the messages of a unit, and the whole story of a saga that has ended.

use std::future::Future;

use saga_core::{Decision, Definition, Effect, Name, Saga, SagaKey, replay, results};

use super::{GROUP, Orchestrator};
use crate::bus::Delivery;
use crate::participant::LoopContext;
use crate::trace::units::{Handled, Took};
use crate::trace::{TRACEPARENT, TraceContext, story};

/// The kept traces of a unit.
#[derive(Default)]
pub(super) struct Traced {
    size: usize,
    took: Took,
    handled: Vec<Handled>,
    /// Sagas that have ended, whose traces are kept.
    ended: Vec<SagaKey>,
}

impl Traced {
    /// Notes when a commit happened, if somebody wants to know: from the beginning of a unit's first to the end of its last.
    pub(super) async fn timed<T>(&mut self, context: &LoopContext, commit: impl Future<Output = T>) -> T {
        if self.handled.is_empty() {
            return commit.await;
        }
        let begun = context.clock.nanos();
        let committed = commit.await;
        let begun = self.took.transaction.map_or(begun, |(first, _)| first);
        self.took.transaction = Some((begun, context.clock.nanos()));
        committed
    }

    pub(super) fn ended(&mut self, saga: &Saga) {
        if saga.trace.is_some() {
            self.ended.push(saga.key.clone());
        }
    }
}

/// The span by which an effect's message is sent.
pub(super) fn sent_by(trace: TraceContext, definition: &Definition, effect: &Effect) -> TraceContext {
    match effect {
        Effect::SendCommand { command, .. } => {
            story::sending(trace, &command.saga, &command.step, command.op, command.attempt)
        }
        Effect::PublishResult(event) => {
            let key = SagaKey { definition: definition.name.clone(), id: event.saga_id };
            story::result(trace, &key, event.seq)
        }
    }
}

impl Orchestrator {
    pub(super) fn traced(&self, deliveries: &[Delivery]) -> Traced {
        let handled: Vec<_> = deliveries.iter().filter_map(|d| Handled::of(&self.context.tracer, d)).collect();
        let mut traced = Traced { size: deliveries.len(), handled, ..Traced::default() };
        if !traced.handled.is_empty() {
            traced.took.from = self.context.clock.nanos();
        }
        traced
    }

    /// The trace that a saga belongs to, if it is kept.
    pub(super) fn trace_of(&self, saga: &Saga) -> Option<TraceContext> {
        self.context.tracer.kept(saga.trace.as_ref().map(Name::as_str))
    }

    /// A start takes its trace with it into the history.
    pub(super) fn carry(&self, delivery: Option<&Delivery>, decision: Decision) -> Decision {
        let given = delivery.filter(|_| decision.next.version == 1).and_then(|d| d.message.header(TRACEPARENT));
        match self.context.tracer.kept(given) {
            Some(context) => decision.traced(Name::new(context.to_string())),
            None => decision,
        }
    }

    /// After everything is published: nobody waits for this but the next unit.
    pub(super) async fn record(&self, mut traced: Traced) {
        let LoopContext { tracer, clock, .. } = &self.context;
        if !traced.handled.is_empty() {
            traced.took.until = clock.nanos();
            for handled in &traced.handled {
                handled.record(tracer, GROUP, traced.size, traced.took, None);
            }
        }
        if traced.ended.is_empty() || !tracer.is_on() {
            return;
        }
        let histories = match self.store.histories(traced.ended.clone()).await {
            Ok(histories) => histories,
            Err(error) => {
                tracing::debug!(%error, "the histories of ended sagas could not be read: their spans are lost");
                return;
            }
        };
        for (key, history) in traced.ended.iter().zip(&histories) {
            let slices = || history.iter().map(Vec::as_slice);
            let (Ok(saga), Ok(events)) = (replay(key, slices()), results(key, slices())) else { continue };
            let definition = self.definitions.version(&key.definition, saga.definition_version);
            if let (Some(definition), Some(trace)) = (definition, self.trace_of(&saga)) {
                story::tell(trace, definition, key, history, &events).into_iter().for_each(|span| tracer.record(span));
            }
        }
    }
}
