//! `/admin/sagas/{id}`: one saga, whole: how it stands, its steps, its history, its messages.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::json::{PathId, ValidQuery};
use chassis::problem::{Code, Problem};
use chassis::time::rfc3339;
use saga_core::progress::{Leg, Standing, StepProgress, progress};
use saga_core::render::{event_text, saga_text};
use saga_core::{Definition, Json, Name, Saga, SagaKey};
use saga_runtime::orchestrator::{ToldMessage, told_messages};
use serde_json::{Map, Value, json};

use super::messages::{record_headers, record_text};
use super::sagas::{KeyQuery, missing};
use super::schemas;
use crate::app::{Detail, Sagas};

/// A saga with its steps and its whole history.
#[utoipa::path(
    get, path = "/admin/sagas/{id}", operation_id = "getSaga", tag = "sagas",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64), KeyQuery),
    responses((status = 200, description = "The saga.", body = schemas::SagaDetail)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn show(
    State(sagas): State<Sagas>,
    PathId(id): PathId,
    ValidQuery(query): ValidQuery<KeyQuery>,
) -> Result<Response, Problem> {
    let key = query.key(id);
    let Some(detail) = sagas.show(&key).await? else { return Err(missing(&sagas, &key).await?) };
    let version = detail.saga.as_ref().map(|saga| saga.definition_version);
    let definition = version.and_then(|version| sagas.definitions().version(&key.definition, version));
    Ok(axum::Json(view(&key, &detail, definition.map(AsRef::as_ref))).into_response())
}

/// What a saga and its participants told each other.
///
/// Put together from the history, so it is there long after the topics have forgotten it; sendings after a restart and
/// answers that came too late are in no history.
#[utoipa::path(
    get, path = "/admin/sagas/{id}/messages", operation_id = "listSagaMessages", tag = "sagas",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64), KeyQuery),
    responses((status = 200, description = "The messages, oldest first.", body = schemas::SagaMessages)),
    security(("bearer" = ["viewer"])),
    extensions(("x-problems" = json!(["conflict"]))),
)]
pub(super) async fn messages(
    State(sagas): State<Sagas>,
    PathId(id): PathId,
    ValidQuery(query): ValidQuery<KeyQuery>,
) -> Result<Response, Problem> {
    let key = query.key(id);
    let Some(detail) = sagas.show(&key).await? else { return Err(missing(&sagas, &key).await?) };
    let quarantined = || Problem::new(Code::Conflict, format!("{key} is quarantined: its history cannot be replayed"));
    let saga = detail.saga.as_ref().ok_or_else(quarantined)?;
    let version = saga.definition_version;
    let definition = sagas.definitions().version(&key.definition, version).ok_or_else(|| {
        let detail =
            format!("there is no definition {} version {version} any more: add its file again", key.definition);
        Problem::new(Code::Conflict, detail)
    })?;
    let told = told_messages(definition, &key, &detail.history).map_err(|_| quarantined())?;
    let items: Vec<Value> = told.iter().map(message_view).collect();
    Ok(axum::Json(json!({ "items": items })).into_response())
}

fn message_view(told: &ToldMessage) -> Value {
    let ToldMessage { version, at, direction, message } = told;
    json!({
        "direction": direction.as_str(),
        "topic": message.topic,
        "key": record_text(&message.key),
        "headers": record_headers(&message.headers),
        "payload": record_text(&message.payload),
        "at": rfc3339(*at),
        "version": version,
    })
}

fn view(key: &SagaKey, detail: &Detail, definition: Option<&Definition>) -> Value {
    let history: Vec<Value> = (1_u64..)
        .zip(&detail.history)
        .map(|(version, events)| {
            let texts: Vec<String> = events.iter().map(event_text).collect();
            json!({ "version": version, "at": events.first().map(|e| rfc3339(e.at())), "texts": texts, "events": events })
        })
        .collect();
    let Some(saga) = &detail.saga else {
        return json!({ "id": key.id, "definition": key.definition, "status": "QUARANTINED", "history": history });
    };
    let steps = definition.map(|definition| progress(definition, detail.history.iter().flatten()));
    let steps: Vec<Value> = steps.iter().flatten().map(step_view).collect();
    let mut view = json!({
        "id": key.id,
        "definition": key.definition,
        "definition_version": saga.definition_version,
        "version": saga.version,
        "status": saga.status,
        "reason": saga.reason,
        "input": saga.input,
        "started_at": rfc3339(saga.started_at),
        "updated_at": rfc3339(saga.updated_at),
        "steps": steps,
        "history": history,
        "text": saga_text(saga, detail.history.iter().map(Vec::as_slice)),
    });
    if let Some(members) = view.as_object_mut() {
        members.extend(outlook(saga));
    }
    view
}

/// What is to come, and where else to look.
fn outlook(saga: &Saga) -> Map<String, Value> {
    let awaited = saga.awaited().filter(|_| !saga.status.is_terminal());
    let awaiting = awaited.map(|(step, op)| format!("{step}.{op}")).unwrap_or_default();
    let next = saga.wake_at().map(rfc3339);
    // `00-<trace id>-<span id>-<flags>` (W3C Trace Context).
    let trace = saga.trace.as_ref().and_then(|trace: &Name| trace.as_str().split('-').nth(1));
    let members = [
        ("awaiting", Value::from(awaiting)),
        ("next_wake_at", next.into()),
        ("deadline_at", saga.deadline.map(rfc3339).into()),
        ("trace_id", trace.into()),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn step_view(step: &StepProgress) -> Value {
    json!({
        "name": step.name,
        "kind": step.kind.to_string(),
        "after": step.after,
        "do": leg_view(&step.action),
        "undo": step.undo.as_ref().map(leg_view),
    })
}

fn leg_view(leg: &Leg) -> Value {
    let outcome = match leg.standing {
        Standing::Done => Some("done"),
        Standing::Refused => Some("refused"),
        Standing::Delayed => Some("retry"),
        Standing::Skipped => Some("skipped"),
        Standing::Waiting | Standing::Running | Standing::Stuck | Standing::Unknown => None,
    };
    json!({
        "state": leg.standing.as_str(),
        "topic": leg.topic,
        "sent_at": leg.sent_at.map(rfc3339),
        "attempts": leg.attempts,
        "queue_ms": leg.queue_ms(),
        "run_ms": leg.run_ms(),
        "done_at": leg.done_at.map(rfc3339),
        "outcome": outcome,
        "code": leg.code,
        "detail": leg.detail,
        "output": leg.output.as_ref().map(|output: &Json| output),
    })
}
