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
    // serde would take an array for a struct, field by field.
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
        return Err(invalid(vec![("#".to_owned(), "must be an object, not a list".to_owned())]));
    }
    refuse_nul(bytes)?;
    let mut text = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut text).map_err(|error| misfit(&error))?;
    text.end().map_err(|error| malformed(&error))?;
    value.validate().map_err(|report| invalid(findings(&report)))?;
    Ok(value)
}

/// The character that not every database can hold (PostgreSQL's text cannot): no honest text has it.
fn refuse_nul(bytes: &[u8]) -> Result<(), Problem> {
    const ESCAPED: &[u8] = br"\u0000";
    if !bytes.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
        return Ok(());
    }
    // It may be text after an escaped backslash; what is no JSON is told of later, by whoever parses it.
    let whole: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let mut found = Vec::new();
    nul_in(&whole, "#", &mut found);
    if found.is_empty() { Ok(()) } else { Err(invalid(found)) }
}

fn nul_in(value: &serde_json::Value, at: &str, found: &mut Vec<(String, String)>) {
    let below = |key: &str| {
        let mut at = at.to_owned();
        push(&mut at, key);
        at
    };
    match value {
        serde_json::Value::String(text) if text.contains('\0') => found.push((at.to_owned(), NUL.to_owned())),
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| nul_in(item, &below(&index.to_string()), found));
        }
        serde_json::Value::Object(members) => {
            for (key, member) in members {
                if key.contains('\0') {
                    found.push((at.to_owned(), NUL.to_owned()));
                }
                nul_in(member, &below(key), found);
            }
        }
        _ => {}
    }
}

const NUL: &str = "must not contain the character U+0000";

fn misfit(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let cause = error.inner();
    if cause.classify() != serde_json::error::Category::Data {
        return malformed(cause);
    }
    let detail = cause.to_string();
    let mut at = pointer_to(error.path());
    // A missing or doubled field is told of its object; everything else of the value that is wrong.
    let told_of = ["missing field `", "duplicate field `"].iter().find_map(|start| detail.strip_prefix(start));
    if let Some(field) = told_of.and_then(|rest| rest.split('`').next()) {
        push(&mut at, field);
    }
    invalid(vec![(at, detail)])
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(Code::MalformedJson, format!("the body is not JSON: {error}"))
}

fn findings(report: &garde::Report) -> Vec<(String, String)> {
    report.iter().map(|(path, error)| (pointer(&path.to_string()), error.message().to_string())).collect()
}

/// The value that could not be read, exactly: a key may hold every character.
fn pointer_to(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut out = String::from("#");
    for segment in path {
        match segment {
            Segment::Seq { index } => push(&mut out, &index.to_string()),
            Segment::Map { key } => push(&mut out, key),
            Segment::Enum { variant } => push(&mut out, variant),
            Segment::Unknown => {}
        }
    }
    out
}

/// One step further (RFC 6901, section 3).
fn push(pointer: &mut String, part: &str) {
    pointer.push('/');
    pointer.push_str(&part.replace('~', "~0").replace('/', "~1"));
}

/// `order_items[0].quantity` → `#/order_items/0/quantity`.
fn pointer(path: &str) -> String {
    let mut out = String::from("#");
    let path = if path == "." { "" } else { path };
    for part in path.split(['.', '[', ']']).filter(|p| !p.is_empty()) {
        push(&mut out, part);
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
        let query = parts.uri.query().unwrap_or_default();
        if let Some(pair) = query.split('&').find(|pair| pair.contains("%00")) {
            let key = pair.split('=').next().unwrap_or_default();
            return Err(invalid(vec![(format!("#/{key}"), NUL.to_owned())]));
        }
        let Query(value) = Query::<T>::from_request_parts(parts, state).await.map_err(|rejection| {
            let detail = rejection.body_text();
            // Of a field that nobody knows the name stands in ticks, of a wrong value before the colon.
            let value = || detail.strip_prefix("Failed to deserialize query string: ")?.split_once(": ");
            let field = detail.split('`').nth(1).or_else(|| value().map(|(field, _)| field));
            let named = field.map_or_else(|| "#".to_owned(), |field| format!("#/{field}"));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use axum::response::IntoResponse as _;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, Validate)]
    #[serde(deny_unknown_fields)]
    struct Cart {
        #[garde(length(min = 1), dive)]
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize, Validate)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[garde(range(min = 1, max = 1_000_000))]
        quantity: i64,
    }

    async fn answer(body: &str) -> (u16, String) {
        let problem = parse::<Cart>(body.as_bytes()).map(|cart| cart.items[0].quantity).unwrap_err();
        let response = problem.into_response();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        (status, json["errors"][0]["pointer"].as_str().unwrap_or("-").to_owned())
    }

    #[tokio::test]
    async fn every_wrong_value_is_named_by_its_pointer() {
        for (body, status, pointer) in [
            (r#"{"items":[{"quantity":0}]}"#, 422, "#/items/0/quantity"),
            (r#"{"items":[{"quantity":1},{"quantity":"5"}]}"#, 422, "#/items/1/quantity"),
            (r#"{"items":[{"quantity":1.5}]}"#, 422, "#/items/0/quantity"),
            (r#"{"items":[{"quantity":9223372036854775808}]}"#, 422, "#/items/0/quantity"),
            (r#"{"items":[{"quantity":1,"price":3}]}"#, 422, "#/items/0/price"),
            (r#"{"items":[{}]}"#, 422, "#/items/0/quantity"),
            (r#"{"items":[]}"#, 422, "#/items"),
            ("{}", 422, "#/items"),
            (r#"{"items":[{"quantity":1}],"status":"PAID"}"#, 422, "#/status"),
            ("[[1]]", 422, "#"),
            (r#"{"items":[{"quantity":NaN}]}"#, 400, "-"),
            (r#"{"items":[{"quantity":1}]} x"#, 400, "-"),
            ("", 400, "-"),
        ] {
            assert_eq!(answer(body).await, (status, pointer.to_owned()), "{body}");
        }
        let deep = "[".repeat(10_000);
        assert_eq!(answer(&format!(r#"{{"items":{deep}"#)).await.0 / 100, 4);
    }
}
