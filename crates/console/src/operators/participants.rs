//! How those who carry out the steps are.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::Operators;
use crate::page::{self, Page, Refusal};
use crate::session::Session;
use crate::words::{self, Badge};

/// A participant, as the API tells it.
#[derive(Deserialize)]
pub(super) struct Told {
    participant: String,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    waiting: Option<u64>,
    #[serde(default)]
    in_flight: u64,
    #[serde(default)]
    oldest_outstanding_ms: Option<u64>,
    #[serde(default)]
    last_reply_at: Option<String>,
    #[serde(default)]
    attempts: Option<u64>,
    #[serde(default)]
    timeouts: Option<u64>,
    #[serde(default)]
    refusals: Option<u64>,
    state: String,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Told>,
}

/// The same for people.
pub(super) struct Participant {
    pub(super) name: String,
    pub(super) state: Badge,
    pub(super) topics: String,
    pub(super) members: usize,
    pub(super) waiting: String,
    pub(super) in_flight: String,
    pub(super) oldest: String,
    pub(super) last_reply: String,
    pub(super) attempts: String,
    pub(super) timeouts: String,
    pub(super) refusals: String,
}

impl Participant {
    pub(super) fn of(told: Told, now: u64) -> Self {
        let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), words::count);
        let (class, icon, word) = match told.state.as_str() {
            "ok" => ("good", "✓", "ok"),
            "slow" => ("warn", "!", "slow"),
            "silent" => ("bad", "✕", "silent"),
            _ => ("idle", "·", "idle"),
        };
        let last_reply = told.last_reply_at.as_deref().and_then(words::millis);
        Self {
            name: told.participant,
            state: Badge { class, icon, word },
            topics: told.topics.join(", "),
            members: told.members.len(),
            waiting: number(told.waiting),
            in_flight: words::count(told.in_flight),
            oldest: told.oldest_outstanding_ms.map(words::span).unwrap_or_default(),
            last_reply: last_reply.map(|at| format!("{} ago", words::span(now.saturating_sub(at)))).unwrap_or_default(),
            attempts: number(told.attempts),
            timeouts: number(told.timeouts),
            refusals: number(told.refusals),
        }
    }
}

#[derive(Template)]
#[template(path = "participants.html")]
struct Participants {
    page: Page,
    participants: Vec<Participant>,
}

pub(super) async fn list(State(console): State<Operators>, session: Session) -> Result<Response, Refusal> {
    let found: List = session.fetch(&*console.api, "/admin/participants").await?;
    let now = console.clock.now();
    let participants = found.items.into_iter().map(|told| Participant::of(told, now)).collect();
    page::html(&Participants { page: super::page("participants", "Participants", &session), participants })
}
