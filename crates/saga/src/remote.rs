//! A running shop as seen from a client: addresses, the run file, one keep-alive connection, the admin API.
//!
//! Plain HTTP/1.1: the listeners are on this machine, or behind an edge that adds TLS. The connection is driven by the
//! task that uses it, so a request costs no wake-up of another task.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;

/// More than any answer of ours has.
const LARGEST_ANSWER: usize = 64 << 20;

/// `http://host:port` and perhaps a path before every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    prefix: String,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is not a plain HTTP address.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            None => url,
            Some((scheme, _)) => bail!("{url}: {scheme}:// is not spoken here; give the shop's http:// address"),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().with_context(|| format!("{url}: {port:?} is not a port"))?)
            }
            _ => (authority, 80),
        };
        if host.is_empty() || authority.contains('@') {
            bail!("{url} is not an address like http://127.0.0.1:8000");
        }
        Ok(Self { host: host.to_owned(), port, prefix: path.trim_end_matches('/').to_owned() })
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The path of a request.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Each address that its host has now. Where there are both kinds, only those of IPv4: they are two ways to the same places.
    ///
    /// # Errors
    /// When the name is not known.
    pub(crate) async fn each(&self) -> anyhow::Result<Vec<Self>> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((host, self.port)).await.with_context(|| format!("looking up {host}"))?;
        let (mut four, six): (Vec<_>, Vec<_>) = found.map(|address| address.ip()).partition(IpAddr::is_ipv4);
        if four.is_empty() {
            four = six;
        }
        let at = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Ok(four.into_iter().map(|ip| Self { host: at(ip), ..self.clone() }).collect())
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port)).await.with_context(|| format!("connecting to {self}"))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.prefix)
    }
}

/// What a running shop leaves in its data folder for the command line: addresses, and a token that lasts as long as it runs.
/// Readable by its owner only.
#[derive(Clone, Serialize, Deserialize)]
pub struct RunFile {
    /// The shop's process.
    pub pid: u32,
    /// `http://…` for customers.
    pub public: String,
    /// `http://…` for services (gRPC).
    pub internal: String,
    /// `http://…` for operators.
    pub admin: String,
    /// Bearer token for the admin listener.
    pub token: String,
}

impl fmt::Debug for RunFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunFile").field("pid", &self.pid).field("admin", &self.admin).finish_non_exhaustive()
    }
}

impl RunFile {
    /// Where it is.
    pub fn path(data: &Path) -> PathBuf {
        data.join("run.json")
    }

    /// Reads it; `None` when no shop runs there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = Self::path(data);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let run = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
                Ok(Some(run))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Whether this is the shop at `endpoint`.
    pub(crate) fn serves(&self, endpoint: &Endpoint) -> bool {
        Endpoint::parse(&self.public)
            .is_ok_and(|own| own.port == endpoint.port && (own.is_loopback() == endpoint.is_loopback()))
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Seconds from `Retry-After`.
    pub fn retry_after(&self) -> Option<u64> {
        self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok())
    }

    /// The body as JSON, or why not.
    ///
    /// # Errors
    /// A problem's code and detail when the status is not a success.
    pub fn json(&self) -> anyhow::Result<Value> {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        if self.status.is_success() {
            return Ok(value);
        }
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let mut message = format!("{}: {} {}", self.status, text("code"), text("detail"));
        for error in value["errors"].as_array().into_iter().flatten() {
            let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
            message.push_str(&format!("; {}: {}", part("pointer"), part("detail")));
        }
        bail!(message)
    }
}

type Driver = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// One keep-alive connection, made when it is first needed and again after it broke.
pub struct Connection {
    endpoint: Endpoint,
    host: HeaderValue,
    open: Option<(http1::SendRequest<Full<Bytes>>, Driver)>,
}

impl Connection {
    /// Not connected yet.
    pub fn new(endpoint: &Endpoint) -> Self {
        let host = HeaderValue::from_str(&endpoint.authority()).unwrap_or(HeaderValue::from_static("localhost"));
        Self { endpoint: endpoint.clone(), host, open: None }
    }

