//! The routes of purchases. Own things only: somebody else's purchase is not there.

mod place;
mod read;
mod streams;

use axum::Router;
use axum::routing::{get, post};
use chassis::problem::{Code, Problem};
use serde::Serialize;

use crate::app::Purchases;

/// Where these routes are nested.
const BASE: &str = "/api/v1";

/// All routes, to be nested under `/api/v1`. The token's verifier is a layer of the composition root.
pub fn router(purchases: Purchases) -> Router {
    Router::new()
        .route("/purchases", post(place::place).get(read::list))
        .route("/purchases/events", get(streams::of_customer))
        .route("/purchases/{id}", get(read::show))
        .route("/purchases/{id}/events", get(streams::of_purchase))
        .route("/purchases/{id}/cancel", post(place::cancel))
        .with_state(purchases)
}

/// Where to go from a purchase.
#[derive(Serialize)]
struct Links {
    #[serde(rename = "self")]
    this: String,
    events: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<String>,
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
