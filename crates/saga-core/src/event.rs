//! What is written and lives for years: keyed by step **name** and definition version, never by position.
//!
//! A field may be added with a default; nothing is ever renamed or removed. Stored histories in
//! `tests/histories/` replay in every build: that is the compatibility gate.

use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::key::{Millis, Name, Op};
use crate::protocol::{Refusal, Work};
use crate::state::Status;

/// Something that happened to a saga. `at` is ms since the epoch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The saga exists.
    Started {
        /// The definition's version that the saga is pinned to.
        definition_version: u32,
        /// Handed to every step.
        input: Json,
        /// When the saga is compensated if the pivot is not done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Millis>,
        /// The trace that the start belongs to, as W3C `traceparent`. Carried unread.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<Name>,
        /// When.
        at: Millis,
    },
    /// A do command was sent for the first time.
    StepStarted {
        /// Which step.
        step: Name,
        /// When it is sent again.
        due: Millis,
        /// When.
        at: Millis,
    },
    /// The participant committed.
    StepCompleted {
        /// Which step.
        step: Name,
        /// What it told.
        #[serde(default, skip_serializing_if = "is_null")]
        output: Json,
        /// When the participant was at it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        work: Option<Work>,
        /// When.
        at: Millis,
    },
    /// The participant said no.
    StepRefused {
        /// Which step.
        step: Name,
        /// Why.
        refusal: Refusal,
        /// When the participant was at it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        work: Option<Work>,
        /// When.
        at: Millis,
    },
    /// The participant could not say yes or no; it is asked again later.
    StepDelayed {
        /// Which step.
        step: Name,
        /// Do or undo.
        op: Op,
        /// Why.
        detail: String,
        /// When it is sent again.
        due: Millis,
        /// When the participant was at it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        work: Option<Work>,
        /// When.
        at: Millis,
    },
    /// The same command was sent again.
    StepRepeated {
        /// Which step.
        step: Name,
        /// Do or undo.
        op: Op,
        /// The sending's number.
        attempt: u32,
        /// When it is sent again.
        due: Millis,
        /// When.
        at: Millis,
    },
    /// No more sendings are allowed; a human is needed.
    StepStuck {
        /// Which step.
        step: Name,
        /// Do or undo.
        op: Op,
        /// Why.
        detail: String,
        /// When.
        at: Millis,
    },
    /// From here on everything is taken back.
    CompensationBegun {
        /// Why.
        reason: Refusal,
        /// When.
        at: Millis,
    },
    /// An undo command was sent for the first time.
    UndoStarted {
        /// Which step.
        step: Name,
        /// When it is sent again.
        due: Millis,
        /// When.
        at: Millis,
    },
    /// The participant took the effect back (or there was none).
    StepUndone {
        /// Which step.
        step: Name,
        /// When the participant was at it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        work: Option<Work>,
        /// When.
        at: Millis,
    },
    /// Somebody asked to cancel; compensation follows.
    Cancelled {
        /// Who.
        actor: String,
        /// Why.
        reason: String,
        /// When.
        at: Millis,
    },
    /// An operator asked to try again now; repeats follow.
    Retried {
        /// Who.
        actor: String,
        /// Why.
        reason: String,
        /// When.
        at: Millis,
    },
    /// An operator declared a stuck step dealt with.
    Skipped {
        /// Which step.
        step: Name,
        /// Do or undo.
        op: Op,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
        /// When.
        at: Millis,
    },
    /// An operator ended a stuck saga by hand.
    Resolved {
        /// `COMPLETED` or `COMPENSATED`.
        status: Status,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
        /// When.
        at: Millis,
    },
    /// Every step is done.
    Completed {
        /// When.
        at: Millis,
    },
    /// Everything is taken back.
    Compensated {
        /// When.
        at: Millis,
    },
}

impl Event {
    /// When it happened, in ms since the epoch.
    pub fn at(&self) -> Millis {
        match self {
            Event::Started { at, .. }
            | Event::StepStarted { at, .. }
            | Event::StepCompleted { at, .. }
            | Event::StepRefused { at, .. }
            | Event::StepDelayed { at, .. }
            | Event::StepRepeated { at, .. }
            | Event::StepStuck { at, .. }
            | Event::CompensationBegun { at, .. }
            | Event::UndoStarted { at, .. }
            | Event::StepUndone { at, .. }
            | Event::Cancelled { at, .. }
            | Event::Retried { at, .. }
            | Event::Skipped { at, .. }
            | Event::Resolved { at, .. }
            | Event::Completed { at }
            | Event::Compensated { at } => *at,
        }
    }
}

fn is_null(json: &Json) -> bool {
    json.as_str() == "null"
}
