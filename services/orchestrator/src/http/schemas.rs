//! What the admin routes' answers look like, for the API's document: most of them are put together member by member, and
//! the engine's types, which know nothing of documents, are shown as they are.
#![expect(dead_code, reason = "describes")]

mod glance;

use std::collections::BTreeMap;

use saga_core::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub(super) use glance::{Overview, Participants};

/// How a saga stands.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum SagaStatus {
    Running,
    Compensating,
    Completed,
    Compensated,
    CompensationStuck,
    Stuck,
}

impl From<SagaStatus> for Status {
    fn from(status: SagaStatus) -> Self {
        match status {
            SagaStatus::Running => Status::Running,
            SagaStatus::Compensating => Status::Compensating,
            SagaStatus::Completed => Status::Completed,
            SagaStatus::Compensated => Status::Compensated,
            SagaStatus::CompensationStuck => Status::CompensationStuck,
            SagaStatus::Stuck => Status::Stuck,
        }
    }
}

/// How a saga stands; of one whose history cannot be replayed that it is set aside.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ShownStatus {
    Running,
    Compensating,
    Completed,
    Compensated,
    CompensationStuck,
    Stuck,
    Quarantined,
}

/// How a saga ends by an operator's hand.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ResolvedStatus {
    Completed,
    Compensated,
}

/// What an operator does to a saga.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(rename_all = "lowercase")]
pub(super) enum OperatorsVerb {
    /// Begins the attempts of what is stuck anew.
    Retry,
    /// Takes it back, where its pivot is not done.
    Cancel,
    /// Goes on as if the stuck step were done.
    Skip,
    /// Ends it as the operator says.
    Resolve,
}

impl OperatorsVerb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Skip => "skip",
            Self::Resolve => "resolve",
        }
    }
}

/// How many sagas of a definition are in a state.
#[derive(ToSchema)]
pub(super) struct SagaCountView {
    definition: String,
    status: SagaStatus,
    count: u64,
}

/// How many sagas there are.
#[derive(ToSchema)]
pub(super) struct SagaCounts {
    /// Without those of which there is none.
    items: Vec<SagaCountView>,
    /// Those that have not ended.
    in_flight: u64,
    /// Those of them that need a human.
    stuck: u64,
    #[schema(required = true, format = DateTime)]
    oldest_in_flight_at: Option<String>,
    /// When what has ended was counted.
    #[schema(format = DateTime)]
    as_of: String,
}

/// A saga that was not steered.
#[derive(ToSchema)]
pub(super) struct Refused {
    id: u64,
    definition: String,
    code: String,
    detail: String,
}

/// Of a dry run `matched`, `sample` and `filter`; of the order itself `matched`, `applied`, `refused_count` and `refused`.
#[derive(ToSchema)]
pub(super) struct BulkAnswer {
    matched: u64,
    /// The first 20.
    #[schema(required = false, nullable = false)]
    sample: Option<Vec<super::sagas::SagaView>>,
    /// As it was understood.
    #[schema(required = false, value_type = Object)]
    filter: Value,
    #[schema(required = false, nullable = false)]
    applied: Option<u64>,
    /// How many were not steered.
    #[schema(required = false, nullable = false)]
    refused_count: Option<u64>,
    /// The first 100 of them.
    #[schema(required = false, nullable = false)]
    refused: Option<Vec<Refused>>,
}

/// Why a saga is taken back.
#[derive(ToSchema)]
pub(super) struct SagaReason {
    code: String,
    detail: String,
}

/// One decision's events, written together.
#[derive(ToSchema)]
pub(super) struct Transition {
    /// Counts from 1.
    version: u64,
    #[schema(required = false, nullable = true, format = DateTime)]
    at: Option<String>,
    /// The events, for people.
    texts: Vec<String>,
    /// The events as they are kept: each an object with one member, named after what happened.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Value>,
}

/// A saga with its history. Of one that is quarantined only its name, its status and its history are known.
#[derive(ToSchema)]
pub(super) struct SagaDetail {
    id: u64,
    definition: String,
    #[schema(required = false, nullable = false)]
    definition_version: Option<u32>,
    /// Counts the transitions; an order names the one that the operator looked at.
    #[schema(required = false, nullable = false)]
    version: Option<u64>,
    status: ShownStatus,
    #[schema(required = false)]
    reason: Option<SagaReason>,
    /// As it was started.
    #[schema(required = false, value_type = Value)]
    input: Value,
    #[schema(required = false, nullable = false, format = DateTime)]
    started_at: Option<String>,
    #[schema(required = false, nullable = false, format = DateTime)]
    updated_at: Option<String>,
    /// What is awaited, as `step.op`; empty when nothing is.
    #[schema(required = false, nullable = false)]
    awaiting: Option<String>,
    /// When it acts by itself.
    #[schema(required = false, format = DateTime)]
    next_wake_at: Option<String>,
    /// When it is taken back, where its pivot is not done.
    #[schema(required = false, format = DateTime)]
    deadline_at: Option<String>,
    /// Of its trace, if it is traced.
    #[schema(required = false)]
    trace_id: Option<String>,
    /// In the definition's order; none where the definition is not there any more.
    #[schema(required = false, nullable = false)]
    steps: Option<Vec<SagaStep>>,
    history: Vec<Transition>,
    /// All of it, for people.
    #[schema(required = false, nullable = false)]
    text: Option<String>,
}

/// Where one direction of a step stands.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum LegState {
    /// It has not begun.
    Waiting,
    /// Its command is out.
    Running,
    /// It was answered with *not now*, and will be asked again.
    Delayed,
    /// A human is needed.
    Stuck,
    Done,
    /// Business said no.
    Refused,
    /// An operator said that it is dealt with.
    Skipped,
    /// It was given up without an answer, and is taken back.
    Unknown,
}

