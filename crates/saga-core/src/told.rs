//! What a saga and its participants told each other, from its history: for people, who want to see the messages long after
//! the topics have forgotten them.
//!
//! Not in a history, so not here: sendings after a restart and after a duplicate (the same command again), answers that
//! were too late, and whether an answer that settled nothing was *retry* or *unknown* (it is shown as *retry*).

use crate::decide::{Effect, command};
use crate::definition::Definition;
use crate::event::Event;
use crate::key::{Millis, Name, Op, SagaKey};
use crate::protocol::{Outcome, Reply, Work};
use crate::state::{Phase, ReplayError, Saga, begin};

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The transition that it belongs to.
    pub version: u64,
    /// When that was, in ms since the epoch.
    pub at: Millis,
    /// What was said.
    pub what: What,
}

/// A message, as the engine knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// To a participant or to customers.
    Sent(Effect),
    /// From a participant.
    Answered(Reply),
}

/// All messages of a history, in order: in a transition the answer first, then what followed from it.
///
/// # Errors
/// When no engine can have written it.
pub fn told<'e>(
    definition: &Definition,
    key: &SagaKey,
    transitions: impl IntoIterator<Item = &'e [Event]>,
) -> Result<Vec<Told>, ReplayError> {
    let mut saga: Option<Saga> = None;
    let mut all = Vec::new();
    for (version, events) in (1..).zip(transitions) {
        for event in events {
            let mut say = |what| all.push(Told { version, at: event.at(), what });
            let answer = saga.as_ref().and_then(|saga| answer(saga, event));
            answer.into_iter().for_each(|reply| say(What::Answered(reply)));
            let now = match &mut saga {
                None => saga.insert(begin(key, event)?),
                Some(saga) => {
                    saga.evolve(event)?;
                    saga
                }
            };
            now.result_of(event).into_iter().for_each(|result| say(What::Sent(Effect::PublishResult(result))));
            sent(definition, now, event).into_iter().for_each(|effect| say(What::Sent(effect)));
        }
    }
    Ok(all)
}

/// The command that an event, just folded in, stands for.
fn sent(definition: &Definition, saga: &Saga, event: &Event) -> Option<Effect> {
    let (step, op, attempt) = match event {
        Event::StepStarted { step, .. } => (step, Op::Do, 1),
        Event::UndoStarted { step, .. } => (step, Op::Undo, 1),
        Event::StepRepeated { step, op, attempt, .. } => (step, *op, *attempt),
        _ => return None,
    };
    let spec = &definition.steps[definition.index(step.as_str())?];
    command(definition, saga, spec, op, attempt)
}

/// The reply that an event, not yet folded in, stands for.
fn answer(saga: &Saga, event: &Event) -> Option<Reply> {
    let (step, op, outcome, work): (&Name, Op, Outcome, Option<Work>) = match event {
        Event::StepCompleted { step, output, work, .. } => (step, Op::Do, Outcome::Done(output.clone()), *work),
        Event::StepRefused { step, refusal, work, .. } => (step, Op::Do, Outcome::Refused(refusal.clone()), *work),
        Event::StepUndone { step, work, .. } => (step, Op::Undo, Outcome::done(), *work),
        Event::StepDelayed { step, op, detail, work, .. } => (step, *op, Outcome::Retry(detail.clone()), *work),
        _ => return None,
    };
    let attempt = match saga.step(step.as_str())?.phase {
        Phase::Doing { attempt, .. } | Phase::Undoing { attempt, .. } => attempt,
        Phase::Done { .. } | Phase::Refused | Phase::Undone => return None,
    };
    Some(Reply { saga: saga.key.clone(), step: step.clone(), op, attempt, outcome, work, repeated: false })
}
