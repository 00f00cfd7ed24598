//! A service as small as can be: it says who it is and what it was asked. Stopping it takes its whole runtime away, as
//! the end of a process would.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// What a replica and its test both know.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) ready: AtomicBool,
    /// Requests, health checks aside.
    pub(crate) requests: AtomicU32,
    /// Requests that are answered by closing the connection, from now on.
    pub(crate) drop_next: AtomicU32,
}

pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    runtime: Option<Runtime>,
}

impl Replica {
    pub(crate) fn start(name: &str) -> Self {
        // Not the kernel's choice: that could be somebody's by the time this replica starts again.
        let [public, internal] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], testkit::port::unused())));
        let seen = Arc::new(Seen::default());
        let mut replica = Self { name: name.to_owned(), public, internal, seen, runtime: None };
        replica.again();
        replica
    }

    /// Starts it (again), on the same ports.
    pub(crate) fn again(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let public = runtime.block_on(TcpListener::bind(self.public)).unwrap();
        let internal = runtime.block_on(TcpListener::bind(self.internal)).unwrap();
        self.seen.ready.store(true, Ordering::SeqCst);
        for (listener, name) in [(public, "public"), (internal, "internal")] {
            runtime.spawn(serve(listener, router(format!("{}/{name}", self.name), self.seen.clone())));
        }
        self.runtime = Some(runtime);
    }

    /// Ends it at once, with everything that is open.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    pub(crate) fn requests(&self) -> u32 {
        self.seen.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn argument(&self, service: &str) -> String {
        format!("{service}={}/{}", self.public, self.internal)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// HTTP/1.1 and HTTP/2 on one listener, as the real ones do it.
async fn serve(listener: TcpListener, router: Router) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            // A connection that the other side ends is no finding here.
            drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn router(name: String, seen: Arc<Seen>) -> Router {
    Router::new().fallback(move |request: Request| answer(name.clone(), seen.clone(), request))
}

async fn answer(name: String, seen: Arc<Seen>, request: Request) -> Response<Body> {
    if request.uri().path() == "/readyz" && request.headers().get("x-forwarded-for").is_none() {
        let status = if seen.ready.load(Ordering::SeqCst) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return Response::builder().status(status).body(Body::empty()).unwrap();
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let left = seen.drop_next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if left.is_ok() {
        // The connection's task ends, and the connection with it; nothing of an answer was written.
        std::panic::panic_any("this answer is lost");
    }
    if request.uri().path().ends_with("/events") || request.uri().path().ends_with("/live") {
        return if request.uri().path().contains("/endless/") { comments() } else { events(name) };
    }
    if request.uri().path().ends_with("/silent") {
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    if request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc") {
        return grpc(&name);
    }
    let headers: Vec<String> =
        request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect();
    let uri = request.uri().clone();
    let size = request.into_body().collect().await.map(|body| body.to_bytes().len()).unwrap_or(0);
    Response::new(Body::from(format!("{name} {uri} {size}\n{}\n", headers.join("\n"))))
}

/// One event at once, one after a silence that is longer than an answer may take.
fn events(name: String) -> Response<Body> {
    let events = stream::unfold(0, move |at| {
        let name = name.clone();
        async move {
            match at {
                0 => Some((Ok::<_, Infallible>(format!("data: first of {name}\n\n")), 1)),
                1 => {
                    tokio::time::sleep(super::SILENCE).await;
                    Some((Ok(format!("data: second of {name}\n\n")), 2))
                }
                _ => None,
            }
        }
    });
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(events)).unwrap()
}

/// A stream that never ends by itself, with a comment from time to time.
fn comments() -> Response<Body> {
    let comments = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, Infallible>(": still there\n\n"), ()))
    });
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(comments)).unwrap()
}

/// A message with the replica's name, and a status in the trailers.
fn grpc(name: &str) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(bytes::Bytes::from(name.to_owned())), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
    let body = Body::new(StreamBody::new(stream::iter(frames)));
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// An empty gRPC message.
pub(crate) fn message() -> Full<bytes::Bytes> {
    Full::new(bytes::Bytes::from_static(&[0; 5]))
}
