//! Definitions and sagas as text that a person reads and a golden test compares.

use std::fmt::Write as _;

use crate::definition::{Definition, StepSpec};
use crate::event::Event;
use crate::key::Millis;
use crate::retry::RetryPolicy;
use crate::state::Saga;

/// A definition, one line a step, top to bottom.
pub fn definition_text(definition: &Definition) -> String {
    let mut out = String::new();
    let _ = write!(out, "saga {} v{}", definition.name, definition.version);
    if let Some(deadline) = definition.deadline {
        let _ = write!(out, ", deadline {}", duration(deadline));
    }
    let _ = writeln!(
        out,
        "\n  start on {}, replies on {}, results on {}",
        definition.start_topic, definition.reply_topic, definition.result_topic
    );
    for (at, step) in definition.steps.iter().enumerate() {
        let _ = writeln!(out, "  {}. {}", at + 1, step_text(definition, step));
    }
    out
}

fn step_text(definition: &Definition, step: &StepSpec) -> String {
    let mut out = format!("{} ({})  do {}", step.name, step.kind, step.action);
    if let Some(undo) = &step.undo {
        let _ = write!(out, "  undo {undo}");
    }
    let after: Vec<&str> = step.after.iter().map(|&at| definition.steps[at].name.as_str()).collect();
    if !after.is_empty() {
        let _ = write!(out, "  after {}", after.join(", "));
    }
    let _ = write!(out, "  timeout {}  retry {}", duration(step.timeout), policy_text(step.retry));
    if step.undo.is_some() {
        let _ = write!(out, "  undo retry {}", policy_text(step.undo_retry));
    }
    out
}

fn policy_text(policy: RetryPolicy) -> String {
    let attempts = if policy.attempts == 0 { "for ever".to_owned() } else { format!("{} times", policy.attempts) };
    format!("{}×{} up to {} {attempts}", duration(policy.initial), policy.factor, duration(policy.max))
}

/// A saga: a headline, then one line an event with the time since the start.
pub fn saga_text<'e>(saga: &Saga, transitions: impl IntoIterator<Item = &'e [Event]>) -> String {
    let mut out = format!(
        "{} {} (definition v{}, version {})",
        saga.key,
        saga.status.as_str(),
        saga.definition_version,
        saga.version
    );
    if let Some(reason) = &saga.reason {
        let _ = write!(out, "\nreason: {}: {}", reason.code, reason.detail);
    }
    out.push('\n');
    for event in transitions.into_iter().flatten() {
        let since = event.at().saturating_sub(saga.started_at);
        let _ = writeln!(out, "{:>10}  {}", format!("+{}", duration(since)), event_text(event));
    }
    out
}

/// One event as a short sentence.
pub fn event_text(event: &Event) -> String {
    match event {
        Event::Started { definition_version, .. } => format!("started, definition v{definition_version}"),
        Event::StepStarted { step, .. } => format!("{step}: do sent"),
        Event::StepCompleted { step, .. } => format!("{step}: done"),
        Event::StepRefused { step, refusal, .. } => format!("{step}: refused, {}: {}", refusal.code, refusal.detail),
        Event::StepDelayed { step, op, detail, .. } => format!("{step}: {op} delayed, {detail}"),
        Event::StepRepeated { step, op, attempt, .. } => format!("{step}: {op} sent again, attempt {attempt}"),
        Event::StepStuck { step, op, detail, .. } => format!("{step}: {op} STUCK, {detail}"),
        Event::CompensationBegun { reason, .. } => format!("compensation begun, {}: {}", reason.code, reason.detail),
        Event::UndoStarted { step, .. } => format!("{step}: undo sent"),
        Event::StepUndone { step, .. } => format!("{step}: undone"),
        Event::Cancelled { actor, reason, .. } => format!("cancelled by {actor}: {reason}"),
        Event::Retried { actor, reason, .. } => format!("retried by {actor}: {reason}"),
        Event::Skipped { step, op, actor, reason, .. } => format!("{step}: {op} skipped by {actor}: {reason}"),
        Event::Resolved { status, actor, reason, .. } => {
            format!("resolved as {} by {actor}: {reason}", status.as_str())
        }
        Event::Completed { .. } => "COMPLETED".to_owned(),
        Event::Compensated { .. } => "COMPENSATED".to_owned(),
    }
}

fn duration(ms: Millis) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{}.{:03}s", ms / 1_000, ms % 1_000),
    }
}
