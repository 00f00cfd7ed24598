//! Protocol values as records: CloudEvents binary mode headers, JSON payload.
//!
//! Specified with test vectors in `docs/protocol.md`. Parsing trusts nothing: whatever is not exactly a known
//! message is [`Poison`] with the reason, and goes to a dead letter.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use saga_core::protocol::{Cancel, Command, Outcome, Refusal, Reply, ResultEvent, Start, Work};
use saga_core::{Json, Millis, Name, Op, SagaKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bus::{Header, Message};
use crate::retention::Watermark;

/// Asks to start a saga.
pub const START: &str = "saga.start.v1";
/// Asks to cancel a saga.
pub const CANCEL: &str = "saga.cancel.v1";
/// A command to a participant.
pub const COMMAND: &str = "saga.command.v1";
/// A participant's reply.
pub const REPLY: &str = "saga.reply.v1";
/// A result event for customers.
pub const RESULT: &str = "saga.result.v1";

/// Says that sagas are forgotten, and will not be asked for again.
pub const FORGET: &str = "saga.forget.v1";

/// Ids above this are corrupted by clients whose numbers are doubles (RFC 8259 §6).
pub const MAX_ID: u64 = (1 << 53) - 1;

/// What a start or a reply may carry, in bytes. Every command of a saga carries the start's payload and the outputs of the
/// steps before it: it must fit a record of the bus whatever its saga is made of.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// A record that is not a message of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Poison {
    /// A header that every message has is not there or is not text.
    #[error("header {0} is missing")]
    MissingHeader(&'static str),
    /// A header with a value that it cannot have.
    #[error("header {name} cannot be {value:?}")]
    BadHeader {
        /// Which one.
        name: &'static str,
        /// What it was, shortened.
        value: String,
    },
    /// `ce_type` names nothing that is known here.
    #[error("message type {0:?} is not known")]
    UnknownType(String),
    /// The payload is not the JSON that the type promises.
    #[error("payload is not a {kind}: {detail}")]
    BadPayload {
        /// The message's type.
        kind: &'static str,
        /// What the parser said.
        detail: String,
    },
    /// More than a saga may be made of.
    #[error("payload is {0} bytes long; at most {MAX_PAYLOAD} are taken")]
    TooLarge(usize),
    /// A known message, on a topic where it has no business.
    #[error("a {0} does not belong on this topic")]
    Misplaced(&'static str),
    /// The handler failed on it again and again.
    #[error("handling failed {attempts} times: {detail}")]
    Unhandled {
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        detail: String,
    },
}

/// A parsed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// `saga.start.v1`
    Start(Start),
    /// `saga.cancel.v1`
    Cancel(Cancel),
    /// `saga.command.v1`
    Command(Command),
    /// `saga.reply.v1`
    Reply(Reply),
    /// `saga.result.v1`
    Result {
        /// The definition of the saga that it is about.
        definition: Name,
        /// The event.
        event: ResultEvent,
    },
    /// `saga.forget.v1`
    Forget(Watermark),
}

#[derive(Serialize, Deserialize)]
struct CommandData {
    saga_id: u64,
    definition: Name,
    version: u32,
    step: Name,
    op: Op,
    input: Json,
    #[serde(default)]
    outputs: serde_json::Map<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Refusal>,
}

#[derive(Serialize)]
struct CommandOut<'a> {
    saga_id: u64,
    definition: &'a Name,
    version: u32,
    step: &'a Name,
    op: Op,
    input: &'a Json,
    #[serde(skip_serializing_if = "Outputs::is_empty")]
    outputs: Outputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a Refusal>,
}

struct Outputs<'a>(&'a [(Name, Json)]);

impl Outputs<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Outputs<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, json)| (name, json)))
    }
}

