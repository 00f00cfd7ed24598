//! Definitions: what a saga does, as data that was checked.
//!
//! A definition comes from a YAML file ([`Definition::from_yaml`]) or from the [`builder`](Definition::builder);
//! both pass the same checks, so a [`Definition`] that exists can always finish. What it lacks on purpose:
//! code. Steps are topics and policies; what they do is the participants' business.

mod check;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::key::{Millis, Name};
use crate::retry::RetryPolicy;

/// What a step is to the saga's point of no return.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Can be undone.
    Compensatable,
    /// Decides: once it is done the saga goes only forward. At most one.
    Pivot,
    /// After the pivot; is repeated until it succeeds.
    Retriable,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Compensatable => "compensatable",
            Kind::Pivot => "pivot",
            Kind::Retriable => "retriable",
        })
    }
}

/// One step.
#[derive(Clone, PartialEq, Debug)]
pub struct StepSpec {
    /// Unique in the definition; histories are keyed by it.
    pub name: Name,
    /// See [`Kind`].
    pub kind: Kind,
    /// Topic of the do command.
    pub action: Name,
    /// Topic of the undo command. Every compensatable step has one; a pivot may (it is used while its outcome is unknown).
    pub undo: Option<Name>,
    /// Indices of the steps that must be done first.
    pub after: Vec<usize>,
    /// How long an answer may take before the command is sent again, in ms.
    pub timeout: Millis,
    /// How a do is repeated. Zero attempts: for ever.
    pub retry: RetryPolicy,
    /// How an undo is repeated. Zero attempts: for ever.
    pub undo_retry: RetryPolicy,
}

/// A named, versioned plan for a saga that passed all checks.
#[derive(Clone, PartialEq, Debug)]
pub struct Definition {
    /// Names the definition; part of every saga's key.
    pub name: Name,
    /// Sagas are pinned to the version that they started with.
    pub version: u32,
    /// In the file's order.
    pub steps: Vec<StepSpec>,
    /// How long after its start the saga is compensated if the pivot is not done, in ms.
    pub deadline: Option<Millis>,
    /// Where a saga is asked for.
    pub start_topic: Name,
    /// Where participants answer.
    pub reply_topic: Name,
    /// Where result events are published.
    pub result_topic: Name,
}

impl Definition {
    /// Reads a definition file.
    ///
    /// # Errors
    /// What is wrong and where: YAML shape, unknown keys, or a broken rule.
    pub fn from_yaml(text: &str) -> Result<Self, DefinitionError> {
        let draft: Draft = serde_norway::from_str(text).map_err(|e| DefinitionError::Yaml(e.to_string()))?;
        check::check(draft)
    }

    /// Starts a definition in code. `start`, `reply` and `result` topics default to `<name>`, `reply`, `<name>-result`.
    pub fn builder(name: &str, version: u32) -> Builder {
        Builder {
            draft: Draft {
                saga: name.to_owned(),
                version,
                deadline: None,
                topics: Topics::default(),
                timeout: None,
                retry: None,
                undo_retry: None,
                steps: Vec::new(),
            },
        }
    }

    /// The position of a step.
    pub fn index(&self, step: &str) -> Option<usize> {
        self.steps.iter().position(|s| s.name == step)
    }

    /// The position of the pivot.
    pub fn pivot(&self) -> Option<usize> {
        self.steps.iter().position(|s| s.kind == Kind::Pivot)
    }

    /// Every topic that the definition uses, each once: start, reply, result, then the commands'.
    pub fn topics(&self) -> Vec<Name> {
        let mut topics = vec![self.start_topic.clone(), self.reply_topic.clone(), self.result_topic.clone()];
        for step in &self.steps {
            topics.extend([Some(step.action.clone()), step.undo.clone()].into_iter().flatten());
        }
        let mut seen = std::collections::HashSet::new();
        topics.retain(|t| seen.insert(t.clone()));
        topics
    }
}

