//! Where a saga stands: a fold over its events, nothing else.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event::Event;
use crate::json::Json;
use crate::key::{Millis, Name, Op, SagaKey};
use crate::protocol::{Refusal, ResultEvent, ResultStatus};

/// A saga's state, one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Going forward.
    Running,
    /// Taking back.
    Compensating,
    /// All of it. Terminal.
    Completed,
    /// None of it. Terminal.
    Compensated,
    /// An undo is exhausted: a human is needed.
    CompensationStuck,
    /// A do is exhausted: a human is needed.
    Stuck,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Compensating, Self::Completed, Self::Compensated, Self::CompensationStuck, Self::Stuck];

    /// `RUNNING`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "RUNNING",
            Status::Compensating => "COMPENSATING",
            Status::Completed => "COMPLETED",
            Status::Compensated => "COMPENSATED",
            Status::CompensationStuck => "COMPENSATION_STUCK",
            Status::Stuck => "STUCK",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Whether nothing more happens.
    pub fn is_terminal(self) -> bool {
        match self {
            Status::Completed | Status::Compensated => true,
            Status::Running | Status::Compensating | Status::CompensationStuck | Status::Stuck => false,
        }
    }

    /// Whether a human is needed.
    pub fn is_stuck(self) -> bool {
        matches!(self, Status::CompensationStuck | Status::Stuck)
    }
}

/// Where a step stands. `due: None` is a stuck one.
#[derive(Clone, PartialEq, Debug)]
pub enum Phase {
    /// The do is out; its outcome is unknown.
    Doing {
        /// Sendings so far.
        attempt: u32,
        /// When the last one went out, in ms since the epoch.
        sent: Millis,
        /// When the next one goes out.
        due: Option<Millis>,
    },
    /// The effect is there.
    Done {
        /// 0, 1, 2, … in the order of completion.
        order: u32,
    },
    /// Business said no.
    Refused,
    /// The undo is out.
    Undoing {
        /// Sendings so far.
        attempt: u32,
        /// When the last one went out, in ms since the epoch.
        sent: Millis,
        /// When the next one goes out.
        due: Option<Millis>,
    },
    /// The effect is gone.
    Undone,
}

/// A step that was started. Steps that were not are not in the state.
#[derive(Clone, PartialEq, Debug)]
pub struct StepState {
    /// Which one.
    pub name: Name,
    /// Where it stands.
    pub phase: Phase,
    /// What it told when it completed.
    pub output: Option<Json>,
}

/// A saga's state.
#[derive(Clone, PartialEq, Debug)]
pub struct Saga {
    /// Its name.
    pub key: SagaKey,
    /// The definition's version that it is pinned to.
    pub definition_version: u32,
    /// Decisions so far: what compare-and-set compares.
    pub version: u64,
    /// One word.
    pub status: Status,
    /// Handed to every step.
    pub input: Json,
    /// The started steps, in the order of their starts.
    pub steps: Vec<StepState>,
    /// When it started, in ms since the epoch.
    pub started_at: Millis,
    /// When it last changed, in ms since the epoch.
    pub updated_at: Millis,
    /// When it is compensated if the pivot is not done.
    pub deadline: Option<Millis>,
    /// Why it is (or was) compensated.
    pub reason: Option<Refusal>,
    /// The number of the last result event.
    pub seq: u32,
    /// The trace that the start belongs to, as W3C `traceparent`.
    pub trace: Option<Name>,
}

/// A history that no engine wrote.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// The first event is not `started`, or another one is.
    #[error("the history does not begin with exactly one `started`")]
    NotStarted,
    /// An event about a step that cannot have it now.
    #[error("event {event} of transition {version} cannot follow what was before")]
    Impossible {
        /// Which transition.
        version: u64,
        /// The event, as text.
        event: String,
    },
}

/// The state before anything happened to it.
pub(crate) fn begin(key: &SagaKey, event: &Event) -> Result<Saga, ReplayError> {
    let Event::Started { definition_version, input, deadline, trace, at } = event else {
        return Err(ReplayError::NotStarted);
    };
    Ok(Saga {
        key: key.clone(),
        definition_version: *definition_version,
        version: 0,
        status: Status::Running,
        input: input.clone(),
        steps: Vec::new(),
        started_at: *at,
        updated_at: *at,
        deadline: *deadline,
        reason: None,
        seq: 0,
        trace: trace.clone(),
    })
}

/// Folds a whole history, one slice of events per transition.
///
/// # Errors
/// When no engine can have written it.
pub fn replay<'e>(key: &SagaKey, transitions: impl IntoIterator<Item = &'e [Event]>) -> Result<Saga, ReplayError> {
    let mut saga: Option<Saga> = None;
    for events in transitions {
        for event in events {
            match &mut saga {
                None => saga = Some(begin(key, event)?),
                Some(saga) => saga.evolve(event)?,
            }
        }
        if let Some(saga) = &mut saga {
            saga.version += 1;
        }
    }
    saga.ok_or(ReplayError::NotStarted)
}

