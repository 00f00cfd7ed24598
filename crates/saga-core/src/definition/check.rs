//! The checks between a draft and a definition. A definition that passes can always finish.

use super::{Definition, DefinitionError, Draft, Kind, RetryDraft, StepDraft, StepSpec};
use crate::key::{Millis, Name};
use crate::retry::RetryPolicy;

/// How long an answer may take when nothing is said: well above a healthy participant's batch, well below patience.
const DEFAULT_TIMEOUT: Millis = 10_000;
/// A year: nobody means a longer wait.
const LONGEST: Millis = 366 * 24 * 3_600_000;

pub(super) fn check(draft: Draft) -> Result<Definition, DefinitionError> {
    if draft.version == 0 {
        return Err(DefinitionError::NoVersion);
    }
    if draft.steps.is_empty() {
        return Err(DefinitionError::NoSteps);
    }
    let name = lawful("saga", &draft.saga)?;
    let steps = steps(&draft)?;
    check_undo(&steps)?;
    let before = ancestors(&steps)?;
    check_pivot(&steps, &before)?;
    let deadline = draft.deadline.as_deref().map(|d| duration("deadline", d)).transpose()?;
    if deadline.is_some() && steps.iter().all(|s| s.kind == Kind::Retriable) {
        return Err(DefinitionError::UselessDeadline);
    }
    let topic =
        |place: &str, given: &Option<String>, default: String| lawful(place, given.as_deref().unwrap_or(&default));
    Ok(Definition {
        start_topic: topic("topics.start", &draft.topics.start, draft.saga.clone())?,
        reply_topic: topic("topics.reply", &draft.topics.reply, "reply".into())?,
        result_topic: topic("topics.result", &draft.topics.result, format!("{}-result", draft.saga))?,
        name,
        version: draft.version,
        steps,
        deadline,
    })
}

fn steps(draft: &Draft) -> Result<Vec<StepSpec>, DefinitionError> {
    let mut steps: Vec<StepSpec> = Vec::with_capacity(draft.steps.len());
    for (at, given) in draft.steps.iter().enumerate() {
        if draft.steps[..at].iter().any(|s| s.step == given.step) {
            return Err(DefinitionError::DuplicateStep(given.step.clone()));
        }
        steps.push(step(draft, at, given)?);
    }
    Ok(steps)
}

fn step(draft: &Draft, at: usize, given: &StepDraft) -> Result<StepSpec, DefinitionError> {
    let place = |key: &str| format!("step {}: {key}", given.step);
    let after = match &given.after {
        Some(names) => names
            .iter()
            .map(|wanted| {
                draft
                    .steps
                    .iter()
                    .position(|s| s.step == *wanted)
                    .ok_or_else(|| DefinitionError::UnknownAfter { step: given.step.clone(), unknown: wanted.clone() })
            })
            .collect::<Result<_, _>>()?,
        None => at.checked_sub(1).into_iter().collect(),
    };
    let timeout = given.timeout.as_deref().or(draft.timeout.as_deref());
    Ok(StepSpec {
        name: lawful("step", &given.step)?,
        kind: given.kind.unwrap_or(Kind::Compensatable),
        action: lawful(&place("do"), given.action.as_deref().unwrap_or(&given.step))?,
        undo: given.undo.as_deref().map(|u| lawful(&place("undo"), u)).transpose()?,
        after,
        timeout: timeout.map_or(Ok(DEFAULT_TIMEOUT), |t| duration(&place("timeout"), t))?,
        retry: policy(&place("retry"), RetryPolicy::DO, &[draft.retry.as_ref(), given.retry.as_ref()])?,
        undo_retry: policy(
            &place("undo_retry"),
            RetryPolicy::UNDO,
            &[draft.undo_retry.as_ref(), given.undo_retry.as_ref()],
        )?,
    })
}

fn check_undo(steps: &[StepSpec]) -> Result<(), DefinitionError> {
    for step in steps {
        match (step.kind, &step.undo) {
            (Kind::Compensatable, None) => return Err(DefinitionError::MissingUndo(step.name.to_string())),
            (Kind::Retriable, Some(_)) => return Err(DefinitionError::UselessUndo(step.name.to_string())),
            _ => {}
        }
    }
    Ok(())
}

