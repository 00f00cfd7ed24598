//! A saga's spans, told from its history: the saga, each do and undo, each sending of a command, each result.
//!
//! Told when the saga has ended, so they are whole however often the orchestrator was restarted, and the same each time.
//! Their moments are the history's: milliseconds.

use saga_core::protocol::ResultEvent;
use saga_core::{Definition, Event, Millis, Name, Op, SagaKey};

use super::{Kind, Nanos, Span, TraceContext};

/// The span of the saga itself.
pub fn saga(context: TraceContext, key: &SagaKey) -> TraceContext {
    context.about(&[key.definition.as_str(), &key.id.to_string()])
}

/// The span of a do or an undo, all its sendings together.
fn step(context: TraceContext, key: &SagaKey, step: &Name, op: Op) -> TraceContext {
    context.about(&[key.definition.as_str(), &key.id.to_string(), step.as_str(), op.as_str()])
}

/// The span of one sending of a command: what the command's participant is below.
pub fn sending(context: TraceContext, key: &SagaKey, step: &Name, op: Op, attempt: u32) -> TraceContext {
    let (id, attempt) = (key.id.to_string(), attempt.to_string());
    context.about(&[key.definition.as_str(), &id, step.as_str(), op.as_str(), &attempt])
}

/// The span of a result event: what its reader is below.
pub fn result(context: TraceContext, key: &SagaKey, seq: u32) -> TraceContext {
    context.about(&[key.definition.as_str(), &key.id.to_string(), "result", &seq.to_string()])
}

/// A command that is out.
struct Out<'e> {
    step: &'e Name,
    op: Op,
    /// When it was sent for the first time.
    since: Millis,
    attempt: u32,
    /// When it was sent last.
    sent: Millis,
}

struct Teller<'e> {
    context: TraceContext,
    definition: &'e Definition,
    key: &'e SagaKey,
    out: Vec<Out<'e>>,
    spans: Vec<Span>,
}

/// The spans of a whole history. `context` is what its start carried.
pub fn tell(
    context: TraceContext,
    definition: &Definition,
    key: &SagaKey,
    history: &[Vec<Event>],
    results: &[ResultEvent],
) -> Vec<Span> {
    let mut teller = Teller { context, definition, key, out: Vec::new(), spans: Vec::new() };
    let events = || history.iter().flatten();
    for event in events() {
        teller.event(event);
    }
    let (Some(first), Some(last)) = (events().next(), events().last()) else { return Vec::new() };
    let (status, reason) = match last {
        Event::Completed { .. } => ("COMPLETED", None),
        Event::Resolved { status, .. } => (status.as_str(), Some("resolved by an operator".to_owned())),
        _ => ("COMPENSATED", reason(events())),
    };
    teller.end_all(last.at());
    let name = format!("saga {}", key.definition);
    let mut span = Span::new(saga(context, key), context.span, name, Kind::Internal, nanos(first.at()))
        .until(nanos(last.at()))
        .with("saga.definition", &key.definition)
        .with("saga.definition_version", u64::from(definition.version))
        .with("saga.id", key.id)
        .with("saga.status", status);
    if let Some(reason) = reason {
        span = span.with("saga.reason", reason);
    }
    teller.spans.push(span);
    teller.results(results);
    teller.spans
}

/// Why it was compensated: a code, never what was said about it.
fn reason<'e>(events: impl Iterator<Item = &'e Event>) -> Option<String> {
    events.into_iter().find_map(|event| match event {
        Event::CompensationBegun { reason, .. } => Some(reason.code.clone()),
        _ => None,
    })
}

