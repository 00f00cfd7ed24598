//! The console: what operators look at and steer with. Everything goes through the admin API with their own token, so its
//! rights and its audit hold here, too.

mod act;
mod audit;
mod bulk;
mod course;
mod definitions;
mod diagram;
mod failures;
mod letters;
mod overview;
mod participants;
mod records;
mod saga;
mod sagas;
mod timeline;
mod topics;

use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};

use crate::page::{CONSOLE, Page};
use crate::session::Session;
use crate::{Operators, login};

pub(crate) fn router() -> Router<Operators> {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/console/overview") }))
        .route("/login", get(login::operators_form).post(login::operators))
        .route("/logout", post(login::operators_logout))
        .route("/overview", get(overview::show))
        .route("/overview/events", get(overview::events))
        .route("/sagas", get(sagas::list))
        .route("/sagas/bulk", get(bulk::ask).post(bulk::act))
        .route("/sagas/counts", get(sagas::counts))
        .route("/sagas/{id}", get(saga::show))
        .route("/sagas/{id}/live", get(saga::live))
        .route("/sagas/{id}/{verb}", get(act::confirm).post(act::act))
        .route("/letters", get(letters::topics))
        .route("/letters/{topic}", get(letters::list))
        .route("/letters/{topic}/{id}", get(letters::show))
        .route("/letters/{topic}/do/{verb}", get(letters::confirm).post(letters::act))
        .route("/topics", get(topics::list))
        .route("/topics/{topic}", get(records::list))
        .route("/participants", get(participants::list))
        .route("/audit", get(audit::list))
        .route("/failures", get(failures::show).post(failures::set))
        .route("/definitions", get(definitions::list))
}

/// A page of the console; only after the API has answered.
fn page(at: &'static str, title: impl Into<String>, session: &Session) -> Page {
    Page::of(CONSOLE, at, title, session)
}
