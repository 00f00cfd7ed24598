//! Failures on purpose, switched at run time: `GET` and `PUT /admin/failures` of a process that runs participants, and of the
//! orchestrator's for all processes that its settings name.
//!
//! Promised: where the configuration does not enable them nothing stands around the participants and the gateway, and nobody can
//! switch anything on. What was switched on lasts as long as the process.

mod elsewhere;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use chassis::audit::{Ended, Order, audited};
use chassis::health::Health;
use chassis::json::{Valid, ValidQuery};
use chassis::problem::{Code, Problem};
use orchestrator::http::Operator;
use payment::{FailingGateway, Gateway, GatewayFailures, GatewaySwitch};
use saga_core::Name;
use saga_runtime::audit::AuditLog;
use saga_runtime::failures::{Failing, FailurePlan, Failures, StepFailures};
use saga_runtime::{Clock, Definitions, Participant};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::admin::bearer;
pub(super) use elsewhere::Elsewhere;
use wire::{Choices, FailuresBody, FailuresView, GatewayRates, ProcessView, SLOWEST_MS, Scope, StepRates, Unreached};

const NOT_ENABLED: &str = "failures on purpose are not enabled: set failures.enabled = true in the configuration of this process \
    and start it again (never in production)";
/// How the process that is asked calls itself among others.
const HERE: &str = "here";

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
            ..FailuresView::default()
        }
    }

    /// By itself, if it has switches.
    fn own(&self) -> Option<ProcessView> {
        let FailuresView { enabled, gateway, steps, stopped, choices, .. } = self.view();
        enabled.then(|| ProcessView { url: HERE.to_owned(), gateway, steps, stopped, choices })
    }

    /// Among other processes; nothing, if nothing here can go wrong.
    fn process(&self) -> Option<Result<ProcessView, Unreached>> {
        let url = HERE.to_owned();
        match (self.choices.participants.is_empty(), self.own()) {
            (true, _) => None,
            (false, Some(own)) => Some(Ok(own)),
            (false, None) => Some(Err(Unreached { url, problem: NOT_ENABLED.to_owned() })),
        }
    }

    fn set(&self, body: FailuresBody) -> Result<FailuresView, Problem> {
        let Some(Switches { failures, gateway }) = &self.switches else {
            return Err(Problem::new(Code::Conflict, NOT_ENABLED));
        };
        let FailuresBody { gateway: rates, steps, stopped, .. } = match body.enabled {
            true => body,
            false => FailuresBody::default(),
        };
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
}

/// Whether an order is one that can be given to processes in which there are these.
fn check(body: &FailuresBody, there: &Choices) -> Result<(), Problem> {
    let Choices { steps: known, participants } = there;
    let pointer = |text: &str| text.replace('~', "~0").replace('/', "~1");
    let mut wrong = Vec::new();
    let lost = body.steps.keys().filter(|step| !known.contains(step));
    wrong.extend(lost.map(|step| {
        (format!("#/steps/{}", pointer(step)), format!("not a step here; there are {}", known.join(", ")))
    }));
    for (at, name) in body.stopped.iter().enumerate().filter(|(_, name)| !participants.contains(name)) {
        let detail = format!("{name:?} is not a participant here; there are {}", participants.join(", "));
        wrong.push((format!("#/stopped/{at}"), detail));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Problem::new(Code::ValidationError, "the request is not valid").with_errors(wrong)),
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

/// What the routes need. Cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) board: Board,
    /// Other processes that run participants, if this one speaks for them.
    pub(super) elsewhere: Elsewhere,
    /// Where orders are noted, if this process has such a place; else only in its log.
    pub(super) audit: Option<Arc<dyn AuditLog>>,
    pub(super) clock: Arc<dyn Clock>,
    /// One order at a time: of two at once no process keeps one and another the other.
    pub(super) ordering: Arc<Mutex<()>>,
}

impl Desk {
    /// Whether it is about this process alone.
    fn alone(&self, scope: Scope) -> bool {
        scope.here || self.elsewhere.is_empty()
    }

    async fn look(&self, bearer: &str) -> FailuresView {
        let (mut processes, mut unreached) = self.elsewhere.look(bearer).await;
        match self.board.process() {
            Some(Ok(own)) => processes.push(own),
            Some(Err(own)) => unreached.push(own),
            None => {}
        }
        // Nowhere enabled is nothing wrong with a process.
        if processes.is_empty() && unreached.iter().all(|one| one.problem == NOT_ENABLED) {
            unreached.clear();
        }
        FailuresView::of(processes, unreached)
    }

