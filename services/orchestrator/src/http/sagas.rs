//! `/admin/sagas`: list, show, watch, steer.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chassis::json::{PathId, Valid, ValidQuery};
use chassis::paging::{Page, decode_token, encode_token};
use chassis::problem::{Code, Problem};
use chassis::time::rfc3339;
use futures_util::Stream;
use garde::Validate;
use saga_core::render::{event_text, saga_text};
use saga_core::{Name, Rejection, SagaKey, Status, Verb};
use saga_runtime::OperateError;
use saga_runtime::store::{SagaFilter, SagaRow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Operator;
use crate::app::{Detail, Sagas};

/// How often a watched saga is read: a person does not see more.
const WATCH_EVERY: Duration = Duration::from_millis(250);

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// One state or several, with commas.
    #[garde(length(max = 200))]
    state: Option<String>,
    #[garde(length(max = 100))]
    definition: Option<String>,
    #[garde(length(max = 100))]
    step: Option<String>,
    /// Not changed for this many seconds.
    #[garde(range(max = 1_000_000_000))]
    older_than: Option<u64>,
    /// An id.
    #[garde(skip)]
    q: Option<u64>,
    #[garde(range(min = 1, max = 500))]
    limit: Option<u32>,
    #[garde(length(max = 200))]
    page_token: Option<String>,
}

#[derive(Serialize)]
struct SagaView {
    id: u64,
    definition: String,
    definition_version: u32,
    version: u64,
    status: Status,
    awaiting: String,
    started_at: String,
    updated_at: String,
}

impl From<&SagaRow> for SagaView {
    fn from(row: &SagaRow) -> Self {
        Self {
            id: row.key.id,
            definition: row.key.definition.to_string(),
            definition_version: row.definition_version,
            version: row.version,
            status: row.status,
            awaiting: row.awaiting.clone(),
            started_at: rfc3339(row.started_at),
            updated_at: rfc3339(row.updated_at),
        }
    }
}

pub(super) async fn list(
    State(sagas): State<Sagas>,
    ValidQuery(query): ValidQuery<ListQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(50);
    let now = sagas.now();
    let filter = SagaFilter {
        statuses: statuses(query.state.as_deref())?,
        definition: query.definition.as_deref().map(Name::new),
        step: query.step.as_deref().map(Name::new),
        updated_before: query.older_than.map(|s| now.saturating_sub(s * 1_000)),
        id: query.q,
        before: query.page_token.as_deref().map(page_key).transpose()?,
        limit: limit + 1,
    };
    let mut rows = sagas.list(filter).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let token = rows.last().filter(|_| more).map(|row| encode_token(&row.key));
    let page = Page { items: rows.iter().map(SagaView::from).collect::<Vec<_>>(), next_page_token: token };
    Ok(axum::Json(page).into_response())
}

fn statuses(text: Option<&str>) -> Result<Vec<Status>, Problem> {
    let words = text.unwrap_or_default().split(',').filter(|w| !w.is_empty());
    words
        .map(|word| {
            Status::from_text(word).ok_or_else(|| {
                let known = Status::ALL.map(Status::as_str).join(", ");
                invalid("#/state", format!("{word:?} is not a state; the states are {known}"))
            })
        })
        .collect()
}

fn page_key(token: &str) -> Result<SagaKey, Problem> {
    decode_token(token)
}

