//! Who uses the pages: the tokens of a session in cookies that scripts cannot read, renewed when they have expired.
//!
//! A session is the account service's own; here is only the browser's copy of it. What somebody may do is never read from
//! the cookie: the API is asked with the token, and says no if it means no. Only a token that the API has just accepted is
//! asked for the role, to leave out what would be refused anyway.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use saga_runtime::Clock;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Api;
use crate::page::Refusal;

const ACCESS: &str = "saga_access";
const REFRESH: &str = "saga_refresh";
const FORM: &str = "saga_form";
/// More than any answer has that a page is made of.
const LARGEST_ANSWER: usize = 16 << 20;
/// Requests of one page that find the same token expired get the same new pair for so long. Longer, and a stolen token that
/// was spent would still be worth something.
const SAME_PAIR_FOR: Duration = Duration::from_secs(10);

/// What somebody may do, as far as it shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Buys.
    Customer,
    /// Looks.
    Viewer,
    /// Steers.
    Operator,
    /// All of it.
    Admin,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Role::Customer => "customer",
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// An access token and its refresh token.
#[derive(Clone, Deserialize)]
pub(crate) struct Pair {
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

/// Pairs that were just fetched, by the hash of the refresh token that was spent for them.
pub(crate) struct Refreshes {
    fetched: quick_cache::sync::Cache<[u8; 32], (u64, Option<Pair>)>,
    clock: Arc<dyn Clock>,
}

impl Refreshes {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { fetched: quick_cache::sync::Cache::new(1_000), clock }
    }

    /// The next pair; requests that come together spend the token once.
    async fn next(
        &self,
        accounts: &dyn Api,
        token: &str,
        from: Option<ConnectInfo<std::net::SocketAddr>>,
    ) -> Result<Option<Pair>, Refusal> {
        let key = *blake3::hash(token.as_bytes()).as_bytes();
        let now = self.clock.now();
        let fetch = async {
            let body = json!({ "refresh_token": token });
            let request = request(Method::POST, "/api/v1/account/auth/refresh", None, from, Some(&body));
            match read(accounts, request).await {
                Ok(value) => Ok((now, serde_json::from_value(value).ok())),
                Err(refusal) if refusal.wants_login() => Ok((now, None)),
                // Nobody knows whether the token is good: it is not remembered as a bad one.
                Err(refusal) => Err(refusal),
            }
        };
        let (at, pair) = self.fetched.get_or_insert_async(&key, fetch).await?;
        Ok(pair.filter(|_| now.saturating_sub(at) < u64::try_from(SAME_PAIR_FOR.as_millis()).unwrap_or(0)))
    }
}

/// What becomes of the cookies.
enum Change {
    Keep,
    Set(Pair),
    Clear,
}

/// The session of a request.
#[derive(Clone)]
pub(crate) struct Session(Arc<Inner>);

struct Inner {
    base: &'static str,
    accounts: Arc<dyn Api>,
    refreshes: Arc<Refreshes>,
    tokens: Mutex<(Option<String>, Option<String>)>,
    change: Mutex<Change>,
    form: String,
    form_is_new: bool,
    secure: bool,
    from: Option<ConnectInfo<std::net::SocketAddr>>,
}

impl Session {
    /// Of a request.
    pub(crate) fn of(
        base: &'static str,
        accounts: Arc<dyn Api>,
        refreshes: Arc<Refreshes>,
        request: &Request<Body>,
    ) -> Self {
        let headers = request.headers();
        // Written here, so nothing else is taken for one.
        let form = cookie(headers, FORM).filter(|form| form.len() == 32 && form.bytes().all(|b| b.is_ascii_hexdigit()));
        let form_is_new = form.is_none();
        let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        Self(Arc::new(Inner {
            base,
            accounts,
            refreshes,
            tokens: Mutex::new((cookie(headers, ACCESS), cookie(headers, REFRESH))),
            change: Mutex::new(Change::Keep),
            form: form.unwrap_or_else(secret),
            form_is_new,
            secure: proto.is_some_and(|proto| proto.eq_ignore_ascii_case("https")),
            from: request.extensions().get::<ConnectInfo<std::net::SocketAddr>>().copied(),
        }))
    }