impl<'e> Teller<'e> {
    fn event(&mut self, event: &'e Event) {
        match event {
            Event::StepStarted { step, at, .. } => self.begin(step, Op::Do, *at),
            Event::UndoStarted { step, at, .. } => {
                // A do whose outcome stayed unknown ends here.
                self.end(step, Op::Do, *at, "unknown", true);
                self.begin(step, Op::Undo, *at);
            }
            Event::StepRepeated { step, op, attempt, at, .. } => self.again(step, *op, *attempt, *at),
            Event::StepCompleted { step, at, .. } => self.end(step, Op::Do, *at, "done", false),
            Event::StepRefused { step, refusal, at, .. } => self.end(step, Op::Do, *at, &refusal.code, true),
            Event::StepUndone { step, at, .. } => self.end(step, Op::Undo, *at, "done", false),
            Event::Skipped { step, op, at, .. } => self.end(step, *op, *at, "skipped", true),
            Event::StepDelayed { .. }
            | Event::StepStuck { .. }
            | Event::Started { .. }
            | Event::CompensationBegun { .. }
            | Event::Cancelled { .. }
            | Event::Retried { .. }
            | Event::Resolved { .. }
            | Event::Completed { .. }
            | Event::Compensated { .. } => {}
        }
    }

    fn begin(&mut self, step: &'e Name, op: Op, at: Millis) {
        self.out.push(Out { step, op, since: at, attempt: 1, sent: at });
    }

    /// The sending before ends without an answer that counts.
    fn again(&mut self, step: &Name, op: Op, attempt: u32, at: Millis) {
        let Some(place) = self.out.iter().position(|out| out.step == step && out.op == op) else { return };
        let span = self.sending(&self.out[place], at);
        self.spans.push(span);
        self.out[place].attempt = attempt;
        self.out[place].sent = at;
    }

    fn end(&mut self, of: &Name, op: Op, at: Millis, outcome: &str, failed: bool) {
        let Some(place) = self.out.iter().position(|out| out.step == of && out.op == op) else { return };
        let out = self.out.remove(place);
        let span = self.sending(&out, at);
        self.spans.push(span);
        let parent = saga(self.context, self.key).span;
        let name = format!("{} {}", out.step, out.op.as_str());
        let own = step(self.context, self.key, out.step, op);
        let mut span = Span::new(own, parent, name, Kind::Internal, nanos(out.since))
            .until(nanos(at))
            .with("saga.step", out.step)
            .with("saga.op", out.op.as_str())
            .with("saga.attempts", u64::from(out.attempt))
            .with("saga.outcome", outcome.to_owned());
        if failed {
            span.error = Some(outcome.to_owned());
        }
        self.spans.push(span);
    }

    fn end_all(&mut self, at: Millis) {
        while let Some(Out { step, op, .. }) = self.out.first() {
            let (step, op) = ((*step).clone(), *op);
            self.end(&step, op, at, "unanswered", true);
        }
    }

    fn sending(&self, out: &Out<'_>, until: Millis) -> Span {
        let spec = self.definition.steps.iter().find(|spec| spec.name == *out.step);
        let topic = spec.and_then(|spec| match out.op {
            Op::Do => Some(&spec.action),
            Op::Undo => spec.undo.as_ref(),
        });
        let topic = topic.unwrap_or(out.step);
        let own = sending(self.context, self.key, out.step, out.op, out.attempt);
        let parent = step(self.context, self.key, out.step, out.op).span;
        Span::new(own, parent, format!("send {topic}"), Kind::Producer, nanos(out.sent))
            .until(nanos(until))
            .message("send", topic, &self.key.id.to_string())
            .with("saga.step", out.step)
            .with("saga.op", out.op.as_str())
            .with("saga.attempt", u64::from(out.attempt))
    }

    fn results(&mut self, results: &[ResultEvent]) {
        let topic = &self.definition.result_topic;
        let parent = saga(self.context, self.key).span;
        self.spans.extend(results.iter().map(|event| {
            let own = result(self.context, self.key, event.seq);
            Span::new(own, parent, format!("send {topic}"), Kind::Producer, nanos(event.at))
                .message("send", topic, &self.key.id.to_string())
                .with("saga.result.seq", u64::from(event.seq))
                .with("saga.step", &event.step)
                .with("saga.result.status", event.status.as_str())
        }));
    }
}

fn nanos(at: Millis) -> Nanos {
    at.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests;
