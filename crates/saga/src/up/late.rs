//! Listeners that answer before there is anything behind them: how the process is, and that it is starting.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use chassis::health::Health;
use chassis::problem::{Code, Problem};
use tower::ServiceExt as _;

use super::services::Routers;

/// Three listeners' routers, which are given later what they answer.
pub(super) struct Late {
    health: Health,
    slots: [Arc<OnceLock<Router>>; 3],
}

impl Late {
    pub(super) fn new(health: &Health) -> Self {
        Self { health: health.clone(), slots: Default::default() }
    }

    /// Of the public, the internal and the admin listener.
    pub(super) fn routers(&self) -> [Router; 3] {
        self.slots.each_ref().map(|slot| {
            let slot = Arc::clone(slot);
            // Not by a route: its parameters would be among those of the routes behind it.
            self.health.router().fallback(move |request| answer(Arc::clone(&slot), request))
        })
    }

    /// From here on everything is answered.
    pub(super) fn open(&self, routers: Routers) {
        let Routers { public, internal, admin, requests } = routers;
        for ((slot, router), requests) in self.slots.iter().zip([public, internal, admin]).zip(&requests) {
            // Nobody else sets it.
            _ = slot.set(chassis::metrics::measured(chassis::http::refusing(router), requests));
        }
    }
}

async fn answer(slot: Arc<OnceLock<Router>>, request: Request) -> Response {
    let Some(router) = slot.get() else {
        return Problem::new(Code::DependencyUnavailable, "the shop is starting; see /readyz?verbose").into_response();
    };
    match router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
