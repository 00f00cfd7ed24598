//! The id under which a request stands in the logs, which is also its trace's: the caller's own (W3C Trace Context) or a
//! new one; and the span of a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use saga_runtime::Clock;
use saga_runtime::trace::{Kind, Span, TRACEPARENT, TraceContext, Tracer, mixed, within};

/// 128 bits, shown as 32 hexadecimal digits; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceId(u128);

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Tells processes apart; within one, requests are counted.
#[expect(clippy::disallowed_methods, reason = "no id of a row: it only has to differ between processes")]
static PROCESS: LazyLock<u64> = LazyLock::new(|| getrandom::u64().unwrap_or(1) | 1);
static COUNT: AtomicU64 = AtomicU64::new(0);

impl TraceId {
    /// The trace that a request says it belongs to, or a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        caller(headers).map_or_else(Self::next, |context| Self(context.trace))
    }

    /// A new one.
    pub fn next() -> Self {
        // Mixed: which traces are kept is decided by the last bits.
        let count = mixed(COUNT.fetch_add(1, Ordering::Relaxed) ^ *PROCESS);
        Self(u128::from(*PROCESS) << 64 | u128::from(count))
    }
}

fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
}

/// Makes a span of each request, if its trace is kept: here that is decided, once for everything that follows from it.
///
/// A stream's span ends when it begins to flow.
pub fn traced(router: Router, tracer: &Tracer, clock: &Arc<dyn Clock>) -> Router {
    if !tracer.is_on() {
        return router;
    }
    let (tracer, clock) = (tracer.clone(), Arc::clone(clock));
    router.layer(from_fn(move |request: Request, next: Next| {
        let (tracer, clock) = (tracer.clone(), Arc::clone(&clock));
        async move { serve(&tracer, &*clock, request, next).await }
    }))
}

async fn serve(tracer: &Tracer, clock: &dyn Clock, request: Request, next: Next) -> Response {
    let caller = caller(request.headers());
    let id = request.extensions().get::<TraceId>().copied().unwrap_or_else(|| TraceId::of(request.headers()));
    if !tracer.keeps(caller.map(|caller| caller.sampled), id.0) {
        return next.run(request).await;
    }
    let context = TraceContext { trace: id.0, span: tracer.fresh(), sampled: true };
    let parent = caller.map_or(0, |caller| caller.span);
    let span = begun(context, parent, &request, clock.nanos());
    let response = within(context, next.run(request)).await;
    tracer.record(ended(span, &response).until(clock.nanos()));
    response
}

fn begun(context: TraceContext, parent: u64, request: &Request, at: u64) -> Span {
    let path = request.uri().path();
    if is_grpc(request.headers()) {
        let name = path.trim_start_matches('/').to_owned();
        let (service, method) = name.split_once('/').map_or(("", ""), |(service, method)| (service, method));
        let (service, method) = (service.to_owned(), method.to_owned());
        let span = Span::new(context, parent, name, Kind::Server, at).with("rpc.system", "grpc");
        return span.with("rpc.service", service).with("rpc.method", method);
    }
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let name = route.as_ref().map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let span = Span::new(context, parent, name, Kind::Server, at)
        .with("http.request.method", method)
        // TLS ends before us.
        .with("url.scheme", "http")
        .with("url.path", path.to_owned());
    match route {
        Some(route) => span.with("http.route", route),
        None => span,
    }
}

fn ended(span: Span, response: &Response) -> Span {
    if is_grpc(response.headers()) {
        // A status that is not in the headers is in the trailers, and OK: ours are all unary.
        let status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
        let status: u64 = status.unwrap_or(0);
        let mut span = span.with("rpc.grpc.status_code", status);
        span.error = (status != 0).then(|| status.to_string());
        return span;
    }
    let status = response.status();
    let mut span = span.with("http.response.status_code", u64::from(status.as_u16()));
    span.error = status.is_server_error().then(|| status.as_u16().to_string());
    span
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A name that is not made up by callers.
pub(crate) fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn read(text: &str) -> Option<String> {
        TraceContext::parse(text).map(|context| TraceId(context.trace).to_string())
    }

    #[test]
    fn a_callers_trace_is_kept_and_a_forged_one_is_not() {
        assert_eq!(read(&format!("00-{GIVEN}-00f067aa0ba902b7-01")).as_deref(), Some(GIVEN));
        assert_eq!(read(&format!("01-{GIVEN}-00f067aa0ba902b7-01-more")).as_deref(), Some(GIVEN));
        for wrong in [
            "".to_owned(),
            format!("00-{GIVEN}-00f067aa0ba902b7-01-more"),
            format!("ff-{GIVEN}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{GIVEN}-{}-01", "0".repeat(16)),
            format!("00-{}-00f067aa0ba902b7-01", GIVEN.to_uppercase()),
            format!("00-{}\n-00f067aa0ba902b7-01", &GIVEN[1..]),
            format!("00-+{}-00f067aa0ba902b7-01", &GIVEN[1..]),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn new_traces_differ() {
        assert_ne!(TraceId::next(), TraceId::next());
        assert_eq!(TraceId::next().to_string().len(), 32);
    }
}
