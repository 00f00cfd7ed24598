//! Failures on purpose, switched at run time: `GET` and `PUT /admin/failures` of the process that runs the participants.
//!
//! Promised: where the configuration does not enable them nothing stands around the participants and the gateway, and nobody can
//! switch anything on. What was switched on lasts as long as the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use chassis::audit::{Order, audited};
use chassis::health::Health;
use chassis::json::Valid;
use chassis::problem::{Code, Problem};
use garde::Validate;
use orchestrator::http::Operator;
use payment::{FailingGateway, Gateway, GatewayFailures, GatewaySwitch};
use saga_core::{Name, Op};
use saga_runtime::audit::AuditLog;
use saga_runtime::failures::{Failing, FailurePlan, Failures, StepFailures};
use saga_runtime::{Clock, Definitions, Participant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What a slow gateway adds at most: over it every charge is a timeout several times over.
const SLOWEST_MS: u64 = 60_000;

/// The switches of a process, or that it has none. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Board {
    /// `None`: not enabled.
    switches: Option<Switches>,
    choices: Arc<Choices>,
    health: Health,
}

#[derive(Clone, Default)]
struct Switches {
    failures: Failures,
    gateway: GatewaySwitch,
}

/// What there is to choose from in this process.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = FailureChoices)]
struct Choices {
    /// Steps whose participants are here.
    steps: Vec<String>,
    /// Participants that are here.
    participants: Vec<String>,
}

impl Board {
    /// With switches, if failures are enabled: that is said loudly.
    pub(super) fn new(enabled: bool, health: &Health) -> Self {
        if enabled {
            tracing::warn!(
                "failures on purpose are ENABLED (failures.enabled): operators can make purchases fail; never in production"
            );
            health.note("failures", "enabled: operators can make purchases fail".to_owned());
        }
        Self { switches: enabled.then(Switches::default), choices: Arc::default(), health: health.clone() }
    }

    /// The gateway, or what can fail around it.
    pub(super) fn gateway(&self, gateway: Arc<dyn Gateway>, clock: &Arc<dyn Clock>) -> Arc<dyn Gateway> {
        match &self.switches {
            Some(switches) => Arc::new(FailingGateway::new(gateway, switches.gateway.clone(), Arc::clone(clock))),
            None => gateway,
        }
    }

    /// Puts what can fail around participants, if it may.
    pub(super) fn surround(
        &mut self,
        participants: &mut Vec<Arc<dyn Participant>>,
        definitions: &Definitions,
        stop: &CancellationToken,
    ) {
        self.choices = Arc::new(choices(participants, definitions));
        let Some(switches) = &self.switches else { return };
        for participant in participants {
            let inner = Arc::clone(participant);
            *participant = Arc::new(Failing::new(inner, switches.failures.clone(), stop.clone()));
        }
    }

    fn view(&self) -> FailuresView {
        let Switches { failures, gateway } = self.switches.clone().unwrap_or_default();
        let (plan, gateway) = (failures.plan(), gateway.get());
        let step = |(name, step): (Name, StepFailures)| {
            let StepFailures { unknown_rate, retry_rate, lost_rate, op } = step;
            let view = StepRates { unknown_rate, retry_rate, lost_rate, op };
            (name.to_string(), view)
        };
        FailuresView {
            enabled: self.switches.is_some(),
            gateway: GatewayRates {
                decline_rate: gateway.decline_rate,
                latency_ms: u64::try_from(gateway.latency.as_millis()).unwrap_or(SLOWEST_MS),
            },
            steps: plan.steps.into_iter().map(step).collect(),
            stopped: plan.stopped.into_iter().collect(),
            choices: Choices::clone(&self.choices),
        }
    }

    fn set(&self, body: FailuresBody) -> Result<FailuresView, Problem> {
        let Some(Switches { failures, gateway }) = &self.switches else {
            return Err(Problem::new(
                Code::Conflict,
                "failures on purpose are not enabled: set failures.enabled = true in the configuration of this process \
                 and start it again (never in production)",
            ));
        };
        let FailuresBody { gateway: rates, steps, stopped, .. } = match body.enabled {
            true => body,
            false => FailuresBody::default(),
        };
        self.check(&steps, &stopped)?;
        let step = |(name, rates): (String, StepRates)| {
            let StepRates { unknown_rate, retry_rate, lost_rate, op } = rates;
            (Name::new(name), StepFailures { unknown_rate, retry_rate, lost_rate, op })
        };
        let latency = Duration::from_millis(rates.latency_ms);
        gateway.set(GatewayFailures { decline_rate: rates.decline_rate, latency });
        failures
            .set(FailurePlan { steps: steps.into_iter().map(step).collect(), stopped: stopped.into_iter().collect() });
        let view = self.view();
        let told = json!({ "gateway": view.gateway, "steps": view.steps, "stopped": view.stopped });
        self.health.note("failures", format!("enabled: {told}"));
        Ok(view)
    }

