//! Logging in and out, and for customers registering. The tokens go from the account service into the browser's cookies; a page
//! never shows them.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use crate::form::Form;
use crate::page::{self, CONSOLE, Notice, Page, Refusal, SHOP};
use crate::session::{Pair, Session};
use crate::{Operators, Shop};

const LOGIN: &str = "/api/v1/account/auth/login";
const REGISTER: &str = "/api/v1/account/auth/register";
const LOGOUT: &str = "/api/v1/account/auth/logout";

#[derive(Deserialize)]
pub(crate) struct Next {
    #[serde(default)]
    next: String,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    page: Page,
    email: String,
    next: String,
}

#[derive(Template)]
#[template(path = "register.html")]
struct RegisterPage {
    page: Page,
    email: String,
    first_name: String,
    last_name: String,
    address: String,
    phone_number: String,
}

/// Where to after the log-in: a page of ours, or the first one.
fn lawful(base: &str, next: &str) -> String {
    let below = next.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if below && plain { next.to_owned() } else { base.to_owned() }
}

pub(crate) async fn operators_form(session: Session, Query(Next { next }): Query<Next>) -> Result<Response, Refusal> {
    form_page(CONSOLE, &session, String::new(), next, None)
}

pub(crate) async fn shop_form(session: Session, Query(Next { next }): Query<Next>) -> Result<Response, Refusal> {
    form_page(SHOP, &session, String::new(), next, None)
}

fn form_page(
    base: &'static str,
    session: &Session,
    email: String,
    next: String,
    refused: Option<Refusal>,
) -> Result<Response, Refusal> {
    let status = refused.as_ref().map_or(StatusCode::OK, |refusal| refusal.status);
    let page = Page::open(base, "login", "Log in", session).with(refused.map(|refusal| refusal.notice()));
    let mut response = page::html(&LoginPage { page, email, next })?;
    *response.status_mut() = status;
    Ok(response)
}

/// Operators: only who may see something gets in.
pub(crate) async fn operators(
    State(console): State<Operators>,
    session: Session,
    form: Form,
) -> Result<Response, Refusal> {
    let again = |refusal| {
        form_page(CONSOLE, &session, form.get("email").to_owned(), form.get("next").to_owned(), Some(refusal))
    };
    let body = json!({ "email": form.get("email"), "password": form.exact("password") });
    match enter(&session, &*console.shop, LOGIN, &body).await {
        Ok(()) => {}
        Err(refusal) => return again(refusal),
    }
    // Whether somebody may come in is the API's to say.
    match session.get(&*console.api, "/admin/definitions").await {
        Ok(_) => Ok(page::see(&lawful(CONSOLE, form.get("next")))),
        Err(refusal) => {
            leave(&session, &*console.shop).await;
            let said = match refusal.status {
                StatusCode::FORBIDDEN => {
                    let detail =
                        "This account is a customer's: the console is for viewers, operators and administrators.";
                    Refusal::new(StatusCode::FORBIDDEN, "forbidden", detail)
                }
                _ => refusal,
            };
            again(said)
        }
    }
}

/// Customers.
pub(crate) async fn shop(State(shop): State<Shop>, session: Session, form: Form) -> Result<Response, Refusal> {
    let body = json!({ "email": form.get("email"), "password": form.exact("password") });
    match enter(&session, &*shop.api, LOGIN, &body).await {
        Ok(()) => Ok(page::see(&lawful(SHOP, form.get("next")))),
        Err(refusal) => {
            form_page(SHOP, &session, form.get("email").to_owned(), form.get("next").to_owned(), Some(refusal))
        }
    }
}

pub(crate) async fn register_form(session: Session) -> Result<Response, Refusal> {
    let page = Page::open(SHOP, "register", "Register", &session);
    let nothing = String::new;
    page::html(&RegisterPage {
        page,
        email: nothing(),
        first_name: nothing(),
        last_name: nothing(),
        address: nothing(),
        phone_number: nothing(),
    })
}

pub(crate) async fn register(State(shop): State<Shop>, session: Session, form: Form) -> Result<Response, Refusal> {
    let text = |name: &str| form.get(name).to_owned();
    let body = json!({
        "email": form.get("email"), "password": form.exact("password"),
        "first_name": form.get("first_name"), "last_name": form.get("last_name"),
        "address": form.get("address"), "phone_number": form.get("phone_number"),
    });
    let refusal = match enter(&session, &*shop.api, REGISTER, &body).await {
        Ok(()) => return Ok(page::see(SHOP)),
        Err(refusal) => refusal,
    };
    let mut response = page::html(&RegisterPage {
        page: Page::open(SHOP, "register", "Register", &session).with(Some(refusal.notice())),
        email: text("email"),
        first_name: text("first_name"),
        last_name: text("last_name"),
        address: text("address"),
        phone_number: text("phone_number"),
    })?;
    *response.status_mut() = refusal.status;
    Ok(response)
}

pub(crate) async fn operators_logout(State(console): State<Operators>, session: Session, _: Form) -> Response {
    leave(&session, &*console.shop).await;
    page::see("/console/login")
}

pub(crate) async fn shop_logout(State(shop): State<Shop>, session: Session, _: Form) -> Response {
    leave(&session, &*shop.api).await;
    page::see(SHOP)
}

async fn enter(
    session: &Session,
    accounts: &dyn crate::Api,
    path: &str,
    body: &serde_json::Value,
) -> Result<(), Refusal> {
    // Whoever was logged in here before has nothing to do with it.
    session.end();
    let pair = session.post(accounts, path, body).await?;
    let pair: Pair = serde_json::from_value(pair).map_err(|_| Refusal::broken("The log-in could not be read."))?;
    session.begin(pair);
    Ok(())
}

async fn leave(session: &Session, accounts: &dyn crate::Api) {
    // The cookies go in any case; a session that could not be ended now ends by itself.
    if let Err(refusal) = session.post(accounts, LOGOUT, &serde_json::Value::Null).await {
        tracing::debug!(detail = refusal.detail, "a session was not ended");
    }
    session.end();
}

/// A notice by its name in an address: what is shown is never taken from there.
pub(crate) fn done(name: &str) -> Option<Notice> {
    let text = match name {
        "retry" => "The saga is being tried again.",
        "cancel" => "The saga is being taken back.",
        "skip" => "The stuck step counts as dealt with; the saga goes on.",
        "resolve" => "The saga has ended as you said.",
        "samples" => "There are goods on the shelves now.",
        "basket" => "It is in the basket.",
        "cancelled" => "The purchase is being taken back.",
        "failures" => "The switches are set.",
        _ => return None,
    };
    Some(Notice::good(text))
}

#[cfg(test)]
mod tests {
    use super::lawful;

    #[test]
    fn a_log_in_leads_to_our_own_pages_only() {
        for own in ["/console", "/console/sagas?state=STUCK", "/console?x=1"] {
            assert_eq!(lawful("/console", own), own);
        }
        for foreign in
            ["", "//evil.example", "https://evil.example", "/consolex", "/shop", "/console\\evil", "/console\r\nx"]
        {
            assert_eq!(lawful("/console", foreign), "/console", "{foreign:?}");
        }
    }
}
