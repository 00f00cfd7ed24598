//! Buying and cancelling.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chassis::auth::Identity;
use chassis::json::{PathId, Valid, parse};
use chassis::problem::{Code, Problem};
use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
/// What to buy. Lines of the same product are merged.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPurchase, example = json!({
    "order_items": [{ "product_id": 4503599627370496_u64, "quantity": 4 }],
    "payment": { "currency_code": "VND" },
}))]
pub(super) struct PlaceBody {
    #[garde(skip)]
    #[schema(min_items = 1, max_items = 100)]
    order_items: Vec<Line>,
    #[garde(skip)]
    payment: Payment,
}

/// A product and how many of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPurchaseLine)]
struct Line {
    #[schema(minimum = 1, maximum = 9007199254740991_u64)]
    product_id: u64,
    /// Together the lines of a product may have so many, too.
    #[schema(minimum = 1, maximum = 1000000)]
    quantity: i64,
}

/// How to pay.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPurchasePayment)]
struct Payment {
    /// ISO 4217; the products'.
    #[schema(pattern = "^[A-Z]{3}$", min_length = 3, max_length = 3)]
    currency_code: String,
}

/// A purchase that is on its way.
#[derive(Serialize, ToSchema)]
#[schema(as = AcceptedPurchase, example = json!({
    "id": 4503599627370500_u64,
    "status": "PENDING",
    "links": {
        "self": "/api/v1/purchases/4503599627370500",
        "events": "/api/v1/purchases/4503599627370500/events",
    },
}))]
struct AcceptedView {
    /// Also the order's and the payment's.
    id: u64,
    #[schema(value_type = Status)]
    status: &'static str,
    links: Links,
}

/// Buys: the purchase is written down, and runs as a saga.
///
/// How it goes is told by its event stream, or by looking at it with `wait`. The same key and body are the same purchase for
/// 48 hours.
#[utoipa::path(
    post, path = "/purchases", operation_id = "placePurchase", tag = "purchase",
    params(
        ("Idempotency-Key" = Option<String>, Header, nullable = false, min_length = 1, max_length = 257,
            pattern = r#"^("[ !#-\[\]-~]{1,255}"|[!#-\[\]-~]{1,255})$"#,
            description = "1 to 255 visible ASCII characters, quoted or bare; a customer's own."),
    ),
    request_body = PlaceBody,
    responses((status = 202, description = "Accepted, and on disk.", body = AcceptedView, headers(
        ("Location" = String, description = "Where it is looked at."),
        ("Idempotency-Replayed" = Option<String>, description = "`true` when it was accepted before."),
    ), links(
        ("getPurchase" = (operation_id = "getPurchase", parameters(("id" = "$response.body#/id")))),
        ("cancelPurchase" = (operation_id = "cancelPurchase", parameters(("id" = "$response.body#/id")))),
        ("watchPurchase" = (operation_id = "watchPurchase", parameters(("id" = "$response.body#/id")))),
        ("getOrder" = (operation_id = "getOrder", parameters(("id" = "$response.body#/id")))),
        ("getPayment" = (operation_id = "getPayment", parameters(("id" = "$response.body#/id")))),
    ))),
    security(("bearer" = [])),
    extensions(("x-problems" = json!([
        "idempotency_key_reused", "unsupported_currency", "amount_out_of_range", "overloaded",
    ]))),
)]
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

/// Why.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Cancel, example = json!({ "reason": "ordered twice" }))]
struct CancelBody {
    /// Kept in the saga's history.
    #[garde(inner(length(chars, max = MAX_REASON)))]
    #[schema(max_length = 200)]
    reason: Option<String>,
}

/// A purchase that is to be taken back.
#[derive(Serialize, ToSchema)]
#[schema(as = CancelledPurchase, example = json!({
    "id": 4503599627370500_u64,
    "status": "RUNNING",
    "cancel_requested": true,
    "links": {
        "self": "/api/v1/purchases/4503599627370500",
        "events": "/api/v1/purchases/4503599627370500/events",
    },
}))]
struct CancelView {
    id: u64,
    #[schema(value_type = Status)]
    status: &'static str,
    cancel_requested: bool,
    links: Links,
}

/// Asks for a purchase to be taken back; possible until it is charged.
#[utoipa::path(
    post, path = "/purchases/{id}/cancel", operation_id = "cancelPurchase", tag = "purchase",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64)),
    request_body = Option<CancelBody>,
    responses((status = 202, description = "It is being taken back.", body = CancelView)),
    security(("bearer" = [])),
    extensions(("x-problems" = json!(["conflict"]))),
)]
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
    let CancelBody { reason } = parse(body)?;
    Ok(reason.filter(|reason| !reason.trim().is_empty()).unwrap_or_else(unsaid))
}
