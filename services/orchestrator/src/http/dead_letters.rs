//! `/admin/dlq`: look at records that could not be handled, send them again, throw them away.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chassis::json::{Valid, ValidQuery};
use chassis::paging::Page;
use chassis::problem::{Code, Problem};
use chassis::time::rfc3339;
use garde::Validate;
use saga_core::Name;
use saga_runtime::dead_letters::{DeadLetter, RedriveError, Which, redrive as send_again};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::Sagas;

pub(super) async fn topics(State(sagas): State<Sagas>) -> Result<Response, Problem> {
    let topics = sagas.dead_letters.topics().await?;
    let items: Vec<Value> = topics
        .iter()
        .map(|t| json!({ "topic": t.topic, "count": t.count, "oldest_at": rfc3339(t.oldest_at) }))
        .collect();
    Ok(axum::Json(Page { items, next_page_token: None }).into_response())
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[garde(range(min = 1, max = 500))]
    limit: Option<u32>,
    /// The id of the last letter of the page before.
    #[garde(skip)]
    after: Option<u64>,
}

pub(super) async fn list(
    State(sagas): State<Sagas>,
    Path(topic): Path<String>,
    ValidQuery(query): ValidQuery<ListQuery>,
) -> Result<Response, Problem> {
    let letters = sagas.dead_letters.list(&Name::new(topic), query.after, query.limit.unwrap_or(50)).await?;
    let items: Vec<Value> = letters.iter().map(view).collect();
    Ok(axum::Json(json!({ "items": items })).into_response())
}

pub(super) async fn show(
    State(sagas): State<Sagas>,
    Path((topic, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let missing = || Problem::new(Code::NotFound, "there is no such dead letter");
    let id = id.parse().map_err(|_| missing())?;
    let letter = sagas.dead_letters.show(&Name::new(topic), id).await?.ok_or_else(missing)?;
    Ok(axum::Json(view(&letter)).into_response())
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    /// Which letters; all of the topic's when it is not given.
    #[garde(length(max = 1000))]
    ids: Option<Vec<u64>>,
    /// Why, for the log.
    #[garde(length(min = 1, max = 500))]
    reason: String,
}

impl Choice {
    fn which(self) -> Which {
        self.ids.map_or(Which::All, Which::Ids)
    }
}

pub(super) async fn redrive(
    State(sagas): State<Sagas>,
    Path(topic): Path<String>,
    Valid(choice): Valid<Choice>,
) -> Result<Response, Problem> {
    tracing::info!(topic, reason = choice.reason, "re-driving dead letters");
    let moved = send_again(&*sagas.dead_letters, &*sagas.bus, &Name::new(topic), choice.which()).await;
    let moved = moved.map_err(|error| match error {
        RedriveError::Store(error) => error.into(),
        RedriveError::Bus(error) => Problem::new(Code::DependencyUnavailable, error.to_string()),
    })?;
    Ok(axum::Json(json!({ "redriven": moved })).into_response())
}

pub(super) async fn purge(
    State(sagas): State<Sagas>,
    Path(topic): Path<String>,
    Valid(choice): Valid<Choice>,
) -> Result<Response, Problem> {
    tracing::info!(topic, reason = choice.reason, "purging dead letters");
    let purged = sagas.dead_letters.purge(&Name::new(topic), choice.which()).await?;
    Ok(axum::Json(json!({ "purged": purged })).into_response())
}

fn view(letter: &DeadLetter) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Map<String, Value> =
        letter.headers.iter().map(|(name, value)| (name.to_string(), text(value).into())).collect();
    json!({
        "id": letter.id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "at": rfc3339(letter.at),
        "attempts": letter.attempts,
        "reason": letter.reason,
        "key": text(&letter.key),
        "headers": headers,
        "payload": text(&letter.payload),
    })
}
