//! The payment service's routes, below `/api/v1`.

use axum::extract::State;
use axum::{Json, Router};
use chassis::auth::Identity;
use chassis::json::{PathId, ValidQuery};
use chassis::paging::{Page, PageQuery};
use chassis::problem::Problem;
use chassis::time::rfc3339;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Payments;
use crate::domain::{Payment, Status};

/// Routes below `/api/v1`.
pub fn router(payments: Payments) -> Router {
    api().with_state(payments).into()
}

/// What is to be said about them.
pub fn document() -> OpenApi {
    api().into_openapi()
}

fn api() -> OpenApiRouter<Payments> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// The money side of a purchase.
#[derive(Serialize, ToSchema)]
#[schema(as = Payment, example = json!({
    "id": 4503599627370500_u64,
    "customer_id": 4503599627370300_u64,
    "amount": 5560,
    "currency_code": "VND",
    "status": "CAPTURED",
    "created_at": "2026-11-24T08:00:00.000Z",
}))]
struct PaymentBody {
    /// The purchase's.
    id: u64,
    customer_id: u64,
    /// In minor units of the currency.
    amount: i64,
    /// ISO 4217.
    currency_code: String,
    status: Status,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Payment> for PaymentBody {
    fn from(payment: Payment) -> Self {
        let Payment { id, customer_id, amount, currency_code, status, created_at, .. } = payment;
        Self { id, customer_id, amount, currency_code, status, created_at: rfc3339(created_at) }
    }
}

/// A payment of the customer.
#[utoipa::path(
    get, path = "/payments/{id}", operation_id = "getPayment", tag = "payment",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64, description = "The purchase's.")),
    responses((status = 200, description = "The payment.", body = PaymentBody)),
    security(("bearer" = [])),
)]
async fn show(
    State(payments): State<Payments>,
    identity: Identity,
    PathId(id): PathId,
) -> Result<Json<PaymentBody>, Problem> {
    Ok(Json(payments.show(id, identity.customer_id).await?.into()))
}

/// A page of the customer's payments, newest first.
#[utoipa::path(
    get, path = "/payments", operation_id = "listPayments", tag = "payment",
    params(PageQuery),
    responses((status = 200, description = "A page.", body = Page<PaymentBody>)),
    security(("bearer" = [])),
)]
async fn list(
    State(payments): State<Payments>,
    identity: Identity,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> Result<Json<Page<PaymentBody>>, Problem> {
    let limit = query.limit();
    let found = payments.list(identity.customer_id, query.after()?, limit + 1).await?;
    Ok(Json(Page::of(found, limit, |payment| payment.id, PaymentBody::from)))
}
