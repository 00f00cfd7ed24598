//! The API's document, generated from the handlers (OpenAPI 3.1), at `/openapi.json`, and a page at `/docs` that shows it.
//!
//! Promised: the document is put together once, when the process starts; the page and all that it needs is in the binary
//! and loads nothing from elsewhere. Every process has the document of the whole shop, so behind an edge it does not
//! matter who is asked.

pub(super) mod runbooks;

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use chassis::problem::{Code, Problem};
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

/// Where the document is.
const DOCUMENT: &str = "/openapi.json";

/// The pages that the `type` of a problem leads to: of every code, also of those with which sagas are refused.
macro_rules! pages {
    ($($code:literal),* $(,)?) => {
        &[$(($code, include_str!(concat!("../../../../docs/errors/", $code, ".md")))),*]
    };
}

/// By their codes, as texts in Markdown.
const ERRORS: &[(&str, &str)] = pages![
    "amount_out_of_range",
    "cancelled",
    "compensation_stuck",
    "conflict",
    "deadline_exceeded",
    "dependency_unavailable",
    "forbidden",
    "idempotency_in_progress",
    "idempotency_key_reused",
    "insufficient_stock",
    "internal_error",
    "invalid_order",
    "invalid_payment",
    "invalid_purchase",
    "malformed_json",
    "method_not_allowed",
    "not_found",
    "order_cancelled",
    "order_not_found",
    "overloaded",
    "payload_too_large",
    "payment_declined",
    "price_changed",
    "product_not_found",
    "rate_limited",
    "token_expired",
    "too_many_streams",
    "unauthenticated",
    "undone_before_do",
    "unsupported_currency",
    "unsupported_media_type",
    "validation_error",
];

/// What the page may load: its own files. It draws its icons from data of its own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const ABOUT: &str = "Register, log in, buy, and watch the purchase go through its steps.\n\n\
    Errors are `application/problem+json` (RFC 9457) with a stable `code`; its `type` leads to a page about it. \
    `Retry-After` says when to come back. Amounts are integers in minor units, ids integers below 2^53 (`7`, not `7.0`), times RFC 3339 in \
    UTC. Lists are pages: hand `next_page_token` back as `page_token`. Fields and parameters that nobody knows are \
    refused, and so is the character U+0000. A body may have up to 64 KiB, all headers together 16 KiB.";

const ADMIN_ABOUT: &str = "What the console and the command line are made of.\n\n\
    Errors are `application/problem+json` (RFC 9457) with a stable `code`; its `type` leads to a page about it. Lists are \
    pages: hand `next_page_token` back as `page_token`. Fields and parameters that nobody knows are refused.";

/// The document of what customers use.
///
/// # Errors
/// When two services gave different things one name.
pub fn public() -> anyhow::Result<Value> {
    let (account, keys) = account::http::documents();
    let tags = json!([
        { "name": "account", "description": "Customers and their sessions." },
        { "name": "product", "description": "The catalogue and the stock." },
        { "name": "purchase", "description": "Buying, and how it goes." },
        { "name": "order", "description": "What was bought." },
        { "name": "payment", "description": "The money side of purchases." },
    ]);
    let parts = [
        ("/api/v1", account),
        ("", keys),
        ("/api/v1", product::http::document()),
        ("/api/v1", purchase::http::document()),
        ("/api/v1", order::http::document()),
        ("/api/v1", payment::http::document()),
    ];
    let token =
        "The `access_token` of a registration, a log-in or a refresh. Where a role is named, the account needs it.";
    // The edge counts each client's requests.
    document("Shop", ABOUT, token, tags, parts, &[Code::RateLimited])
}