/// Why a definition is refused. Each message names the step and what to change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DefinitionError {
    /// Not YAML of this shape.
    #[error("cannot be read: {0}")]
    Yaml(String),
    /// No step at all.
    #[error("steps: a saga needs at least one step")]
    NoSteps,
    /// A version of zero.
    #[error("version: must be 1 or more")]
    NoVersion,
    /// A name or topic that is not `a-z 0-9 - _ .`, up to 100 characters.
    #[error("{place}: {name:?} is not a lawful name (a–z, 0–9, '-', '_', '.', up to 100 characters)")]
    BadName {
        /// Which key.
        place: String,
        /// What it says.
        name: String,
    },
    /// Two steps of one name.
    #[error("step {0}: the name is used twice")]
    DuplicateStep(String),
    /// A second pivot.
    #[error("step {second}: a saga has at most one pivot, and {first} is one already")]
    TwoPivots {
        /// The first pivot.
        first: String,
        /// The second.
        second: String,
    },
    /// A compensatable step that runs after the pivot, or after a retriable step.
    #[error(
        "step {step}: nothing compensatable can come after {after}, which cannot be undone: make it retriable or move it before"
    )]
    CompensatableAfterPivot {
        /// The step.
        step: String,
        /// The step before it.
        after: String,
    },
    /// A pivot that does not wait for every compensatable step.
    #[error(
        "step {pivot}: the pivot must come after every compensatable step, but not after {step}: add it to `after`"
    )]
    PivotTooEarly {
        /// The pivot.
        pivot: String,
        /// The step that it does not wait for.
        step: String,
    },
    /// A retriable step that could run before the outcome is decided.
    #[error("step {step}: a retriable step must come after {after}, which can still refuse: add it to `after`")]
    RetriableTooEarly {
        /// The retriable step.
        step: String,
        /// The step that it does not wait for.
        after: String,
    },
    /// A compensatable step without undo.
    #[error("step {0}: a compensatable step needs an `undo`")]
    MissingUndo(String),
    /// A retriable step with undo.
    #[error("step {0}: a retriable step is never undone: remove its `undo`")]
    UselessUndo(String),
    /// `after` names a step that is not there.
    #[error("step {step}: `after` names {unknown:?}, which is not a step")]
    UnknownAfter {
        /// The step.
        step: String,
        /// The name that is not known.
        unknown: String,
    },
    /// Steps that wait for each other.
    #[error("step {0}: it waits for itself through its `after`")]
    Cycle(String),
    /// A duration that is not one, or out of range.
    #[error("{place}: {problem}")]
    BadNumber {
        /// Which key.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A deadline in a definition in which nothing can be compensated.
    #[error("deadline: after the pivot a saga only goes forward, and this one has nothing before it to compensate")]
    UselessDeadline,
}

/// A definition as written, not yet checked: exactly the file's keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    saga: String,
    version: u32,
    #[serde(default)]
    deadline: Option<String>,
    #[serde(default)]
    topics: Topics,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    retry: Option<RetryDraft>,
    #[serde(default)]
    undo_retry: Option<RetryDraft>,
    steps: Vec<StepDraft>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topics {
    start: Option<String>,
    reply: Option<String>,
    result: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDraft {
    step: String,
    kind: Option<Kind>,
    #[serde(rename = "do")]
    action: Option<String>,
    undo: Option<String>,
    after: Option<Vec<String>>,
    timeout: Option<String>,
    retry: Option<RetryDraft>,
    undo_retry: Option<RetryDraft>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryDraft {
    initial: Option<String>,
    max: Option<String>,
    factor: Option<f64>,
    attempts: Option<u32>,
}

/// Builds a definition in code; the same checks as for a file.
#[derive(Clone, Debug)]
pub struct Builder {
    draft: Draft,
}

impl Builder {
    /// Compensate a saga that has not passed its pivot after this long, in ms.
    pub fn deadline(mut self, after: Millis) -> Self {
        self.draft.deadline = Some(format!("{after}ms"));
        self
    }

    /// The topics for starts, replies and results.
    pub fn topics(mut self, start: &str, reply: &str, result: &str) -> Self {
        self.draft.topics =
            Topics { start: Some(start.into()), reply: Some(reply.into()), result: Some(result.into()) };
        self
    }

    /// The default timeout of the steps, in ms.
    pub fn timeout(mut self, after: Millis) -> Self {
        self.draft.timeout = Some(format!("{after}ms"));
        self
    }

    /// The default retry policies of do and undo.
    pub fn retry(mut self, action: RetryPolicy, undo: RetryPolicy) -> Self {
        self.draft.retry = Some(draft_of(action));
        self.draft.undo_retry = Some(draft_of(undo));
        self
    }

    /// A step that can be undone.
    pub fn compensatable(self, name: &str, action: &str, undo: &str) -> Self {
        self.step(name, Kind::Compensatable, action, Some(undo))
    }

    /// The step that decides; `undo` voids it while its outcome is unknown.
    pub fn pivot(self, name: &str, action: &str, undo: Option<&str>) -> Self {
        self.step(name, Kind::Pivot, action, undo)
    }

    /// A step after the pivot.
    pub fn retriable(self, name: &str, action: &str) -> Self {
        self.step(name, Kind::Retriable, action, None)
    }

    fn step(mut self, name: &str, kind: Kind, action: &str, undo: Option<&str>) -> Self {
        self.draft.steps.push(StepDraft {
            step: name.into(),
            kind: Some(kind),
            action: Some(action.into()),
            undo: undo.map(Into::into),
            ..StepDraft::default()
        });
        self
    }

    /// Makes the step added last wait for these instead of for the one before it.
    pub fn after(mut self, steps: &[&str]) -> Self {
        if let Some(last) = self.draft.steps.last_mut() {
            last.after = Some(steps.iter().map(|s| (*s).to_owned()).collect());
        }
        self
    }

    /// Checks and finishes.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn build(self) -> Result<Definition, DefinitionError> {
        check::check(self.draft)
    }
}

fn draft_of(policy: RetryPolicy) -> RetryDraft {
    RetryDraft {
        initial: Some(format!("{}ms", policy.initial)),
        max: Some(format!("{}ms", policy.max)),
        factor: Some(policy.factor),
        attempts: Some(policy.attempts),
    }
}