#[derive(Serialize, Deserialize)]
struct OutcomeData {
    outcome: OutcomeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum OutcomeKind {
    Done,
    Refused,
    Retry,
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct ForgetData {
    up_to: u64,
}

#[derive(Serialize, Deserialize)]
struct CancelData {
    actor: String,
    reason: String,
}

/// An outcome as the protocol's JSON, as it also stands in a barrier row.
pub fn outcome_to_json(outcome: &Outcome) -> String {
    let data = match outcome.clone() {
        Outcome::Done(output) => {
            let output = (output.as_str() != "null").then_some(output);
            OutcomeData { outcome: OutcomeKind::Done, output, code: None, detail: None }
        }
        Outcome::Refused(Refusal { code, detail }) => {
            OutcomeData { outcome: OutcomeKind::Refused, output: None, code: Some(code), detail: Some(detail) }
        }
        Outcome::Retry(detail) => {
            OutcomeData { outcome: OutcomeKind::Retry, output: None, code: None, detail: Some(detail) }
        }
        Outcome::Unknown(detail) => {
            OutcomeData { outcome: OutcomeKind::Unknown, output: None, code: None, detail: Some(detail) }
        }
    };
    to_json(&data)
}

/// The reverse of [`outcome_to_json`].
///
/// # Errors
/// When the text is not an outcome; a refusal needs a code.
pub fn outcome_from_json(text: &[u8]) -> Result<Outcome, Poison> {
    let bad = |detail: String| Poison::BadPayload { kind: REPLY, detail };
    let data: OutcomeData = serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?;
    Ok(match data.outcome {
        OutcomeKind::Done => Outcome::Done(data.output.unwrap_or_default()),
        OutcomeKind::Refused => {
            let code = data.code.ok_or_else(|| bad("a refusal needs a code".into()))?;
            Outcome::Refused(Refusal { code, detail: data.detail.unwrap_or_default() })
        }
        OutcomeKind::Retry => Outcome::Retry(data.detail.unwrap_or_default()),
        OutcomeKind::Unknown => Outcome::Unknown(data.detail.unwrap_or_default()),
    })
}

/// A record that asks to start a saga.
pub fn start_message(topic: &Name, start: &Start) -> Message {
    build(topic, START, &start.saga, "start", &[], start.input.as_str().to_owned())
}

/// A record that asks to cancel a saga.
pub fn cancel_message(topic: &Name, cancel: &Cancel) -> Message {
    let data = CancelData { actor: cancel.actor.clone(), reason: cancel.reason.clone() };
    build(topic, CANCEL, &cancel.saga, "cancel", &[], to_json(&data))
}

/// A record that carries a command.
pub fn command_message(topic: &Name, command: &Command) -> Message {
    let data = CommandOut {
        saga_id: command.saga.id,
        definition: &command.saga.definition,
        version: command.definition_version,
        step: &command.step,
        op: command.op,
        input: &command.input,
        outputs: Outputs(&command.outputs),
        reason: command.reason.as_ref(),
    };
    let attempt = command.attempt.to_string();
    let headers = [
        ("step", command.step.as_str()),
        ("op", command.op.as_str()),
        ("attempt", &attempt),
        ("reply_to", command.reply_to.as_str()),
    ];
    let subject = format!("{}.{}", command.step, command.op);
    build(topic, COMMAND, &command.saga, &subject, &headers, to_json(&data))
}

/// Says on a command when it was sent, in ms since the epoch: for measuring how long it waits. Nothing depends on it.
pub fn sent(mut command: Message, now: Millis) -> Message {
    command.headers.push((names::SENT_AT, Bytes::from(now.to_string())));
    command
}

/// When a message was sent, if it says so.
pub fn sent_at(message: &Message) -> Option<Millis> {
    message.header("sent_at")?.parse().ok()
}

/// A record that carries a reply.
pub fn reply_message(topic: &Name, reply: &Reply) -> Message {
    let attempt = reply.attempt.to_string();
    let headers = [("step", reply.step.as_str()), ("op", reply.op.as_str()), ("attempt", &attempt)];
    let subject = format!("{}.{}.reply", reply.step, reply.op);
    let mut message = build(topic, REPLY, &reply.saga, &subject, &headers, outcome_to_json(&reply.outcome));
    if let Some(Work { began, ms }) = reply.work {
        message.headers.push((names::BEGAN_AT, Bytes::from(began.to_string())));
        message.headers.push((names::RUN_MS, Bytes::from(ms.to_string())));
    }
    message
}

/// A record that carries a result event.
pub fn result_message(topic: &Name, definition: &Name, event: &ResultEvent) -> Message {
    let saga = SagaKey { definition: definition.clone(), id: event.saga_id };
    let mut subject = String::with_capacity(16);
    let _ = write!(subject, "result.{}", event.seq);
    build(topic, RESULT, &saga, &subject, &[], to_json(event))
}

/// A record that says that sagas are forgotten.
pub fn forget_message(topic: &Name, mark: &Watermark) -> Message {
    let saga = SagaKey { definition: mark.definition.clone(), id: mark.up_to };
    build(topic, FORGET, &saga, "forget", &[], to_json(&ForgetData { up_to: mark.up_to }))
}

/// Reads a record.
///
/// # Errors
/// [`Poison`] with the reason when it is not exactly a known message.
pub fn parse(message: &Message) -> Result<Inbound, Poison> {
    let kind = header(message, "ce_type")?;
    if header(message, "ce_specversion")? != "1.0" {
        return Err(bad_header(message, "ce_specversion"));
    }
    let length = message.payload.len();
    if kind != COMMAND && length > MAX_PAYLOAD {
        return Err(Poison::TooLarge(length));
    }
    match kind {
        START => {
            let input = payload(message, START)?;
            Ok(Inbound::Start(Start { saga: saga_key(message)?, input }))
        }
        CANCEL => {
            let CancelData { actor, reason } = payload(message, CANCEL)?;
            Ok(Inbound::Cancel(Cancel { saga: saga_key(message)?, actor, reason }))
        }
        COMMAND => parse_command(message).map(Inbound::Command),
        REPLY => Ok(Inbound::Reply(Reply {
            saga: saga_key(message)?,
            step: name(message, "step")?,
            op: op(message)?,
            attempt: attempt(message)?,
            outcome: outcome_from_json(&message.payload)?,
            work: work(message),
            repeated: false,
        })),
        RESULT => {
            let event: ResultEvent = payload(message, RESULT)?;
            let saga = saga_key(message)?;
            if saga.id != event.saga_id {
                return Err(bad_header(message, "saga_id"));
            }
            Ok(Inbound::Result { definition: saga.definition, event })
        }
        FORGET => {
            let ForgetData { up_to } = payload(message, FORGET)?;
            let SagaKey { definition, id } = saga_key(message)?;
            if id != up_to {
                return Err(bad_header(message, "saga_id"));
            }
            Ok(Inbound::Forget(Watermark { definition, up_to }))
        }
        other => Err(Poison::UnknownType(short(other))),
    }
}

fn parse_command(message: &Message) -> Result<Command, Poison> {
    let data: CommandData = payload(message, COMMAND)?;
    let saga = SagaKey { definition: data.definition, id: data.saga_id };
    if saga_key(message)? != saga {
        return Err(bad_header(message, "saga_id"));
    }
    if name(message, "step")? != data.step {
        return Err(bad_header(message, "step"));
    }
    let outputs = data
        .outputs
        .into_iter()
        .map(|(name, value)| Json::of(&value).map(|json| (Name::new(name), json)))
        .collect::<Result<_, _>>()
        .map_err(|e| Poison::BadPayload { kind: COMMAND, detail: e.to_string() })?;
    Ok(Command {
        saga,
        definition_version: data.version,
        step: data.step,
        op: data.op,
        attempt: attempt(message)?,
        input: data.input,
        outputs,
        reason: data.reason,
        reply_to: name(message, "reply_to")?,
    })
}

fn build(
    topic: &Name,
    kind: &'static str,
    saga: &SagaKey,
    subject: &str,
    extra: &[(&'static str, &str)],
    payload: String,
) -> Message {
    // All values are parts of one text: one allocation, however many there are.
    let definition = saga.definition.as_str();
    let length = definition.len() + 17 + subject.len() + extra.iter().map(|(_, value)| value.len()).sum::<usize>();
    let mut text = String::with_capacity(length);
    text.push_str(definition);
    let source = 0..text.len();
    let _ = write!(text, "{}", saga.id);
    let id = source.end..text.len();
    text.push('.');
    text.push_str(subject);
    let ce_id = source.end..text.len();
    extra.iter().for_each(|(_, value)| text.push_str(value));
    let text = Bytes::from(text);
    let key = text.slice(id);
    let mut headers: Vec<Header> = Vec::with_capacity(7 + extra.len());
    headers.push((names::CE_SPECVERSION, Bytes::from_static(b"1.0")));
    headers.push((names::CE_TYPE, Bytes::from_static(kind.as_bytes())));
    headers.push((names::CE_SOURCE, text.slice(source)));
    headers.push((names::CE_ID, text.slice(ce_id.clone())));
    headers.push((names::SAGA_ID, key.clone()));
    let mut from = ce_id.end;
    for (name, value) in extra {
        let to = from + value.len();
        headers.push((names::of(name), text.slice(from..to)));
        from = to;
    }
    Message { topic: topic.clone(), key, headers: headers.into(), payload: Bytes::from(payload) }
}

/// A header's name, borrowed if it is one of ours.
pub fn header_name(text: &str) -> Cow<'static, str> {
    names::of(text)
}

fn header<'m>(message: &'m Message, name: &'static str) -> Result<&'m str, Poison> {
    message.header(name).ok_or(Poison::MissingHeader(name))
}

fn bad_header(message: &Message, name: &'static str) -> Poison {
    Poison::BadHeader { name, value: short(message.header(name).unwrap_or_default()) }
}

fn saga_key(message: &Message) -> Result<SagaKey, Poison> {
    let definition = name(message, "ce_source")?;
    let id = header(message, "saga_id")?.parse::<u64>().ok().filter(|id| *id <= MAX_ID);
    Ok(SagaKey::new(definition, id.ok_or_else(|| bad_header(message, "saga_id"))?))
}

/// A name that no definition can have is no message's either: not every database could even be asked for it.
fn name(message: &Message, header_name: &'static str) -> Result<Name, Poison> {
    let text = header(message, header_name)?;
    if Name::is_lawful(text) { Ok(Name::new(text)) } else { Err(bad_header(message, header_name)) }
}

fn op(message: &Message) -> Result<Op, Poison> {
    match header(message, "op")? {
        "do" => Ok(Op::Do),
        "undo" => Ok(Op::Undo),
        _ => Err(bad_header(message, "op")),
    }
}

fn attempt(message: &Message) -> Result<u32, Poison> {
    header(message, "attempt")?.parse().map_err(|_| bad_header(message, "attempt"))
}

/// Both or none; what cannot be is not there, because nothing is decided by it.
fn work(message: &Message) -> Option<Work> {
    let number = |name| message.header(name)?.parse::<u64>().ok().filter(|number| *number <= MAX_ID);
    Some(Work { began: number("began_at")?, ms: number("run_ms")? })
}

fn payload<'m, T: Deserialize<'m>>(message: &'m Message, kind: &'static str) -> Result<T, Poison> {
    serde_json::from_slice(&message.payload).map_err(|e| Poison::BadPayload { kind, detail: short(&e.to_string()) })
}

fn to_json<T: Serialize>(value: &T) -> String {
    // Our own wire types have string keys and no failing serializer; `null` would be refused by every parser here.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Header names, made once.
mod names {
    use std::borrow::Cow;

    macro_rules! names {
        ($($id:ident = $text:literal),* $(,)?) => {
            $(pub(super) const $id: Cow<'static, str> = Cow::Borrowed($text);)*
            pub(super) fn of(text: &str) -> Cow<'static, str> {
                match text {
                    $($text => $id,)*
                    other => Cow::Owned(other.to_owned()),
                }
            }
        };
    }

    names! {
        CE_SPECVERSION = "ce_specversion", CE_TYPE = "ce_type", CE_SOURCE = "ce_source", CE_ID = "ce_id",
        SAGA_ID = "saga_id", STEP = "step", OP = "op", ATTEMPT = "attempt", REPLY_TO = "reply_to",
        SENT_AT = "sent_at",
        BEGAN_AT = "began_at", RUN_MS = "run_ms",
    }
}
