//! The shop at a glance, live: numbers, charts, participants, what is stuck. A browser that looks holds one stream of the API; when
//! nobody looks there is none.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::participants::{Participant, Told};
use super::sagas::{Row, Rows, address};
use crate::Operators;
use crate::live::{self, Events};
use crate::page::{self, Page, Refusal};
use crate::session::Session;
use crate::words::{self, Badge};

/// Stuck sagas that are shown.
const STUCK: &str = "/admin/sagas?state=STUCK,COMPENSATION_STUCK&limit=10";

/// What the API tells.
#[derive(Deserialize)]
struct Overview {
    in_flight: u64,
    stuck: u64,
    #[serde(default)]
    oldest_in_flight_at: Option<String>,
    rates: Rates,
    #[serde(default)]
    latency_ms: Option<Latency>,
    participants: Vec<Told>,
    dead_letters: u64,
    #[serde(default)]
    lag: Option<u64>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    uptime_s: u64,
    #[serde(default)]
    profile: String,
}

#[derive(Deserialize)]
struct Rates {
    started: f64,
    completed: f64,
    compensated: f64,
}

#[derive(Deserialize)]
struct Latency {
    p50: u64,
    p99: u64,
}

struct Tile {
    number: String,
    word: &'static str,
    address: &'static str,
    badge: Option<Badge>,
}

struct Stuck {
    id: u64,
    address: String,
    status: Badge,
    awaiting: String,
    since: String,
}

/// What moves, but for the charts.
#[derive(Template)]
#[template(path = "overview_live.html")]
struct Moving {
    tiles: Vec<Tile>,
    participants: Vec<Participant>,
    stuck: Vec<Stuck>,
    about: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    page: Page,
    moving: String,
}

impl Moving {
    fn of(overview: Overview, stuck: Vec<Row>, now: u64) -> Self {
        let rate = |rate: f64| format!("{rate:.1}");
        let oldest = overview.oldest_in_flight_at.as_deref().and_then(words::millis);
        let oldest = oldest.map_or_else(|| "–".to_owned(), |at| words::span(now.saturating_sub(at)));
        let warns = |bad: bool| bad.then_some(Badge { class: "bad", icon: "!", word: "look" });
        let tile = |number: String, word, address, badge| Tile { number, word, address, badge };
        let tiles = vec![
            tile(words::count(overview.in_flight), "in flight", "/console/sagas?state=RUNNING,COMPENSATING", None),
            tile(
                words::count(overview.stuck),
                "stuck",
                "/console/sagas?state=STUCK,COMPENSATION_STUCK",
                warns(overview.stuck > 0),
            ),
            tile(oldest, "oldest in flight", "/console/sagas", None),
            tile(rate(overview.rates.completed), "completed a second", "/console/sagas?state=COMPLETED", None),
            tile(rate(overview.rates.compensated), "compensated a second", "/console/sagas?state=COMPENSATED", None),
            tile(
                overview
                    .latency_ms
                    .map_or_else(|| "–".to_owned(), |l| format!("{} / {}", words::span(l.p50), words::span(l.p99))),
                "start to end, median / 99 %",
                "/console/sagas?state=COMPLETED",
                None,
            ),
            tile(
                words::count(overview.dead_letters),
                "dead letters",
                "/console/letters",
                warns(overview.dead_letters > 0),
            ),
            tile(
                overview.lag.map_or_else(|| "?".to_owned(), words::count),
                "messages waiting",
                "/console/topics",
                None,
            ),
        ];
        let stuck = stuck.into_iter().map(|row| Stuck {
            id: row.id,
            address: address(row.id, &row.definition),
            status: words::status(&row.status),
            awaiting: row.awaiting,
            since: words::moment(&row.updated_at),
        });
        let up = words::span(overview.uptime_s.saturating_mul(1_000));
        let about = match overview.profile.is_empty() {
            true => String::new(),
            false => format!("Saga {}, {} profile, up for {up}.", overview.version, overview.profile),
        };
        Self {
            tiles,
            stuck: stuck.collect(),
            participants: overview.participants.into_iter().map(|told| Participant::of(told, now)).collect(),
            about,
        }
    }
}

async fn moving(console: &Operators, session: &Session, overview: Overview) -> Result<Moving, Refusal> {
    let stuck = match overview.stuck {
        0 => Vec::new(),
        _ => session.fetch::<Rows>(&*console.api, STUCK).await?.items,
    };
    Ok(Moving::of(overview, stuck, console.clock.now()))
}

pub(super) async fn show(State(console): State<Operators>, session: Session) -> Result<Response, Refusal> {
    let overview = session.fetch(&*console.api, "/admin/overview").await?;
    let moving = page::text(&moving(&console, &session, overview).await?)?;
    page::html(&OverviewPage { page: super::page("overview", "Overview", &session), moving })
}

/// `numbers` for the charts and `parts` for the rest, once a second.
pub(super) async fn events(State(console): State<Operators>, session: Session) -> Result<Response, Refusal> {
    let Some(body) = session.stream(&*console.api, "/admin/overview/events", None).await? else {
        return Ok(live::answer(stream::empty()));
    };
    let following = (Events::of(body), console, session);
    Ok(live::answer(stream::unfold(following, |(mut events, console, session)| async move {
        let mut event = events.next().await?;
        // Who reads slowly is shown the latest.
        while events.more() {
            event = events.next().await?;
        }
        let told: Value = serde_json::from_str(&event.data).ok()?;
        let overview: Overview = serde_json::from_value(told).ok()?;
        let numbers = json!({
            "at": console.clock.now() / 1_000,
            "started": overview.rates.started,
            "completed": overview.rates.completed,
            "compensated": overview.rates.compensated,
            "in_flight": overview.in_flight,
            "stuck": overview.stuck,
            "p50": overview.latency_ms.as_ref().map(|latency| latency.p50),
            "p99": overview.latency_ms.as_ref().map(|latency| latency.p99),
        });
        let parts = moving(&console, &session, overview).await.ok()?.render().ok()?;
        let mut bytes = live::event("numbers", "", &numbers.to_string()).to_vec();
        bytes.extend_from_slice(&live::event("parts", "", &parts));
        Some((bytes.into(), (events, console, session)))
    })))
}
