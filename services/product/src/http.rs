//! The product service's routes, below `/api/v1`. Reading is free, writing needs the admin role.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use chassis::auth::AdminIdentity;
use chassis::json::{PathId, Valid, ValidQuery};
use chassis::money::is_currency;
use chassis::paging::{Page, PageQuery, decode_token};
use chassis::problem::Problem;
use garde::Validate;
use saga_runtime::wire::MAX_ID;
use serde::{Deserialize, Serialize};
use utoipa::openapi::OpenApi;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{NewProduct, Products};
use crate::domain::{Category, Product, ProductChange};
use crate::store::Listing;

/// Amounts and quantities go up to what every JSON client can hold.
const MOST: i64 = (1 << 53) - 1;

/// Routes below `/api/v1`.
pub fn router(products: Products) -> Router {
    api().with_state(products).into()
}

/// What is to be said about them.
pub fn document() -> OpenApi {
    api().into_openapi()
}

fn api() -> OpenApiRouter<Products> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show, change))
        .routes(routes!(categories, add_category))
        .routes(routes!(category, change_category, delete_category))
}

/// What can be bought.
#[derive(Serialize, ToSchema)]
#[schema(as = Product, example = json!({
    "id": 4503599627370496_u64,
    "category_id": 4503599627370400_u64,
    "name": "Cup",
    "brand_name": "Clay & Sons",
    "description": "Holds 300 ml.",
    "price": 1390,
    "currency_code": "VND",
    "inventory": 1000,
}))]
struct ProductBody {
    id: u64,
    category_id: u64,
    name: String,
    brand_name: String,
    description: String,
    /// Of one, in minor units of the currency.
    price: i64,
    /// ISO 4217.
    currency_code: String,
    /// How many can be bought now.
    inventory: i64,
}

impl From<Product> for ProductBody {
    fn from(product: Product) -> Self {
        let Product { id, category_id, name, brand_name, description, price, currency_code, inventory, .. } = product;
        Self { id, category_id, name, brand_name, description, price, currency_code, inventory }
    }
}

/// A product.
#[utoipa::path(
    get, path = "/products/{id}", operation_id = "getProduct", tag = "product",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64)),
    responses((status = 200, description = "The product.", body = ProductBody)),
)]
async fn show(State(products): State<Products>, PathId(id): PathId) -> Result<Json<ProductBody>, Problem> {
    let product = products.product(id).await?;
    Ok(Json(ProductBody::from(Product::clone(&product))))
}

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only products of this category.
    #[garde(range(max = MAX_ID))]
    #[param(maximum = 9007199254740991_u64, nullable = false)]
    category_id: Option<u64>,
    /// Only products with this in their name, whatever its capitals.
    #[garde(length(chars, max = 100))]
    #[param(max_length = 100, nullable = false)]
    q: Option<String>,
    /// How many items; 20 when it is not given.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100, nullable = false)]
    limit: Option<u32>,
    /// The page before told it as `next_page_token`; without one: the first page.
    #[garde(length(chars, max = 200))]
    #[param(max_length = 200, nullable = false)]
    page_token: Option<String>,
}

/// A page of products, in the order of their ids.
#[utoipa::path(
    get, path = "/products", operation_id = "listProducts", tag = "product",
    params(ListQuery),
    responses((status = 200, description = "A page.", body = Page<ProductBody>)),
)]
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

/// A product to be sold.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewProduct, example = json!({
    "category_id": 4503599627370400_u64,
    "name": "Cup",
    "brand_name": "Clay & Sons",
    "description": "Holds 300 ml.",
    "price": 1390,
    "inventory": 1000,
}))]
struct NewProductBody {
    #[garde(range(max = MAX_ID))]
    #[schema(maximum = 9007199254740991_u64)]
    category_id: u64,
    #[garde(length(chars, min = 1, max = 200))]
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[garde(length(chars, max = 200))]
    #[schema(max_length = 200)]
    brand_name: String,
    #[garde(length(chars, max = 4_000))]
    #[schema(max_length = 4000)]
    description: String,
    /// Of one, in minor units of the currency.
    #[garde(range(min = 0, max = MOST))]
    #[schema(minimum = 0, maximum = 9007199254740991_i64)]
    price: i64,
    /// ISO 4217; the shop's own when it is not given.
    #[garde(inner(custom(currency)))]
    #[schema(pattern = "^[A-Z]{3}$", min_length = 3, max_length = 3)]
    currency_code: Option<String>,
    #[garde(range(min = 0, max = MOST))]
    #[schema(minimum = 0, maximum = 9007199254740991_i64)]
    inventory: i64,
}

fn currency(code: &str, _: &()) -> garde::Result {
    if is_currency(code) { Ok(()) } else { Err(garde::Error::new("is not an ISO 4217 currency code")) }
}

/// Adds a product.
#[utoipa::path(
    post, path = "/products", operation_id = "addProduct", tag = "product",
    request_body = NewProductBody,
    responses((status = 201, description = "The product.", body = ProductBody,
        headers(("Location" = String, description = "Where it is found.")),
        links(
            ("getProduct" = (operation_id = "getProduct", parameters(("id" = "$response.body#/id")))),
            ("changeProduct" = (operation_id = "changeProduct", parameters(("id" = "$response.body#/id")))),
        ),
    )),
    security(("bearer" = ["admin"])),
)]
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