/// The document of what operators use.
///
/// # Errors
/// When two parts gave different things one name.
pub fn admin() -> anyhow::Result<Value> {
    let tags = json!([
        { "name": "overview", "description": "The shop at a glance; where the orchestrator runs." },
        { "name": "sagas", "description": "Looking at sagas and steering them; where the orchestrator runs." },
        { "name": "dead letters", "description": "Records that could not be handled; where the orchestrator runs." },
        { "name": "messages", "description": "What waits for whom; where the orchestrator runs." },
        { "name": "books", "description": "Whether everything adds up; where the orchestrator runs." },
        { "name": "audit", "description": "Who did what; where the orchestrator runs, and of accounts where the account service does." },
        { "name": "failures", "description": "What goes wrong on purpose; where participants run." },
        { "name": "accounts", "description": "Who has rights; where the account service runs." },
    ]);
    let token = "The token of the run file, or an access token of an account with the role that is named.";
    let parts = [("", orchestrator::http::document()), ("", super::admin::document())];
    document("Shop, for operators", ADMIN_ABOUT, token, tags, parts, &[])
}

fn document<const N: usize>(
    title: &str,
    about: &str,
    token: &str,
    tags: Value,
    parts: [(&str, OpenApi); N],
    before: &[Code],
) -> anyhow::Result<Value> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for (prefix, part) in parts {
        let mut part = serde_json::to_value(part).context("an API's document cannot be written")?;
        for (path, item) in members(&mut part["paths"]) {
            let path = format!("{prefix}{path}");
            ensure!(paths.insert(path.clone(), item).is_none(), "two services say what {path} is");
        }
        for (name, schema) in members(&mut part["components"]["schemas"]) {
            let other = schemas.insert(name.clone(), schema.clone());
            ensure!(other.is_none_or(|other| other == schema), "two schemas of an API are called {name}");
        }
    }
    let bearer = json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": token });
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": env!("CARGO_PKG_VERSION"),
            "description": about,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        // Wherever the document was found.
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": { "schemas": schemas, "securitySchemes": { chassis::openapi::BEARER: bearer } },
    });
    chassis::openapi::complete(&mut document, before);
    Ok(document)
}

fn members(value: &mut Value) -> Map<String, Value> {
    match value.take() {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// `/openapi.json` and `/docs`.
pub(super) fn router(document: &Value) -> Router {
    let bytes = Bytes::from(document.to_string());
    let etag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
    let config = Arc::new(
        // "none": it would show the document to somebody else's server.
        Config::from(DOCUMENT).validator_url("none").use_base_layout().default_models_expand_depth(0),
    );
    let index = Arc::clone(&config);
    Router::new()
        .route(DOCUMENT, get(move |headers: HeaderMap| async move { json_answer(&headers, &bytes, &etag) }))
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/docs/", get(move || async move { page("", index) }))
        .route("/docs/errors/{code}", get(error_page))
        .route("/docs/{file}", get(move |Path(file): Path<String>| async move { page(&file, config) }))
}

fn json_answer(headers: &HeaderMap, bytes: &Bytes, etag: &str) -> Response {
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let known = known.is_some_and(|known| known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    let same = [(ETAG, etag.to_owned()), (CACHE_CONTROL, "no-cache".to_owned())];
    match known {
        true => (StatusCode::NOT_MODIFIED, same).into_response(),
        false => (same, [(CONTENT_TYPE, "application/json")], bytes.clone()).into_response(),
    }
}

async fn error_page(Path(code): Path<String>) -> Response {
    match ERRORS.iter().find(|(name, _)| *name == code) {
        // As text: a browser shows it, and nothing in it is taken for anything else.
        Some((_, text)) => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], *text).into_response(),
        None => Problem::new(Code::NotFound, "there is no such error code").into_response(),
    }
}

fn page(file: &str, config: Arc<Config<'static>>) -> Response {
    let found = match utoipa_swagger_ui::serve(file, config) {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(%error, file, "the API's page cannot be shown");
            return Problem::new(Code::InternalError, "the page cannot be shown; it has been logged").into_response();
        }
    };
    let Some(found) = found else {
        return Problem::new(Code::NotFound, "the API's page has no such file").into_response();
    };
    let mut response = found.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(&found.content_type) {
        headers.insert(CONTENT_TYPE, kind);
    }
    if found.gzpipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

#[cfg(test)]
mod tests;
