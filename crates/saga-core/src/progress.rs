//! How far each step of a saga has come, from its history: for people.
//!
//! All steps of the definition are there, also those that have not begun.

use crate::definition::{Definition, Kind};
use crate::event::Event;
use crate::json::Json;
use crate::key::{Millis, Name, Op};
use crate::protocol::Work;

/// Where one direction of a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// It has not begun.
    Waiting,
    /// Its command is out.
    Running,
    /// It was answered with *not now*, and will be asked again.
    Delayed,
    /// A human is needed.
    Stuck,
    /// It is done.
    Done,
    /// Business said no.
    Refused,
    /// An operator said that it is dealt with.
    Skipped,
    /// It was given up without an answer, and is taken back.
    Unknown,
}

impl Standing {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Running,
        Self::Delayed,
        Self::Stuck,
        Self::Done,
        Self::Refused,
        Self::Skipped,
        Self::Unknown,
    ];

    /// `WAITING`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Running => "RUNNING",
            Self::Delayed => "DELAYED",
            Self::Stuck => "STUCK",
            Self::Done => "DONE",
            Self::Refused => "REFUSED",
            Self::Skipped => "SKIPPED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// One direction of a step.
#[derive(Clone, PartialEq, Debug)]
pub struct Leg {
    /// Where it stands.
    pub standing: Standing,
    /// The topic of its commands.
    pub topic: Name,
    /// When the command went out for the first time, in ms since the epoch.
    pub sent_at: Option<Millis>,
    /// When it went out last.
    pub last_sent_at: Option<Millis>,
    /// Sendings since it began, or since an operator began anew.
    pub attempts: u32,
    /// When the participant was at it, as its last answer tells.
    pub work: Option<Work>,
    /// When it ended, in ms since the epoch.
    pub done_at: Option<Millis>,
    /// A refusal's code.
    pub code: Option<String>,
    /// What the last answer that was no yes says, for people.
    pub detail: Option<String>,
    /// What it told.
    pub output: Option<Json>,
}

impl Leg {
    fn new(topic: Name) -> Self {
        Self {
            standing: Standing::Waiting,
            topic,
            sent_at: None,
            last_sent_at: None,
            attempts: 0,
            work: None,
            done_at: None,
            code: None,
            detail: None,
            output: None,
        }
    }

    /// From the last sending until the participant began, in ms. By two clocks: never less than nothing.
    pub fn queue_ms(&self) -> Option<u64> {
        Some(self.work?.began.saturating_sub(self.last_sent_at?))
    }

    /// How long the participant was at it, in ms.
    pub fn run_ms(&self) -> Option<u64> {
        self.work.map(|work| work.ms)
    }

    fn out(&mut self, at: Millis, attempt: u32) {
        self.standing = Standing::Running;
        self.sent_at = self.sent_at.or(Some(at));
        self.last_sent_at = Some(at);
        self.attempts = attempt;
    }

    fn end(&mut self, standing: Standing, at: Millis, work: Option<Work>) {
        self.standing = standing;
        self.done_at = Some(at);
        self.work = work;
        if standing == Standing::Done {
            self.detail = None;
        }
    }
}

/// A step.
#[derive(Clone, PartialEq, Debug)]
pub struct StepProgress {
    /// Its name.
    pub name: Name,
    /// Before, at or after the point of no return.
    pub kind: Kind,
    /// Which steps must be done before.
    pub after: Vec<Name>,
    /// The way there.
    pub action: Leg,
    /// The way back, if there is one.
    pub undo: Option<Leg>,
}

/// Every step of the definition, in its order.
pub fn progress<'e>(definition: &Definition, events: impl IntoIterator<Item = &'e Event>) -> Vec<StepProgress> {
    let name = |at: &usize| definition.steps[*at].name.clone();
    let steps = definition.steps.iter().map(|step| StepProgress {
        name: step.name.clone(),
        kind: step.kind,
        after: step.after.iter().map(name).collect(),
        action: Leg::new(step.action.clone()),
        undo: step.undo.clone().map(Leg::new),
    });
    let mut steps: Vec<StepProgress> = steps.collect();
    events.into_iter().for_each(|event| follow(&mut steps, event));
    steps
}

fn leg<'s>(steps: &'s mut [StepProgress], step: &Name, op: Op) -> Option<&'s mut Leg> {
    let step = steps.iter_mut().find(|known| known.name == *step)?;
    match op {
        Op::Do => Some(&mut step.action),
        Op::Undo => step.undo.as_mut(),
    }
}

fn follow(steps: &mut [StepProgress], event: &Event) {
    match event {
        Event::StepStarted { step, at, .. } => leg(steps, step, Op::Do).into_iter().for_each(|leg| leg.out(*at, 1)),
        Event::UndoStarted { step, at, .. } => {
            if let Some(action) = leg(steps, step, Op::Do).filter(|action| action.done_at.is_none()) {
                action.standing = Standing::Unknown;
            }
            leg(steps, step, Op::Undo).into_iter().for_each(|leg| leg.out(*at, 1));
        }
        Event::StepRepeated { step, op, attempt, at, .. } => {
            leg(steps, step, *op).into_iter().for_each(|leg| leg.out(*at, *attempt));
        }
        Event::StepCompleted { step, output, work, at } => {
            if let Some(leg) = leg(steps, step, Op::Do) {
                leg.end(Standing::Done, *at, *work);
                leg.output = Some(output.clone()).filter(|output| output.as_str() != "null");
            }
        }
        Event::StepRefused { step, refusal, work, at } => {
            if let Some(leg) = leg(steps, step, Op::Do) {
                leg.end(Standing::Refused, *at, *work);
                (leg.code, leg.detail) = (Some(refusal.code.clone()), Some(refusal.detail.clone()));
            }
        }
        Event::StepDelayed { step, op, detail, work, .. } => {
            if let Some(leg) = leg(steps, step, *op) {
                (leg.standing, leg.work, leg.detail) = (Standing::Delayed, *work, Some(detail.clone()));
            }
        }
        Event::StepStuck { step, op, detail, .. } => {
            if let Some(leg) = leg(steps, step, *op) {
                (leg.standing, leg.detail) = (Standing::Stuck, Some(detail.clone()));
            }
        }
        Event::StepUndone { step, work, at } => {
            leg(steps, step, Op::Undo).into_iter().for_each(|leg| leg.end(Standing::Done, *at, *work));
        }
        Event::Skipped { step, op, at, .. } => {
            leg(steps, step, *op).into_iter().for_each(|leg| leg.end(Standing::Skipped, *at, None));
        }
        Event::Started { .. }
        | Event::CompensationBegun { .. }
        | Event::Cancelled { .. }
        | Event::Retried { .. }
        | Event::Resolved { .. }
        | Event::Completed { .. }
        | Event::Compensated { .. } => {}
    }
}

#[cfg(test)]
mod tests;
