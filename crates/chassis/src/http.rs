//! The HTTP server: hyper with limits, problems instead of bare errors, and a drain that loses nothing.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use hyper::body::Body as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use crate::problem::{Code, Occurrence, Problem};
use crate::stall::{Stall, prompt};
use crate::trace::TraceId;

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// The largest body, in bytes.
    pub body: usize,
    /// How long a client may take to send its headers.
    pub header_time: Duration,
    /// All headers together, in bytes.
    pub headers: usize,
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// How long a client may take to send its body.
    pub body_time: Duration,
    /// How long a client may leave what is written to it unread.
    pub write_stall: Duration,
    /// How long open requests may take to end when the server stops.
    pub drain: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            body: 64 * 1024,
            header_time: Duration::from_secs(10),
            headers: 16 * 1024,
            // 64 KiB at 2 KiB a second.
            body_time: Duration::from_secs(30),
            // An idle event stream holds one; 10,000 of them must not stop the others.
            connections: 20_000,
            // Event streams are resumed from where they were cut; nobody needs longer to read a few kilobytes.
            write_stall: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Adds what every route needs: the body limit, problems for unknown paths and methods, panics caught, headers set.
pub fn finish(router: Router, limits: HttpLimits) -> Router {
    guarded(refusing(router), limits)
}

/// Adds the problems for unknown paths and methods.
pub fn refusing(router: Router) -> Router {
    router.fallback(nothing_here).method_not_allowed_fallback(|| async {
        Problem::new(Code::MethodNotAllowed, "this path does not take this method; see the Allow header")
    })
}

fn guarded(router: Router, limits: HttpLimits) -> Router {
    router.layer(from_fn(move |request, next| guard(limits, request, next))).layer(DefaultBodyLimit::max(limits.body))
}

/// A gRPC client reads the header, everybody else the problem.
async fn nothing_here(request: Request) -> Response {
    let mut response = Problem::new(Code::NotFound, "there is nothing at this path").into_response();
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        // UNIMPLEMENTED
        response.headers_mut().insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("12"));
    }
    response
}

/// Names the request in the logs, catches panics, tells problems which request they happened to, sets the security
/// headers.
async fn guard(limits: HttpLimits, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let trace_id = TraceId::of(request.headers());
    // At the highest level, so that whatever the filter lets through tells which request it belongs to.
    let span = tracing::error_span!("request", %trace_id, method = %request.method(), path);
    let handled = async move {
        if request.body().size_hint().lower() > limits.body as u64 {
            // It says so itself: nobody has to wait for all of it.
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
        let mut request = request.map(|body| prompt(body, limits.body_time));
        request.extensions_mut().insert(trace_id);
        next.run(request).await
    };
    let answered = std::panic::AssertUnwindSafe(handled.instrument(span.clone())).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        span.in_scope(|| tracing::error!("a handler panicked"));
        Problem::new(Code::InternalError, "the request could not be handled; it has been logged").into_response()
    });
    let mut response = plain_errors_as_problems(response);
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        *response.body_mut() = problem.to_json(Some(Occurrence { instance: &path, trace_id })).into();
        // Of the body before.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(HeaderName::from_static("content-security-policy"))
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

/// Serves a router that is [`refusing`] until `stop`, then lets open requests end (at most `limits.drain`).
#[expect(clippy::disallowed_methods, reason = "its connections are tracked by hyper-util's GracefulShutdown")]
pub fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let router = guarded(router, limits);
    async move {
        let graceful = GracefulShutdown::new();
        let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(limits.connections));
        let server = builder(limits);
        loop {
            let permit = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                permit = slots.clone().acquire_owned() => permit,
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, usually: the ones in use must end first.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Answers are small and awaited: no waiting for more to send.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no_delay could not be set");
            }
            let router = router.clone();
            let service = hyper::service::service_fn(move |request| answer(router.clone(), request, peer));
            let socket = TokioIo::new(Stall::new(stream, limits.header_time, limits.write_stall));
            let connection = server.serve_connection_with_upgrades(socket, service).into_owned();
            let watched = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = watched.await {
                    tracing::debug!(%peer, error, "a connection ended early");
                }
                drop(permit);
            });
        }
        drop(listener);
        if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests were still open after {:?} and were cut off", limits.drain);
        }
    }
}

fn builder(limits: HttpLimits) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    // No pipeline_flush: with it hyper 1.12 buffers without bound for a client that does not read (a51).
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.headers.max(8 * 1024));
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
        .max_concurrent_streams(256)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    server
}

async fn answer(
    router: Router,
    request: hyper::Request<hyper::body::Incoming>,
    peer: SocketAddr,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request).await
}

/// What axum itself refuses (a body over the limit read by a plain extractor, say) becomes a problem as well.
fn plain_errors_as_problems(response: Response) -> Response {
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v == "application/problem+json");
    match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE if !is_problem => {
            Problem::new(Code::PayloadTooLarge, "the body may have up to 64 KiB").into_response()
        }
        _ => response,
    }
}

/// Serves one request without a listener: for tests.
pub async fn oneshot(router: Router, request: Request) -> Response {
    match finish(router, HttpLimits::default()).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
