//! `/livez` and `/readyz`: alive never depends on others, ready says which part is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::RwLock;

/// The named conditions of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<RwLock<BTreeMap<String, Part>>>);

/// Of a part.
#[derive(Clone, Debug)]
enum Part {
    /// Without it the process is not ready.
    Condition(Result<(), String>),
    /// Told, and nothing depends on it.
    Note(String),
}

impl Health {
    /// Sets a condition: `Ok`, or why not.
    pub fn set(&self, name: &str, state: Result<(), String>) {
        self.0.write().insert(name.to_owned(), Part::Condition(state));
    }

    /// Tells something that the process does not depend on.
    pub fn note(&self, name: &str, text: String) {
        self.0.write().insert(name.to_owned(), Part::Note(text));
    }

    /// Whether every condition is met.
    pub fn is_ready(&self) -> bool {
        !self.0.read().values().any(|state| matches!(state, Part::Condition(Err(_))))
    }

    /// Every condition, and whether it is met.
    pub fn conditions(&self) -> Vec<(String, bool)> {
        let parts = self.0.read();
        let met = |(name, part): (&String, &Part)| match part {
            Part::Condition(state) => Some((name.clone(), state.is_ok())),
            Part::Note(_) => None,
        };
        parts.iter().filter_map(met).collect()
    }

    /// Every condition, one a line.
    pub fn report(&self) -> String {
        let line = |(name, state): (&String, &Part)| match state {
            Part::Condition(Ok(())) => format!("[+] {name} ok\n"),
            Part::Condition(Err(why)) => format!("[-] {name}: {why}\n"),
            Part::Note(text) => format!("[i] {name}: {text}\n"),
        };
        self.0.read().iter().map(line).collect()
    }

    /// The two routes.
    pub fn router(&self) -> Router {
        Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(self.clone())
    }
}

async fn ready(State(health): State<Health>, RawQuery(query): RawQuery) -> Response {
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query.is_some_and(|q| q.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
    let short = if health.is_ready() { "ready\n" } else { "not ready; see ?verbose\n" };
    (status, if verbose { health.report() } else { short.to_owned() }).into_response()
}
