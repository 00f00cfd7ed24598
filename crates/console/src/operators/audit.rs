//! The audit log: who did what to what, why, and how it ended.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::Operators;
use crate::page::{self, CONSOLE, Page, Refusal};
use crate::session::Session;
use crate::words::{self, Badge};

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filters {
    actor: String,
    action: String,
    target: String,
    page_token: String,
}

#[derive(Deserialize)]
struct Told {
    at: String,
    actor: String,
    action: String,
    target: String,
    reason: String,
    outcome: String,
    #[serde(default)]
    details: Value,
}

#[derive(Deserialize)]
struct Lines {
    items: Vec<Told>,
    #[serde(default)]
    next_page_token: Option<String>,
}

struct Line {
    at: String,
    actor: String,
    action: String,
    target: String,
    reason: String,
    outcome: Badge,
    said: String,
    details: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    page: Page,
    filters: Filters,
    lines: Vec<Line>,
    next: Option<String>,
}

fn badge(outcome: &str) -> Badge {
    match outcome {
        "done" => Badge { class: "good", icon: "✓", word: "done" },
        outcome if outcome.starts_with("failed") => Badge { class: "warn", icon: "!", word: "failed" },
        "begun" => Badge { class: "warn", icon: "?", word: "begun" },
        // Only in lines of an older version: what is refused leaves none.
        _ => Badge { class: "bad", icon: "✕", word: "refused" },
    }
}

pub(super) async fn list(
    State(console): State<Operators>,
    session: Session,
    Query(filters): Query<Filters>,
) -> Result<Response, Refusal> {
    let asked = [("actor", filters.actor.as_str()), ("action", &filters.action), ("target", &filters.target)];
    let paged = |token: &str| words::query(&[&asked[..], &[("page_token", token)]].concat());
    let found = session.fetch::<Lines>(&*console.api, &format!("/admin/audit?{}", paged(&filters.page_token))).await;
    let (found, notice) = match found {
        Ok(found) => (found, None),
        Err(refusal) if refusal.code == "validation_error" => {
            (Lines { items: Vec::new(), next_page_token: None }, Some(refusal.notice()))
        }
        Err(refusal) => return Err(refusal),
    };
    let line = |told: Told| Line {
        at: words::moment(&told.at),
        outcome: badge(&told.outcome),
        said: told.outcome.split_once(": ").map_or_else(String::new, |(_, code)| code.to_owned()),
        details: if told.details.is_null() { String::new() } else { words::pretty(&told.details) },
        actor: told.actor,
        action: told.action,
        target: told.target,
        reason: told.reason,
    };
    page::html(&Audit {
        page: super::page("audit", "Audit log", &session).with(notice),
        lines: found.items.into_iter().map(line).collect(),
        next: found.next_page_token.map(|token| format!("{CONSOLE}/audit?{}", paged(&token))),
        filters,
    })
}
