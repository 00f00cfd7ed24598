//! The shop: look at what there is, put it into a basket, buy, watch the purchase go through its steps.
//!
//! A basket is a cookie with ids and quantities; what they cost is asked for whenever it is shown. A form to buy carries a key,
//! so a double click is one purchase.

mod basket;
mod buy;
mod samples;
mod watch;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;

use crate::page::{self, Page, Refusal, SHOP};
use crate::session::{Session, secret};
use crate::{Shop, login, words};

/// Products on a page: full rows of two, three and four.
const PAGE: u32 = 24;
/// Of which so few are left that it is worth a word.
const SCARCE: i64 = 10;

pub(crate) fn router() -> Router<Shop> {
    Router::new()
        .route("/", get(catalogue))
        .route("/login", get(login::shop_form).post(login::shop))
        .route("/register", get(login::register_form).post(login::register))
        .route("/logout", post(login::shop_logout))
        .route("/samples", post(samples::add))
        .route("/basket", get(basket::show).post(basket::put))
        .route("/buy", post(buy::buy))
        .route("/purchases", get(buy::list))
        .route("/purchases/{id}", get(watch::show))
        .route("/purchases/{id}/live", get(watch::live))
        .route("/purchases/{id}/cancel", post(watch::cancel))
}

/// A product, as the API tells it.
#[derive(Clone, Deserialize)]
struct Product {
    id: u64,
    name: String,
    #[serde(default)]
    brand_name: String,
    #[serde(default)]
    description: String,
    price: i64,
    currency_code: String,
    inventory: i64,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
    #[serde(default)]
    next_page_token: Option<String>,
}

/// A product on the shelf.
struct Shelf {
    product: Product,
    price: String,
    /// One of it, and the sandbox gateway says no.
    declined: bool,
    /// How many are one too many, where few are left.
    too_many: Option<i64>,
}

impl Shelf {
    fn of(product: Product) -> Self {
        Self {
            price: words::money(product.price, &product.currency_code),
            declined: product.price % 100 == 13,
            too_many: (product.inventory < SCARCE).then_some(product.inventory + 1),
            product,
        }
    }
}

/// A part of the catalogue to choose.
struct Choice {
    name: String,
    address: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "shop.html")]
struct Catalogue {
    page: Page,
    visitor: Visitor,
    q: String,
    category: String,
    categories: Vec<Choice>,
    shelves: Vec<Shelf>,
    /// Nothing is sold here yet.
    empty: bool,
    next: Option<String>,
    first: Option<String>,
    in_basket: usize,
    /// Of the forms of this page.
    key: String,
}

/// Who is in the shop.
pub(crate) struct Visitor {
    /// Logged in: the first name.
    pub(crate) name: Option<String>,
}

impl Visitor {
    /// Asks the API who it is; a session that has ended is nobody's.
    async fn of(shop: &Shop, session: &Session) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Personal {
            first_name: String,
        }
        if !session.has_token() {
            return Ok(Self { name: None });
        }
        match session.fetch::<Personal>(&*shop.api, "/api/v1/account/customer/personal").await {
            Ok(personal) => Ok(Self { name: Some(personal.first_name) }),
            Err(refusal) if refusal.wants_login() => {
                session.end();
                Ok(Self { name: None })
            }
            // An operator that was made by the command line has no name.
            Err(refusal) if refusal.code == "not_found" => Ok(Self { name: Some("you".to_owned()) }),
            Err(refusal) => Err(refusal),
        }
    }

    fn page(&self, at: &'static str, title: &str, session: &Session) -> Page {
        match self.name {
            Some(_) => Page::of(SHOP, at, title, session),
            None => Page::open(SHOP, at, title, session),
        }
    }
}

#[derive(Deserialize)]
struct Look {
    #[serde(default)]
    category_id: String,
    #[serde(default)]
    q: String,
    #[serde(default)]
    page_token: String,
    #[serde(default)]
    done: String,
}

async fn catalogue(
    State(shop): State<Shop>,
    session: Session,
    Query(look): Query<Look>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // First: it may renew the token that the others use.
    let visitor = Visitor::of(&shop, &session).await?;
    let limit = PAGE.to_string();
    let asked = [("category_id", look.category_id.as_str()), ("q", &look.q), ("page_token", &look.page_token)];
    let products = format!("/api/v1/products?{}", words::query(&[&asked[..], &[("limit", &limit)]].concat()));
    let (products, categories) = futures_util::future::join(
        session.fetch::<List<Product>>(&*shop.api, &products),
        session.fetch::<List<Category>>(&*shop.api, "/api/v1/categories?limit=100"),
    )
    .await;
    let (products, categories) = (products?, categories?);
    let address = |category: &str, token: &str| {
        let query = words::query(&[("category_id", category), ("q", &look.q), ("page_token", token)]);
        if query.is_empty() { SHOP.to_owned() } else { format!("{SHOP}?{query}") }
    };
    let all = Choice { name: "Everything".to_owned(), address: address("", ""), chosen: look.category_id.is_empty() };
    let choices = categories.items.iter().map(|category| {
        let id = category.id.to_string();
        Choice { name: category.name.clone(), address: address(&id, ""), chosen: id == look.category_id }
    });
    let choices: Vec<Choice> = std::iter::once(all).chain(choices).collect();
    let plain = look.category_id.is_empty() && look.q.is_empty() && look.page_token.is_empty();
    page::html(&Catalogue {
        page: visitor.page("shop", "Shop", &session).with(login::done(&look.done)),
        visitor,
        empty: plain && products.items.is_empty(),
        next: products.next_page_token.map(|token| address(&look.category_id, &token)),
        first: (!look.page_token.is_empty()).then(|| address(&look.category_id, "")),
        q: look.q.clone(),
        category: look.category_id.clone(),
        categories: choices,
        shelves: products.items.into_iter().map(Shelf::of).collect(),
        in_basket: basket::of(&headers).len(),
        key: secret(),
    })
}