fn invalid(pointer: &str, detail: String) -> Problem {
    Problem::new(Code::ValidationError, "the request is not valid").with_errors(vec![(pointer.to_owned(), detail)])
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyQuery {
    /// The definition; `purchase` when it is not named.
    #[garde(length(max = 100))]
    definition: Option<String>,
}

impl KeyQuery {
    fn key(&self, id: u64) -> SagaKey {
        SagaKey::new(self.definition.as_deref().unwrap_or("purchase"), id)
    }
}

pub(super) async fn show(
    State(sagas): State<Sagas>,
    PathId(id): PathId,
    ValidQuery(query): ValidQuery<KeyQuery>,
) -> Result<Response, Problem> {
    let key = query.key(id);
    let detail = sagas.show(&key).await?.ok_or_else(|| not_found(&key))?;
    Ok(axum::Json(detail_view(&key, &detail)).into_response())
}

fn not_found(key: &SagaKey) -> Problem {
    Problem::new(Code::NotFound, format!("there is no saga {key}"))
}

fn detail_view(key: &SagaKey, detail: &Detail) -> Value {
    let history: Vec<Value> = (1_u64..)
        .zip(&detail.history)
        .map(|(version, events)| {
            let texts: Vec<String> = events.iter().map(event_text).collect();
            json!({ "version": version, "at": events.first().map(|e| rfc3339(e.at())), "texts": texts, "events": events })
        })
        .collect();
    match &detail.saga {
        None => json!({ "id": key.id, "definition": key.definition, "status": "QUARANTINED", "history": history }),
        Some(saga) => json!({
            "id": key.id,
            "definition": key.definition,
            "definition_version": saga.definition_version,
            "version": saga.version,
            "status": saga.status,
            "reason": saga.reason,
            "input": saga.input,
            "started_at": rfc3339(saga.started_at),
            "updated_at": rfc3339(saga.updated_at),
            "history": history,
            "text": saga_text(saga, detail.history.iter().map(Vec::as_slice)),
        }),
    }
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Why; it is kept in the saga's history.
    #[garde(length(min = 1, max = 500))]
    reason: String,
    /// Compare-and-set: the version that the operator looked at.
    #[garde(skip)]
    version: Option<u64>,
    /// For `resolve`: `COMPLETED` or `COMPENSATED`.
    #[garde(skip)]
    status: Option<Status>,
}

pub(super) async fn operate(
    State(sagas): State<Sagas>,
    Path((id, verb)): Path<(String, String)>,
    ValidQuery(query): ValidQuery<KeyQuery>,
    operator: Option<Extension<Operator>>,
    Valid(order): Valid<Order>,
) -> Result<Response, Problem> {
    let id: u64 = id.parse().map_err(|_| Problem::new(Code::NotFound, "there is no such saga"))?;
    let verb = match (verb.as_str(), order.status) {
        ("retry", None) => Verb::Retry,
        ("cancel", None) => Verb::Cancel,
        ("skip", None) => Verb::Skip,
        ("resolve", Some(status)) => Verb::Resolve(status),
        ("resolve", None) => return Err(invalid("#/status", "must be COMPLETED or COMPENSATED".to_owned())),
        ("retry" | "cancel" | "skip", Some(_)) => {
            return Err(invalid("#/status", "only `resolve` takes a status".to_owned()));
        }
        _ => return Err(Problem::new(Code::NotFound, "the verbs are retry, cancel, skip and resolve")),
    };
    let actor = operator.map_or_else(|| "operator".to_owned(), |Extension(Operator(name))| name);
    let row = sagas.operate(query.key(id), verb, actor, order.reason, order.version).await.map_err(problem)?;
    Ok((StatusCode::OK, axum::Json(SagaView::from(&row))).into_response())
}

fn problem(error: OperateError) -> Problem {
    let detail = error.to_string();
    match error {
        OperateError::Store(error) => error.into(),
        OperateError::Stopped => Problem::new(Code::DependencyUnavailable, detail),
        OperateError::Rejected(Rejection::UnknownSaga(key)) => not_found(&key),
        OperateError::Rejected(Rejection::NotTerminal { .. }) => invalid("#/status", detail),
        OperateError::Rejected(_) => Problem::new(Code::Conflict, detail),
    }
}

pub(super) async fn events(
    State(sagas): State<Sagas>,
    PathId(id): PathId,
    ValidQuery(query): ValidQuery<KeyQuery>,
) -> Result<Response, Problem> {
    let key = query.key(id);
    sagas.show(&key).await?.ok_or_else(|| not_found(&key))?;
    Ok(Sse::new(watch(sagas, key)).keep_alive(KeepAlive::default()).into_response())
}

/// The history so far, then each new transition, until the saga is terminal.
fn watch(sagas: Sagas, key: SagaKey) -> impl Stream<Item = Result<SseEvent, Infallible>> + Send {
    futures_util::stream::unfold((sagas, key, 0_usize, false), |(sagas, key, seen, done)| async move {
        if done {
            return None;
        }
        loop {
            let detail = sagas.show(&key).await.ok().flatten()?;
            if detail.history.len() > seen {
                let version = seen + 1;
                let events = &detail.history[seen];
                let texts: Vec<String> = events.iter().map(event_text).collect();
                let data = json!({ "version": version, "texts": texts, "events": events });
                let last = version == detail.history.len();
                let done = last && detail.saga.is_none_or(|s| s.status.is_terminal());
                let event = SseEvent::default().id(version.to_string()).event("transition").data(data.to_string());
                return Some((Ok(event), (sagas, key, version, done)));
            }
            sagas.sleep(WATCH_EVERY).await;
        }
    })
}