/// The result events of a whole history, as they were published.
///
/// # Errors
/// When no engine can have written it.
pub fn results<'e>(
    key: &SagaKey,
    transitions: impl IntoIterator<Item = &'e [Event]>,
) -> Result<Vec<ResultEvent>, ReplayError> {
    let mut saga: Option<Saga> = None;
    let mut results = Vec::new();
    for event in transitions.into_iter().flatten() {
        match &mut saga {
            None => saga = Some(begin(key, event)?),
            Some(saga) => saga.evolve(event)?,
        }
        results.extend(saga.as_ref().and_then(|saga| saga.result_of(event)));
    }
    Ok(results)
}

impl Saga {
    /// A started step.
    pub fn step(&self, name: &str) -> Option<&StepState> {
        self.steps.iter().find(|s| s.name == name)
    }

    /// When this saga next wants to be looked at, in ms since the epoch; `None`: only a message or a human moves it.
    pub fn wake_at(&self) -> Option<Millis> {
        self.wake(self.deadline)
    }

    /// The same for one that was looked at `now` and had nothing to do: its deadline, if that has passed, came too late
    /// to turn it back.
    pub fn wake_after(&self, now: Millis) -> Option<Millis> {
        self.wake(self.deadline.filter(|deadline| *deadline > now))
    }

    fn wake(&self, deadline: Option<Millis>) -> Option<Millis> {
        let forward = match self.status {
            Status::Completed | Status::Compensated => return None,
            Status::Running | Status::Stuck => true,
            Status::Compensating | Status::CompensationStuck => false,
        };
        let dues = self.steps.iter().filter_map(|step| match step.phase {
            Phase::Doing { due, .. } if forward => due,
            Phase::Undoing { due, .. } if !forward => due,
            _ => None,
        });
        dues.chain(deadline.filter(|_| forward)).min()
    }

    /// What is awaited, for people: step and op of the first command that is out.
    pub fn awaited(&self) -> Option<(&Name, Op)> {
        let forward = matches!(self.status, Status::Running | Status::Stuck);
        self.steps.iter().find_map(|step| match step.phase {
            Phase::Doing { .. } if forward => Some((&step.name, Op::Do)),
            Phase::Undoing { .. } => Some((&step.name, Op::Undo)),
            _ => None,
        })
    }

    /// Folds one event in.
    ///
    /// # Errors
    /// When the event cannot follow: the history is corrupt.
    pub fn evolve(&mut self, event: &Event) -> Result<(), ReplayError> {
        if self.status.is_terminal() || self.fold(event).is_none() {
            return Err(ReplayError::Impossible { version: self.version + 1, event: format!("{event:?}") });
        }
        self.updated_at = event.at();
        if result_kind(event).is_some() {
            self.seq += 1;
        }
        Ok(())
    }

    /// The table of transitions: `None` where the event is not lawful.
    fn fold(&mut self, event: &Event) -> Option<()> {
        match event {
            Event::Started { .. } => return None,
            Event::StepStarted { step, due, at } => self.start(step, *due, *at)?,
            Event::StepCompleted { step, output, .. } => self.complete(step, Some(output.clone()))?,
            Event::StepRefused { step, .. } => {
                let step = self.doing(step)?;
                step.phase = Phase::Refused;
            }
            Event::StepDelayed { step, op, due, .. } => self.reschedule(step, *op, None, Some(*due))?,
            Event::StepRepeated { step, op, attempt, due, at } => {
                self.reschedule(step, *op, Some((*attempt, *at)), Some(*due))?;
            }
            Event::StepStuck { step, op, .. } => self.reschedule(step, *op, None, None)?,
            Event::CompensationBegun { reason, .. } => {
                if !matches!(self.status, Status::Running | Status::Stuck) {
                    return None;
                }
                self.status = Status::Compensating;
                self.reason = Some(reason.clone());
            }
            Event::UndoStarted { step, due, at } => {
                let step = self.find(step)?;
                if !matches!(step.phase, Phase::Doing { .. } | Phase::Done { .. }) {
                    return None;
                }
                step.phase = Phase::Undoing { attempt: 1, sent: *at, due: Some(*due) };
            }
            Event::StepUndone { step, .. } => self.undone(step)?,
            Event::Skipped { step, op: Op::Do, .. } => self.complete(step, None)?,
            Event::Skipped { step, op: Op::Undo, .. } => self.undone(step)?,
            Event::Cancelled { .. } | Event::Retried { .. } => {}
            Event::Resolved { status, .. } => self.status = status.is_terminal().then_some(*status)?,
            Event::Completed { .. } => self.status = Status::Completed,
            Event::Compensated { .. } => self.status = Status::Compensated,
        }
        self.restatus();
        Some(())
    }

