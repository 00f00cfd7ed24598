//! What happens next, as data.
//!
//! ```text
//!  state \ input        reply done      reply refused     reply retry/unknown   timer            cancel, deadline
//!  RUNNING, doing       next steps or   compensate        wait, then repeat     repeat or stuck  compensate, unless past
//!                       COMPLETED       (retriable:stuck)                                        the pivot
//!  COMPENSATING,undoing next undo or    stuck             wait, then repeat     repeat or stuck  –
//!                       COMPENSATED
//!  STUCK, COMP._STUCK   as above        –                 –                     – (deadline)     compensate, or –
//!  terminal             late            late              late                  –                too late
//! ```
//!
//! A timeout is *unknown*, never *failed*: the same command goes out again. Only a refusal before the pivot, a cancel
//! or the deadline begin a compensation; after the pivot there is only forward.

use crate::definition::{Definition, Kind, StepSpec};
use crate::event::Event;
use crate::json::Json;
use crate::key::{Millis, Name, Op, SagaKey};
use crate::protocol::{Command, Outcome, Refusal, Reply, ResultEvent, Work};
use crate::rejection::Rejection;
use crate::state::{Phase, Saga, Status, begin};

/// What an operator can do to a saga.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Send what is out again now, with a fresh budget of attempts. Without a version only where a saga is stuck: of two who
    /// order it at once the second finds nothing to do.
    Retry,
    /// Declare the stuck step dealt with by hand.
    Skip,
    /// End a stuck saga by hand as `COMPLETED` or `COMPENSATED`.
    Resolve(Status),
    /// Compensate.
    Cancel,
}

/// What can happen to a saga from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Somebody wants this saga.
    Start(Json),
    /// A participant answered.
    Reply(Reply),
    /// A moment that the saga wanted to be woken at has come.
    Timer,
    /// A verb, with who, why, and the version that they looked at (`None`: whatever it is).
    Operator {
        /// What to do.
        verb: Verb,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
        /// Compare-and-set: refused if the saga has moved on.
        version: Option<u64>,
    },
}

/// What to do once the events are committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send a command to a participant.
    SendCommand {
        /// Where to.
        topic: Name,
        /// What.
        command: Command,
    },
    /// Tell the customer.
    PublishResult(ResultEvent),
}

/// A decision: commit `events` (compare-and-set on the version before), then act.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// One transition of the history.
    pub events: Vec<Event>,
    /// In this order, only after the commit is on disk.
    pub effects: Vec<Effect>,
    /// The state after the events.
    pub next: Saga,
}

impl Decision {
    /// With the trace that its start belongs to; what began before keeps what it has.
    #[must_use]
    pub fn traced(mut self, context: Name) -> Self {
        if let Some(Event::Started { trace, .. }) = self.events.first_mut() {
            *trace = Some(context.clone());
            self.next.trace = Some(context);
        }
        self
    }
}

/// Decides. Pure: the same arguments give the same decision.
///
/// # Errors
/// [`Rejection`]: nothing is to be changed.
pub fn decide(
    definition: &Definition,
    key: &SagaKey,
    saga: Option<&Saga>,
    input: Input,
    now: Millis,
) -> Result<Decision, Rejection> {
    let Some(saga) = saga else {
        let Input::Start(input) = input else { return Err(Rejection::UnknownSaga(key.clone())) };
        return start(definition, key, input, now);
    };
    let mut plan = Plan::new(definition, saga, now);
    match input {
        Input::Start(_) => return Err(Rejection::Exists(key.clone())),
        Input::Reply(reply) => plan.reply(reply)?,
        Input::Timer => plan.timer()?,
        Input::Operator { verb, actor, reason, version } => plan.operator(verb, actor, reason, version)?,
    }
    Ok(plan.finish())
}

/// The commands that are out, to be sent again with their current numbers: after a restart or a duplicate.
pub fn outstanding(definition: &Definition, saga: &Saga) -> Vec<Effect> {
    let forward = matches!(saga.status, Status::Running | Status::Stuck);
    let out = saga.steps.iter().filter_map(|step| match step.phase {
        Phase::Doing { attempt, .. } if forward => Some((step, Op::Do, attempt)),
        Phase::Undoing { attempt, .. } if !saga.status.is_terminal() => Some((step, Op::Undo, attempt)),
        _ => None,
    });
    out.filter_map(|(step, op, attempt)| {
        let spec = &definition.steps[definition.index(step.name.as_str())?];
        command(definition, saga, spec, op, attempt)
    })
    .collect()
}

