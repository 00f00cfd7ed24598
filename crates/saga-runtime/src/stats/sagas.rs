//! What became of sagas and of their steps, by the names that the definitions give them.
//!
//! Promised: there are never more entries than the definitions have steps. A command or saga that no definition knows,
//! whoever sent it, is counted nowhere here.

use std::sync::atomic::{AtomicU64, Ordering};

use saga_core::protocol::Command;
use saga_core::state::Phase;
use saga_core::{Definition, Event, Millis, Name, Op, Saga, Status};

use super::{Counter, Histogram};
use crate::orchestrator::Definitions;

/// By definition.
#[derive(Debug, Default)]
pub struct Sagas(Vec<OfDefinition>);

/// The sagas of one definition, whatever its version.
#[derive(Debug)]
pub struct OfDefinition {
    /// Its name.
    pub name: Name,
    /// Sagas that began.
    pub started: Counter,
    /// Sagas that ended with all of it.
    pub completed: Ended,
    /// Sagas that ended with none of it.
    pub compensated: Ended,
    /// Compensations that began.
    pub compensations: Counter,
    /// By step and op.
    pub steps: Vec<OfStep>,
}

/// Sagas that ended one way.
#[derive(Debug, Default)]
pub struct Ended {
    /// How many.
    pub count: Counter,
    /// From their start to their end, in microseconds (known to the millisecond).
    pub took: Histogram,
}

/// One command of a definition.
#[derive(Debug)]
pub struct OfStep {
    /// The step's name.
    pub step: Name,
    /// Do or undo.
    pub op: Op,
    /// Sendings, the first ones and those again.
    pub attempts: Counter,
    /// Answers *done*.
    pub done: Counter,
    /// Answers *refused*.
    pub refused: Counter,
    /// Answers *retry* or *unknown*: it is sent again later.
    pub retries: Counter,
    /// Sendings that were not answered in time.
    pub timeouts: Counter,
    /// Times that it ran out of attempts.
    pub stuck: Counter,
    /// From its last sending to its answer, in microseconds (known to the millisecond).
    pub took: Histogram,
    /// At the participant: from its sending until it was taken up, in microseconds (known to the millisecond).
    pub queued: Histogram,
    /// When it was last answered, whatever the answer was.
    pub answered_at: Moment,
}

/// The latest of some moments.
#[derive(Debug, Default)]
pub struct Moment(AtomicU64);