/// One direction of a step.
#[derive(ToSchema)]
pub(super) struct StepLeg {
    state: LegState,
    /// Of its commands.
    topic: String,
    /// When its command went out first.
    #[schema(required = true, format = DateTime)]
    sent_at: Option<String>,
    /// Sendings since it began, or since an operator began anew.
    attempts: u32,
    /// From the last sending until the participant began; by two clocks.
    #[schema(required = true)]
    queue_ms: Option<u64>,
    /// How long the participant was at it.
    #[schema(required = true)]
    run_ms: Option<u64>,
    #[schema(required = true, format = DateTime)]
    done_at: Option<String>,
    /// `done`, `refused`, `retry` or `skipped`.
    #[schema(required = true)]
    outcome: Option<String>,
    /// Of a refusal.
    #[schema(required = true)]
    code: Option<String>,
    #[schema(required = true)]
    detail: Option<String>,
    /// What it told.
    #[schema(required = true, value_type = Value)]
    output: Value,
}

/// A step of a saga, both ways.
#[derive(ToSchema)]
pub(super) struct SagaStep {
    name: String,
    kind: String,
    /// Which steps must be done before.
    after: Vec<String>,
    #[schema(rename = "do")]
    action: StepLeg,
    /// Null where there is no way back.
    #[schema(required = true)]
    undo: Option<StepLeg>,
}

/// Who said it to whom.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(super) enum MessageDirection {
    Command,
    Reply,
    Result,
}

/// A message of a saga.
#[derive(ToSchema)]
pub(super) struct SagaMessage {
    direction: MessageDirection,
    topic: String,
    key: String,
    headers: BTreeMap<String, String>,
    payload: String,
    #[schema(format = DateTime)]
    at: String,
    /// The transition that it belongs to.
    version: u64,
}

/// What a saga and its participants told each other.
#[derive(ToSchema)]
pub(super) struct SagaMessages {
    items: Vec<SagaMessage>,
}

/// A partition and which of its records can be looked at.
#[derive(ToSchema)]
pub(super) struct TopicPartition {
    partition: u32,
    /// The first of them.
    begin: u64,
    /// The next record that will be written.
    end: u64,
}

/// A topic.
#[derive(ToSchema)]
pub(super) struct TopicView {
    topic: String,
    partitions: Vec<TopicPartition>,
    /// Records that can be looked at.
    messages: u64,
}

/// The topics that there are.
#[derive(ToSchema)]
pub(super) struct Topics {
    items: Vec<TopicView>,
}

/// How a payload is shown.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(super) enum PayloadEncoding {
    Text,
    Base64,
}

/// A record.
#[derive(ToSchema)]
pub(super) struct Record {
    partition: u32,
    offset: u64,
    #[schema(required = true, format = DateTime)]
    at: Option<String>,
    key: String,
    headers: BTreeMap<String, String>,
    payload: String,
    encoding: PayloadEncoding,
    /// Whether the payload is longer than what is shown.
    truncated: bool,
}

/// Records of a topic, the newest first.
#[derive(ToSchema)]
pub(super) struct Records {
    items: Vec<Record>,
    /// Asks for older ones, of one partition.
    #[schema(required = true)]
    next_from: Option<u64>,
    /// Since when records are kept, where that is only while somebody looks.
    #[schema(required = true, format = DateTime)]
    kept_since: Option<String>,
}

/// A topic that has dead letters.
#[derive(ToSchema)]
pub(super) struct DeadLetterTopic {
    topic: String,
    count: u64,
    /// When the oldest was given up.
    #[schema(format = DateTime)]
    oldest_at: String,
}

/// A record that could not be handled.
#[derive(ToSchema)]
#[schema(as = DeadLetter)]
pub(super) struct DeadLetterView {
    id: u64,
    topic: String,
    partition: u32,
    offset: u64,
    /// When it was given up.
    #[schema(format = DateTime)]
    at: String,
    /// How often it was tried.
    attempts: u32,
    /// Why it was given up.
    reason: String,
    key: String,
    headers: BTreeMap<String, String>,
    payload: String,
}

/// A dead letter's number.
#[derive(ToSchema)]
#[schema(maximum = 9007199254740991_u64)]
pub(super) struct LetterId(u64);

/// Dead letters, oldest first.
#[derive(ToSchema)]
pub(super) struct DeadLetters {
    items: Vec<DeadLetterView>,
    /// Asks for the next page; absent on the last.
    #[schema(required = false, nullable = false)]
    next_page_token: Option<String>,
}

/// How many were sent again.
#[derive(ToSchema)]
pub(super) struct Redriven {
    redriven: u64,
}

/// How many were removed.
#[derive(ToSchema)]
pub(super) struct Purged {
    purged: u64,
}

/// How far each consumer group has read.
#[derive(ToSchema)]
pub(super) struct Groups {
    items: Vec<Group>,
}

/// A consumer group.
#[derive(ToSchema)]
pub(super) struct Group {
    group: String,
    members: Vec<String>,
    /// Records that it has not read.
    waiting: u64,
    places: Vec<Place>,
}

/// A partition and how far it was read.
#[derive(ToSchema)]
pub(super) struct Place {
    topic: String,
    partition: u32,
    waiting: u64,
    /// The number that the next record gets, where the bus counts.
    #[schema(required = false)]
    end: Option<u64>,
}

/// What a kind of saga does.
#[derive(ToSchema)]
pub(super) struct Definitions {
    items: Vec<super::DefinitionView>,
}
