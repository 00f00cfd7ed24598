//! Buying, and what somebody has bought.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{List, Visitor, basket};
use crate::Shop;
use crate::form::Form;
use crate::page::{self, Page, Refusal, SHOP};
use crate::session::Session;
use crate::words::{self, Badge};

/// One product (`product_id`, `quantity`), or all lines of a basket (`line`: `7x2`).
pub(super) async fn buy(State(shop): State<Shop>, session: Session, form: Form) -> Result<Response, Refusal> {
    let mut lines: Vec<basket::Wish> = form.all("line").filter_map(line).collect();
    let whole_basket = !lines.is_empty();
    if let (Some(id), Some(quantity)) = (form.number("product_id"), form.number("quantity")) {
        lines.push((id, quantity));
    }
    if lines.is_empty() {
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "", "Say how many, as a whole number."));
    }
    let items: Vec<Value> =
        lines.iter().map(|(id, quantity)| json!({ "product_id": id, "quantity": quantity })).collect();
    let body = json!({ "order_items": items, "payment": { "currency_code": form.get("currency") } });
    // The same form sent twice is the same purchase; the same form with other lines is another one.
    let key = format!("{}-{}", form.get("key"), &blake3::hash(body.to_string().as_bytes()).to_hex()[..16]);
    let headers = [("idempotency-key", key)];
    let accepted = session.tell(&*shop.api, Method::POST, "/api/v1/purchases", &headers, &body).await?;
    let Some(id) = accepted["id"].as_u64() else { return Err(Refusal::broken("The purchase has no number.")) };
    let mut response = page::see(&format!("{SHOP}/purchases/{id}?from=start"));
    if whole_basket {
        basket::keep(&mut response, &[]);
    }
    Ok(response)
}

fn line(text: &str) -> Option<basket::Wish> {
    let (id, quantity) = text.split_once('x')?;
    Some((id.parse().ok()?, quantity.parse().ok()?))
}

#[derive(Deserialize)]
struct Row {
    id: u64,
    status: String,
    amount: i64,
    currency_code: String,
    created_at: String,
    #[serde(default)]
    reason: Option<Reason>,
}

#[derive(Deserialize)]
pub(super) struct Reason {
    pub(super) code: String,
    pub(super) detail: String,
}

struct Bought {
    id: u64,
    status: Badge,
    amount: String,
    at: String,
    why: String,
}

#[derive(Template)]
#[template(path = "purchases.html")]
struct Purchases {
    page: Page,
    visitor: Visitor,
    bought: Vec<Bought>,
    next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Look {
    #[serde(default)]
    page_token: String,
}

/// Own purchases, newest first.
pub(super) async fn list(
    State(shop): State<Shop>,
    session: Session,
    Query(look): Query<Look>,
) -> Result<Response, Refusal> {
    let query = words::query(&[("limit", "25"), ("page_token", &look.page_token)]);
    let found = session.fetch::<List<Row>>(&*shop.api, &format!("/api/v1/purchases?{query}")).await?;
    let visitor = Visitor::of(&shop, &session).await?;
    let bought = found.items.into_iter().map(|row| Bought {
        id: row.id,
        status: words::status(&row.status),
        amount: words::money(row.amount, &row.currency_code),
        at: words::moment(&row.created_at),
        why: row.reason.map(|reason| reason.detail).unwrap_or_default(),
    });
    page::html(&Purchases {
        page: visitor.page("purchases", "Your purchases", &session),
        bought: bought.collect(),
        visitor,
        next: found
            .next_page_token
            .map(|token| format!("{SHOP}/purchases?{}", words::query(&[("page_token", &token)]))),
    })
}