impl Moment {
    /// In ms since the epoch; `None`: there was none.
    pub fn get(&self) -> Option<Millis> {
        Some(self.0.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    fn note(&self, at: Millis) {
        self.0.fetch_max(at, Ordering::Relaxed);
    }
}

impl OfStep {
    fn new(step: &Name, op: Op) -> Self {
        Self {
            step: step.clone(),
            op,
            attempts: Counter::default(),
            done: Counter::default(),
            refused: Counter::default(),
            retries: Counter::default(),
            timeouts: Counter::default(),
            stuck: Counter::default(),
            took: Histogram::durations(),
            queued: Histogram::durations(),
            answered_at: Moment::default(),
        }
    }
}

impl OfDefinition {
    fn new(name: &Name) -> Self {
        Self {
            name: name.clone(),
            started: Counter::default(),
            completed: Ended::default(),
            compensated: Ended::default(),
            compensations: Counter::default(),
            steps: Vec::new(),
        }
    }

    fn add(&mut self, definition: &Definition) {
        for spec in &definition.steps {
            let ops = [Some(Op::Do), spec.undo.as_ref().map(|_| Op::Undo)];
            for op in ops.into_iter().flatten() {
                if self.step(&spec.name, op).is_none() {
                    self.steps.push(OfStep::new(&spec.name, op));
                }
            }
        }
    }

    /// A handful of entries: looked through, not hashed.
    fn step(&self, step: &Name, op: Op) -> Option<&OfStep> {
        self.steps.iter().find(|of| of.op == op && of.step == *step)
    }
}

impl Sagas {
    /// Nothing counted yet.
    pub fn of(definitions: &Definitions) -> Self {
        let mut sagas: Vec<OfDefinition> = Vec::new();
        for definition in definitions.all() {
            if sagas.last().is_none_or(|last| last.name != definition.name) {
                sagas.push(OfDefinition::new(&definition.name));
            }
            if let Some(last) = sagas.last_mut() {
                last.add(&definition);
            }
        }
        Self(sagas)
    }

    /// Every definition.
    pub fn all(&self) -> &[OfDefinition] {
        &self.0
    }

    fn definition(&self, name: &Name) -> Option<&OfDefinition> {
        self.0.iter().find(|of| of.name == *name)
    }

    /// A command was taken up by its participant.
    pub fn taken_up(&self, command: &Command, sent_at: Millis, now: Millis) {
        let of = self.definition(&command.saga.definition).and_then(|of| of.step(&command.step, command.op));
        if let Some(of) = of {
            of.queued.observe_millis(now.saturating_sub(sent_at));
        }
    }

    /// A decision is on disk: `before` is the saga as it was (`None`: there was none), `next` as it is.
    pub fn decided(&self, definition: &Definition, before: Option<&Saga>, next: &Saga, events: &[Event]) {
        let Some(of) = self.definition(&definition.name) else { return };
        let by_hand = events.iter().any(|event| matches!(event, Event::Retried { .. }));
        for event in events {
            match event {
                Event::Started { .. } => of.started.inc(),
                Event::Completed { at } | Event::Resolved { status: Status::Completed, at, .. } => {
                    of.completed.ended(next, *at);
                }
                Event::Compensated { at } | Event::Resolved { at, .. } => of.compensated.ended(next, *at),
                Event::CompensationBegun { .. } => of.compensations.inc(),
                Event::Cancelled { .. } | Event::Retried { .. } | Event::Skipped { .. } => {}
                Event::StepStarted { step, .. } => of.count(step, Op::Do, |step| step.attempts.inc()),
                Event::UndoStarted { step, .. } => of.count(step, Op::Undo, |step| step.attempts.inc()),
                Event::StepRepeated { step, op, .. } => of.count(step, *op, |counted| {
                    counted.attempts.inc();
                    if !by_hand && before.is_some_and(|saga| is_unanswered(definition, saga, step, *op)) {
                        counted.timeouts.inc();
                    }
                }),
                Event::StepDelayed { step, op, at, .. } => of.count(step, *op, |counted| {
                    counted.retries.inc();
                    counted.answered_at.note(*at);
                }),
                Event::StepStuck { step, op, .. } => of.count(step, *op, |step| step.stuck.inc()),
                Event::StepCompleted { step, at, .. } => of.count(step, Op::Do, |counted| {
                    counted.done.inc();
                    counted.answered(before, *at);
                }),
                Event::StepUndone { step, at, .. } => of.count(step, Op::Undo, |counted| {
                    counted.done.inc();
                    counted.answered(before, *at);
                }),
                Event::StepRefused { step, at, .. } => of.count(step, Op::Do, |counted| {
                    counted.refused.inc();
                    counted.answered(before, *at);
                }),
            }
        }
    }
}

impl OfDefinition {
    fn count(&self, step: &Name, op: Op, count: impl FnOnce(&OfStep)) {
        if let Some(of) = self.step(step, op) {
            count(of);
        }
    }
}

impl Ended {
    fn ended(&self, saga: &Saga, at: Millis) {
        self.count.inc();
        self.took.observe_millis(at.saturating_sub(saga.started_at));
    }
}

impl OfStep {
    fn answered(&self, before: Option<&Saga>, at: Millis) {
        self.answered_at.note(at);
        if let Some((_, sent, _)) = before.and_then(|saga| out(saga, &self.step, self.op)) {
            self.took.observe_millis(at.saturating_sub(sent));
        }
    }
}

/// Of a command that is out: the sending's number, when it went out, when the next one does.
fn out(saga: &Saga, step: &Name, op: Op) -> Option<(u32, Millis, Option<Millis>)> {
    match (&saga.step(step.as_str())?.phase, op) {
        (Phase::Doing { attempt, sent, due }, Op::Do) | (Phase::Undoing { attempt, sent, due }, Op::Undo) => {
            Some((*attempt, *sent, *due))
        }
        _ => None,
    }
}

/// Whether the next sending is due because there was no answer. An answer that asked for another try has moved it: what
/// a silent command waits for follows from the definition alone.
fn is_unanswered(definition: &Definition, saga: &Saga, step: &Name, op: Op) -> bool {
    let Some(spec) = definition.steps.iter().find(|spec| spec.name == *step) else { return false };
    let Some((attempt, sent, Some(due))) = out(saga, step, op) else { return false };
    let policy = match op {
        Op::Do => spec.retry,
        Op::Undo => spec.undo_retry,
    };
    let wait = if attempt <= 1 { 0 } else { policy.backoff(&saga.key, step.as_str(), op, attempt) };
    due == sent.saturating_add(spec.timeout).saturating_add(wait)
}

#[cfg(test)]
mod tests;
