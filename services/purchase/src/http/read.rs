//! Looking at purchases: one, with an `ETag` and a long poll; a page of them.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chassis::auth::Identity;
use chassis::json::{PathId, ValidQuery};
use chassis::paging::{Page, decode_token, encode_token};
use chassis::problem::{Code, Problem};
use chassis::time::rfc3339;
use contracts::purchase::{PurchaseInput, PurchaseItem};
use garde::Validate;
use saga_core::protocol::{Refusal, ResultStatus};
use saga_runtime::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Links, ReasonView, StepStatus, invalid, no_such_purchase};
use crate::app::Purchases;
use crate::domain::{MAX_SAFE, Status};
use crate::outbound::Course;
use crate::results::{self, Entry};
use crate::store::Row;

/// The longest long poll, in ms: below what proxies allow a response to take.
const MAX_WAIT: u64 = 30_000;
/// Purchases on a page that does not say how many.
const PAGE: u32 = 50;
/// The most on a page.
const MAX_PAGE: u32 = 200;

/// What is the same in a list and alone.
#[derive(Serialize, ToSchema)]
#[schema(as = PurchaseSummary)]
struct Summary {
    id: u64,
    #[schema(value_type = Status)]
    status: &'static str,
    /// In minor units of the currency.
    amount: i64,
    /// ISO 4217.
    currency_code: String,
    /// Why it is taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ReasonView, required = false)]
    reason: Option<Refusal>,
    /// Whether the customer asked for it to be taken back.
    cancel_requested: bool,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    ended_at: Option<String>,
    links: Links,
}

/// A purchase.
#[derive(Serialize, ToSchema)]
#[schema(as = Purchase, example = json!({
    "id": 4503599627370500_u64,
    "status": "COMPLETED",
    "amount": 5560,
    "currency_code": "VND",
    "cancel_requested": false,
    "created_at": "2026-11-24T08:00:00.000Z",
    "updated_at": "2026-11-24T08:00:00.021Z",
    "ended_at": "2026-11-24T08:00:00.021Z",
    "links": {
        "self": "/api/v1/purchases/4503599627370500",
        "events": "/api/v1/purchases/4503599627370500/events",
        "order": "/api/v1/orders/4503599627370500",
        "payment": "/api/v1/payments/4503599627370500",
    },
    "order_items": [{ "product_id": 4503599627370496_u64, "quantity": 4, "unit_price": 1390 }],
    "steps": [{
        "step": "update-product-inventory",
        "status": "SUCCESS",
        "started_at": "2026-11-24T08:00:00.004Z",
        "updated_at": "2026-11-24T08:00:00.009Z",
    }],
}))]
struct Full {
    #[serde(flatten)]
    summary: Summary,
    #[schema(value_type = Vec<LineView>)]
    order_items: Vec<PurchaseItem>,
    steps: Vec<Step>,
}

/// A product, how many of it, and what one cost when it was quoted, in minor units.
#[derive(ToSchema)]
#[schema(as = PurchaseLine)]
#[expect(dead_code, reason = "describes")]
struct LineView {
    product_id: u64,
    quantity: i64,
    unit_price: i64,
}

/// How a step of the saga stands.
#[derive(Serialize, ToSchema)]
#[schema(as = PurchaseStep)]
struct Step {
    step: String,
    #[schema(value_type = StepStatus)]
    status: ResultStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ReasonView, required = false)]
    reason: Option<Refusal>,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowQuery {
    /// Answer when it changes (with `If-None-Match`) or ends (without), at the latest after this time: `10s`, `500ms`, or
    /// seconds without a unit; cut off at 30 s.
    #[garde(length(chars, max = 20))]
    #[param(max_length = 20, pattern = "^[0-9]+(ms|s)?$", nullable = false)]
    wait: Option<String>,
}

/// A purchase of the customer; with `wait` it is a long poll.
#[utoipa::path(
    get, path = "/purchases/{id}", operation_id = "getPurchase", tag = "purchase",
    params(
        ("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64),
        ShowQuery,
        ("If-None-Match" = Option<String>, Header, nullable = false, description = "The `ETag` of an answer before."),
    ),
    responses(
        (status = 200, description = "The purchase.", body = Full, headers(
            ("ETag" = String, description = "Changes with whatever is shown."),
        )),
        (status = 304, description = "It is as it was known.", headers(
            ("ETag" = String, description = "As it was sent."),
        )),
    ),
    security(("bearer" = [])),
    extensions(("x-problems" = json!(["overloaded"]))),
)]
pub(super) async fn show(
    State(purchases): State<Purchases>,
    identity: Identity,
    PathId(id): PathId,
    ValidQuery(query): ValidQuery<ShowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let customer = identity.customer_id;
    let known = headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let row = match query.wait {
        None => purchases.get(customer, id).await?,
        Some(text) => {
            let wait = wait_ms(&text).ok_or_else(|| invalid("#/wait", "must be like 10s or 500ms"))?;
            let inner = purchases.inner();
            if inner.live.waiting() >= inner.patience.waiting {
                inner.stats.polls_refused.inc();
                return Err(Problem::new(Code::Overloaded, "too many requests are waiting").retry_after(1));
            }
            let now = inner.clock.now();
            let until = now.saturating_add(wait).min(identity.expires_at.max(now));
            // Who knows a version waits for another one; who knows none waits for the end.
            let changed = |row: &Row| known.is_some_and(|known| !matches(known, &etag(row)));
            purchases.wait(customer, id, until, known.is_none(), changed).await?
        }
    };
    let row = row.ok_or_else(|| no_such_purchase(id))?;
    let etag = etag(&row);
    let unchanged = known.is_some_and(|known| matches(known, &etag));
    let mut response = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => axum::Json(full(row, &inner_course(&purchases))?).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    Ok(response)
}

