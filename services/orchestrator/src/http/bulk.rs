//! `/admin/sagas/bulk`: one order for many sagas, looked at before it is given.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::audit::{Ended, Order, audited, says_why};
use chassis::json::Valid;
use chassis::problem::Problem;
use futures_util::StreamExt as _;
use garde::Validate;
use saga_core::{Status, Verb};
use saga_runtime::store::{SagaFilter, SagaRow};
use saga_runtime::wire::MAX_ID;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::filter::{Wanted, invalid, statuses};
use super::sagas::{SagaView, problem, verb};
use super::{Operator, actor, schemas};
use crate::app::Sagas;

/// Sagas a call: bounds how long it takes.
const MOST: u32 = 10_000;
/// Rows that a dry run shows.
const SAMPLE: usize = 20;
/// Refusals that are told one by one.
const TOLD: usize = 100;
/// Orders that wait for the loop at a time: it takes them in batches.
const AT_ONCE: usize = 64;

/// States, as a list or with commas.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
enum States {
    Text(String),
    List(Vec<schemas::SagaStatus>),
}

/// Which sagas; at least one condition. Only sagas in flight can be steered.
#[derive(Deserialize, Serialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
struct BulkFilter {
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<States>,
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(min_length = 1, max_length = 100)]
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<String>,
    /// What is awaited.
    #[garde(length(chars, min = 1, max = 100))]
    #[schema(min_length = 1, max_length = 100)]
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    /// Not changed for this many seconds.
    #[garde(range(max = 1_000_000_000))]
    #[schema(maximum = 1_000_000_000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    older_than: Option<u64>,
    /// Started at this moment or later.
    #[garde(length(chars, max = 40))]
    #[schema(max_length = 40, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    started_after: Option<String>,
    /// Started before this moment.
    #[garde(length(chars, max = 40))]
    #[schema(max_length = 40, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    started_before: Option<String>,
    #[garde(inner(length(min = 1, max = 1000), inner(range(max = MAX_ID))))]
    #[schema(min_items = 1, max_items = 1000, value_type = Option<Vec<schemas::LetterId>>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<u64>>,
}

impl BulkFilter {
    fn is_empty(&self) -> bool {
        self.state.is_none()
            && self.definition.is_none()
            && self.step.is_none()
            && self.older_than.is_none()
            && self.started_after.is_none()
            && self.started_before.is_none()
            && self.ids.is_none()
    }

    fn filter(&self, now: u64) -> Result<SagaFilter, Problem> {
        if self.is_empty() {
            return Err(invalid("#/filter", "needs at least one condition: an order to everything is refused".into()));
        }
        let wanted = match &self.state {
            None => Vec::new(),
            Some(States::Text(text)) => statuses(Some(text), "#/filter/state")?,
            Some(States::List(list)) => list.iter().map(|status| Status::from(*status)).collect(),
        };
        if let Some(ended) = wanted.iter().find(|status| status.is_terminal()) {
            let detail = format!("what is {} has ended: only sagas in flight can be steered", ended.as_str());
            return Err(invalid("#/filter/state", detail));
        }
        let open = || Status::ALL.into_iter().filter(|status| !status.is_terminal()).collect();
        Wanted {
            at: "#/filter",
            statuses: if wanted.is_empty() { open() } else { wanted },
            definition: self.definition.as_deref(),
            step: self.step.as_deref(),
            older_than: self.older_than,
            started_after: self.started_after.as_deref(),
            started_before: self.started_before.as_deref(),
            ids: self.ids.clone().unwrap_or_default(),
        }
        .filter(now)
    }
}

/// One order for many sagas.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BulkOrder, example = json!({
    "verb": "retry", "filter": { "state": "STUCK" }, "reason": "the gateway is back", "dry_run": true,
}))]
pub(super) struct BulkBody {
    #[garde(skip)]
    verb: schemas::OperatorsVerb,
    /// For `resolve`: `COMPLETED` or `COMPENSATED`.
    #[garde(skip)]
    #[schema(value_type = Option<schemas::ResolvedStatus>)]
    status: Option<Status>,
    #[garde(dive)]
    filter: BulkFilter,
    /// Why; it is kept in each saga's history.
    #[garde(length(chars, min = 1, max = 500), custom(says_why))]
    #[schema(min_length = 1, max_length = 500, pattern = r"\S")]
    reason: String,
    /// Only tell which sagas it would be; so it is when nothing is said.
    #[garde(skip)]
    #[serde(default = "yes")]
    #[schema(default = true)]
    dry_run: bool,
    /// How many sagas the dry run told: if it is another number now, nothing is done.
    #[garde(inner(range(max = MAX_ID)))]
    #[schema(maximum = 9007199254740991_u64)]
    expect_count: Option<u64>,
}

fn yes() -> bool {
    true
}

