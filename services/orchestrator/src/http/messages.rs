//! `/admin/topics`: who has read how far, which topics there are, and what is in them. Looking takes nothing.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chassis::json::ValidQuery;
use chassis::problem::{Code, Problem};
use chassis::time::rfc3339;
use garde::Validate;
use saga_runtime::BusError;
use saga_runtime::bus::{GroupReading, Header, PartitionExtent, Peek, PeekedRecord, PlaceReading, TopicExtent};
use saga_runtime::wire::MAX_ID;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::dead_letters::Topic;
use super::schemas;
use crate::app::Sagas;

/// The most of a payload that is shown, in bytes.
const SHOWN: usize = 64 << 10;

/// How far each consumer group has read.
#[utoipa::path(
    get, path = "/admin/topics", operation_id = "listGroups", tag = "messages",
    responses((status = 200, description = "The groups.", body = schemas::Groups)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn groups(State(sagas): State<Sagas>) -> Result<axum::Json<Value>, Problem> {
    let groups = sagas.bus.reading().await.map_err(problem)?;
    let view = |group: &GroupReading| {
        let place = |place: &PlaceReading| {
            json!({
                "topic": place.topic, "partition": place.partition, "waiting": place.waiting, "end": place.end,
            })
        };
        let waiting: u64 = group.places.iter().map(|place| place.waiting).sum();
        let places: Vec<Value> = group.places.iter().map(place).collect();
        json!({ "group": group.group, "members": group.members, "waiting": waiting, "places": places })
    };
    Ok(axum::Json(json!({ "items": groups.iter().map(view).collect::<Vec<_>>() })))
}

/// The topics that there are, and how many records can be looked at.
#[utoipa::path(
    get, path = "/admin/topics/list", operation_id = "listTopics", tag = "messages",
    responses((status = 200, description = "The topics, by name.", body = schemas::Topics)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn list(State(sagas): State<Sagas>) -> Result<axum::Json<Value>, Problem> {
    let topics = sagas.bus.extents().await.map_err(problem)?;
    let view = |TopicExtent { topic, partitions }: &TopicExtent| {
        let place = |PartitionExtent { partition, begin, end }: &PartitionExtent| json!({ "partition": partition, "begin": begin, "end": end });
        let messages: u64 = partitions.iter().map(|place| place.end.saturating_sub(place.begin)).sum();
        let places: Vec<Value> = partitions.iter().map(place).collect();
        json!({ "topic": topic, "partitions": places, "messages": messages })
    };
    Ok(axum::Json(json!({ "items": topics.iter().map(view).collect::<Vec<_>>() })))
}

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PeekQuery {
    /// Only of this partition.
    #[garde(range(max = 1_000_000))]
    #[param(maximum = 1_000_000, nullable = false)]
    partition: Option<u32>,
    /// Only this record and older ones; with a partition.
    #[garde(range(max = MAX_ID))]
    #[param(maximum = 9007199254740991_u64, nullable = false)]
    from: Option<u64>,
    /// Only with this key: a saga's id.
    #[garde(length(chars, max = 200))]
    #[param(max_length = 200, nullable = false)]
    key: Option<String>,
    /// How many; 50 when it is not given.
    #[garde(range(min = 1, max = 200))]
    #[param(minimum = 1, maximum = 200, nullable = false)]
    limit: Option<u32>,
}

/// Records of a topic, the newest first.
///
/// Nothing is taken and nothing is committed. `next_from` is there when a partition is named. A bus in process keeps records
/// only while somebody looks: `kept_since` says since when.
#[utoipa::path(
    get, path = "/admin/topics/{topic}/messages", operation_id = "listMessages", tag = "messages",
    params(("topic" = String, Path, pattern = "^[a-zA-Z0-9._-]{1,200}$"), PeekQuery),
    responses((status = 200, description = "The records.", body = schemas::Records)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn peek(
    State(sagas): State<Sagas>,
    Topic(topic): Topic,
    ValidQuery(query): ValidQuery<PeekQuery>,
) -> Result<Response, Problem> {
    let PeekQuery { partition, from, key, limit } = query;
    if from.is_some() && partition.is_none() {
        let detail = "needs a partition: each counts its own records".to_owned();
        return Err(super::filter::invalid("#/from", detail));
    }
    let limit = limit.unwrap_or(50) as usize;
    let peek = Peek { topic, partition, from, key: key.map(Bytes::from), limit };
    let found = sagas.bus.peek(peek).await.map_err(problem)?;
    let items: Vec<Value> = found.records.iter().map(record_view).collect();
    let answer = json!({
        "items": items, "next_from": found.next_from, "kept_since": found.kept_since.map(rfc3339),
    });
    Ok(axum::Json(answer).into_response())
}

fn record_view(record: &PeekedRecord) -> Value {
    let PeekedRecord { partition, offset, at, message } = record;
    let shown = &message.payload[..message.payload.len().min(SHOWN)];
    // What is cut may end amid a character.
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&shown[..error.valid_up_to()]).ok(),
        Err(_) => None,
    };
    json!({
        "partition": partition,
        "offset": offset,
        "at": at.map(rfc3339),
        "key": record_text(&message.key),
        "headers": record_headers(&message.headers),
        "payload": text.map_or_else(|| BASE64.encode(shown), str::to_owned),
        "encoding": if text.is_some() { "text" } else { "base64" },
        "truncated": message.payload.len() > SHOWN,
    })
}

/// Bytes as a person reads them.
pub(super) fn record_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn record_headers(headers: &[Header]) -> Map<String, Value> {
    headers.iter().map(|(name, value)| (name.to_string(), record_text(value).into())).collect()
}

fn problem(error: BusError) -> Problem {
    match error {
        BusError::UnknownTopic(topic) => Problem::new(Code::NotFound, format!("there is no topic {topic}")),
        error => Problem::new(Code::DependencyUnavailable, error.to_string()),
    }
}
