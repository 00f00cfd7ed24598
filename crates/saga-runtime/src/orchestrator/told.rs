//! A saga's messages as records, long after the topics have forgotten them: put together from its history by the same
//! hands that sent them.

use saga_core::told::{What, told};
use saga_core::{Definition, Effect, Event, Millis, Name, ReplayError, SagaKey, replay};

use super::traced::sent_by;
use crate::bus::Message;
use crate::trace::TraceContext;
use crate::trace::units::mark;
use crate::wire;

/// Who said it to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The orchestrator to a participant.
    Command,
    /// A participant to the orchestrator.
    Reply,
    /// The orchestrator to customers.
    Result,
}

impl Direction {
    /// `command`, `reply`, `result`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Reply => "reply",
            Self::Result => "result",
        }
    }
}

/// A record of a saga's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToldMessage {
    /// The transition that it belongs to.
    pub version: u64,
    /// When that was, in ms since the epoch.
    pub at: Millis,
    /// Who said it to whom.
    pub direction: Direction,
    /// The record. A participant's has no `traceparent`: that is not kept. A command's `sent_at` is the transition's moment.
    pub message: Message,
}

/// All of a saga's messages that are in its history, in order; see [`saga_core::told`] for those that are not.
///
/// # Errors
/// When no engine can have written the history.
pub fn told_messages(
    definition: &Definition,
    key: &SagaKey,
    history: &[Vec<Event>],
) -> Result<Vec<ToldMessage>, ReplayError> {
    let slices = || history.iter().map(Vec::as_slice);
    let trace = replay(key, slices())?.trace;
    let trace = trace.as_ref().map(Name::as_str).and_then(TraceContext::parse);
    let all = told(definition, key, slices())?.into_iter().map(|one| {
        let (direction, mut message) = match &one.what {
            What::Answered(reply) => (Direction::Reply, wire::reply_message(&definition.reply_topic, reply)),
            What::Sent(Effect::SendCommand { topic, command }) => {
                (Direction::Command, wire::sent(wire::command_message(topic, command), one.at))
            }
            What::Sent(Effect::PublishResult(event)) => {
                (Direction::Result, wire::result_message(&definition.result_topic, &definition.name, event))
            }
        };
        if let (Some(trace), What::Sent(effect)) = (trace, &one.what) {
            mark(&mut message, sent_by(trace, definition, effect));
        }
        ToldMessage { version: one.version, at: one.at, direction, message }
    });
    Ok(all.collect())
}
