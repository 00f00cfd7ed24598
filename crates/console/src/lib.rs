//! The pages that people use: the shop for customers, the console for operators.
//!
//! Promised: a page shows only what the API has just answered to who looks, with their own token; without permission nothing is
//! shown. All that is shown is text. Nothing is loaded from elsewhere, no script stands in a page, and what changes something
//! is a form of a page of the same session. A page that nobody has open costs nothing; one whose reader is slow costs its
//! stream.
//!
//! Not here: sessions, rights, the audit and every rule are the APIs'. The console is a client like any other.

mod api;
mod assets;
mod form;
mod frame;
mod live;
mod login;
mod operators;
mod page;
mod session;
mod shop;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::Redirect;
use axum::routing::get;
use saga_runtime::Clock;

pub use api::{Api, InProcess, Unreachable};

use frame::Frame;
use page::{CONSOLE, SHOP};
use session::Refreshes;

/// A form is a few fields; one with a thousand letters' numbers is the largest.
const LARGEST_FORM: usize = 64 * 1024;

/// The pages of a process.
#[derive(Clone)]
pub struct Console {
    shop: Arc<dyn Api>,
    clock: Arc<dyn Clock>,
    refreshes: Arc<Refreshes>,
    traces: Option<Arc<str>>,
}

/// What every page of the shop needs.
#[derive(Clone)]
struct Shop {
    api: Arc<dyn Api>,
    clock: Arc<dyn Clock>,
}

/// What every page of the console needs.
#[derive(Clone)]
struct Operators {
    /// Who knows accounts.
    shop: Arc<dyn Api>,
    /// The admin API.
    api: Arc<dyn Api>,
    clock: Arc<dyn Clock>,
    /// Where traces are looked at, with `{trace_id}` in it.
    traces: Option<Arc<str>>,
}

impl Console {
    /// Pages that use this public API.
    pub fn new(shop: Arc<dyn Api>, clock: Arc<dyn Clock>) -> Self {
        Self { shop, refreshes: Arc::new(Refreshes::new(Arc::clone(&clock))), clock, traces: None }
    }

    /// Links each saga to its trace at this address, in which `{trace_id}` stands for the id.
    #[must_use]
    pub fn with_traces(self, address: Option<&str>) -> Self {
        Self { traces: address.map(Arc::from), ..self }
    }

    /// The customers' pages, at `/shop`.
    pub fn shop(&self) -> Router {
        let state = Shop { api: Arc::clone(&self.shop), clock: Arc::clone(&self.clock) };
        self.framed(SHOP, shop::router().with_state(state))
    }

    /// The operators' pages, at `/console`, that use this admin API.
    pub fn operators(&self, api: Arc<dyn Api>) -> Router {
        let state = Operators {
            shop: Arc::clone(&self.shop),
            api,
            clock: Arc::clone(&self.clock),
            traces: self.traces.clone(),
        };
        self.framed(CONSOLE, operators::router().with_state(state))
    }

    fn framed(&self, base: &'static str, pages: Router) -> Router {
        let frame = Frame { base, accounts: Arc::clone(&self.shop), refreshes: Arc::clone(&self.refreshes) };
        let pages = pages
            .route("/assets/{hash}/{name}", get(assets::serve))
            .fallback(|| async { page::Refusal::missing("page") })
            .layer(DefaultBodyLimit::max(LARGEST_FORM));
        // The frame goes around the nest: only there is the whole address known.
        let nested = Router::new().nest(base, pages).layer(from_fn_with_state(frame, frame::frame));
        nested.route("/", get(move || async move { Redirect::temporary(base) }))
    }
}
