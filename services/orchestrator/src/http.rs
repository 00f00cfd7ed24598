//! The admin routes: sagas, dead letters, definitions. Served on the admin listener only.
//!
//! Authentication is a layer that the composition root adds around these routes; it leaves an [`Operator`] behind.

mod bulk;
mod dead_letters;
mod detail;
mod filter;
mod messages;
mod overview;
mod sagas;
mod schemas;

use axum::extract::State;
use axum::{Extension, Router};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Sagas;

/// Who is asking, for the history. Put into the request's extensions by the authentication layer.
#[derive(Clone, Debug)]
pub struct Operator(pub String);

/// How they are called in histories and in the audit log.
fn actor(operator: Option<Extension<Operator>>) -> String {
    operator.map_or_else(|| "operator".to_owned(), |Extension(Operator(name))| name)
}

/// All admin routes of this service.
pub fn router(sagas: Sagas) -> Router {
    api().with_state(sagas).into()
}

/// What is to be said about them.
pub fn document() -> OpenApi {
    api().into_openapi()
}

fn api() -> OpenApiRouter<Sagas> {
    OpenApiRouter::new()
        .routes(routes!(sagas::list))
        .routes(routes!(sagas::counts))
        .routes(routes!(bulk::bulk))
        .routes(routes!(detail::show))
        .routes(routes!(detail::messages))
        .routes(routes!(sagas::events))
        .routes(routes!(sagas::operate))
        .routes(routes!(dead_letters::topics))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::show))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(dead_letters::purge))
        .routes(routes!(messages::groups))
        .routes(routes!(messages::list))
        .routes(routes!(messages::peek))
        .routes(routes!(overview::show))
        .routes(routes!(overview::events))
        .routes(routes!(overview::participants))
        .routes(routes!(definitions))
        .routes(routes!(stats))
}

/// A kind of saga.
#[derive(Serialize, ToSchema)]
#[schema(as = Definition)]
struct DefinitionView {
    name: String,
    version: u32,
    /// After so long it is taken back, where its pivot is not done.
    #[schema(required = true)]
    deadline_ms: Option<u64>,
    steps: Vec<StepView>,
    /// All of it, for people.
    text: String,
}

/// A step of a saga.
#[derive(Serialize, ToSchema)]
#[schema(as = DefinitionStep)]
struct StepView {
    name: String,
    kind: String,
    /// The topic of its commands.
    #[serde(rename = "do")]
    action: String,
    /// The topic of the commands that take it back.
    #[schema(required = true)]
    undo: Option<String>,
    /// Which steps must be done before.
    after: Vec<String>,
    timeout_ms: u64,
}

/// The definitions in force.
#[utoipa::path(
    get, path = "/admin/definitions", operation_id = "listDefinitions", tag = "sagas",
    responses((status = 200, description = "The definitions.", body = schemas::Definitions)),
    security(("bearer" = ["viewer"])),
)]
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

/// What the loops of this process counted since it started.
#[utoipa::path(
    get, path = "/admin/stats", operation_id = "getStats", tag = "messages",
    responses((status = 200, description = "Counts by name.", body = std::collections::BTreeMap<String, u64>)),
    security(("bearer" = ["viewer"])),
)]
async fn stats(State(sagas): State<Sagas>) -> axum::Json<Value> {
    let all = sagas.stats().all().into_iter().map(|(name, count)| (name.to_owned(), count.into()));
    axum::Json(Value::Object(all.collect::<Map<_, _>>()))
}
