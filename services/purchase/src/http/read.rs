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

use super::{Links, invalid, no_such_purchase};
use crate::app::Purchases;
use crate::domain::MAX_SAFE;
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
#[derive(Serialize)]
struct Summary {
    id: u64,
    status: &'static str,
    amount: i64,
    currency_code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Refusal>,
    cancel_requested: bool,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    links: Links,
}

#[derive(Serialize)]
struct Full {
    #[serde(flatten)]
    summary: Summary,
    order_items: Vec<PurchaseItem>,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    step: String,
    status: ResultStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Refusal>,
    started_at: String,
    updated_at: String,
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    #[garde(length(max = 20))]
    wait: Option<String>,
}

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

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[garde(range(min = 1, max = MAX_PAGE))]
    limit: Option<u32>,
    #[garde(length(max = 200))]
    page_token: Option<String>,
}

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