    /// What forms of this session carry: made from a cookie that another site cannot read.
    pub(crate) fn form_token(&self) -> String {
        blake3::derive_key("saga console 2026 token of a form", self.0.form.as_bytes())[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Whether a form of this session sent `token`.
    pub(crate) fn made_form(&self, token: &str) -> bool {
        // Hashes are compared in constant time. Without a cookie there is no form of this session yet.
        let same = blake3::hash(token.as_bytes()) == blake3::hash(self.form_token().as_bytes());
        same && !self.0.form_is_new && !self.0.form.is_empty()
    }

    /// Whether somebody is logged in, by the cookies' word.
    pub(crate) fn has_token(&self) -> bool {
        let tokens = self.0.tokens.lock();
        tokens.0.is_some() || tokens.1.is_some()
    }

    /// The role in the token. Only to be asked after the API has accepted it.
    pub(crate) fn role(&self) -> Option<Role> {
        #[derive(Deserialize)]
        struct Claims {
            role: Role,
        }
        let tokens = self.0.tokens.lock();
        let payload = tokens.0.as_deref()?.split('.').nth(1)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        serde_json::from_slice::<Claims>(&payload).ok().map(|claims| claims.role)
    }

    /// Begins: the browser gets the tokens.
    pub(crate) fn begin(&self, pair: Pair) {
        *self.0.tokens.lock() = (Some(pair.access_token.clone()), Some(pair.refresh_token.clone()));
        *self.0.change.lock() = Change::Set(pair);
    }

    /// Ends: the browser forgets the tokens.
    pub(crate) fn end(&self) {
        *self.0.tokens.lock() = (None, None);
        *self.0.change.lock() = Change::Clear;
    }

    /// Asks an API, as JSON.
    pub(crate) async fn get(&self, api: &dyn Api, path: &str) -> Result<Value, Refusal> {
        let response = self.send(api, Method::GET, path, &[], None).await?;
        whole(response).await
    }

    /// The same, read as what it is expected to be.
    pub(crate) async fn fetch<T: serde::de::DeserializeOwned>(&self, api: &dyn Api, path: &str) -> Result<T, Refusal> {
        let value = self.get(api, path).await?;
        serde_json::from_value(value).map_err(|error| {
            tracing::error!(path, %error, "an answer is not what the console knows");
            Refusal::broken("an answer of the service could not be read; it is in the log")
        })
    }

    /// Tells an API something.
    pub(crate) async fn post(&self, api: &dyn Api, path: &str, body: &Value) -> Result<Value, Refusal> {
        whole(self.send(api, Method::POST, path, &[], Some(body)).await?).await
    }

    /// The same with headers, or by another method.
    pub(crate) async fn tell(
        &self,
        api: &dyn Api,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: &Value,
    ) -> Result<Value, Refusal> {
        whole(self.send(api, method, path, headers, Some(body)).await?).await
    }

    /// Opens an event stream; `None` where there is nothing more to come.
    pub(crate) async fn stream(
        &self,
        api: &dyn Api,
        path: &str,
        last_event_id: Option<String>,
    ) -> Result<Option<Body>, Refusal> {
        let headers: Vec<_> = last_event_id.map(|id| ("last-event-id", id)).into_iter().collect();
        let response = self.send(api, Method::GET, path, &headers, None).await?;
        match response.status() {
            StatusCode::OK => Ok(Some(response.into_body())),
            StatusCode::NO_CONTENT => Ok(None),
            _ => Err(refusal(response).await),
        }
    }

    /// Sends a request, and once more with a new token if this one has expired.
    async fn send(
        &self,
        api: &dyn Api,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> Result<Response<Body>, Refusal> {
        let make = |token: Option<String>| {
            let mut request = request(method.clone(), path, token.as_deref(), self.0.from, body);
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::from_str(value) {
                    request.headers_mut().insert(HeaderName::from_static(name), value);
                }
            }
            request
        };
        let (access, refresh) = self.0.tokens.lock().clone();
        let response = api.call(make(access)).await.map_err(|error| Refusal::unreachable(&error))?;
        let Some(refresh) = refresh.filter(|_| response.status() == StatusCode::UNAUTHORIZED) else {
            return Ok(response);
        };
        match self.0.refreshes.next(&*self.0.accounts, &refresh, self.0.from).await? {
            Some(pair) => {
                self.begin(pair.clone());
                api.call(make(Some(pair.access_token))).await.map_err(|error| Refusal::unreachable(&error))
            }
            None => Ok(response),
        }
    }

    /// What the browser is told about its cookies.
    pub(crate) fn cookies(&self) -> Vec<HeaderValue> {
        let Inner { base, secure, form, form_is_new, .. } = &*self.0;
        let secure = if *secure { "; Secure" } else { "" };
        let line = |name: &str, value: &str, age: &str| {
            let text = format!("{name}={value}; Path={base}; HttpOnly; SameSite=Strict{age}{secure}");
            HeaderValue::from_str(&text).ok()
        };
        let gone = "; Max-Age=0";
        let mut lines = match &*self.0.change.lock() {
            Change::Keep => Vec::new(),
            // As long as the browser is open; the account service says how long the session can be renewed.
            Change::Set(pair) => vec![line(ACCESS, &pair.access_token, ""), line(REFRESH, &pair.refresh_token, "")],
            // A new one of the next person.
            Change::Clear => vec![line(ACCESS, "", gone), line(REFRESH, "", gone), line(FORM, "", gone)],
        };
        if *form_is_new && !matches!(*self.0.change.lock(), Change::Clear) {
            lines.push(line(FORM, form, ""));
        }
        lines.into_iter().flatten().collect()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let found = parts.extensions.get::<Session>().cloned();
        found.ok_or_else(|| Refusal::broken("a page was mounted without its frame"))
    }
}

/// A request without the browser's headers: what a page asks for is said here and nowhere else.
fn request(
    method: Method,
    path: &str,
    token: Option<&str>,
    from: Option<ConnectInfo<std::net::SocketAddr>>,
    body: Option<&Value>,
) -> Request<Body> {
    let content = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let mut request = Request::new(content);
    *request.method_mut() = method;
    // Paths are put together here from numbers and encoded text; anything else leads to no route.
    *request.uri_mut() = path.parse().unwrap_or_default();
    if body.is_some() {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(mut value) = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok()) {
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    if let Some(from) = from {
        request.extensions_mut().insert(from);
    }
    request
}

async fn read(api: &dyn Api, request: Request<Body>) -> Result<Value, Refusal> {
    whole(api.call(request).await.map_err(|error| Refusal::unreachable(&error))?).await
}

async fn whole(response: Response<Body>) -> Result<Value, Refusal> {
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
    let body = body.map_err(|_| Refusal::broken("the service's answer broke off"))?.to_bytes();
    Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn refusal(response: Response<Body>) -> Refusal {
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
    let problem = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok()).unwrap_or(Value::Null);
    Refusal::of_problem(status, &problem)
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, value)| *found == name && !value.is_empty()).map(|(_, value)| value.to_owned())
}

/// 128 random bits as text.
#[expect(clippy::disallowed_methods, reason = "a secret")]
pub(crate) fn secret() -> String {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Nobody can guess what no form carries: without randomness nothing is accepted.
        tracing::error!("there is no randomness");
        return String::new();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of a cookie that a page keeps for itself.
pub(crate) fn kept(headers: &HeaderMap, name: &str) -> Option<String> {
    cookie(headers, name)
}