    fn start(&mut self, step: &Name, due: Millis, at: Millis) -> Option<()> {
        if self.step(step.as_str()).is_some() {
            return None;
        }
        let phase = Phase::Doing { attempt: 1, sent: at, due: Some(due) };
        self.steps.push(StepState { name: step.clone(), phase, output: None });
        Some(())
    }

    fn find(&mut self, name: &Name) -> Option<&mut StepState> {
        self.steps.iter_mut().find(|s| s.name == *name)
    }

    fn doing(&mut self, name: &Name) -> Option<&mut StepState> {
        self.find(name).filter(|step| matches!(step.phase, Phase::Doing { .. }))
    }

    fn complete(&mut self, name: &Name, output: Option<Json>) -> Option<()> {
        let order = self.steps.iter().filter(|s| matches!(s.phase, Phase::Done { .. })).count();
        let step = self.doing(name)?;
        step.phase = Phase::Done { order: u32::try_from(order).ok()? };
        step.output = output.filter(|o| o.as_str() != "null");
        Some(())
    }

    fn undone(&mut self, name: &Name) -> Option<()> {
        let step = self.find(name)?;
        step.phase = matches!(step.phase, Phase::Undoing { .. }).then_some(Phase::Undone)?;
        Some(())
    }

    fn reschedule(&mut self, name: &Name, op: Op, again: Option<(u32, Millis)>, next: Option<Millis>) -> Option<()> {
        let step = self.find(name)?;
        match (&mut step.phase, op) {
            (Phase::Doing { attempt, sent, due }, Op::Do) | (Phase::Undoing { attempt, sent, due }, Op::Undo) => {
                *due = next;
                if let Some((number, at)) = again {
                    (*attempt, *sent) = (number, at);
                }
                Some(())
            }
            _ => None,
        }
    }

    /// Stuck is not a place of its own: it is where a saga stands while one of its steps has no next sending.
    fn restatus(&mut self) {
        let stuck = |op: Op| {
            self.steps.iter().any(|step| match step.phase {
                Phase::Doing { due, .. } => op == Op::Do && due.is_none(),
                Phase::Undoing { due, .. } => op == Op::Undo && due.is_none(),
                _ => false,
            })
        };
        self.status = match self.status {
            Status::Running | Status::Stuck if stuck(Op::Do) => Status::Stuck,
            Status::Running | Status::Stuck => Status::Running,
            Status::Compensating | Status::CompensationStuck if stuck(Op::Undo) => Status::CompensationStuck,
            Status::Compensating | Status::CompensationStuck => Status::Compensating,
            Status::Completed | Status::Compensated => self.status,
        };
    }

    /// The result event that `event`, just folded in, stands for.
    pub(crate) fn result_of(&self, event: &Event) -> Option<ResultEvent> {
        let (step, status, reason) = result_kind(event)?;
        let terminal = step.is_none();
        let reason = match event {
            Event::Compensated { .. } | Event::Resolved { .. } if reason.is_none() => self.reason.clone(),
            _ => reason,
        };
        Some(ResultEvent {
            saga_id: self.key.id,
            seq: self.seq,
            step: step.unwrap_or(&self.key.definition).clone(),
            status,
            terminal,
            reason,
            at: event.at(),
        })
    }
}

/// Which events customers see. Sendings after the first are none of their business, so that a retry shifts no number.
fn result_kind(event: &Event) -> Option<(Option<&Name>, ResultStatus, Option<Refusal>)> {
    Some(match event {
        Event::StepStarted { step, .. } => (Some(step), ResultStatus::Execute, None),
        Event::StepCompleted { step, .. } | Event::Skipped { step, op: Op::Do, .. } => {
            (Some(step), ResultStatus::Success, None)
        }
        Event::StepRefused { step, refusal, .. } => (Some(step), ResultStatus::Failed, Some(refusal.clone())),
        Event::StepUndone { step, .. } | Event::Skipped { step, op: Op::Undo, .. } => {
            (Some(step), ResultStatus::Rollback, None)
        }
        Event::StepStuck { step, op: Op::Undo, detail, .. } => {
            (Some(step), ResultStatus::RollbackFailed, Some(Refusal::new("compensation_stuck", detail.clone())))
        }
        Event::Completed { .. } | Event::Resolved { status: Status::Completed, .. } => {
            (None, ResultStatus::Success, None)
        }
        Event::Compensated { .. } | Event::Resolved { .. } => (None, ResultStatus::Rollback, None),
        Event::Started { .. }
        | Event::StepDelayed { .. }
        | Event::StepRepeated { .. }
        | Event::StepStuck { op: Op::Do, .. }
        | Event::CompensationBegun { .. }
        | Event::UndoStarted { .. }
        | Event::Cancelled { .. }
        | Event::Retried { .. } => return None,
    })
}