fn inner_course(purchases: &Purchases) -> Course {
    purchases.inner().course.clone()
}

/// `10s`, `500ms`, or seconds without a unit; cut off at the longest.
fn wait_ms(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').unwrap_or(text), 1_000),
    };
    let lawful = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = lawful.then(|| digits.parse().unwrap_or(MAX_WAIT))?;
    Some(number.saturating_mul(unit).min(MAX_WAIT))
}

/// Whatever is shown changes with an event or with a wish to cancel.
fn etag(row: &Row) -> String {
    let cancel = if row.cancel_requested_at.is_some() { "c" } else { "" };
    format!("\"{}{cancel}\"", row.last_seq)
}

/// Weak comparison (RFC 9110 §13.1.2).
fn matches(if_none_match: &str, etag: &str) -> bool {
    let tags = if_none_match.split(',').map(str::trim);
    tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|tag| tag == etag || tag == "*")
}

fn summary(row: &Row, links: Links) -> Summary {
    Summary {
        id: row.id,
        status: row.status.as_str(),
        amount: row.amount,
        currency_code: row.currency_code.clone(),
        reason: row.reason.clone(),
        cancel_requested: row.cancel_requested_at.is_some(),
        created_at: rfc3339(row.created_at),
        updated_at: rfc3339(row.updated_at),
        ended_at: row.ended_at.map(rfc3339),
        links,
    }
}

fn links(row: &Row, course: &Course, entries: &[Entry<'_>]) -> Links {
    let done = |step: &Option<saga_core::Name>| {
        let name = step.as_ref();
        entries.iter().any(|e| e.status == ResultStatus::Success && name.is_some_and(|name| *name == e.step))
    };
    let mut links = Links::of(row.id);
    if done(&course.order) {
        links = links.with_order(row.id);
    }
    if done(&course.payment) {
        links = links.with_payment(row.id);
    }
    links
}

fn full(row: Row, course: &Course) -> Result<Full, StoreError> {
    let impossible = |what: String| StoreError::Fault(format!("purchase {}: {what}", row.id));
    let entries = results::parse(&row.results).map_err(|e| impossible(e.to_string()))?;
    let input: PurchaseInput = serde_json::from_str(&row.input).map_err(|e| impossible(e.to_string()))?;
    let summary = summary(&row, links(&row, course, &entries));
    Ok(Full { summary, order_items: input.items, steps: steps(entries) })
}

/// How each step stands now, in the order of their starts.
fn steps(entries: Vec<Entry<'_>>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::with_capacity(4);
    for entry in entries.into_iter().filter(|entry| !entry.terminal) {
        let at = rfc3339(entry.at);
        match steps.iter_mut().find(|step| step.step == entry.step) {
            Some(step) => {
                step.status = entry.status;
                step.reason = entry.reason.or(step.reason.take());
                step.updated_at = at;
            }
            None => steps.push(Step {
                step: entry.step.to_owned(),
                status: entry.status,
                reason: entry.reason,
                started_at: at.clone(),
                updated_at: at,
            }),
        }
    }
    steps
}

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many items; 50 when it is not given.
    #[garde(range(min = 1, max = MAX_PAGE))]
    #[param(minimum = 1, maximum = 200, nullable = false)]
    limit: Option<u32>,
    /// The page before told it as `next_page_token`; without one: the first page.
    #[garde(length(chars, max = 200))]
    #[param(max_length = 200, nullable = false)]
    page_token: Option<String>,
}

/// A page of the customer's purchases, newest first.
#[utoipa::path(
    get, path = "/purchases", operation_id = "listPurchases", tag = "purchase",
    params(ListQuery),
    responses((status = 200, description = "A page.", body = Page<Summary>)),
    security(("bearer" = [])),
)]
pub(super) async fn list(
    State(purchases): State<Purchases>,
    identity: Identity,
    ValidQuery(query): ValidQuery<ListQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(PAGE);
    let before: u64 = query.page_token.as_deref().map(decode_token).transpose()?.unwrap_or(MAX_SAFE + 1);
    let before = before.min(MAX_SAFE + 1);
    let mut rows = purchases.page(identity.customer_id, before, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let course = inner_course(&purchases);
    let view = |row: &Row| {
        let entries = results::parse(&row.results).unwrap_or_default();
        summary(row, links(row, &course, &entries))
    };
    let next_page_token = rows.last().filter(|_| more).map(|row| encode_token(&row.id));
    let page = Page { items: rows.iter().map(view).collect::<Vec<_>>(), next_page_token };
    Ok(axum::Json(page).into_response())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_wait_has_a_unit_and_an_end() {
        assert_eq!(wait_ms("10s"), Some(10_000));
        assert_eq!(wait_ms("10"), Some(10_000));
        assert_eq!(wait_ms("500ms"), Some(500));
        assert_eq!(wait_ms("99999999999999999999s"), Some(MAX_WAIT));
        for wrong in ["", "s", "ms", "-1s", "1h", "1.5s", "1e3", "+1s", " 1s"] {
            assert_eq!(wait_ms(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn if_none_match_is_a_list_and_weak() {
        assert!(matches("\"3\"", "\"3\""));
        assert!(matches("\"1\", W/\"3\"", "\"3\""));
        assert!(matches("*", "\"3\""));
        assert!(!matches("\"30\"", "\"3\""));
        assert!(!matches("3", "\"3\""));
    }
}
