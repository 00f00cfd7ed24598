//! Requests by listener, method, route and status.
//!
//! A route is counted by its template (`/api/v1/purchases/{id}`), whatever is not one of ours together as `other`.
//! Each route has its counters from its first request on; after that a request costs a look at a map, two additions and
//! two readings of the clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use parking_lot::RwLock;
use saga_runtime::Clock;
use saga_runtime::stats::{Counter, Histogram};

use super::{Page, SECONDS, Source};
use crate::trace::known;

/// Routes of one listener: a few times what a shop has.
const MOST_ROUTES: usize = 200;
/// Whatever is no route of ours.
const OTHER: &str = "other";

/// The methods that are told apart; the last stands for all others.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "_OTHER"];

/// The statuses that are told apart: what the shop answers. 499: the client went away before it was answered.
const STATUSES: [u16; 33] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 415,
    422, 428, 429, 431, 499, 500, 501, 502, 503, 504,
];
/// All others.
const OTHER_STATUS: &str = "other";
const GONE: u16 = 499;
const FAILED: u16 = 500;

/// The requests of one listener. Cheap to clone.
#[derive(Clone)]
pub struct HttpMetrics(Arc<Inner>);

struct Inner {
    listener: &'static str,
    clock: Arc<dyn Clock>,
    in_flight: AtomicI64,
    routes: RwLock<HashMap<String, Arc<Route>>>,
}

/// One route's counters, by method.
#[derive(Default)]
struct Route([OfMethod; METHODS.len()]);

struct OfMethod {
    statuses: [Counter; STATUSES.len() + 1],
    took: Histogram,
}

impl Default for OfMethod {
    fn default() -> Self {
        Self { statuses: std::array::from_fn(|_| Counter::default()), took: Histogram::durations() }
    }
}

impl HttpMetrics {
    /// Of a listener.
    pub fn new(listener: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { listener, clock, in_flight: AtomicI64::new(0), routes: RwLock::default() }))
    }

    fn route(&self, template: &str) -> Arc<Route> {
        if let Some(route) = self.0.routes.read().get(template) {
            return Arc::clone(route);
        }
        let mut routes = self.0.routes.write();
        // Templates are ours; the bound is for the day when somebody makes one of what a caller sends.
        let template = if routes.len() < MOST_ROUTES { template } else { OTHER };
        Arc::clone(routes.entry(template.to_owned()).or_default())
    }
}

/// Counts the requests of a router, those to nowhere included: to be put around everything that a listener answers.
pub fn measured(router: Router, metrics: &HttpMetrics) -> Router {
    let metrics = metrics.clone();
    router.layer(from_fn(move |request: Request, next: Next| measure(metrics.clone(), request, next)))
}

/// A stream is counted when it begins to flow.
async fn measure(metrics: HttpMetrics, request: Request, next: Next) -> Response {
    let template = request.extensions().get::<MatchedPath>().map_or(OTHER, MatchedPath::as_str);
    let route = metrics.route(template);
    let method = place(request.method());
    let begun = metrics.0.clock.nanos();
    metrics.0.in_flight.fetch_add(1, Ordering::Relaxed);
    let mut under_way = UnderWay { inner: &metrics.0, route: &route, method, begun, status: None };
    let response = next.run(request).await;
    under_way.status = Some(response.status().as_u16());
    drop(under_way);
    response
}

/// Counted when it is dropped: also when the client goes away, or the handler panics.
struct UnderWay<'r> {
    inner: &'r Inner,
    route: &'r Route,
    method: usize,
    begun: u64,
    status: Option<u16>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.inner.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Some(of) = self.route.0.get(self.method) else { return };
        let status = self.status.unwrap_or(if std::thread::panicking() { FAILED } else { GONE });
        let place = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        if let Some(counter) = of.statuses.get(place) {
            counter.inc();
        }
        of.took.observe_between(self.begun, self.inner.clock.nanos());
    }
}

fn place(method: &Method) -> usize {
    let name = known(method);
    METHODS.iter().position(|known| *known == name).unwrap_or(METHODS.len() - 1)
}

impl Source for HttpMetrics {
    fn collect(&self, page: &mut Page) {
        let Inner { listener, in_flight, routes, .. } = &*self.0;
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let open = in_flight.load(Ordering::Relaxed).max(0) as f64;
        page.gauge("http_requests_in_flight", "Requests that are being answered.", &[("listener", listener)], open);
        let mut routes: Vec<_> = routes.read().iter().map(|(name, route)| (name.clone(), Arc::clone(route))).collect();
        routes.sort_by(|a, b| a.0.cmp(&b.0));
        for (route, counted) in &routes {
            for (method, of) in METHODS.iter().zip(&counted.0) {
                let labels = [("listener", *listener), ("method", *method), ("route", route.as_str())];
                let seen = of.took.snapshot();
                if seen.count() == 0 {
                    continue;
                }
                page.histogram(
                    "http_request_duration_seconds",
                    "From a request's head to its answer's head.",
                    &labels,
                    &seen,
                    SECONDS,
                );
                for (place, counter) in of.statuses.iter().enumerate().filter(|(_, counter)| counter.get() > 0) {
                    let status = STATUSES.get(place).map_or(OTHER_STATUS.to_owned(), u16::to_string);
                    let [listener, method, route] = labels;
                    let labels = [listener, method, route, ("status", status.as_str())];
                    page.counter("http_requests", "Requests that were answered.", &labels, counter.get());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use saga_runtime::SystemClock;

    use super::*;

    #[test]
    fn o05_routes_have_a_bound() {
        let metrics = HttpMetrics::new("public", Arc::new(SystemClock));
        for number in 0..10_000 {
            let route = metrics.route(&format!("/made/up/{number}"));
            let of = &route.0[0];
            of.took.observe(1);
            of.statuses[1].inc();
        }
        let mut page = Page::default();
        metrics.collect(&mut page);
        let text = page.render();
        let routes: Vec<&str> =
            text.lines().filter(|line| line.starts_with("saga_http_request_duration_seconds_count{")).collect();
        assert_eq!(routes.len(), 201, "two hundred, and one for all others");
        assert!(routes.iter().any(|line| line.contains(r#"route="other""#) && line.ends_with(" 9800")), "{routes:?}");
    }
}
