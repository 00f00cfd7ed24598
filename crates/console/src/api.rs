//! The console's only way to the services: their HTTP APIs, as any other client uses them.

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use tower::ServiceExt as _;

/// Somebody who answers the calls of an HTTP API.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    /// Makes a call. The body of the answer may be an event stream: dropping it ends the stream.
    ///
    /// # Errors
    /// When nobody answers.
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Unreachable>;
}

/// Nobody answers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// An API in this process.
pub struct InProcess(Router);

impl InProcess {
    /// The routes of a listener.
    pub fn new(router: Router) -> Self {
        Self(chassis::http::refusing(router))
    }
}

#[async_trait]
impl Api for InProcess {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Unreachable> {
        match self.0.clone().oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }
}
