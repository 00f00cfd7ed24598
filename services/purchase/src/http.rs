//! The routes of purchases. Own things only: somebody else's purchase is not there.

mod place;
mod read;
mod streams;

use axum::Router;
use chassis::problem::{Code, Problem};
use serde::Serialize;
use utoipa::openapi::OpenApi;
use utoipa::{PartialSchema as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Purchases;
use crate::results::EventView;

/// Where these routes are nested.
const BASE: &str = "/api/v1";

/// All routes, to be nested under `/api/v1`. The token's verifier is a layer of the composition root.
pub fn router(purchases: Purchases) -> Router {
    api().with_state(purchases).into()
}

/// What is to be said about them.
pub fn document() -> OpenApi {
    let mut document = api().into_openapi();
    // A stream's content is text to OpenAPI: nothing refers to what is in it.
    let mut schemas = vec![(EventView::name().into_owned(), EventView::schema())];
    EventView::schemas(&mut schemas);
    document.components.get_or_insert_default().schemas.extend(schemas);
    document
}

fn api() -> OpenApiRouter<Purchases> {
    OpenApiRouter::new()
        .routes(routes!(place::place, read::list))
        .routes(routes!(streams::of_customer))
        .routes(routes!(read::show))
        .routes(routes!(streams::of_purchase))
        .routes(routes!(place::cancel))
}

/// Where to go from a purchase.
#[derive(Serialize, ToSchema)]
struct Links {
    #[serde(rename = "self")]
    this: String,
    /// Its event stream.
    events: String,
    /// As soon as there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    order: Option<String>,
    /// As soon as there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payment: Option<String>,
}

/// How a step stands: sent, done, refused, taken back, or not to be taken back for now.
#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "describes")]
pub(crate) enum StepStatus {
    Execute,
    Success,
    Failed,
    Rollback,
    RollbackFailed,
}

/// Why a step said no.
#[derive(ToSchema)]
#[schema(as = Reason, example = json!({ "code": "payment_declined", "detail": "the gateway declined the payment" }))]
#[expect(dead_code, reason = "describes")]
pub(crate) struct ReasonView {
    /// Stable: `insufficient_stock`, `price_changed`, `product_not_found`, `payment_declined`, `cancelled`, …
    code: String,
    /// For people.
    detail: String,
}

impl Links {
    fn of(id: u64) -> Self {
        let this = format!("{BASE}/purchases/{id}");
        Self { events: format!("{this}/events"), this, order: None, payment: None }
    }

    fn with_order(mut self, id: u64) -> Self {
        self.order = Some(format!("{BASE}/orders/{id}"));
        self
    }

    fn with_payment(mut self, id: u64) -> Self {
        self.payment = Some(format!("{BASE}/payments/{id}"));
        self
    }
}

fn no_such_purchase(id: u64) -> Problem {
    Problem::new(Code::NotFound, format!("there is no purchase {id}"))
}

fn invalid(pointer: &str, detail: impl Into<String>) -> Problem {
    Problem::new(Code::ValidationError, "the request is not valid")
        .with_errors(vec![(pointer.to_owned(), detail.into())])
}
