//! Errors as people and programs read them: `application/problem+json` (RFC 9457) with a stable code.
//!
//! Each code has a page in `docs/errors/`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use saga_runtime::StoreError;
use serde::Serialize;

use crate::trace::TraceId;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:ident, $title:literal, $retryable:literal;)*) => {
        /// What went wrong; stable for programs.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The stable text.
            pub fn as_str(self) -> &'static str { match self { $(Code::$variant => $text,)* } }

            /// The HTTP status.
            pub fn status(self) -> StatusCode { match self { $(Code::$variant => StatusCode::$status,)* } }

            /// The title: the same for every occurrence.
            pub fn title(self) -> &'static str { match self { $(Code::$variant => $title,)* } }

            /// Whether the same request may succeed later.
            pub fn retryable(self) -> bool { match self { $(Code::$variant => $retryable,)* } }
        }
    };
}

codes! {
    /// A field is wrong.
    ValidationError = "validation_error", UNPROCESSABLE_ENTITY, "The request is not valid", false;
    /// The body is not JSON.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not JSON", false;
    /// No valid token.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Log in first", false;
    /// The token was valid once.
    TokenExpired = "token_expired", UNAUTHORIZED, "The token has expired", false;
    /// Not this role.
    Forbidden = "forbidden", FORBIDDEN, "Not allowed", false;
    /// Not there, or not yours.
    NotFound = "not_found", NOT_FOUND, "Not found", false;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed", false;
    /// The state does not allow it.
    Conflict = "conflict", CONFLICT, "Conflict", false;
    /// The key was used with another body.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The Idempotency-Key was used with another body", false;
    /// The first request with this key is still running.
    IdempotencyInProgress = "idempotency_in_progress", CONFLICT, "The first request is still running", true;
    /// Another currency.
    UnsupportedCurrency = "unsupported_currency", UNPROCESSABLE_ENTITY, "The currency is not supported", false;
    /// Too much money.
    AmountOutOfRange = "amount_out_of_range", UNPROCESSABLE_ENTITY, "The amount is out of range", false;
    /// Over the body limit.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large", false;
    /// Not JSON by its own account, or encoded.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Send application/json, not encoded", false;
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests", true;
    /// Too many event streams of one customer.
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS, "Too many event streams", true;
    /// More work than can be done.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The shop is busy", true;
    /// A part that is needed is not there.
    DependencyUnavailable = "dependency_unavailable", SERVICE_UNAVAILABLE, "A part of the shop is not available", true;
    /// A bug.
    InternalError = "internal_error", INTERNAL_SERVER_ERROR, "Something went wrong on our side", false;
}

/// An error answer.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What went wrong.
    pub code: Code,
    /// What happened this time and what to do.
    pub detail: String,
    errors: Vec<(String, String)>,
    retry_after: Option<u64>,
    /// See [`Problem::overtaken`].
    overtaken: bool,
    /// See [`Problem::unsure`].
    unsure: bool,
}

/// Which request a problem happened to; the server adds it on the way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occurrence<'a> {
    /// The request's path.
    pub(crate) instance: &'a str,
    /// Finds the request in the logs.
    pub(crate) trace_id: TraceId,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    retryable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError<'a>>,
}

#[derive(Serialize)]
struct FieldError<'a> {
    pointer: &'a str,
    detail: &'a str,
}

impl Problem {
    /// A problem with its occurrence's detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        // One second: whatever was too much is over by then, or is said again.
        let retry_after = code.retryable().then_some(1);
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after, overtaken: false, unsure: false }
    }

    /// A conflict of which it is certain that nothing was changed, because somebody else had changed it before: whoever asked
    /// looked at something that is no more.
    pub fn overtaken(detail: impl Into<String>) -> Self {
        Self { overtaken: true, ..Self::new(Code::Conflict, detail) }
    }

    /// Whether it is one of those.
    pub fn is_overtaken(&self) -> bool {
        self.overtaken
    }

    /// The same, but something may have been changed all the same.
    #[must_use]
    pub fn unsure(mut self) -> Self {
        (self.unsure, self.overtaken) = (true, false);
        self
    }

    /// Whether it is certain that nothing was changed: it was refused, and did not fail.
    pub fn changed_nothing(&self) -> bool {
        !self.unsure && !self.code.status().is_server_error()
    }

    /// Adds which fields are wrong: JSON pointer (RFC 6901, with `#`) and why.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<(String, String)>) -> Self {
        self.errors = errors;
        self
    }

    /// Says when to come back, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The JSON of it.
    pub(crate) fn to_json(&self, at: Option<Occurrence<'_>>) -> Vec<u8> {
        let body = Body {
            r#type: format!("/docs/errors/{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            instance: at.map(|at| at.instance),
            code: self.code.as_str(),
            trace_id: at.map(|at| at.trace_id.to_string()),
            retryable: self.code.retryable(),
            errors: self.errors.iter().map(|(pointer, detail)| FieldError { pointer, detail }).collect(),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Transient(_) => {
                Problem::new(Code::DependencyUnavailable, "the database is busy; try again in a moment")
            }
            StoreError::Full(_) => {
                Problem::new(Code::DependencyUnavailable, "there is no room to write; try again later").retry_after(5)
            }
            StoreError::Fault(detail) => {
                tracing::error!(detail, "a store failed");
                Problem::new(Code::InternalError, "the request could not be handled; it has been logged")
            }
        }
    }
}

/// For a terminal: `code: detail; #/pointer: detail`.
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)?;
        self.errors.iter().try_for_each(|(pointer, detail)| write!(f, "; {pointer}: {detail}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.code.status(), self.to_json(None)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.code.status() == StatusCode::UNAUTHORIZED {
            // RFC 6750, section 3: an error is named only when there was a token.
            let challenge = match self.code {
                Code::TokenExpired => r#"Bearer error="invalid_token", error_description="the token has expired""#,
                _ => "Bearer",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // Whoever knows the request writes the body again, with `instance` and `trace_id`.
        response.extensions_mut().insert(self);
        response
    }
}
