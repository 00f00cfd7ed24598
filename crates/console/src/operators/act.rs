//! What an operator does to one saga: asked once more, with the reason and the version that was looked at. Whoever looked at an
//! older one is shown how it stands now, and nothing is done.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::saga;
use crate::Operators;
use crate::form::Form;
use crate::page::{self, Notice, Page, Refusal};
use crate::session::Session;

/// A question before something is done: a page of its own, or what a dialog shows.
#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct Confirm {
    pub(super) page: Page,
    pub(super) question: String,
    pub(super) explained: String,
    pub(super) action: String,
    pub(super) button: String,
    pub(super) danger: bool,
    pub(super) back: String,
    /// Fields that say what was looked at.
    pub(super) hidden: Vec<(&'static str, String)>,
    /// How it ends, where that is to be said.
    pub(super) asks_status: bool,
}

/// The same inside a page that is there already.
#[derive(Template)]
#[template(path = "confirm_form.html")]
pub(super) struct ConfirmForm<'c> {
    pub(super) page: &'c Page,
    pub(super) question: &'c str,
    pub(super) explained: &'c str,
    pub(super) action: &'c str,
    pub(super) button: &'c str,
    pub(super) danger: bool,
    pub(super) back: &'c str,
    pub(super) hidden: &'c [(&'static str, String)],
    pub(super) asks_status: bool,
}

impl Confirm {
    pub(super) fn form(&self) -> ConfirmForm<'_> {
        ConfirmForm {
            page: &self.page,
            question: &self.question,
            explained: &self.explained,
            action: &self.action,
            button: &self.button,
            danger: self.danger,
            back: &self.back,
            hidden: &self.hidden,
            asks_status: self.asks_status,
        }
    }

    /// For a dialog, or as a page.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Result<Response, Refusal> {
        match headers.contains_key("hx-request") {
            true => page::html(&self.form()),
            false => page::html(self),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Ask {
    #[serde(default = "purchase")]
    definition: String,
    #[serde(default)]
    version: String,
}

fn purchase() -> String {
    "purchase".to_owned()
}

/// Verb, question, what it means, button, whether it cannot be undone.
const VERBS: [(&str, &str, &str, &str, bool); 4] = [
    (
        "retry",
        "Try it again now?",
        "What is outstanding is sent again at once, and its attempts begin anew. Participants have each command's effect once, however often it comes.",
        "Retry now",
        false,
    ),
    (
        "cancel",
        "Take it back?",
        "The saga is compensated: what is done is undone, newest first. Not possible once its pivot is done.",
        "Cancel the saga",
        true,
    ),
    (
        "skip",
        "Skip the stuck step?",
        "The saga goes on as if the step were done. Make sure that it is, or that it does not matter: nobody does it any more.",
        "Skip the step",
        true,
    ),
    (
        "resolve",
        "Mark it resolved?",
        "The saga ends here and nothing more is sent. Make sure by hand that every service stands as you say.",
        "Mark resolved",
        true,
    ),
];

pub(super) async fn confirm(
    State(console): State<Operators>,
    session: Session,
    Path((id, verb)): Path<(u64, String)>,
    Query(ask): Query<Ask>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let known = VERBS.iter().find(|(name, ..)| *name == verb);
    let (verb, question, explained, button, danger) = known.ok_or_else(|| Refusal::missing("page"))?;
    let told = saga::Told::of(&console, &session, id, &ask.definition).await?;
    let page = super::page("sagas", *question, &session);
    if !page.steers() {
        return Err(viewers_only_look());
    }
    // What was looked at, not what is: somebody else may have acted since.
    let version = if ask.version.is_empty() { told.saga["version"].to_string() } else { ask.version };
    let confirm = Confirm {
        page,
        question: (*question).to_owned(),
        explained: (*explained).to_owned(),
        action: format!("/console/sagas/{id}/{verb}"),
        button: (*button).to_owned(),
        danger: *danger,
        back: super::sagas::address(id, &ask.definition),
        hidden: vec![("version", version), ("definition", ask.definition)],
        asks_status: *verb == "resolve",
    };
    confirm.answer(&headers)
}

pub(super) fn viewers_only_look() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "forbidden", "Viewers look. This needs the operator or the admin role.")
}

pub(super) async fn act(
    State(console): State<Operators>,
    session: Session,
    Path((id, verb)): Path<(u64, String)>,
    form: Form,
) -> Result<Response, Refusal> {
    let known = VERBS.iter().find(|(name, ..)| *name == verb);
    let (verb, ..) = known.ok_or_else(|| Refusal::missing("page"))?;
    let definition = match form.get("definition") {
        "" => purchase(),
        named => named.to_owned(),
    };
    let Some(version) = form.number::<u64>("version") else { return Err(Refusal::forged()) };
    let mut order = json!({ "reason": form.get("reason"), "version": version });
    if *verb == "resolve" {
        order["status"] = form.get("status").into();
    }
    let path = format!("/admin/sagas/{id}/{verb}?{}", saga::query(&definition));
    match session.post(&*console.api, &path, &order).await {
        Ok(_) => Ok(saga::back(id, &definition, verb)),
        Err(refusal) if refusal.status == StatusCode::CONFLICT => {
            let text = format!("Nothing was done, because it has changed meanwhile: look again. {}", refusal.detail);
            let shown = saga::page_of(&console, &session, id, &definition, Some(Notice::bad(text))).await;
            shown.map(|mut response| {
                *response.status_mut() = StatusCode::CONFLICT;
                response
            })
        }
        Err(refusal) => Err(refusal),
    }
}
