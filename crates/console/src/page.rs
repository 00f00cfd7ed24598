//! What all pages have in common: the frame around them, the page that says no, texts for people.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::Value;

use crate::api::Unreachable;
use crate::assets;
use crate::session::{Role, Session};

/// The operators' pages.
pub(crate) const CONSOLE: &str = "/console";
/// The customers' pages.
pub(crate) const SHOP: &str = "/shop";

/// What the frame of a page shows.
pub(crate) struct Page {
    /// Before every address.
    pub(crate) base: &'static str,
    /// Of the page.
    pub(crate) title: String,
    /// Which part of the navigation it is.
    pub(crate) at: &'static str,
    /// What who looks may do; nobody: not logged in.
    pub(crate) role: Option<Role>,
    /// For forms.
    pub(crate) token: String,
    /// What was just done.
    pub(crate) notice: Option<Notice>,
}

/// A line above the page: what was just done, or why not.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// Whether it went wrong.
    pub(crate) bad: bool,
    /// For people.
    pub(crate) text: String,
}

impl Notice {
    pub(crate) fn good(text: impl Into<String>) -> Self {
        Self { bad: false, text: text.into() }
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self { bad: true, text: text.into() }
    }
}

impl Page {
    /// A page of a session whose token the API has accepted.
    pub(crate) fn of(base: &'static str, at: &'static str, title: impl Into<String>, session: &Session) -> Self {
        Self { role: session.role(), ..Self::open(base, at, title, session) }
    }

    /// A page for whoever comes.
    pub(crate) fn open(base: &'static str, at: &'static str, title: impl Into<String>, session: &Session) -> Self {
        Self { base, title: title.into(), at, role: None, token: session.form_token(), notice: None }
    }

    pub(crate) fn with(mut self, notice: Option<Notice>) -> Self {
        self.notice = notice;
        self
    }

    /// The address of a file.
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}/{}", self.base, assets::address(name))
    }

    /// For `aria-current`.
    pub(crate) fn current(&self, at: &str) -> &'static str {
        if self.at == at { "page" } else { "false" }
    }

    pub(crate) fn is_shop(&self) -> bool {
        self.base == SHOP
    }

    /// Whether who looks may steer.
    pub(crate) fn steers(&self) -> bool {
        self.role >= Some(Role::Operator)
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.role == Some(Role::Admin)
    }
}

/// A page as an answer.
pub(crate) fn html(template: &impl Template) -> Result<Response, Refusal> {
    Ok(Html(text(template)?).into_response())
}

/// A page as text.
pub(crate) fn text(template: &impl Template) -> Result<String, Refusal> {
    template.render().map_err(|error| {
        tracing::error!(%error, "a page could not be written");
        Refusal::broken("the page could not be written; it is in the log")
    })
}

/// To another page, after something was done: going back does not do it again.
pub(crate) fn see(address: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(address) = HeaderValue::from_str(address) {
        response.headers_mut().insert(header::LOCATION, address);
    }
    response
}

/// A page that is not shown, and why. The frame makes a page of it, or sends to the log-in.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The problem's.
    pub(crate) code: String,
    /// What happened and what to do.
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), detail: detail.into() }
    }

    pub(crate) fn missing(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}."))
    }

    pub(crate) fn broken(detail: &str) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "internal_error", detail)
    }

    pub(crate) fn forged() -> Self {
        let detail = "This form does not come from a page that you were shown here: nothing was done. If you did fill it in \
                      yourself, it was too old: load the page again.";
        Self::new(StatusCode::FORBIDDEN, "forged", detail)
    }

    pub(crate) fn unreachable(error: &Unreachable) -> Self {
        let detail = format!("The service does not answer: {error}. Nothing was done; try again in a moment.");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "dependency_unavailable", detail)
    }

    /// What an API said.
    pub(crate) fn of_problem(status: StatusCode, problem: &Value) -> Self {
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        let mut detail = text("detail");
        for error in problem["errors"].as_array().into_iter().flatten() {
            let part = |name: &str| error[name].as_str().unwrap_or_default();
            let field = part("pointer").trim_start_matches("#/").replace('_', " ");
            detail = format!("{detail}; {field}: {}", part("detail"));
        }
        let detail = if detail.is_empty() { format!("The service answers {status}.") } else { sentence(&detail) };
        Self { status, code: text("code"), detail }
    }

    /// Whether one has to log in.
    pub(crate) fn wants_login(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// For a notice.
    pub(crate) fn notice(&self) -> Notice {
        Notice::bad(self.detail.clone())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

/// The page that says no.
#[derive(Template)]
#[template(path = "refusal.html")]
pub(crate) struct RefusalPage {
    pub(crate) page: Page,
    pub(crate) refusal: Refusal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_api_says_is_told_in_a_sentence_with_the_fields_that_are_wrong() {
        let problem = serde_json::json!({
            "code": "validation_error", "detail": "the request is not valid",
            "errors": [{ "pointer": "#/order_items/0/quantity", "detail": "must be at least 1" }],
        });
        let refusal = Refusal::of_problem(StatusCode::UNPROCESSABLE_ENTITY, &problem);
        assert_eq!(refusal.detail, "The request is not valid; order items/0/quantity: must be at least 1.");
        let silent = Refusal::of_problem(StatusCode::BAD_GATEWAY, &Value::Null);
        assert_eq!(silent.detail, "The service answers 502 Bad Gateway.");
    }
}
