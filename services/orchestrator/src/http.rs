//! The admin routes: sagas, dead letters, definitions. Served on the admin listener only.
//!
//! Authentication is a layer that the composition root adds around these routes; it leaves an [`Operator`] behind.

mod dead_letters;
mod sagas;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use chassis::problem::{Code, Problem};
use saga_runtime::bus::{GroupReading, PlaceReading};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::app::Sagas;

/// Who is asking, for the history. Put into the request's extensions by the authentication layer.
#[derive(Clone, Debug)]
pub struct Operator(pub String);

/// All admin routes of this service.
pub fn router(sagas: Sagas) -> Router {
    Router::new()
        .route("/admin/sagas", get(sagas::list))
        .route("/admin/sagas/{id}", get(sagas::show))
        .route("/admin/sagas/{id}/events", get(sagas::events))
        .route("/admin/sagas/{id}/{verb}", post(sagas::operate))
        .route("/admin/dlq", get(dead_letters::topics))
        .route("/admin/dlq/{topic}", get(dead_letters::list))
        .route("/admin/dlq/{topic}/{id}", get(dead_letters::show))
        .route("/admin/dlq/{topic}/redrive", post(dead_letters::redrive))
        .route("/admin/dlq/{topic}/purge", post(dead_letters::purge))
        .route("/admin/topics", get(topics))
        .route("/admin/definitions", get(definitions))
        .route("/admin/stats", get(stats))
        .with_state(sagas)
}

/// How far each consumer group has read.
async fn topics(State(sagas): State<Sagas>) -> Result<axum::Json<Value>, Problem> {
    let groups = sagas.bus.reading().await;
    let groups = groups.map_err(|error| Problem::new(Code::DependencyUnavailable, error.to_string()))?;
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

#[derive(Serialize)]
struct DefinitionView {
    name: String,
    version: u32,
    deadline_ms: Option<u64>,
    steps: Vec<StepView>,
    text: String,
}

#[derive(Serialize)]
struct StepView {
    name: String,
    kind: String,
    #[serde(rename = "do")]
    action: String,
    undo: Option<String>,
    after: Vec<String>,
    timeout_ms: u64,
}

async fn definitions(State(sagas): State<Sagas>) -> axum::Json<Value> {
    let views: Vec<DefinitionView> = sagas.definitions().all().iter().map(|d| view(d)).collect();
    axum::Json(serde_json::json!({ "items": views }))
}

fn view(definition: &saga_core::Definition) -> DefinitionView {
    let name = |at: &usize| definition.steps[*at].name.to_string();
    let steps = definition.steps.iter().map(|step| StepView {
        name: step.name.to_string(),
        kind: step.kind.to_string(),
        action: step.action.to_string(),
        undo: step.undo.as_ref().map(ToString::to_string),
        after: step.after.iter().map(name).collect(),
        timeout_ms: step.timeout,
    });
    DefinitionView {
        name: definition.name.to_string(),
        version: definition.version,
        deadline_ms: definition.deadline,
        steps: steps.collect(),
        text: saga_core::render::definition_text(definition),
    }
}

async fn stats(State(sagas): State<Sagas>) -> axum::Json<Value> {
    let all = sagas.stats().all().into_iter().map(|(name, count)| (name.to_owned(), count.into()));
    axum::Json(Value::Object(all.collect::<Map<_, _>>()))
}
