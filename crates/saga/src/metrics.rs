//! `GET /metrics` on the admin listener: what every part of this process counted, and what the orchestrator's database
//! and the bus say when they are asked.
//!
//! ```text
//!   counters of the parts ────────────────────────────┐
//!   database, bus ─► asked on a scrape, seconds apart ─┴─► one page
//! ```
//!
//! Nothing here runs unless somebody scrapes. A database or bus that does not answer costs its own series and is told by
//! `saga_poll_up`; the rest of the page is there all the same. Without a token, as scrapers expect: the admin listener is
//! never public. What each name means stands in `docs/metrics.md`.

pub(crate) mod datastores;
mod engine;
mod polled;
pub(crate) mod process;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::metrics::{Page, Source};

pub(crate) use engine::Engine;
pub(crate) use polled::Polled;

/// What is asked on a scrape.
#[derive(Default)]
pub(crate) struct Metrics {
    sources: Vec<Arc<dyn Source>>,
    polled: Option<Polled>,
}

impl Metrics {
    /// Another part that has counted.
    pub(crate) fn add(&mut self, source: Arc<dyn Source>) {
        self.sources.push(source);
    }

    /// What is asked from outside, where this process drives sagas.
    pub(crate) fn poll(&mut self, polled: Polled) {
        self.polled = Some(polled);
    }

    /// The route. It holds whatever the sources hold, until it is dropped.
    pub(crate) fn router(self) -> Router {
        Router::new().route("/metrics", get(show)).with_state(Arc::new(self))
    }
}

async fn show(State(metrics): State<Arc<Metrics>>) -> Response {
    let mut page = Page::default();
    for source in &metrics.sources {
        source.collect(&mut page);
    }
    if let Some(polled) = &metrics.polled {
        polled.collect(&mut page).await;
    }
    ([(CONTENT_TYPE, chassis::metrics::CONTENT_TYPE)], page.render()).into_response()
}
