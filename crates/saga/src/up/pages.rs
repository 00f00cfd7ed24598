//! The pages for people, mounted beside the APIs that they use: those of this process, or those that the settings name.
//!
//! The shop's pages are on the public listener, the console's on the admin listener, where they are not behind the door: whoever
//! uses them logs in on them, and what they ask for goes through the door like anything else.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use console::{Api, Console, InProcess, Unreachable};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use saga_runtime::Clock;

use super::roles::{ALL, ServiceRole};
use super::services::Core;
use crate::config::ConfigError;
use crate::remote::Endpoint;

/// To have a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// To have the head of an answer; streams go on after it.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Connections that nobody uses.
const IDLE: Duration = Duration::from_secs(20);

/// Adds the pages that this process has to what its listeners answer.
pub(super) fn mount(
    core: &Core,
    clock: &Arc<dyn Clock>,
    public: Router,
    admin: Router,
) -> Result<(Router, Router), ConfigError> {
    let whole = ALL.iter().all(|role| core.roles.contains(role));
    let (has_role, settings) = (core.roles.contains(&ServiceRole::Console), &core.config.console);
    let orchestrates = core.roles.contains(&ServiceRole::Orchestrator);
    // All processes may have the same settings: they bring the pages only to those that are for them.
    if !(whole || has_role || orchestrates) {
        return Ok((public, admin));
    }
    let shop: Arc<dyn Api> = match &settings.shop_url {
        Some(url) => Arc::new(Remote::new("console.shop_url", url, clock)?),
        None if whole => Arc::new(InProcess::new(public.clone())),
        None if has_role => {
            return Err(wanted("console.shop_url", "the shop's public address, like http://127.0.0.1:8000"));
        }
        // Beside the orchestrator the pages are an extra: without an address to log in at there are none.
        None => return Ok((public, admin)),
    };
    let console = Console::new(shop, Arc::clone(clock)).with_traces(settings.trace_url.get());
    let public = if whole || has_role { public.merge(console.shop()) } else { public };
    let api: Arc<dyn Api> = match &settings.admin_url {
        _ if orchestrates => Arc::new(InProcess::new(admin.clone())),
        Some(url) => Arc::new(Remote::new("console.admin_url", url, clock)?),
        None if has_role => {
            return Err(wanted("console.admin_url", "the orchestrator's admin address, like http://127.0.0.1:8002"));
        }
        None => return Ok((public, admin)),
    };
    Ok((public, admin.merge(console.operators(api))))
}

fn wanted(key: &str, what: &str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), detail: format!("the pages need {what}") }
}

/// An API behind an address.
struct Remote {
    endpoint: Endpoint,
    host: HeaderValue,
    client: Client<HttpConnector, Body>,
    clock: Arc<dyn Clock>,
}

impl Remote {
    fn new(key: &str, url: &str, clock: &Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let wrong = |detail: String| ConfigError::Value { key: key.to_owned(), detail };
        let endpoint = Endpoint::parse(url).map_err(|error| wrong(error.to_string()))?;
        let host = HeaderValue::from_str(&endpoint.authority()).map_err(|_| wrong(format!("{url} is no address")))?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { endpoint, host, client, clock: Arc::clone(clock) })
    }
}

#[async_trait]
impl Api for Remote {
    async fn call(&self, mut request: Request<Body>) -> Result<Response<Body>, Unreachable> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("http://{}{}", self.endpoint.authority(), self.endpoint.path(path));
        *request.uri_mut() = uri.parse().map_err(|_| Unreachable(format!("{uri} is no address")))?;
        request.headers_mut().insert(HOST, self.host.clone());
        let answer = tokio::select! {
            answer = self.client.request(request) => answer,
            () = self.clock.sleep(ANSWER_WITHIN) => return Err(Unreachable(format!("{} is too slow", self.endpoint))),
        };
        match answer {
            Ok(answer) => Ok(answer.map(Body::new)),
            Err(error) => {
                tracing::debug!(%error, endpoint = %self.endpoint, "a call of the console failed");
                Err(Unreachable(format!("nobody is at {}", self.endpoint)))
            }
        }
    }
}
