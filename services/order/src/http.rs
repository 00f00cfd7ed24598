//! The order service's routes, below `/api/v1`.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use chassis::auth::Identity;
use chassis::json::{PathId, ValidQuery};
use chassis::paging::{Page, PageQuery};
use chassis::problem::Problem;
use chassis::time::rfc3339;
use serde::Serialize;

use crate::app::{OrderView, Orders};
use crate::domain::Status;

/// Routes below `/api/v1`.
pub fn router(orders: Orders) -> Router {
    Router::new().route("/orders", get(list)).route("/orders/{id}", get(show)).with_state(orders)
}

#[derive(Serialize)]
struct OrderBody {
    order_id: u64,
    status: Status,
    currency_code: String,
    amount: i64,
    created_at: String,
    products: Vec<ProductBody>,
}

#[derive(Serialize)]
struct ProductBody {
    id: u64,
    category_id: u64,
    name: String,
    brand_name: String,
    description: String,
    price: i64,
    quantity: i64,
}

impl From<OrderView> for OrderBody {
    fn from(OrderView { order, mut products }: OrderView) -> Self {
        let lines = order.lines.iter().map(|line| {
            let details = products.remove(&line.product_id);
            let (category_id, name, brand_name, description) =
                details.map(|d| (d.category_id, d.name, d.brand_name, d.description)).unwrap_or_default();
            let (price, quantity) = (line.unit_price, line.quantity);
            ProductBody { id: line.product_id, category_id, name, brand_name, description, price, quantity }
        });
        Self {
            products: lines.collect(),
            order_id: order.id,
            status: order.status,
            currency_code: order.currency_code,
            amount: order.amount,
            created_at: rfc3339(order.created_at),
        }
    }
}

async fn show(
    State(orders): State<Orders>,
    identity: Identity,
    PathId(id): PathId,
) -> Result<Json<OrderBody>, Problem> {
    Ok(Json(orders.show(id, identity.customer_id).await?.into()))
}

async fn list(
    State(orders): State<Orders>,
    identity: Identity,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> Result<Json<Page<OrderBody>>, Problem> {
    let limit = query.limit();
    let views = orders.list(identity.customer_id, query.after()?, limit + 1).await?;
    Ok(Json(Page::of(views, limit, |view| view.order.id, OrderBody::from)))
}