    /// Sends a request and reads the whole answer. After an error, the next call connects anew.
    ///
    /// # Errors
    /// When the connection cannot be made or breaks.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        bearer: Option<&HeaderValue>,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        self.send_with(method, path, bearer, &[], body).await
    }

    /// The same with more headers.
    ///
    /// # Errors
    /// When the connection cannot be made or breaks.
    pub async fn send_with(
        &mut self,
        method: Method,
        path: &str,
        bearer: Option<&HeaderValue>,
        extra: &[(&'static str, String)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let request = self.request(method, path, bearer, extra, body)?;
        let result = self.exchange(request).await;
        if result.is_err() {
            self.open = None;
        }
        result
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&HeaderValue>,
        extra: &[(&'static str, String)],
        body: Bytes,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(self.endpoint.path(path)).header(HOST, &self.host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        for (name, value) in extra {
            request = request.header(*name, value);
        }
        Ok(request.body(Full::new(body))?)
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let (response, driver) = self.begin(request).await?;
        let (head, body) = response.into_parts();
        let body = drive(driver, Limited::new(body, LARGEST_ANSWER).collect()).await?;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    async fn begin(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<(Response<Incoming>, &mut Driver)> {
        if self.open.as_ref().is_none_or(|(sender, _)| sender.is_closed()) {
            let io = TokioIo::new(self.endpoint.connect().await?);
            self.open = Some(http1::handshake(io).await?);
        }
        let Some((sender, driver)) = &mut self.open else { bail!("the connection is gone") };
        drive(driver, sender.ready()).await??;
        let response = drive(driver, sender.send_request(request)).await??;
        Ok((response, driver))
    }

    /// Opens an event stream: hands every chunk to `chunk` until the server ends it or `chunk` answers `false`.
    /// Tells the status; chunks come only with 200.
    ///
    /// # Errors
    /// When the connection cannot be made or breaks.
    pub async fn stream(
        &mut self,
        path: &str,
        bearer: Option<&HeaderValue>,
        extra: &[(&'static str, String)],
        mut opened: impl FnMut(),
        mut chunk: impl FnMut(&[u8]) -> bool,
    ) -> anyhow::Result<StatusCode> {
        let request = self.request(Method::GET, path, bearer, extra, Bytes::new())?;
        // An event stream ends with its connection.
        self.open = None;
        let (response, driver) = self.begin(request).await?;
        let status = response.status();
        if status == StatusCode::OK {
            opened();
            let mut body = response.into_body();
            while let Some(frame) = drive(driver, body.frame()).await? {
                let frame = frame?;
                if frame.data_ref().is_some_and(|data| !chunk(data)) {
                    break;
                }
            }
        }
        self.open = None;
        Ok(status)
    }
}

/// Drives the connection until `work` is done.
async fn drive<T>(driver: &mut Driver, work: impl Future<Output = T>) -> anyhow::Result<T> {
    Drive { driver, work: std::pin::pin!(work) }.await
}

struct Drive<'d, W> {
    driver: &'d mut Driver,
    work: Pin<&'d mut W>,
}

impl<T, W: Future<Output = T>> Future for Drive<'_, W> {
    type Output = anyhow::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(done) = this.work.as_mut().poll(context) {
            return Poll::Ready(Ok(done));
        }
        let driven = Pin::new(&mut *this.driver).poll(context);
        // What the connection read just now may be what the work waits for; its end is, too.
        match (this.work.as_mut().poll(context), driven) {
            (Poll::Ready(done), _) => Poll::Ready(Ok(done)),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
            (Poll::Pending, Poll::Ready(Ok(()))) => Poll::Ready(Err(anyhow::anyhow!("the connection was closed"))),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    }
}

/// The admin API of a running shop.
#[derive(Clone)]
pub struct Admin {
    endpoint: Endpoint,
    bearer: HeaderValue,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Admin {
    /// At an address, with a token.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(url: &str, token: &str) -> anyhow::Result<Self> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).context("the token cannot be sent")?;
        bearer.set_sensitive(true);
        Ok(Self { endpoint: Endpoint::parse(url)?, bearer })
    }

    /// `GET`, as JSON.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a problem.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// `POST`, as JSON.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a problem.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Bytes::from(body.to_string())).await
    }

    /// `PUT`, as JSON.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a problem.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Method::PUT, path, Bytes::from(body.to_string())).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        Connection::new(&self.endpoint).send(method, path, Some(&self.bearer), body).await?.json()
    }

    /// Follows an event stream: every event's data goes to `each` until the server ends it.
    ///
    /// # Errors
    /// When nobody answers, or with anything but a stream.
    pub async fn follow(&self, path: &str, mut each: impl FnMut(&str)) -> anyhow::Result<()> {
        let mut lines = chassis::sse::Lines::default();
        let data = |chunk: &[u8]| {
            lines.feed(chunk, |event| each(event.data));
            true
        };
        let status = Connection::new(&self.endpoint).stream(path, Some(&self.bearer), &[], || {}, data).await?;
        if status != StatusCode::OK && status != StatusCode::NO_CONTENT {
            bail!("{status}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn urls_are_read_with_port_and_prefix() {
        let end = Endpoint::parse("http://127.0.0.1:8000/shop/").unwrap();
        assert_eq!(end.to_string(), "http://127.0.0.1:8000/shop");
        assert_eq!(end.path("/api"), "/shop/api");
        assert!(end.is_loopback());
        assert_eq!(Endpoint::parse("http://example.com").unwrap().port, 80);
        assert!(Endpoint::parse("http://[::1]:9/").unwrap().is_loopback());
    }

    #[test]
    fn what_is_not_plain_http_is_refused() {
        for bad in ["https://x", "http://", "http://u@h:1", "http://h:port", "ftp://x"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_machine_is_not_loopback() {
        for url in ["http://192.0.2.1:8000", "http://example.com", "http://127.0.0.1.example.com"] {
            assert!(!Endpoint::parse(url).unwrap().is_loopback(), "{url}");
        }
    }
}