fn start(definition: &Definition, key: &SagaKey, input: Json, now: Millis) -> Result<Decision, Rejection> {
    let started = Event::Started {
        definition_version: definition.version,
        input,
        deadline: definition.deadline.map(|d| now.saturating_add(d)),
        trace: None,
        at: now,
    };
    let mut plan = Plan::new(definition, &begin(key, &started)?, now);
    plan.events.push(started);
    plan.advance()?;
    Ok(plan.finish())
}

pub(crate) fn command(definition: &Definition, saga: &Saga, spec: &StepSpec, op: Op, attempt: u32) -> Option<Effect> {
    let topic = match op {
        Op::Do => spec.action.clone(),
        Op::Undo => spec.undo.clone()?,
    };
    let outputs = saga.steps.iter().filter_map(|s| s.output.clone().map(|o| (s.name.clone(), o))).collect();
    let command = Command {
        saga: saga.key.clone(),
        definition_version: saga.definition_version,
        step: spec.name.clone(),
        op,
        attempt,
        input: saga.input.clone(),
        outputs,
        reason: (op == Op::Undo).then(|| saga.reason.clone()).flatten(),
        reply_to: definition.reply_topic.clone(),
    };
    Some(Effect::SendCommand { topic, command })
}

/// A decision being made: events are folded into `saga` as they are added.
struct Plan<'d> {
    definition: &'d Definition,
    saga: Saga,
    now: Millis,
    events: Vec<Event>,
    effects: Vec<Effect>,
}

impl<'d> Plan<'d> {
    fn new(definition: &'d Definition, saga: &Saga, now: Millis) -> Self {
        // Time never runs backwards in a history, whatever the machine's clock does.
        let now = now.max(saga.updated_at);
        Self { definition, saga: saga.clone(), now, events: Vec::new(), effects: Vec::new() }
    }

    fn finish(mut self) -> Decision {
        self.saga.version += 1;
        Decision { events: self.events, effects: self.effects, next: self.saga }
    }

    fn add(&mut self, event: Event) -> Result<(), Rejection> {
        self.saga.evolve(&event)?;
        self.effects.extend(self.saga.result_of(&event).map(Effect::PublishResult));
        self.events.push(event);
        Ok(())
    }

