//! What orchestrator and participants say to each other.
//!
//! These are the values; how they become records with headers is `saga_runtime::wire`,
//! and the whole is specified with test vectors in `docs/protocol.md`.

use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::key::{Name, Op, SagaKey};

/// Asks the orchestrator to start a saga. Sending it again is harmless: it makes the
/// orchestrator publish the saga's results again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The saga to start.
    pub saga: SagaKey,
    /// Handed to every step unread.
    pub input: Json,
}

/// Asks the orchestrator to cancel a saga; without effect once the pivot is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cancel {
    /// The saga to cancel.
    pub saga: SagaKey,
    /// Who asked, for the history.
    pub actor: String,
    /// Why, for the history.
    pub reason: String,
}

/// Tells a participant to do or undo one step. `(saga, step, op)` is the command's identity:
/// however often it is sent, it has one effect and one answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The saga that asks.
    pub saga: SagaKey,
    /// The version of the definition that the saga is pinned to.
    pub definition_version: u32,
    /// The step's name.
    pub step: Name,
    /// Do or undo.
    pub op: Op,
    /// 1 for the first sending. Not part of the identity.
    pub attempt: u32,
    /// The saga's input.
    pub input: Json,
    /// Outputs of the steps completed so far, by step name. An undo finds its own step's output here if it is known.
    pub outputs: Vec<(Name, Json)>,
    /// Why the saga is being compensated; only on undo.
    pub reason: Option<Refusal>,
    /// The topic to answer on.
    pub reply_to: Name,
}

impl Command {
    /// The output of an earlier step, if it completed.
    pub fn output(&self, step: &str) -> Option<&Json> {
        self.outputs.iter().find(|(name, _)| name == step).map(|(_, json)| json)
    }

    /// The answer to this command.
    pub fn reply(&self, outcome: Outcome) -> Reply {
        let Self { saga, step, op, attempt, .. } = self.clone();
        Reply { saga, step, op, attempt, outcome, work: None, repeated: false }
    }
}

/// A business no, as a value: a stable code and a sentence for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable, `snake_case`: `insufficient_stock`.
    pub code: String,
    /// For people; never parsed.
    pub detail: String,
}

impl Refusal {
    /// Makes a refusal.
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: code.into(), detail: detail.into() }
    }
}

/// What became of a command. One of four; only `Done` and `Refused` are final.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The effect is durable.
    Done(Json),
    /// Business said no; there is no effect and there will be none.
    Refused(Refusal),
    /// Nothing happened, try again (with the same identity).
    Retry(String),
    /// It may have happened; ask again (with the same identity).
    Unknown(String),
}

impl Outcome {
    /// Done with nothing to tell.
    pub fn done() -> Self {
        Outcome::Done(Json::null())
    }

    /// A refusal by code and sentence.
    pub fn refused(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Outcome::Refused(Refusal::new(code, detail))
    }

    /// Whether a participant must store this outcome and answer with it for ever.
    pub fn is_final(&self) -> bool {
        match self {
            Outcome::Done(_) | Outcome::Refused(_) => true,
            Outcome::Retry(_) | Outcome::Unknown(_) => false,
        }
    }
}

/// A participant's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The saga that asked.
    pub saga: SagaKey,
    /// The step that was asked for.
    pub step: Name,
    /// Do or undo.
    pub op: Op,
    /// The attempt that is being answered.
    pub attempt: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// When the participant was at it, if it says so. Nothing is decided by it.
    pub work: Option<Work>,
    /// Whether it was found and not worked for: the barrier had answered this command before. Counted where it is given; it
    /// does not travel.
    pub repeated: bool,
}

/// The same answer to the same question; not whether it had been given before.
impl PartialEq for Reply {
    fn eq(&self, other: &Self) -> bool {
        let Self { saga, step, op, attempt, outcome, work, repeated: _ } = self;
        (saga, step, op, attempt) == (&other.saga, &other.step, &other.op, &other.attempt)
            && (outcome, work) == (&other.outcome, &other.work)
    }
}

impl Eq for Reply {}

/// When a participant was at a command, by its own clock: for people, who want to know what waited and what worked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Work {
    /// When it began, in ms since the epoch.
    pub began: u64,
    /// How long it took, in ms.
    pub ms: u64,
}

/// How a step stands, as customers see it (the original's words).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ResultStatus {
    /// The command was sent.
    Execute,
    /// The participant committed.
    Success,
    /// The participant refused.
    Failed,
    /// The effect was taken back.
    Rollback,
    /// Taking it back failed for now; an operator was told.
    RollbackFailed,
}

impl ResultStatus {
    /// `EXECUTE`, `SUCCESS`, …
    pub fn as_str(self) -> &'static str {
        match self {
            ResultStatus::Execute => "EXECUTE",
            ResultStatus::Success => "SUCCESS",
            ResultStatus::Failed => "FAILED",
            ResultStatus::Rollback => "ROLLBACK",
            ResultStatus::RollbackFailed => "ROLLBACK_FAILED",
        }
    }
}

/// One line of what a customer sees. Per saga `seq` counts 1, 2, 3, … without gaps;
/// exactly one event, the last, is terminal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResultEvent {
    /// The saga's id.
    pub saga_id: u64,
    /// 1, 2, 3, … per saga.
    pub seq: u32,
    /// The step's name; in the terminal event, the definition's.
    pub step: Name,
    /// How it stands. Terminal: `SUCCESS` (all of it) or `ROLLBACK` (none of it).
    pub status: ResultStatus,
    /// Whether this is the last one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminal: bool,
    /// Why, where the status is a bad one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Refusal>,
    /// When, in ms since the epoch.
    pub at: u64,
}