    fn check(&self, steps: &BTreeMap<String, StepRates>, stopped: &[String]) -> Result<(), Problem> {
        let Choices { steps: known, participants } = &*self.choices;
        let pointer = |text: &str| text.replace('~', "~0").replace('/', "~1");
        let lost = steps.keys().filter(|step| !known.contains(step));
        let mut wrong: Vec<(String, String)> = lost
            .map(|step| {
                (format!("#/steps/{}", pointer(step)), format!("not a step here; there are {}", known.join(", ")))
            })
            .collect();
        for (at, name) in stopped.iter().enumerate().filter(|(_, name)| !participants.contains(name)) {
            let detail = format!("{name:?} is not a participant here; there are {}", participants.join(", "));
            wrong.push((format!("#/stopped/{at}"), detail));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Problem::new(Code::ValidationError, "the request is not valid").with_errors(wrong)),
        }
    }
}

fn choices(participants: &[Arc<dyn Participant>], definitions: &Definitions) -> Choices {
    let topics: Vec<Name> = participants.iter().flat_map(|participant| participant.topics()).collect();
    let mut steps: Vec<String> = definitions
        .all()
        .iter()
        .flat_map(|definition| definition.steps.iter())
        .filter(|step| topics.contains(&step.action))
        .map(|step| step.name.to_string())
        .collect();
    steps.sort();
    steps.dedup();
    let mut participants: Vec<String> = participants.iter().map(|p| p.group().to_owned()).collect();
    participants.sort();
    Choices { steps, participants }
}

/// How the gateway goes wrong.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = GatewayFailures)]
struct GatewayRates {
    /// The share of charges that is declined.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schema(minimum = 0, maximum = 1)]
    decline_rate: f64,
    /// How much longer each of its answers takes.
    #[garde(range(max = SLOWEST_MS))]
    #[schema(maximum = 60000)]
    latency_ms: u64,
}

/// How the answers of a step go wrong.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = StepFailures)]
struct StepRates {
    /// The share of commands that is answered *unknown* before the participant sees them.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schema(minimum = 0, maximum = 1)]
    unknown_rate: f64,
    /// The share of commands that is answered *retry* before the participant sees them.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schema(minimum = 0, maximum = 1)]
    retry_rate: f64,
    /// The share of commands that the participant carries out and that are answered *unknown* all the same.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schema(minimum = 0, maximum = 1)]
    lost_rate: f64,
    /// Only of doing, or only of undoing; without it of both.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Direction>, nullable = false)]
    op: Option<Op>,
}

/// Doing or undoing.
#[derive(ToSchema)]
#[schema(as = Op, rename_all = "lowercase")]
#[expect(dead_code, reason = "describes")]
enum Direction {
    Do,
    Undo,
}

/// What goes wrong from now on, and nothing else.
#[derive(Clone, Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Failures, example = json!({
    "gateway": { "decline_rate": 0.5, "latency_ms": 200 },
    "steps": { "confirm-order": { "retry_rate": 0.5 } },
    "stopped": ["product"],
    "reason": "to show what a compensation looks like",
}))]
struct FailuresBody {
    /// `false`: whatever else is said, nothing goes wrong any more.
    #[garde(skip)]
    enabled: bool,
    #[garde(dive)]
    gateway: GatewayRates,
    /// By step.
    #[garde(length(max = 100), dive)]
    steps: BTreeMap<String, StepRates>,
    /// Participants that take no more commands until they are left out again.
    #[garde(length(max = 100))]
    #[schema(max_items = 100)]
    stopped: Vec<String>,
    /// Why, for the log.
    #[garde(inner(length(chars, max = 500)))]
    #[schema(max_length = 500)]
    reason: Option<String>,
}

impl Default for FailuresBody {
    fn default() -> Self {
        Self {
            enabled: true,
            gateway: GatewayRates::default(),
            steps: BTreeMap::new(),
            stopped: Vec::new(),
            reason: None,
        }
    }
}

/// What goes wrong on purpose.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = FailuresInForce)]
struct FailuresView {
    /// Whether the configuration lets anything go wrong.
    enabled: bool,
    gateway: GatewayRates,
    steps: BTreeMap<String, StepRates>,
    stopped: Vec<String>,
    choices: Choices,
}

/// What the routes need.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) board: Board,
    /// Where orders are noted, if this process has such a place; else only in its log.
    pub(super) audit: Option<Arc<dyn AuditLog>>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(show, set))
}

