//! Extractors that let only lawful input through; everything else is a problem with the right code and pointer.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use bytes::Bytes;
use garde::Validate;
use saga_runtime::wire::MAX_ID;
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

/// A JSON body that has the shape of a `T` and passes its rules.
#[derive(Clone, Copy, Debug)]
pub struct Valid<T>(pub T);

impl<S, T> FromRequest<S> for Valid<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        check_media_type(&request)?;
        let bytes = body(request, state).await?;
        parse(&bytes).map(Valid)
    }
}

/// Reads a request's body within the limit.
///
/// # Errors
/// `payload_too_large`, or `malformed_json` when the client broke off.
pub async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
            Problem::new(Code::PayloadTooLarge, "the body may have up to 64 KiB")
        } else {
            Problem::new(Code::MalformedJson, "the body could not be read to its end")
        }
    })
}

/// Refuses what is not plain `application/json`.
///
/// # Errors
/// `unsupported_media_type`.
pub fn check_media_type(request: &Request) -> Result<(), Problem> {
    let text = |name| request.headers().get(name).map(|v| v.to_str().unwrap_or("?").to_ascii_lowercase());
    let kind = text(CONTENT_TYPE).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence != "application/json" {
        return Err(Problem::new(Code::UnsupportedMediaType, "set Content-Type: application/json"));
    }
    match text(CONTENT_ENCODING).as_deref() {
        None | Some("identity") => Ok(()),
        Some(_) => Err(Problem::new(Code::UnsupportedMediaType, "send the body without Content-Encoding")),
    }
}

/// Parses and validates.
///
/// # Errors
/// `malformed_json` for what is no JSON, `validation_error` with pointers for what is not a lawful `T`.
pub fn parse<T: DeserializeOwned + Validate<Context = ()>>(bytes: &[u8]) -> Result<T, Problem> {
    let value: T = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            let detail = error.to_string();
            invalid(vec![(pointer_of(bytes, &detail), detail)])
        }
        _ => Problem::new(Code::MalformedJson, format!("the body is not JSON: {error}")),
    })?;
    value.validate().map_err(|report| invalid(findings(&report)))?;
    Ok(value)
}

/// Serde names the field in its message, not its path: the pointer is the field if it can be found, else the root.
fn pointer_of(bytes: &[u8], detail: &str) -> String {
    let named = detail.split('`').nth(1).filter(|_| detail.contains("field"));
    match named {
        Some(field) => format!("#/{field}"),
        None => {
            let column = detail.rsplit("column ").next().and_then(|c| c.trim().parse::<usize>().ok()).unwrap_or(0);
            let before = bytes.get(..column.min(bytes.len())).unwrap_or_default();
            last_key(before).map_or_else(|| "#".to_owned(), |key| format!("#/{key}"))
        }
    }
}

fn last_key(before: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(before).ok()?;
    let colon = text.rfind("\":")?;
    let start = text[..colon].rfind('"')?;
    Some(text[start + 1..colon].to_owned())
}

fn findings(report: &garde::Report) -> Vec<(String, String)> {
    report.iter().map(|(path, error)| (pointer(&path.to_string()), error.message().to_string())).collect()
}

/// `order_items[0].quantity` → `#/order_items/0/quantity`.
fn pointer(path: &str) -> String {
    let mut out = String::from("#");
    for part in path.split(['.', '[', ']']).filter(|p| !p.is_empty()) {
        out.push('/');
        out.push_str(part);
    }
    out
}

fn invalid(errors: Vec<(String, String)>) -> Problem {
    Problem::new(Code::ValidationError, "the request is not valid").with_errors(errors)
}

/// A query string that has the shape of a `T` and passes its rules.
#[derive(Clone, Copy, Debug)]
pub struct ValidQuery<T>(pub T);

impl<S, T> FromRequestParts<S> for ValidQuery<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(value) = Query::<T>::from_request_parts(parts, state).await.map_err(|rejection| {
            let detail = rejection.body_text();
            let named = detail.split('`').nth(1).map_or_else(|| "#".to_owned(), |field| format!("#/{field}"));
            invalid(vec![(named, detail)])
        })?;
        value.validate().map_err(|report| invalid(findings(&report)))?;
        Ok(ValidQuery(value))
    }
}

/// The `{id}` of a path. Whatever is not an id names nothing: `not_found`.
#[derive(Clone, Copy, Debug)]
pub struct PathId(pub u64);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(Code::NotFound, "there is nothing of that id"))?;
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let id = text.parse::<u64>().ok().filter(|id| digits && *id <= MAX_ID);
        id.map(PathId).ok_or_else(|| Problem::new(Code::NotFound, "there is nothing of that id"))
    }
}