/// For each step, all steps that are surely done before it.
fn ancestors(steps: &[StepSpec]) -> Result<Vec<Vec<bool>>, DefinitionError> {
    let n = steps.len();
    let mut before = vec![vec![false; n]; n];
    for _ in 0..n {
        for at in 0..n {
            for &earlier in &steps[at].after {
                before[at][earlier] = true;
                let inherited = before[earlier].clone();
                before[at].iter_mut().zip(inherited).for_each(|(b, i)| *b |= i);
            }
        }
    }
    match (0..n).find(|&at| before[at][at]) {
        Some(at) => Err(DefinitionError::Cycle(steps[at].name.to_string())),
        None => Ok(before),
    }
}

/// `compensatable → at most one pivot → retriable`, along every path: whatever can still refuse runs before
/// whatever cannot be undone.
fn check_pivot(steps: &[StepSpec], before: &[Vec<bool>]) -> Result<(), DefinitionError> {
    let name = |at: usize| steps[at].name.to_string();
    let mut pivots = (0..steps.len()).filter(|&at| steps[at].kind == Kind::Pivot);
    let pivot = pivots.next();
    if let (Some(first), Some(second)) = (pivot, pivots.next()) {
        return Err(DefinitionError::TwoPivots { first: name(first), second: name(second) });
    }
    let pairs = || (0..steps.len()).flat_map(|at| (0..steps.len()).map(move |other| (at, other)));
    // The plainest mistake first: its other consequences would only confuse.
    let back = |&(at, other): &(usize, usize)| {
        steps[at].kind == Kind::Compensatable && steps[other].kind != Kind::Compensatable && before[at][other]
    };
    if let Some((at, other)) = pairs().find(back) {
        return Err(DefinitionError::CompensatableAfterPivot { step: name(at), after: name(other) });
    }
    for at in 0..steps.len() {
        for other in 0..steps.len() {
            let (kind, earlier) = (steps[at].kind, steps[other].kind);
            if kind == Kind::Pivot && earlier == Kind::Compensatable && !before[at][other] {
                return Err(DefinitionError::PivotTooEarly { pivot: name(at), step: name(other) });
            }
            if kind == Kind::Retriable && earlier != Kind::Retriable && !before[at][other] {
                return Err(DefinitionError::RetriableTooEarly { step: name(at), after: name(other) });
            }
            if kind == Kind::Pivot && earlier == Kind::Retriable && before[at][other] {
                return Err(DefinitionError::RetriableTooEarly { step: name(other), after: name(at) });
            }
        }
    }
    Ok(())
}

fn lawful(place: &str, name: &str) -> Result<Name, DefinitionError> {
    if Name::is_lawful(name) {
        Ok(Name::new(name))
    } else {
        Err(DefinitionError::BadName { place: place.to_owned(), name: name.to_owned() })
    }
}

fn policy(place: &str, base: RetryPolicy, layers: &[Option<&RetryDraft>]) -> Result<RetryPolicy, DefinitionError> {
    let mut policy = base;
    for draft in layers.iter().flatten() {
        if let Some(initial) = &draft.initial {
            policy.initial = duration(&format!("{place}.initial"), initial)?;
        }
        if let Some(max) = &draft.max {
            policy.max = duration(&format!("{place}.max"), max)?;
        }
        if let Some(factor) = draft.factor {
            if !(1.0..=100.0).contains(&factor) {
                return Err(bad(&format!("{place}.factor"), "must be between 1 and 100"));
            }
            policy.factor = factor;
        }
        policy.attempts = draft.attempts.unwrap_or(policy.attempts);
    }
    if policy.initial > policy.max {
        return Err(bad(place, "`initial` must not be more than `max`"));
    }
    Ok(policy)
}

/// Reads `250ms`, `10s`, `5m`, `2h`.
fn duration(place: &str, text: &str) -> Result<Millis, DefinitionError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad(place, &format!("{text:?} is not a duration; write 250ms, 10s, 5m or 2h"))),
    };
    match number.parse::<Millis>().ok().and_then(|n| n.checked_mul(scale)) {
        Some(ms @ 1..=LONGEST) => Ok(ms),
        _ => Err(bad(place, &format!("{text:?} is out of range; it must be from 1ms to a year"))),
    }
}

fn bad(place: &str, problem: &str) -> DefinitionError {
    DefinitionError::BadNumber { place: place.to_owned(), problem: problem.to_owned() }
}
