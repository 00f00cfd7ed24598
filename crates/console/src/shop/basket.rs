//! What somebody means to buy: ids and quantities in a cookie. It is a wish, and nothing in it is believed.

use askama::Template;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::{Product, Visitor};
use crate::form::Form;
use crate::page::{self, Notice, Page, Refusal, SHOP};
use crate::session::{Session, kept, secret};
use crate::{Shop, words};

const BASKET: &str = "saga_basket";
/// Each is looked up when the basket is shown.
const MOST_LINES: usize = 20;

/// A product and how many of it.
pub(super) type Wish = (u64, i64);

/// The basket of a request: `7x2.9x1`.
pub(super) fn of(headers: &HeaderMap) -> Vec<Wish> {
    let text = kept(headers, BASKET).unwrap_or_default();
    let wish = |part: &str| {
        let (id, quantity) = part.split_once('x')?;
        Some((id.parse().ok()?, quantity.parse().ok().filter(|quantity| (1..=1_000_000).contains(quantity))?))
    };
    text.split('.').filter_map(wish).take(MOST_LINES).collect()
}

/// The same for the browser to keep.
pub(super) fn keep(response: &mut Response, wishes: &[Wish]) {
    let text: Vec<String> = wishes.iter().map(|(id, quantity)| format!("{id}x{quantity}")).collect();
    let age = if wishes.is_empty() { "; Max-Age=0" } else { "" };
    let line = format!("{BASKET}={}; Path={SHOP}; HttpOnly; SameSite=Strict{age}", text.join("."));
    if let Ok(line) = HeaderValue::from_str(&line) {
        response.headers_mut().append(SET_COOKIE, line);
    }
}

/// Puts something in (`add`), or sets how many (`set`; 0 takes it out).
pub(super) async fn put(headers: HeaderMap, form: Form) -> Result<Response, Refusal> {
    let mut wishes = of(&headers);
    let (Some(id), Some(quantity)) = (form.number::<u64>("product_id"), form.number::<i64>("quantity")) else {
        return Err(Refusal::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, "", "Say how many, as a whole number."));
    };
    let adds = form.get("how") != "set";
    match wishes.iter_mut().find(|(found, _)| *found == id) {
        Some((_, found)) if adds => *found = found.saturating_add(quantity),
        Some((_, found)) => *found = quantity,
        None => wishes.push((id, quantity)),
    }
    wishes.retain(|(_, quantity)| *quantity > 0);
    wishes.truncate(MOST_LINES);
    let mut response = page::see(&format!("{SHOP}/basket"));
    keep(&mut response, &wishes);
    Ok(response)
}

struct Line {
    product: Product,
    quantity: i64,
    price: String,
    sum: String,
    short: bool,
}

#[derive(Template)]
#[template(path = "basket.html")]
struct Basket {
    page: Page,
    visitor: Visitor,
    lines: Vec<Line>,
    total: String,
    currency: String,
    key: String,
}

/// The basket with today's prices.
pub(super) async fn show(State(shop): State<Shop>, session: Session, headers: HeaderMap) -> Result<Response, Refusal> {
    let visitor = Visitor::of(&shop, &session).await?;
    let wishes = of(&headers);
    let paths: Vec<String> = wishes.iter().map(|(id, _)| format!("/api/v1/products/{id}")).collect();
    let found =
        futures_util::future::join_all(paths.iter().map(|path| session.fetch::<Product>(&*shop.api, path))).await;
    let (mut lines, mut gone) = (Vec::new(), false);
    for ((_, quantity), found) in wishes.iter().zip(found) {
        let product = match found {
            Ok(product) => product,
            Err(refusal) if refusal.code == "not_found" => {
                gone = true;
                continue;
            }
            Err(refusal) => return Err(refusal),
        };
        lines.push(Line {
            price: words::money(product.price, &product.currency_code),
            sum: words::money(product.price.saturating_mul(*quantity), &product.currency_code),
            short: product.inventory < *quantity,
            quantity: *quantity,
            product,
        });
    }
    let currency = lines.first().map(|line| line.product.currency_code.clone()).unwrap_or_default();
    let total =
        lines.iter().fold(0_i64, |sum, line| sum.saturating_add(line.product.price.saturating_mul(line.quantity)));
    let notice = gone.then(|| Notice::bad("Something is not sold any more and was left out."));
    page::html(&Basket {
        page: visitor.page("basket", "Basket", &session).with(notice),
        visitor,
        total: words::money(total, &currency),
        lines,
        currency,
        key: secret(),
    })
}

#[cfg(test)]
mod tests {
    use axum::http::header::COOKIE;

    use super::*;

    #[test]
    fn what_is_not_a_wish_is_left_out_of_a_basket() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static("a=b; saga_basket=7x2.9x0.x.8x-1.5x1000001.6xtwo.10x1"));
        assert_eq!(of(&headers), [(7, 2), (10, 1)]);
    }
}