/// Steers many sagas.
///
/// A dry run tells how many sagas match and shows the first. The order itself repeats that number; each saga is steered
/// by compare-and-set on the version that it had when it was found.
#[utoipa::path(
    post, path = "/admin/sagas/bulk", operation_id = "steerSagas", tag = "sagas",
    request_body = BulkBody,
    responses((status = 200, description = "What it came to, or would come to.", body = schemas::BulkAnswer)),
    security(("bearer" = ["operator"])),
    extensions(("x-problems" = json!(["conflict"]))),
)]
pub(super) async fn bulk(
    State(sagas): State<Sagas>,
    operator: Option<Extension<Operator>>,
    Valid(body): Valid<BulkBody>,
) -> Result<Response, Problem> {
    let BulkBody { verb: word, status, filter: wanted, reason, dry_run, expect_count } = body;
    let word = word.as_str();
    let verb = verb(word, status)?;
    let filter = wanted.filter(sagas.now())?;
    let shown = serde_json::to_value(&wanted).unwrap_or_default();
    if dry_run {
        let (matched, sample) = look(&sagas, filter).await?;
        let sample: Vec<SagaView> = sample.iter().map(SagaView::from).collect();
        let answer = json!({ "matched": matched, "sample": sample, "filter": shown });
        return Ok(axum::Json(answer).into_response());
    }
    let Some(expected) = expect_count else {
        let detail = "must be the number that the dry run told".to_owned();
        return Err(invalid("#/expect_count", detail));
    };
    let actor = actor(operator);
    let order = Order {
        actor: actor.clone(),
        action: "sagas.bulk".to_owned(),
        target: word.to_owned(),
        reason: reason.clone(),
        details: json!({ "verb": word, "status": status, "filter": shown, "expect_count": expected }),
    };
    let work = async {
        let rows = sagas.list(SagaFilter { limit: MOST + 1, ..filter }).await?;
        let matched = rows.len();
        if matched > MOST as usize {
            let detail = format!("matches more than {MOST} sagas; narrow it");
            return Err(invalid("#/filter", detail));
        }
        if matched as u64 != expected {
            let detail = format!("{matched} sagas match now, not {expected}: look at them again");
            return Err(Problem::overtaken(detail));
        }
        let Steered { applied, overtaken, unsure, refused } = steer(&sagas, rows, &verb, &actor, &reason).await;
        if overtaken > 0 && overtaken == matched {
            let detail =
                format!("somebody was faster: all {matched} sagas have moved on meanwhile; look at them again");
            return Err(Problem::overtaken(detail));
        }
        let details = json!({ "matched": matched, "applied": applied, "refused": refused.len() });
        let told = &refused[..refused.len().min(TOLD)];
        let answer = json!({ "matched": matched, "applied": applied, "refused_count": refused.len(), "refused": told });
        Ok(if applied + unsure == 0 { Ended::Nothing(answer) } else { Ended::Changed { answer, details } })
    };
    let answer = audited(&*sagas.audit, &*sagas.clock, order, work).await?;
    Ok(axum::Json(answer).into_response())
}

/// How many match, and the first of them.
async fn look(sagas: &Sagas, mut filter: SagaFilter) -> Result<(usize, Vec<SagaRow>), Problem> {
    let (mut matched, mut sample) = (0, Vec::new());
    filter.limit = MOST;
    loop {
        let rows = sagas.list(filter.clone()).await?;
        matched += rows.len();
        filter.before = rows.last().map(|row| (row.started_at, row.key.clone()));
        if sample.is_empty() {
            sample = rows.iter().take(SAMPLE).cloned().collect();
        }
        if rows.len() < MOST as usize {
            return Ok((matched, sample));
        }
    }
}

/// What an order for many came to.
#[derive(Default)]
struct Steered {
    applied: usize,
    /// Somebody was faster.
    overtaken: usize,
    /// Told of as refused, and perhaps done: see [`Problem::unsure`].
    unsure: usize,
    /// Who refused, and why.
    refused: Vec<Value>,
}

/// Each by compare-and-set.
async fn steer(sagas: &Sagas, rows: Vec<SagaRow>, verb: &Verb, actor: &str, reason: &str) -> Steered {
    let each = rows.into_iter().map(|row| async move {
        let SagaRow { key, version, .. } = row;
        let steered = sagas.operate(key.clone(), verb.clone(), actor.into(), reason.into(), Some(version)).await;
        steered.map(drop).map_err(|error| {
            let problem = problem(error);
            let told = json!({
                "id": key.id, "definition": key.definition, "code": problem.code.as_str(), "detail": problem.detail,
            });
            (problem, told)
        })
    });
    let mut all = Steered::default();
    let mut steered = futures_util::stream::iter(each).buffer_unordered(AT_ONCE);
    while let Some(result) = steered.next().await {
        match result {
            Ok(()) => all.applied += 1,
            Err((problem, told)) => {
                all.overtaken += usize::from(problem.is_overtaken());
                all.unsure += usize::from(!problem.changed_nothing());
                all.refused.push(told);
            }
        }
    }
    all
}