/// What goes wrong on purpose in this process.
#[utoipa::path(
    get, path = "/admin/failures", operation_id = "getFailures", tag = "failures",
    responses((status = 200, description = "What goes wrong.", body = FailuresView)),
    security(("bearer" = ["viewer"])),
)]
async fn show(State(desk): State<Desk>) -> Response {
    Json(desk.board.view()).into_response()
}

/// Makes things go wrong on purpose: what is named here, and nothing else.
///
/// Refused with `conflict` where the configuration does not enable it.
#[utoipa::path(
    put, path = "/admin/failures", operation_id = "setFailures", tag = "failures",
    request_body = FailuresBody,
    responses((status = 200, description = "What goes wrong from now on.", body = FailuresView)),
    security(("bearer" = ["operator"])),
    extensions(("x-problems" = json!(["conflict"]))),
)]
async fn set(
    State(desk): State<Desk>,
    operator: Option<Extension<Operator>>,
    Valid(body): Valid<FailuresBody>,
) -> Result<Response, Problem> {
    let Desk { board, audit, clock } = desk;
    let actor = operator.map_or_else(|| "operator".to_owned(), |Extension(Operator(name))| name);
    let order = Order {
        actor,
        action: "failures.set".to_owned(),
        target: "failures".to_owned(),
        reason: body.reason.clone().unwrap_or_default(),
        details: Value::Null,
    };
    let work = async {
        let view = board.set(body)?;
        let now = json!({ "gateway": view.gateway, "steps": view.steps, "stopped": view.stopped });
        tracing::warn!(%now, "failures on purpose were set");
        Ok((view, now))
    };
    let view = match audit {
        Some(audit) => audited(&*audit, &*clock, order, work).await?,
        None => work.await.map(|(view, _)| view)?,
    };
    Ok(Json(view).into_response())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn board(enabled: bool) -> Board {
        let choices = Choices { steps: vec!["take".into()], participants: vec!["shelf".into()] };
        Board { choices: Arc::new(choices), ..Board::new(enabled, &Health::default()) }
    }

    fn body(value: &serde_json::Value) -> Result<FailuresBody, Problem> {
        chassis::json::parse(value.to_string().as_bytes())
    }

    fn pointers(problem: &Problem) -> String {
        format!("{problem:?}")
    }

    #[test]
    fn where_it_is_not_enabled_nothing_can_be_switched_on() {
        let board = board(false);
        let refused = board.set(body(&json!({ "stopped": ["shelf"] })).unwrap()).unwrap_err();
        assert!(pointers(&refused).contains("failures.enabled"), "{refused:?}");
        assert!(!board.view().enabled && board.view().stopped.is_empty());
    }

    #[test]
    fn what_is_not_here_and_what_is_no_rate_is_refused_by_its_pointer() {
        let board = board(true);
        for (wrong, pointer) in [
            (json!({ "steps": { "a/b": {} } }), "#/steps/a~1b"),
            (json!({ "stopped": ["shelf", "till"] }), "#/stopped/1"),
            (json!({ "gateway": { "decline_rate": 1.5 } }), "#/gateway/decline_rate"),
            (json!({ "gateway": { "latency_ms": 60_001 } }), "#/gateway/latency_ms"),
            (json!({ "steps": { "take": { "retry_rate": -0.1 } } }), "#/steps/take/retry_rate"),
            (json!({ "steps": { "take": { "lost_rate": 2 } } }), "#/steps/take/lost_rate"),
            (json!({ "steps": { "take": { "op": "redo" } } }), "#/steps/take/op"),
            (json!({ "speed": 1 }), "#"),
        ] {
            let refused = body(&wrong).and_then(|body| board.set(body)).unwrap_err();
            assert!(pointers(&refused).contains(pointer), "{wrong}: {}", pointers(&refused));
        }
        assert_eq!(board.view().stopped, Vec::<String>::new(), "nothing of them was set");
    }

    #[test]
    fn what_is_set_is_shown_replaces_what_was_and_ends_when_it_is_switched_off() {
        let board = board(true);
        let steps = json!({ "take": { "unknown_rate": 0.5, "retry_rate": 0.0, "lost_rate": 0.25, "op": "undo" } });
        let wanted =
            json!({ "gateway": { "decline_rate": 0.25, "latency_ms": 5 }, "steps": steps, "stopped": ["shelf"] });
        let shown = serde_json::to_value(board.set(body(&wanted).unwrap()).unwrap()).unwrap();
        for part in ["gateway", "steps", "stopped"] {
            assert_eq!(shown[part], wanted[part]);
        }
        let now = board.set(body(&json!({ "stopped": ["shelf"] })).unwrap()).unwrap();
        assert!(now.steps.is_empty() && now.gateway.latency_ms == 0);
        let off = board.set(body(&json!({ "enabled": false, "stopped": ["shelf"] })).unwrap()).unwrap();
        assert!(off.enabled && off.stopped.is_empty());
    }
}