    /// Whether the order can be given, and to whom: nothing is changed yet.
    async fn prepare(&self, scope: Scope, bearer: &str, body: &FailuresBody) -> Result<Prepared, Problem> {
        let alone = self.alone(scope);
        let all = if alone { self.board.view() } else { self.look(bearer).await };
        if !all.enabled {
            if all.unreached.is_empty() {
                return Err(Problem::new(Code::Conflict, NOT_ENABLED));
            }
            let each: Vec<String> = all.unreached.iter().map(|one| format!("{} ({})", one.url, one.problem)).collect();
            let detail = format!("no process can be told; there should be {}", each.join(", "));
            return Err(Problem::new(Code::DependencyUnavailable, detail));
        }
        if body.enabled {
            check(body, &all.choices)?;
        }
        let is_so = match alone {
            true => self.board.own().is_some_and(|own| body.leaves(&own)),
            false => {
                // Where nothing can be switched on it is off.
                let known = all.unreached.iter().all(|one| one.problem == NOT_ENABLED);
                known && all.processes.iter().all(|process| body.leaves(process))
            }
        };
        Ok(if is_so { Prepared::IsSo(all) } else { Prepared::Known(all) })
    }

    async fn carry_out(
        &self,
        scope: Scope,
        bearer: &str,
        body: FailuresBody,
        known: FailuresView,
    ) -> Result<FailuresView, Problem> {
        if self.alone(scope) {
            return self.board.set(body);
        }
        let (mut processes, mut unreached) = self.elsewhere.set(bearer, &body, &known.processes).await;
        unreached.extend(known.unreached);
        if let Some(Ok(own)) = self.board.process() {
            self.board.set(body.share(&own.choices))?;
            processes.extend(self.board.own());
        }
        Ok(FailuresView::of(processes, unreached))
    }
}

/// What is known before an order is carried out.
enum Prepared {
    /// It is all as the order says already.
    IsSo(FailuresView),
    /// How it is.
    Known(FailuresView),
}

/// What an order is called in the audit log.
const ACTION: &str = "failures.set";

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(show, set))
}

/// What goes wrong on purpose.
///
/// In this process; the orchestrator's speaks for all that it knows (`failures.elsewhere`), and names those that do not answer.
#[utoipa::path(
    get, path = "/admin/failures", operation_id = "getFailures", tag = "failures",
    params(Scope),
    responses((status = 200, description = "What goes wrong.", body = FailuresView)),
    security(("bearer" = ["viewer"])),
)]
async fn show(State(desk): State<Desk>, ValidQuery(scope): ValidQuery<Scope>, headers: HeaderMap) -> Response {
    let view = match desk.alone(scope) {
        true => desk.board.view(),
        false => desk.look(bearer(&headers)).await,
    };
    Json(view).into_response()
}

