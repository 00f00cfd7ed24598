//! Around every page: its session, the refusal of requests from other sites, the page that says no, the headers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::api::Api;
use crate::page::{self, Page, Refusal, RefusalPage};
use crate::session::{Refreshes, Session};
use crate::words;

/// Everything is from here: scripts, styles, pictures (and those that a style draws), streams.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Not `no-referrer`: browsers would hide from us that a form is our own.
const REFERRER: &str = "same-origin";

/// What the frame needs.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) base: &'static str,
    pub(crate) accounts: Arc<dyn Api>,
    pub(crate) refreshes: Arc<Refreshes>,
}

pub(crate) async fn frame(State(frame): State<Frame>, mut request: Request, next: Next) -> Response {
    let session = Session::of(frame.base, frame.accounts, frame.refreshes, &request);
    request.extensions_mut().insert(session.clone());
    let ask = Ask::of(&request);
    let mut response = match is_from_here(request.method(), request.headers()) {
        true => next.run(request).await,
        false => Refusal::forged().into_response(),
    };
    if let Some(refusal) = not_understood(&response) {
        response = refusal.into_response();
    }
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        response = said_no(frame.base, &session, &ask, refusal);
    }
    let headers = response.headers_mut();
    for cookie in session.cookies() {
        headers.append(header::SET_COOKIE, cookie);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static(REFERRER));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    response
}

/// What axum itself refuses, before any page has a say: an id that is no number, a field twice, another method.
fn not_understood(response: &Response) -> Option<Refusal> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let detail = "There is nothing at this address, or not like this.";
    let refused = status.is_client_error() && plain && response.extensions().get::<Refusal>().is_none();
    refused.then(|| Refusal::new(status, "", detail))
}

/// What is remembered of a request for the page that says no.
struct Ask {
    /// Where to come back to after the log-in.
    next: Option<String>,
    /// Whether a part of a page was asked for, not a page.
    part: bool,
}

impl Ask {
    fn of(request: &axum::http::Request<Body>) -> Self {
        let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let part = request.headers().contains_key("hx-request") || accepts.contains("text/event-stream");
        let next = request.uri().path_and_query().map(ToString::to_string);
        Self { next: next.filter(|_| request.method() == Method::GET && !part), part }
    }
}

/// Browsers say where a request comes from: by `Sec-Fetch-Site`, or at least, with everything but a plain look, by `Origin`.
fn is_from_here(method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return true;
    }
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    // What is no browser says neither; the token in the form holds for that, too.
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_some() && host == text(header::HOST)
}

fn said_no(base: &'static str, session: &Session, ask: &Ask, refusal: Refusal) -> Response {
    if refusal.wants_login() {
        session.end();
        let login = match &ask.next {
            Some(next) => format!("{base}/login?{}", words::query(&[("next", next)])),
            None => format!("{base}/login"),
        };
        if ask.part {
            // The page that asked for its part goes there.
            let mut response = StatusCode::UNAUTHORIZED.into_response();
            if let Ok(login) = HeaderValue::from_str(&login) {
                response.headers_mut().insert(HeaderName::from_static("hx-redirect"), login);
            }
            return response;
        }
        return page::see(&login);
    }
    let status = refusal.status;
    let page = Page::open(base, "", title(status), session);
    match page::html(&RefusalPage { page, refusal }) {
        Ok(mut response) => {
            *response.status_mut() = status;
            response
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::CONFLICT => "Not as it was",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => "Not now",
        _ => "That did not work",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn another_site_changes_nothing_whatever_it_says() {
        for pairs in [
            &[("sec-fetch-site", "cross-site"), ("host", "a:1"), ("origin", "http://a:1")][..],
            &[("sec-fetch-site", "same-site")],
            &[("host", "a:1"), ("origin", "http://b:1")],
            &[("host", "a:1"), ("origin", "http://a:2")],
            &[("host", "a:1"), ("origin", "null")],
        ] {
            assert!(!is_from_here(&Method::POST, &headers(pairs)), "{pairs:?}");
            assert!(is_from_here(&Method::GET, &headers(pairs)), "a look changes nothing");
        }
    }

    #[test]
    fn our_own_forms_are_taken() {
        for pairs in [
            &[("sec-fetch-site", "same-origin"), ("host", "a:1"), ("origin", "http://a:1")][..],
            &[("host", "a:1"), ("origin", "http://a:1")],
            &[("host", "a:1")],
        ] {
            assert!(is_from_here(&Method::POST, &headers(pairs)), "{pairs:?}");
        }
    }
}
