//! `/admin/sagas`: list, show, watch, steer.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chassis::audit::{self, Ended};
use chassis::json::{PathId, Valid, ValidQuery};
use chassis::paging::{Page, decode_token};
use chassis::problem::{Code, Problem};
use chassis::time::rfc3339;
use futures_util::Stream;
use garde::Validate;
use saga_core::render::event_text;
use saga_core::{Name, Rejection, SagaKey, Status, Verb};
use saga_runtime::OperateError;
use saga_runtime::store::{ListPlace, SagaFilter, SagaRow};
use saga_runtime::wire::MAX_ID;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::filter::{Wanted, invalid, statuses};
use super::{Operator, actor, schemas};
use crate::app::{Counts, Sagas};

/// How often a watched saga is read: a person does not see more.
const WATCH_EVERY: Duration = Duration::from_millis(250);

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// One state or several, with commas.
    #[garde(length(chars, max = 200))]
    #[param(max_length = 200, nullable = false)]
    state: Option<String>,
    /// A definition's name.
    #[garde(length(chars, max = 100))]
    #[param(max_length = 100, nullable = false)]
    definition: Option<String>,
    /// What is awaited.
    #[garde(length(chars, max = 100))]
    #[param(max_length = 100, nullable = false)]
    step: Option<String>,
    /// Not changed for this many seconds.
    #[garde(range(max = 1_000_000_000))]
    #[param(maximum = 1_000_000_000, nullable = false)]
    older_than: Option<u64>,
    /// Started at this moment or later (RFC 3339).
    #[garde(length(chars, max = 40))]
    #[param(max_length = 40, nullable = false, format = DateTime)]
    started_after: Option<String>,
    /// Started before this moment.
    #[garde(length(chars, max = 40))]
    #[param(max_length = 40, nullable = false, format = DateTime)]
    started_before: Option<String>,
    /// An id.
    #[garde(range(max = MAX_ID))]
    #[param(maximum = 9007199254740991_u64, nullable = false)]
    q: Option<u64>,
    /// How many; 50 when it is not given.
    #[garde(range(min = 1, max = 500))]
    #[param(minimum = 1, maximum = 500, nullable = false)]
    limit: Option<u32>,
    /// The page before told it as `next_page_token`; without one: the first page.
    #[garde(length(chars, max = 200))]
    #[param(max_length = 200, nullable = false)]
    page_token: Option<String>,
}

/// A saga in a list.
#[derive(Serialize, ToSchema)]
#[schema(as = Saga)]
pub(super) struct SagaView {
    id: u64,
    definition: String,
    definition_version: u32,
    version: u64,
    #[schema(value_type = schemas::SagaStatus)]
    status: Status,
    /// Which steps' answers, with commas.
    awaiting: String,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(format = DateTime)]
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

