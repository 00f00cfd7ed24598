//! The product service's routes, below `/api/v1`. Reading is free, writing needs the admin role.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chassis::auth::AdminIdentity;
use chassis::json::{PathId, Valid, ValidQuery};
use chassis::money::is_currency;
use chassis::paging::{Page, PageQuery, decode_token};
use chassis::problem::Problem;
use garde::Validate;
use saga_runtime::wire::MAX_ID;
use serde::{Deserialize, Serialize};

use crate::app::{NewProduct, Products};
use crate::domain::{Category, Product, ProductChange};
use crate::store::Listing;

/// Amounts and quantities go up to what every JSON client can hold.
const MOST: i64 = (1 << 53) - 1;

/// Routes below `/api/v1`.
pub fn router(products: Products) -> Router {
    Router::new()
        .route("/products", get(list).post(add))
        .route("/products/{id}", get(show).put(change))
        .route("/categories", get(categories).post(add_category))
        .route("/categories/{id}", get(category).put(change_category).delete(delete_category))
        .with_state(products)
}

#[derive(Serialize)]
struct ProductBody {
    id: u64,
    category_id: u64,
    name: String,
    brand_name: String,
    description: String,
    price: i64,
    currency_code: String,
    inventory: i64,
}

impl From<Product> for ProductBody {
    fn from(product: Product) -> Self {
        let Product { id, category_id, name, brand_name, description, price, currency_code, inventory, .. } = product;
        Self { id, category_id, name, brand_name, description, price, currency_code, inventory }
    }
}

async fn show(State(products): State<Products>, PathId(id): PathId) -> Result<Json<ProductBody>, Problem> {
    let product = products.product(id).await?;
    Ok(Json(ProductBody::from(Product::clone(&product))))
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[garde(range(max = MAX_ID))]
    category_id: Option<u64>,
    #[garde(length(max = 100))]
    q: Option<String>,
    #[garde(range(min = 1, max = 100))]
    limit: Option<u32>,
    #[garde(length(max = 200))]
    page_token: Option<String>,
}

async fn list(
    State(products): State<Products>,
    ValidQuery(query): ValidQuery<ListQuery>,
) -> Result<Json<Page<ProductBody>>, Problem> {
    let limit = query.limit.unwrap_or(20);
    let after = query.page_token.as_deref().map(decode_token).transpose()?;
    let q = query.q.filter(|q| !q.is_empty());
    let found = products.list(Listing { category_id: query.category_id, q, after, limit: limit + 1 }).await?;
    Ok(Json(Page::of(found, limit, |product| product.id, ProductBody::from)))
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct NewProductBody {
    #[garde(range(max = MAX_ID))]
    category_id: u64,
    #[garde(length(chars, min = 1, max = 200))]
    name: String,
    #[garde(length(chars, max = 200))]
    brand_name: String,
    #[garde(length(chars, max = 4_000))]
    description: String,
    #[garde(range(min = 0, max = MOST))]
    price: i64,
    #[garde(inner(custom(currency)))]
    currency_code: Option<String>,
    #[garde(range(min = 0, max = MOST))]
    inventory: i64,
}

fn currency(code: &str, _: &()) -> garde::Result {
    if is_currency(code) { Ok(()) } else { Err(garde::Error::new("is not an ISO 4217 currency code")) }
}

async fn add(
    State(products): State<Products>,
    _: AdminIdentity,
    Valid(body): Valid<NewProductBody>,
) -> Result<Response, Problem> {
    let NewProductBody { category_id, name, brand_name, description, price, currency_code, inventory } = body;
    let new = NewProduct { category_id, name, brand_name, description, price, currency_code, inventory };
    let product = products.add_product(new).await?;
    let location = format!("/api/v1/products/{}", product.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(ProductBody::from(product))).into_response())
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct ProductChangeBody {
    #[garde(inner(range(max = MAX_ID)))]
    category_id: Option<u64>,
    #[garde(inner(length(chars, min = 1, max = 200)))]
    name: Option<String>,
    #[garde(inner(length(chars, max = 200)))]
    brand_name: Option<String>,
    #[garde(inner(length(chars, max = 4_000)))]
    description: Option<String>,
    #[garde(inner(range(min = 0, max = MOST)))]
    price: Option<i64>,
    /// How many come in (or, negative, go out).
    #[garde(inner(range(min = -MOST, max = MOST)))]
    inventory_delta: Option<i64>,
    /// Why; kept in the ledger. Wanted with a delta.
    #[garde(inner(length(chars, min = 1, max = 200)))]
    reason: Option<String>,
}

async fn change(
    State(products): State<Products>,
    _: AdminIdentity,
    PathId(id): PathId,
    Valid(body): Valid<ProductChangeBody>,
) -> Result<Json<ProductBody>, Problem> {
    let ProductChangeBody { category_id, name, brand_name, description, price, inventory_delta, reason } = body;
    let inventory = match (inventory_delta, reason) {
        (Some(delta), Some(reason)) => Some((delta, reason)),
        (None, None) => None,
        (Some(_), None) => return Err(pair("#/reason", "say why the inventory changes")),
        (None, Some(_)) => return Err(pair("#/inventory_delta", "a reason goes with a change of the inventory")),
    };
    let change = ProductChange { category_id, name, brand_name, description, price, inventory };
    Ok(Json(ProductBody::from(products.set_product(id, change).await?)))
}

fn pair(pointer: &str, detail: &str) -> Problem {
    Problem::new(chassis::problem::Code::ValidationError, "the request is not valid")
        .with_errors(vec![(pointer.to_owned(), detail.to_owned())])
}

#[derive(Serialize)]
struct CategoryBody {
    id: u64,
    name: String,
    description: String,
}

impl From<Category> for CategoryBody {
    fn from(Category { id, name, description }: Category) -> Self {
        Self { id, name, description }
    }
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct NewCategoryBody {
    #[garde(length(chars, min = 1, max = 200))]
    name: String,
    #[garde(length(chars, max = 4_000))]
    description: String,
}

async fn add_category(
    State(products): State<Products>,
    _: AdminIdentity,
    Valid(NewCategoryBody { name, description }): Valid<NewCategoryBody>,
) -> Result<Response, Problem> {
    let category = products.add_category(name, description).await?;
    let location = format!("/api/v1/categories/{}", category.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(CategoryBody::from(category))).into_response())
}

async fn categories(
    State(products): State<Products>,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> Result<Json<Page<CategoryBody>>, Problem> {
    let limit = query.limit();
    let found = products.categories(query.after()?, limit + 1).await?;
    Ok(Json(Page::of(found, limit, |category| category.id, CategoryBody::from)))
}

async fn category(State(products): State<Products>, PathId(id): PathId) -> Result<Json<CategoryBody>, Problem> {
    Ok(Json(products.category(id).await?.into()))
}

async fn change_category(
    State(products): State<Products>,
    _: AdminIdentity,
    PathId(id): PathId,
    Valid(NewCategoryBody { name, description }): Valid<NewCategoryBody>,
) -> Result<Json<CategoryBody>, Problem> {
    Ok(Json(products.set_category(Category { id, name, description }).await?.into()))
}

async fn delete_category(
    State(products): State<Products>,
    _: AdminIdentity,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    products.delete_category(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
