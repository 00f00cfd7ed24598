//! Buying and cancelling.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chassis::auth::Identity;
use chassis::json::{PathId, Valid};
use chassis::problem::{Code, Problem};
use garde::Validate;
use serde::{Deserialize, Serialize};

use super::{Links, invalid, no_such_purchase};
use crate::admission::Refused;
use crate::app::{CatalogueError, PlaceError, Purchases};
use crate::domain::{Cart, CartError, Status, idempotency_key};
use crate::store::Cancelled;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Slots become free within milliseconds; a client that comes back sooner than in a second only waits in another place.
const BUSY_RETRY_SECONDS: u64 = 1;
/// What does not end now will not end in a second.
const BACKLOG_RETRY_SECONDS: u64 = 10;
/// The longest reason for a cancel: it goes into the saga's history.
const MAX_REASON: usize = 200;

// Limits are the domain's: the cart checks them, and says everything that is wrong.
#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct PlaceBody {
    #[garde(skip)]
    order_items: Vec<Line>,
    #[garde(skip)]
    payment: Payment,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    product_id: u64,
    quantity: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payment {
    currency_code: String,
}

#[derive(Serialize)]
struct AcceptedView {
    id: u64,
    status: &'static str,
    links: Links,
}

pub(super) async fn place(
    State(purchases): State<Purchases>,
    identity: Identity,
    headers: HeaderMap,
    Valid(body): Valid<PlaceBody>,
) -> Result<Response, Problem> {
    let key = key_of(&headers)?;
    let lines: Vec<(u64, i64)> = body.order_items.iter().map(|line| (line.product_id, line.quantity)).collect();
    let cart = Cart::new(&lines, &body.payment.currency_code).map_err(|e| problem(e.into()))?;
    let accepted = purchases.place(identity.customer_id, cart, key).await.map_err(problem)?;
    let links = Links::of(accepted.id);
    let location = HeaderValue::from_str(&links.this);
    let view = AcceptedView { id: accepted.id, status: Status::Pending.as_str(), links };
    let mut response = (StatusCode::ACCEPTED, axum::Json(view)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    if accepted.replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = idempotency_key(value.as_bytes()).filter(|_| values.next().is_none());
    let key = key.ok_or_else(|| {
        invalid("#/headers/idempotency-key", "must be one key of 1 to 255 visible ASCII characters, quoted or bare")
    })?;
    Ok(Some(key.to_owned()))
}

fn problem(error: PlaceError) -> Problem {
    let text = error.to_string();
    match error {
        PlaceError::Cart(CartError::Invalid(errors)) => Problem::new(Code::ValidationError, text).with_errors(errors),
        PlaceError::Cart(CartError::UnsupportedCurrency(_)) => Problem::new(Code::UnsupportedCurrency, text),
        PlaceError::Cart(CartError::AmountOutOfRange) => Problem::new(Code::AmountOutOfRange, text),
        PlaceError::KeyReused => Problem::new(Code::IdempotencyKeyReused, text),
        PlaceError::Refused(Refused::Busy) => {
            Problem::new(Code::RateLimited, "too many purchases are on their way; come back in a moment")
                .retry_after(BUSY_RETRY_SECONDS)
        }
        PlaceError::Refused(Refused::Backlog) => {
            Problem::new(Code::Overloaded, "very many purchases have not ended; come back later")
                .retry_after(BACKLOG_RETRY_SECONDS)
        }
        PlaceError::Catalogue(CatalogueError::Unavailable(_)) => {
            Problem::new(Code::DependencyUnavailable, text).retry_after(BUSY_RETRY_SECONDS)
        }
        PlaceError::Catalogue(CatalogueError::Fault(detail)) => saga_runtime::StoreError::Fault(detail).into(),
        PlaceError::Store(error) => error.into(),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct CancelBody {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Serialize)]
struct CancelView {
    id: u64,
    status: &'static str,
    cancel_requested: bool,
    links: Links,
}

pub(super) async fn cancel(
    State(purchases): State<Purchases>,
    identity: Identity,
    PathId(id): PathId,
    body: Bytes,
) -> Result<Response, Problem> {
    let reason = reason_of(&body)?;
    match purchases.cancel(identity.customer_id, id, reason).await? {
        Cancelled::Accepted(row) => {
            let view = CancelView { id, status: row.status.as_str(), cancel_requested: true, links: Links::of(id) };
            Ok((StatusCode::ACCEPTED, axum::Json(view)).into_response())
        }
        Cancelled::TooLate(status) => {
            let detail = match status.is_terminal() {
                true => format!("the purchase is {}: it has ended", status.as_str()),
                false => "the purchase has been charged: it can only go forward".to_owned(),
            };
            Err(Problem::new(Code::Conflict, detail))
        }
        Cancelled::NotFound => Err(no_such_purchase(id)),
    }
}

/// The body is optional: nothing, or `{"reason": "…"}`.
fn reason_of(body: &[u8]) -> Result<String, Problem> {
    let unsaid = || "cancelled by the customer".to_owned();
    if body.is_empty() {
        return Ok(unsaid());
    }
    let parsed: CancelBody = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => invalid("#/reason", error.to_string()),
        _ => Problem::new(Code::MalformedJson, error.to_string()),
    })?;
    match parsed.reason {
        Some(reason) if reason.chars().count() > MAX_REASON => {
            Err(invalid("#/reason", format!("must have at most {MAX_REASON} characters")))
        }
        Some(reason) if !reason.trim().is_empty() => Ok(reason),
        _ => Ok(unsaid()),
    }
}
