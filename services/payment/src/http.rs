//! The payment service's routes, below `/api/v1`.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use chassis::auth::Identity;
use chassis::json::{PathId, ValidQuery};
use chassis::paging::{Page, PageQuery};
use chassis::problem::Problem;
use chassis::time::rfc3339;
use serde::Serialize;

use crate::app::Payments;
use crate::domain::{Payment, Status};

/// Routes below `/api/v1`.
pub fn router(payments: Payments) -> Router {
    Router::new().route("/payments", get(list)).route("/payments/{id}", get(show)).with_state(payments)
}

#[derive(Serialize)]
struct PaymentBody {
    id: u64,
    customer_id: u64,
    amount: i64,
    currency_code: String,
    status: Status,
    created_at: String,
}

impl From<Payment> for PaymentBody {
    fn from(payment: Payment) -> Self {
        let Payment { id, customer_id, amount, currency_code, status, created_at, .. } = payment;
        Self { id, customer_id, amount, currency_code, status, created_at: rfc3339(created_at) }
    }
}

async fn show(
    State(payments): State<Payments>,
    identity: Identity,
    PathId(id): PathId,
) -> Result<Json<PaymentBody>, Problem> {
    Ok(Json(payments.show(id, identity.customer_id).await?.into()))
}

async fn list(
    State(payments): State<Payments>,
    identity: Identity,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> Result<Json<Page<PaymentBody>>, Problem> {
    let limit = query.limit();
    let found = payments.list(identity.customer_id, query.after()?, limit + 1).await?;
    Ok(Json(Page::of(found, limit, |payment| payment.id, PaymentBody::from)))
}
