//! The order service's routes, below `/api/v1`.

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

use crate::app::{OrderView, Orders};
use crate::domain::Status;

/// Routes below `/api/v1`.
pub fn router(orders: Orders) -> Router {
    api().with_state(orders).into()
}

/// What is to be said about them.
pub fn document() -> OpenApi {
    api().into_openapi()
}

fn api() -> OpenApiRouter<Orders> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// What was bought.
#[derive(Serialize, ToSchema)]
#[schema(as = Order, example = json!({
    "order_id": 4503599627370500_u64,
    "status": "CONFIRMED",
    "currency_code": "VND",
    "amount": 5560,
    "created_at": "2026-11-24T08:00:00.000Z",
    "products": [{
        "id": 4503599627370496_u64,
        "category_id": 4503599627370400_u64,
        "name": "Cup",
        "brand_name": "Clay & Sons",
        "description": "Holds 300 ml.",
        "price": 1390,
        "quantity": 4,
    }],
}))]
struct OrderBody {
    /// The purchase's.
    order_id: u64,
    status: Status,
    /// ISO 4217.
    currency_code: String,
    /// In minor units of the currency.
    amount: i64,
    #[schema(format = DateTime)]
    created_at: String,
    products: Vec<ProductBody>,
}

/// A product as it is called now, at the price at which it was bought.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderedProduct)]
struct ProductBody {
    id: u64,
    category_id: u64,
    name: String,
    brand_name: String,
    description: String,
    /// Of one, in minor units, when it was bought.
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

/// An order of the customer.
#[utoipa::path(
    get, path = "/orders/{id}", operation_id = "getOrder", tag = "order",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64, description = "The purchase's.")),
    responses((status = 200, description = "The order.", body = OrderBody)),
    security(("bearer" = [])),
)]
async fn show(
    State(orders): State<Orders>,
    identity: Identity,
    PathId(id): PathId,
) -> Result<Json<OrderBody>, Problem> {
    Ok(Json(orders.show(id, identity.customer_id).await?.into()))
}

/// A page of the customer's orders, newest first.
#[utoipa::path(
    get, path = "/orders", operation_id = "listOrders", tag = "order",
    params(PageQuery),
    responses((status = 200, description = "A page.", body = Page<OrderBody>)),
    security(("bearer" = [])),
)]
async fn list(
    State(orders): State<Orders>,
    identity: Identity,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> Result<Json<Page<OrderBody>>, Problem> {
    let limit = query.limit();
    let views = orders.list(identity.customer_id, query.after()?, limit + 1).await?;
    Ok(Json(Page::of(views, limit, |view| view.order.id, OrderBody::from)))
}