/// A page of sagas; those that started last first.
#[utoipa::path(
    get, path = "/admin/sagas", operation_id = "listSagas", tag = "sagas",
    params(ListQuery),
    responses((status = 200, description = "A page.", body = Page<SagaView>)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn list(
    State(sagas): State<Sagas>,
    ValidQuery(query): ValidQuery<ListQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(50);
    let wanted = Wanted {
        at: "#",
        statuses: statuses(query.state.as_deref(), "#/state")?,
        definition: query.definition.as_deref(),
        step: query.step.as_deref(),
        older_than: query.older_than,
        started_after: query.started_after.as_deref(),
        started_before: query.started_before.as_deref(),
        ids: query.q.into_iter().collect(),
    };
    let before: Option<ListPlace> = query.page_token.as_deref().map(decode_token).transpose()?;
    let filter = SagaFilter { before, limit: limit + 1, ..wanted.filter(sagas.now())? };
    let rows = sagas.list(filter).await?;
    let page = Page::of(rows, limit, |row| (row.started_at, row.key.clone()), |row| SagaView::from(&row));
    Ok(axum::Json(page).into_response())
}

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CountsQuery {
    /// A definition's name.
    #[garde(length(chars, max = 100))]
    #[param(max_length = 100, nullable = false)]
    definition: Option<String>,
    /// One state or several, with commas.
    #[garde(length(chars, max = 200))]
    #[param(max_length = 200, nullable = false)]
    state: Option<String>,
}

/// How many sagas there are.
///
/// What is in flight is counted now; what has ended was counted at `as_of`, some seconds ago at most.
#[utoipa::path(
    get, path = "/admin/sagas/counts", operation_id = "countSagas", tag = "sagas",
    params(CountsQuery),
    responses((status = 200, description = "By definition and state.", body = schemas::SagaCounts)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn counts(
    State(sagas): State<Sagas>,
    ValidQuery(query): ValidQuery<CountsQuery>,
) -> Result<Response, Problem> {
    let wanted = statuses(query.state.as_deref(), "#/state")?;
    let counts = sagas.counts().await?;
    Ok(axum::Json(counts_view(&counts, query.definition.as_deref(), &wanted)).into_response())
}

/// Of one definition, or of all.
pub(super) fn counts_view(counts: &Counts, definition: Option<&str>, wanted: &[Status]) -> Value {
    let ours = |name: &Name| definition.is_none_or(|wanted| name == wanted);
    let open = || counts.open.iter().filter(|open| ours(&open.definition));
    let ended = counts.ended.iter().filter(|ended| ours(&ended.definition));
    let items: Vec<Value> = open()
        .map(|open| (&open.definition, open.status, open.count))
        .chain(ended.map(|ended| (&ended.definition, ended.status, ended.count)))
        .filter(|(_, status, _)| wanted.is_empty() || wanted.contains(status))
        .map(|(definition, status, count)| json!({ "definition": definition, "status": status, "count": count }))
        .collect();
    json!({
        "items": items,
        "in_flight": open().map(|count| count.count).sum::<u64>(),
        "stuck": open().filter(|count| count.status.is_stuck()).map(|count| count.count).sum::<u64>(),
        "oldest_in_flight_at": open().map(|open| open.oldest_at).min().map(rfc3339),
        "as_of": rfc3339(counts.as_of),
    })
}

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeyQuery {
    /// The definition; `purchase` when it is not named.
    #[garde(length(chars, max = 100))]
    #[param(max_length = 100, nullable = false)]
    definition: Option<String>,
}

impl KeyQuery {
    pub(super) fn key(&self, id: u64) -> SagaKey {
        SagaKey::new(self.definition.as_deref().unwrap_or("purchase"), id)
    }
}

pub(super) fn not_found(key: &SagaKey) -> Problem {
    Problem::new(Code::NotFound, format!("there is no saga {key}"))
}

/// Why there is no such saga: it never was, or it is no longer kept.
pub(super) async fn missing(sagas: &Sagas, key: &SagaKey) -> Result<Problem, Problem> {
    Ok(match sagas.forgotten(key).await? {
        Some(up_to) => {
            let detail = format!(
                "if there was a saga {key}, it has ended and was removed: those of {} are forgotten up to {up_to} \
                 (`retention.saga_days`); what it led to is still with the services",
                key.definition
            );
            Problem::new(Code::NotFound, detail)
        }
        None => not_found(key),
    })
}

/// An operator's order.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Order, example = json!({ "reason": "the gateway is back", "version": 7 }))]
pub(super) struct Order {
    /// Why; it is kept in the saga's history.
    #[garde(length(chars, min = 1, max = 500), custom(audit::says_why))]
    #[schema(min_length = 1, max_length = 500, pattern = r"\S")]
    reason: String,
    /// Compare-and-set: the version that the operator looked at.
    #[garde(inner(range(max = MAX_ID)))]
    #[schema(maximum = 9007199254740991_u64)]
    version: Option<u64>,
    /// For `resolve`: `COMPLETED` or `COMPENSATED`.
    #[garde(skip)]
    #[schema(value_type = Option<schemas::ResolvedStatus>)]
    status: Option<Status>,
}

/// Steers a saga.
///
/// With a `version` it is a compare-and-set: whoever looked at an older one is told so. Without one `retry`, `skip` and
/// `resolve` are for stuck sagas only, so the second of two who order the same is told `conflict`.
#[utoipa::path(
    post, path = "/admin/sagas/{id}/{verb}", operation_id = "steerSaga", tag = "sagas",
    params(
        ("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64),
        ("verb" = inline(schemas::OperatorsVerb), Path),
        KeyQuery,
    ),
    request_body = Order,
    responses((status = 200, description = "As it stands now.", body = SagaView)),
    security(("bearer" = ["operator"])),
    extensions(("x-problems" = json!(["conflict"]))),
)]
pub(super) async fn operate(
    State(sagas): State<Sagas>,
    path: Result<Path<(String, String)>, PathRejection>,
    ValidQuery(query): ValidQuery<KeyQuery>,
    operator: Option<Extension<Operator>>,
    Valid(order): Valid<Order>,
) -> Result<Response, Problem> {
    let missing = || Problem::new(Code::NotFound, "there is no such saga");
    let Path((id, verb)) = path.map_err(|_| missing())?;
    let id = id.parse().ok().filter(|id| *id <= MAX_ID).ok_or_else(missing)?;
    let Order { reason, version, status } = order;
    let (word, key) = (verb, query.key(id));
    let verb = self::verb(&word, status)?;
    let actor = actor(operator);
    let line = audit::Order {
        actor: actor.clone(),
        action: format!("saga.{word}"),
        target: key.to_string(),
        reason: reason.clone(),
        details: json!({ "expected_version": version, "status": status }),
    };
    let work = async {
        let row = sagas.operate(key, verb, actor, reason, version).await.map_err(problem)?;
        let details = json!({ "version": row.version, "now": row.status });
        Ok(Ended::Changed { answer: SagaView::from(&row), details })
    };
    let view = audit::audited(&*sagas.audit, &*sagas.clock, line, work).await?;
    Ok((StatusCode::OK, axum::Json(view)).into_response())
}

/// What an operator's word means.
pub(super) fn verb(word: &str, status: Option<Status>) -> Result<Verb, Problem> {
    match (word, status) {
        ("retry", None) => Ok(Verb::Retry),
        ("cancel", None) => Ok(Verb::Cancel),
        ("skip", None) => Ok(Verb::Skip),
        ("resolve", Some(status)) if status.is_terminal() => Ok(Verb::Resolve(status)),
        ("resolve", _) => Err(invalid("#/status", "must be COMPLETED or COMPENSATED".to_owned())),
        ("retry" | "cancel" | "skip", Some(_)) => Err(invalid("#/status", "only `resolve` takes a status".to_owned())),
        _ => Err(Problem::new(Code::NotFound, "the verbs are retry, cancel, skip and resolve")),
    }
}

pub(super) fn problem(error: OperateError) -> Problem {
    let detail = error.to_string();
    match error {
        OperateError::Unsure(error) => {
            let mut problem = problem(*error);
            problem.detail = detail;
            problem.unsure()
        }
        OperateError::Store(error) => error.into(),
        OperateError::Stopped => Problem::new(Code::DependencyUnavailable, detail),
        OperateError::Rejected(Rejection::UnknownSaga(key)) => not_found(&key),
        OperateError::Rejected(Rejection::NotTerminal { .. }) => invalid("#/status", detail),
        OperateError::Rejected(Rejection::StaleVersion { .. }) => Problem::overtaken(detail),
        OperateError::Rejected(Rejection::TooLate { status }) if status.is_terminal() => Problem::overtaken(detail),
        OperateError::Rejected(_) | OperateError::Contended => Problem::new(Code::Conflict, detail),
    }
}

/// A saga's transitions so far and as they happen (server-sent events, WHATWG), until it is terminal.
///
/// `id` is the transition's number, `event` is `transition`, `data` a `Transition`.
#[utoipa::path(
    get, path = "/admin/sagas/{id}/events", operation_id = "watchSaga", tag = "sagas",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64), KeyQuery),
    responses((status = 200, description = "The stream.", body = String, content_type = "text/event-stream")),
    security(("bearer" = ["viewer"])),
)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_for_certain_that_nothing_was_changed_is_told_the_same_as_who_is_not() {
        let key = SagaKey::new("purchase", 7);
        for (rejection, code) in [
            (Rejection::UnknownSaga(key), Code::NotFound),
            (Rejection::StaleVersion { expected: 1, actual: 2 }, Code::Conflict),
            (Rejection::UnderWay { status: Status::Running }, Code::Conflict),
        ] {
            let sure = problem(rejection.clone().into());
            assert!(sure.code == code && sure.changed_nothing(), "{sure:?}");
            let unsure = problem(OperateError::Unsure(Box::new(rejection.into())));
            assert!(unsure.code == code && !unsure.changed_nothing() && !unsure.is_overtaken(), "{unsure:?}");
            assert!(unsure.detail.contains("perhaps by this order"), "{unsure:?}");
        }
        let contended = problem(OperateError::Unsure(Box::new(OperateError::Contended)));
        assert!(contended.code == Code::Conflict && !contended.changed_nothing(), "{contended:?}");
    }
}