    fn spec(&self, step: &Name) -> Result<&'d StepSpec, Rejection> {
        let definition = self.definition;
        definition
            .index(step.as_str())
            .map(|at| &definition.steps[at])
            .ok_or_else(|| Rejection::UnknownStep { definition: definition.name.clone(), step: step.clone() })
    }

    fn send(&mut self, spec: &StepSpec, op: Op, attempt: u32) {
        self.effects.extend(command(self.definition, &self.saga, spec, op, attempt));
    }

    fn reply(&mut self, reply: Reply) -> Result<(), Rejection> {
        let Reply { step, op, attempt, outcome, work, .. } = reply;
        let spec = self.spec(&step)?;
        let forward = matches!(self.saga.status, Status::Running | Status::Stuck);
        let awaited = match self.saga.step(step.as_str()).map(|s| &s.phase) {
            Some(Phase::Doing { attempt, due, .. }) if op == Op::Do && forward => Some((*attempt, due.is_some())),
            Some(Phase::Undoing { attempt, due, .. }) if op == Op::Undo => Some((*attempt, due.is_some())),
            _ => None,
        };
        let not_awaited = || Rejection::NotAwaited { step: step.clone(), op };
        let (current, scheduled) = awaited.ok_or_else(not_awaited)?;
        match outcome {
            Outcome::Done(output) => self.done(step, op, output, work),
            Outcome::Refused(refusal) if op == Op::Undo || spec.kind == Kind::Retriable => {
                if !scheduled {
                    return Err(not_awaited());
                }
                self.stuck(step, op, format!("{}: {}", refusal.code, refusal.detail))
            }
            Outcome::Refused(refusal) => {
                self.add(Event::StepRefused { step, refusal: refusal.clone(), work, at: self.now })?;
                self.compensate(refusal)
            }
            Outcome::Retry(detail) | Outcome::Unknown(detail) => {
                if attempt != current || !scheduled {
                    return Err(not_awaited());
                }
                self.delay(spec, op, attempt, detail, work)
            }
        }
    }

    fn done(&mut self, step: Name, op: Op, output: Json, work: Option<Work>) -> Result<(), Rejection> {
        self.add(match op {
            Op::Do => Event::StepCompleted { step, output, work, at: self.now },
            Op::Undo => Event::StepUndone { step, work, at: self.now },
        })?;
        self.advance()
    }

    fn delay(
        &mut self,
        spec: &StepSpec,
        op: Op,
        attempt: u32,
        detail: String,
        work: Option<Work>,
    ) -> Result<(), Rejection> {
        let policy = policy(spec, op);
        let step = spec.name.clone();
        if policy.exhausted(attempt) {
            return self.stuck(step, op, format!("{attempt} attempts; the last: {detail}"));
        }
        let due = self.now + policy.backoff(&self.saga.key, step.as_str(), op, attempt);
        self.add(Event::StepDelayed { step, op, detail, due, work, at: self.now })
    }

    fn stuck(&mut self, step: Name, op: Op, detail: String) -> Result<(), Rejection> {
        self.add(Event::StepStuck { step, op, detail, at: self.now })
    }

    fn timer(&mut self) -> Result<(), Rejection> {
        let forward = matches!(self.saga.status, Status::Running | Status::Stuck);
        if forward && self.saga.deadline.is_some_and(|d| d <= self.now) && self.can_compensate() {
            return self.compensate(Refusal::new("deadline_exceeded", "the saga did not pass its pivot in time"));
        }
        let due: Vec<_> = self.out(|due| due.is_some_and(|d| d <= self.now)).collect();
        for (step, op, attempt) in due {
            let spec = self.spec(&step)?;
            if policy(spec, op).exhausted(attempt) {
                self.stuck(step, op, format!("{attempt} attempts without an answer"))?;
            } else {
                self.repeat(spec, op, attempt.saturating_add(1))?;
            }
        }
        if self.events.is_empty() { Err(Rejection::NothingDue) } else { Ok(()) }
    }

    /// Steps with a command out in the current direction whose `due` is as wanted.
    fn out<'s>(&'s self, wanted: impl Fn(Option<Millis>) -> bool + 's) -> impl Iterator<Item = (Name, Op, u32)> + 's {
        let forward = matches!(self.saga.status, Status::Running | Status::Stuck);
        self.saga.steps.iter().filter_map(move |step| match step.phase {
            Phase::Doing { attempt, due, .. } if forward && wanted(due) => Some((step.name.clone(), Op::Do, attempt)),
            Phase::Undoing { attempt, due, .. } if wanted(due) => Some((step.name.clone(), Op::Undo, attempt)),
            _ => None,
        })
    }

    fn repeat(&mut self, spec: &StepSpec, op: Op, attempt: u32) -> Result<(), Rejection> {
        let wait = policy(spec, op).backoff(&self.saga.key, spec.name.as_str(), op, attempt);
        let due = self.now.saturating_add(spec.timeout).saturating_add(wait);
        self.add(Event::StepRepeated { step: spec.name.clone(), op, attempt, due, at: self.now })?;
        self.send(spec, op, attempt);
        Ok(())
    }

    fn operator(&mut self, verb: Verb, actor: String, reason: String, version: Option<u64>) -> Result<(), Rejection> {
        let status = self.saga.status;
        if let Some(expected) = version.filter(|v| *v != self.saga.version) {
            return Err(Rejection::StaleVersion { expected, actual: self.saga.version });
        }
        if status.is_terminal() {
            return Err(Rejection::TooLate { status });
        }
        let at = self.now;
        match verb {
            Verb::Cancel => {
                let forward = matches!(status, Status::Running | Status::Stuck);
                if !forward || !self.can_compensate() {
                    return Err(Rejection::TooLate { status });
                }
                self.add(Event::Cancelled { actor, reason: reason.clone(), at })?;
                self.compensate(Refusal::new("cancelled", reason))
            }
            Verb::Retry if version.is_none() && !status.is_stuck() => Err(Rejection::UnderWay { status }),
            Verb::Retry => {
                let out: Vec<_> = self.out(|_| true).collect();
                self.add(Event::Retried { actor, reason, at })?;
                out.into_iter().try_for_each(|(step, op, _)| self.repeat(self.spec(&step)?, op, 1))
            }
            Verb::Skip => {
                let stuck: Vec<_> = self.out(|due| due.is_none()).collect();
                let Some((step, op, _)) = stuck.into_iter().next() else {
                    return Err(Rejection::NotStuck { status });
                };
                self.add(Event::Skipped { step, op, actor, reason, at })?;
                self.advance()
            }
            Verb::Resolve(end) if !end.is_terminal() => Err(Rejection::NotTerminal { status: end }),
            Verb::Resolve(_) if !status.is_stuck() => Err(Rejection::NotStuck { status }),
            Verb::Resolve(status) => self.add(Event::Resolved { status, actor, reason, at }),
        }
    }

    /// Whether the point of no return lies ahead: the pivot is not done, and if it is out it can be voided.
    fn can_compensate(&self) -> bool {
        let past = |kind: Kind| {
            self.definition.steps.iter().filter(move |s| s.kind == kind).any(|spec| {
                match self.saga.step(spec.name.as_str()).map(|s| &s.phase) {
                    Some(Phase::Doing { .. }) => spec.undo.is_none(),
                    Some(Phase::Done { .. }) => true,
                    _ => false,
                }
            })
        };
        !past(Kind::Pivot) && !past(Kind::Retriable)
    }

    fn compensate(&mut self, reason: Refusal) -> Result<(), Rejection> {
        self.add(Event::CompensationBegun { reason, at: self.now })?;
        self.advance()
    }

    /// Starts whatever can start now, or ends the saga.
    fn advance(&mut self) -> Result<(), Rejection> {
        match self.saga.status {
            Status::Running | Status::Stuck => self.forward(),
            Status::Compensating => self.backward(),
            Status::CompensationStuck | Status::Completed | Status::Compensated => Ok(()),
        }
    }

    fn forward(&mut self) -> Result<(), Rejection> {
        let is_done = |saga: &Saga, step: &StepSpec| {
            matches!(saga.step(step.name.as_str()).map(|s| &s.phase), Some(Phase::Done { .. }))
        };
        let definition = self.definition;
        if definition.steps.iter().all(|step| is_done(&self.saga, step)) {
            return self.add(Event::Completed { at: self.now });
        }
        for spec in &definition.steps {
            let started = self.saga.step(spec.name.as_str()).is_some();
            if !started && spec.after.iter().all(|&before| is_done(&self.saga, &definition.steps[before])) {
                let due = self.now.saturating_add(spec.timeout);
                self.add(Event::StepStarted { step: spec.name.clone(), due, at: self.now })?;
                self.send(spec, Op::Do, 1);
            }
        }
        Ok(())
    }

    /// One undo at a time: first what is unknown, last started first; then what is done, last completed first.
    fn backward(&mut self) -> Result<(), Rejection> {
        if self.saga.steps.iter().any(|s| matches!(s.phase, Phase::Undoing { .. })) {
            return Ok(());
        }
        let definition = self.definition;
        let candidate = self.saga.steps.iter().enumerate().filter_map(|(started, step)| {
            let spec = &definition.steps[definition.index(step.name.as_str())?];
            spec.undo.as_ref()?;
            match step.phase {
                Phase::Doing { .. } => Some(((1, started), spec)),
                Phase::Done { order } => Some(((0, order as usize), spec)),
                _ => None,
            }
        });
        let Some((_, spec)) = candidate.max_by_key(|(rank, _)| *rank) else {
            return self.add(Event::Compensated { at: self.now });
        };
        let due = self.now.saturating_add(spec.timeout);
        self.add(Event::UndoStarted { step: spec.name.clone(), due, at: self.now })?;
        self.send(spec, Op::Undo, 1);
        Ok(())
    }
}

fn policy(spec: &StepSpec, op: Op) -> crate::retry::RetryPolicy {
    match op {
        Op::Do => spec.retry,
        Op::Undo => spec.undo_retry,
    }
}
