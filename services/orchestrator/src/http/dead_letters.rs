//! `/admin/dlq`: look at records that could not be handled, send them again, throw them away.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use chassis::audit::{Ended, Order, audited, says_why};
use chassis::json::{Valid, ValidQuery};
use chassis::paging::{Page, decode_token};
use chassis::problem::{Code, Problem};
use chassis::time::rfc3339;
use garde::Validate;
use saga_core::Name;
use saga_runtime::dead_letters::{DeadLetter, RedriveError, Which, redrive as send_again};
use saga_runtime::wire::MAX_ID;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{Operator, actor, schemas};
use crate::app::Sagas;

/// The `{topic}` of a path. Whatever no topic is called like names nothing: `not_found`.
pub(super) struct Topic(pub(super) Name);

impl<S: Send + Sync> FromRequestParts<S> for Topic {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let topic = found.ok().and_then(|Path(mut all)| all.remove("topic"));
        let lawful = |text: &String| {
            (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let topic = topic.filter(lawful);
        topic.map(|text| Topic(Name::new(text))).ok_or_else(|| Problem::new(Code::NotFound, "there is no such topic"))
    }
}

/// The topics that have dead letters.
#[utoipa::path(
    get, path = "/admin/dlq", operation_id = "listDeadLetterTopics", tag = "dead letters",
    responses((status = 200, description = "The topics.", body = Page<schemas::DeadLetterTopic>)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn topics(State(sagas): State<Sagas>) -> Result<Response, Problem> {
    let topics = sagas.dead_letters.topics().await?;
    let items: Vec<Value> = topics
        .iter()
        .map(|t| json!({ "topic": t.topic, "count": t.count, "oldest_at": rfc3339(t.oldest_at) }))
        .collect();
    Ok(axum::Json(Page { items, next_page_token: None }).into_response())
}

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many; 50 when it is not given.
    #[garde(range(min = 1, max = 500))]
    #[param(minimum = 1, maximum = 500, nullable = false)]
    limit: Option<u32>,
    /// The id of the last letter of the page before.
    #[garde(range(max = MAX_ID))]
    #[param(maximum = 9007199254740991_u64, nullable = false)]
    after: Option<u64>,
    /// The page before told it as `next_page_token`; without one: the first page.
    #[garde(length(chars, max = 200))]
    #[param(max_length = 200, nullable = false)]
    page_token: Option<String>,
}

/// The dead letters of a topic.
#[utoipa::path(
    get, path = "/admin/dlq/{topic}", operation_id = "listDeadLetters", tag = "dead letters",
    params(
        ("topic" = String, Path, pattern = "^[a-zA-Z0-9._-]{1,200}$", description = "Where the records came from."),
        ListQuery,
    ),
    responses((status = 200, description = "The letters.", body = schemas::DeadLetters)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn list(
    State(sagas): State<Sagas>,
    Topic(topic): Topic,
    ValidQuery(query): ValidQuery<ListQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(50);
    let after: Option<u64> = query.page_token.as_deref().map(decode_token).transpose()?;
    let letters = sagas.dead_letters.list(&topic, after.or(query.after), limit + 1).await?;
    let page = Page::of(letters, limit, |letter| letter.id, |letter| view(&letter));
    Ok(axum::Json(page).into_response())
}

/// A dead letter.
#[utoipa::path(
    get, path = "/admin/dlq/{topic}/{id}", operation_id = "getDeadLetter", tag = "dead letters",
    params(
        ("topic" = String, Path, pattern = "^[a-zA-Z0-9._-]{1,200}$", description = "Where the records came from."),
        ("id" = u64, Path, maximum = 9007199254740991_u64),
    ),
    responses((status = 200, description = "The letter.", body = schemas::DeadLetterView)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn show(
    State(sagas): State<Sagas>,
    Topic(topic): Topic,
    Path(path): Path<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let missing = || Problem::new(Code::NotFound, "there is no such dead letter");
    let id = path.get("id").and_then(|id| id.parse().ok()).filter(|id| *id <= MAX_ID).ok_or_else(missing)?;
    let letter = sagas.dead_letters.show(&topic, id).await?.ok_or_else(missing)?;
    Ok(axum::Json(view(&letter)).into_response())
}

/// Which dead letters, and why.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeadLetterChoice, example = json!({ "ids": [7, 8], "reason": "the product is there now" }))]
pub(super) struct Choice {
    /// Which letters; all of the topic's when it is not given.
    #[garde(inner(length(max = 1000), inner(range(max = MAX_ID))))]
    #[schema(max_items = 1000, value_type = Option<Vec<schemas::LetterId>>)]
    ids: Option<Vec<u64>>,
    /// Why, for the audit log.
    #[garde(length(chars, min = 1, max = 500), custom(says_why))]
    #[schema(min_length = 1, max_length = 500, pattern = r"\S")]
    reason: String,
}

impl Choice {
    fn order(&self, action: &str, topic: &Name, operator: Option<Extension<Operator>>) -> Order {
        Order {
            actor: actor(operator),
            action: action.to_owned(),
            target: topic.to_string(),
            reason: self.reason.clone(),
            details: json!({ "ids": self.ids }),
        }
    }

    fn which(self) -> Which {
        self.ids.map_or(Which::All, Which::Ids)
    }
}

/// Sends dead letters again to where they came from.
#[utoipa::path(
    post, path = "/admin/dlq/{topic}/redrive", operation_id = "redriveDeadLetters", tag = "dead letters",
    params(("topic" = String, Path, pattern = "^[a-zA-Z0-9._-]{1,200}$", description = "Where the records came from.")),
    request_body = Choice,
    responses((status = 200, description = "They are on their way.", body = schemas::Redriven)),
    security(("bearer" = ["operator"])),
)]
pub(super) async fn redrive(
    State(sagas): State<Sagas>,
    Topic(topic): Topic,
    operator: Option<Extension<Operator>>,
    Valid(choice): Valid<Choice>,
) -> Result<Response, Problem> {
    let order = choice.order("dlq.redrive", &topic, operator);
    let work = async {
        // One at a time: what one has sent again the other does not find any more.
        let _one = sagas.moving_letters.lock().await;
        let moved = send_again(&*sagas.dead_letters, &*sagas.bus, &topic, choice.which()).await;
        let moved = moved.map_err(|error| match error {
            RedriveError::Store(error) => error.into(),
            RedriveError::Bus(error) => Problem::new(Code::DependencyUnavailable, error.to_string()),
        })?;
        Ok(counted("redriven", moved))
    };
    let answer = audited(&*sagas.audit, &*sagas.clock, order, work).await?;
    Ok(axum::Json(answer).into_response())
}

/// Removes dead letters for good.
#[utoipa::path(
    post, path = "/admin/dlq/{topic}/purge", operation_id = "purgeDeadLetters", tag = "dead letters",
    params(("topic" = String, Path, pattern = "^[a-zA-Z0-9._-]{1,200}$", description = "Where the records came from.")),
    request_body = Choice,
    responses((status = 200, description = "They are gone.", body = schemas::Purged)),
    security(("bearer" = ["operator"])),
)]
pub(super) async fn purge(
    State(sagas): State<Sagas>,
    Topic(topic): Topic,
    operator: Option<Extension<Operator>>,
    Valid(choice): Valid<Choice>,
) -> Result<Response, Problem> {
    let order = choice.order("dlq.purge", &topic, operator);
    let work = async {
        let _one = sagas.moving_letters.lock().await;
        let purged = sagas.dead_letters.purge(&topic, choice.which()).await?;
        Ok(counted("purged", purged))
    };
    let answer = audited(&*sagas.audit, &*sagas.clock, order, work).await?;
    Ok(axum::Json(answer).into_response())
}

/// Of none, as of those that somebody else has dealt with before: nothing was changed.
fn counted(done: &str, count: u64) -> Ended<Value> {
    let answer = json!({ done: count });
    if count == 0 { Ended::Nothing(answer) } else { Ended::Changed { details: answer.clone(), answer } }
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