/// Makes things go wrong on purpose: what is named here, and nothing else.
///
/// Each process gets what is its own; one that cannot be told is named in the answer. What is so already changes nothing, and
/// leaves no line in the audit log. Refused with `conflict` where the configuration does not enable it, and with
/// `dependency_unavailable` where no process can be told.
#[utoipa::path(
    put, path = "/admin/failures", operation_id = "setFailures", tag = "failures",
    params(Scope),
    request_body = FailuresBody,
    responses((status = 200, description = "What goes wrong from now on.", body = FailuresView)),
    security(("bearer" = ["operator"])),
    extensions(("x-problems" = json!(["conflict"]))),
)]
async fn set(
    State(desk): State<Desk>,
    ValidQuery(scope): ValidQuery<Scope>,
    operator: Option<Extension<Operator>>,
    headers: HeaderMap,
    Valid(body): Valid<FailuresBody>,
) -> Result<Response, Problem> {
    let actor = operator.map_or_else(|| "operator".to_owned(), |Extension(Operator(name))| name);
    let (bearer, reason) = (bearer(&headers), body.reason.clone());
    let _one = desk.ordering.lock().await;
    let known = match desk.prepare(scope, bearer, &body).await {
        Ok(Prepared::Known(known)) => known,
        Ok(Prepared::IsSo(view)) => {
            tracing::info!(actor, action = ACTION, reason, "there was nothing to do");
            return Ok(Json(view).into_response());
        }
        Err(problem) => {
            tracing::info!(actor, action = ACTION, reason, detail = problem.detail, "an operator's order was refused");
            return Err(problem);
        }
    };
    let work = async {
        let view = desk.carry_out(scope, bearer, body, known).await?;
        let now = json!({
            "gateway": view.gateway, "steps": view.steps, "stopped": view.stopped, "unreached": view.unreached,
        });
        // Where there is no audit log this is what stays of it.
        tracing::warn!(%now, actor, reason, "failures on purpose were set");
        Ok(Ended::Changed { answer: view, details: now })
    };
    let order = Order {
        actor: actor.clone(),
        action: ACTION.to_owned(),
        target: "failures".to_owned(),
        reason: reason.clone(),
        details: Value::Null,
    };
    let view = match &desk.audit {
        Some(audit) => audited(&**audit, &*desk.clock, order, work).await?,
        None => match work.await? {
            Ended::Changed { answer, .. } | Ended::Nothing(answer) => answer,
        },
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

    fn set(board: &Board, body: FailuresBody) -> Result<FailuresView, Problem> {
        check(&body, &board.view().choices).and_then(|()| board.set(body))
    }

    fn pointers(problem: &Problem) -> String {
        format!("{problem:?}")
    }

    #[test]
    fn where_it_is_not_enabled_nothing_can_be_switched_on() {
        let board = board(false);
        let refused = board.set(body(&json!({ "stopped": ["shelf"], "reason": "to see" })).unwrap()).unwrap_err();
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
            (json!({ "gateway": { "latency_ms": 5.5 } }), "#/gateway/latency_ms"),
            (json!({ "gateway": { "latency_ms": -1 } }), "#/gateway/latency_ms"),
            (json!({ "steps": { "take": { "retry_rate": -0.1 } } }), "#/steps/take/retry_rate"),
            (json!({ "steps": { "take": { "lost_rate": 2 } } }), "#/steps/take/lost_rate"),
            (json!({ "steps": { "take": { "op": "redo" } } }), "#/steps/take/op"),
            (json!({ "speed": 1 }), "#"),
            (json!({ "stopped": ["shelf"], "reason": " " }), "#/reason"),
            (json!({ "steps": { "take": {} }, "reason": "" }), "#/reason"),
            (json!({ "gateway": { "decline_rate": 0.1 }, "reason": null }), "#/reason"),
            (json!({ "enabled": false, "reason": "" }), "#/reason"),
        ] {
            let mut order = json!({ "reason": "to see" });
            order.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
            let refused = body(&order).and_then(|body| set(&board, body)).unwrap_err();
            assert!(pointers(&refused).contains(pointer), "{wrong}: {}", pointers(&refused));
        }
        for silent in [json!({}), json!({ "enabled": false })] {
            assert!(
                pointers(&body(&silent).unwrap_err()).contains("#/reason"),
                "the way back has a reason, too: {silent}"
            );
        }
        assert_eq!(board.view().stopped, Vec::<String>::new(), "nothing of them was set");
    }

    #[test]
    fn what_is_set_is_shown_replaces_what_was_and_ends_when_it_is_switched_off() {
        let board = board(true);
        let steps = json!({ "take": { "unknown_rate": 0.5, "retry_rate": 0.0, "lost_rate": 0.25, "op": "undo" } });
        let gateway = json!({ "decline_rate": 0.25, "latency_ms": 5 });
        let wanted = json!({ "gateway": gateway, "steps": steps, "stopped": ["shelf"], "reason": "to see" });
        let shown = serde_json::to_value(set(&board, body(&wanted).unwrap()).unwrap()).unwrap();
        for part in ["gateway", "steps", "stopped"] {
            assert_eq!(shown[part], wanted[part]);
        }
        let now = set(&board, body(&json!({ "stopped": ["shelf"], "reason": "to see" })).unwrap()).unwrap();
        assert!(now.steps.is_empty() && now.gateway.latency_ms == 0);
        for end in
            [json!({ "enabled": false, "stopped": ["shelf"], "reason": "enough" }), json!({ "reason": "enough" })]
        {
            set(&board, body(&json!({ "stopped": ["shelf"], "reason": "to see" })).unwrap()).unwrap();
            let off = set(&board, body(&end).unwrap()).unwrap();
            assert!(off.enabled && off.stopped.is_empty());
        }
    }

    #[test]
    fn an_order_for_what_is_so_already_changes_nothing_and_any_other_does() {
        let board = board(true);
        let plan = json!({ "gateway": { "latency_ms": 5.0 }, "steps": { "take": { "retry_rate": 0.5 } },
            "stopped": ["shelf", "shelf"], "reason": "to see" });
        let leaves = |order: &Value| body(order).unwrap().leaves(&board.own().unwrap());
        let off = json!({ "enabled": false, "stopped": ["shelf"], "reason": "enough" });
        assert!(leaves(&off) && leaves(&json!({ "reason": "enough" })) && !leaves(&plan), "nothing is set yet");
        set(&board, body(&plan).unwrap()).unwrap();
        assert!(leaves(&plan) && !leaves(&off));
        for (part, other) in [
            ("gateway", json!({ "latency_ms": 6 })),
            ("steps", json!({ "take": { "retry_rate": 0.5, "op": "do" } })),
            ("stopped", json!([])),
        ] {
            let mut changed = plan.clone();
            changed[part] = other;
            assert!(!leaves(&changed), "{changed}");
        }
    }
}