/// What is to change; what is left out stays.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProductChange, example = json!({ "price": 1490, "inventory_delta": 200, "reason": "a delivery" }))]
struct ProductChangeBody {
    #[garde(inner(range(max = MAX_ID)))]
    #[schema(maximum = 9007199254740991_u64)]
    category_id: Option<u64>,
    #[garde(inner(length(chars, min = 1, max = 200)))]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[garde(inner(length(chars, max = 200)))]
    #[schema(max_length = 200)]
    brand_name: Option<String>,
    #[garde(inner(length(chars, max = 4_000)))]
    #[schema(max_length = 4000)]
    description: Option<String>,
    /// Of one, in minor units of the currency.
    #[garde(inner(range(min = 0, max = MOST)))]
    #[schema(minimum = 0, maximum = 9007199254740991_i64)]
    price: Option<i64>,
    /// How many come in (or, negative, go out).
    #[garde(inner(range(min = -MOST, max = MOST)))]
    #[schema(minimum = -9007199254740991_i64, maximum = 9007199254740991_i64)]
    inventory_delta: Option<i64>,
    /// Why; kept in the ledger. Wanted with a delta, and only then.
    #[garde(inner(length(chars, min = 1, max = 200)))]
    #[schema(min_length = 1, max_length = 200)]
    reason: Option<String>,
}

/// Changes a product: its text, its price, or its stock by a difference and with a reason.
#[utoipa::path(
    put, path = "/products/{id}", operation_id = "changeProduct", tag = "product",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64)),
    request_body = ProductChangeBody,
    responses((status = 200, description = "The product as it is now.", body = ProductBody)),
    security(("bearer" = ["admin"])),
    extensions(("x-problems" = json!(["conflict"]))),
)]
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

/// What products are sorted by.
#[derive(Serialize, ToSchema)]
#[schema(as = Category, example = json!({ "id": 4503599627370400_u64, "name": "Kitchen", "description": "" }))]
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

/// A category as it is to be.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewCategory, example = json!({ "name": "Kitchen", "description": "" }))]
struct NewCategoryBody {
    #[garde(length(chars, min = 1, max = 200))]
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[garde(length(chars, max = 4_000))]
    #[schema(max_length = 4000)]
    description: String,
}

/// Adds a category.
#[utoipa::path(
    post, path = "/categories", operation_id = "addCategory", tag = "product",
    request_body = NewCategoryBody,
    responses((status = 201, description = "The category.", body = CategoryBody,
        headers(("Location" = String, description = "Where it is found.")),
        links(
            ("getCategory" = (operation_id = "getCategory", parameters(("id" = "$response.body#/id")))),
            ("changeCategory" = (operation_id = "changeCategory", parameters(("id" = "$response.body#/id")))),
            ("deleteCategory" = (operation_id = "deleteCategory", parameters(("id" = "$response.body#/id")))),
        ),
    )),
    security(("bearer" = ["admin"])),
)]
async fn add_category(
    State(products): State<Products>,
    _: AdminIdentity,
    Valid(NewCategoryBody { name, description }): Valid<NewCategoryBody>,
) -> Result<Response, Problem> {
    let category = products.add_category(name, description).await?;
    let location = format!("/api/v1/categories/{}", category.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(CategoryBody::from(category))).into_response())
}

/// A page of categories, in the order of their ids.
#[utoipa::path(
    get, path = "/categories", operation_id = "listCategories", tag = "product",
    params(PageQuery),
    responses((status = 200, description = "A page.", body = Page<CategoryBody>)),
)]
async fn categories(
    State(products): State<Products>,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> Result<Json<Page<CategoryBody>>, Problem> {
    let limit = query.limit();
    let found = products.categories(query.after()?, limit + 1).await?;
    Ok(Json(Page::of(found, limit, |category| category.id, CategoryBody::from)))
}

/// A category.
#[utoipa::path(
    get, path = "/categories/{id}", operation_id = "getCategory", tag = "product",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64)),
    responses((status = 200, description = "The category.", body = CategoryBody)),
)]
async fn category(State(products): State<Products>, PathId(id): PathId) -> Result<Json<CategoryBody>, Problem> {
    Ok(Json(products.category(id).await?.into()))
}

/// Changes a category.
#[utoipa::path(
    put, path = "/categories/{id}", operation_id = "changeCategory", tag = "product",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64)),
    request_body = NewCategoryBody,
    responses((status = 200, description = "The category as it is now.", body = CategoryBody)),
    security(("bearer" = ["admin"])),
)]
async fn change_category(
    State(products): State<Products>,
    _: AdminIdentity,
    PathId(id): PathId,
    Valid(NewCategoryBody { name, description }): Valid<NewCategoryBody>,
) -> Result<Json<CategoryBody>, Problem> {
    Ok(Json(products.set_category(Category { id, name, description }).await?.into()))
}

/// Removes a category that has no products.
#[utoipa::path(
    delete, path = "/categories/{id}", operation_id = "deleteCategory", tag = "product",
    params(("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64)),
    responses((status = 204, description = "It is gone.")),
    security(("bearer" = ["admin"])),
    extensions(("x-problems" = json!(["conflict"]))),
)]
async fn delete_category(
    State(products): State<Products>,
    _: AdminIdentity,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    products.delete_category(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
