//! One saga: what became of each step, there and back, in a picture, on a line of time and in its history; as it happens.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;

use super::course::{Course, text};
use super::diagram::{self, Diagram, Shows};
use super::sagas::address;
use super::timeline::Timeline;
use crate::live::{self, Events};
use crate::page::{self, Notice, Page, Refusal};
use crate::session::Session;
use crate::words::{self, Badge};
use crate::{Operators, login};

#[derive(Clone, Deserialize)]
pub(super) struct Look {
    #[serde(default = "purchase")]
    pub(super) definition: String,
    #[serde(default)]
    pub(super) done: String,
}

fn purchase() -> String {
    "purchase".to_owned()
}

/// A transition, for people.
struct Happened {
    version: u64,
    at: String,
    texts: Vec<String>,
}

/// What can be done to it now.
struct Action {
    verb: &'static str,
    word: &'static str,
    address: String,
    danger: bool,
}

/// The part of the page that moves.
#[derive(Template)]
#[template(path = "saga_live.html")]
struct Moving {
    definition: String,
    status: Badge,
    version: u64,
    started: String,
    updated: String,
    took: String,
    why: String,
    awaiting: String,
    diagram: Diagram,
    timeline: Timeline,
    history: Vec<Happened>,
    actions: Vec<Action>,
    terminal: bool,
    input: String,
    box_width: u32,
    box_height: u32,
}

#[derive(Template)]
#[template(path = "saga.html")]
struct SagaPage {
    page: Page,
    id: u64,
    moving: String,
    live: Option<String>,
    trace: Option<Trace>,
    messages: Option<Vec<Message>>,
}

/// The trace of a saga, and where it is looked at.
struct Trace {
    id: String,
    address: Option<String>,
}

impl Trace {
    fn of(id: &str, traces: Option<&str>) -> Self {
        // What is no id leads nowhere.
        let lawful = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let address = traces.filter(|_| lawful).map(|traces| traces.replace("{trace_id}", id));
        Self { id: id.to_owned(), address }
    }
}

/// A message to or from a participant.
struct Message {
    at: String,
    topic: String,
    /// Which way it went.
    what: String,
    headers: Vec<(String, String)>,
    payload: String,
}

pub(super) fn query(definition: &str) -> String {
    words::query(&[("definition", definition)])
}

/// A saga and its definition, as the API tells them.
pub(super) struct Told {
    pub(super) saga: Value,
    definition: Option<Value>,
}

impl Told {
    pub(super) async fn of(console: &Operators, session: &Session, id: u64, definition: &str) -> Result<Self, Refusal> {
        let saga = session.get(&*console.api, &format!("/admin/sagas/{id}?{}", query(definition))).await?;
        let definitions = session.get(&*console.api, "/admin/definitions").await?;
        let definition = find(&definitions, &saga);
        Ok(Self { saga, definition })
    }

    fn moving(&self, id: u64, now: u64, steers: bool) -> Moving {
        let saga = &self.saga;
        let course = Course::of(saga, self.definition.as_ref());
        let status = text(saga, "status");
        let terminal = matches!(status.as_str(), "COMPLETED" | "COMPENSATED");
        let version = saga["version"].as_u64().unwrap_or(0);
        let name = text(saga, "definition");
        let history = saga["history"].as_array().into_iter().flatten().map(|told| Happened {
            version: told["version"].as_u64().unwrap_or(0),
            at: told["at"].as_str().and_then(words::millis).map(words::clock).unwrap_or_default(),
            texts: told["texts"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|t| t.as_str().unwrap_or_default().to_owned())
                .collect(),
        });
        let reason = &saga["reason"];
        let why = if reason.is_object() {
            format!("{}: {}", text(reason, "code"), text(reason, "detail"))
        } else {
            String::new()
        };
        let began = course.begun.unwrap_or(now);
        let end = if terminal { course.last } else { now.max(course.last) };
        Moving {
            definition: format!("{name} v{}", saga["definition_version"].as_u64().unwrap_or(0)),
            actions: if steers { actions(id, &name, &status, version) } else { Vec::new() },
            status: words::status(&status),
            version,
            started: words::moment(&text(saga, "started_at")),
            updated: words::moment(&text(saga, "updated_at")),
            took: words::span(end.saturating_sub(began)),
            why,
            awaiting: awaiting(&course),
            diagram: Diagram::of(&course, Shows::Saga),
            timeline: Timeline::of(&course, now),
            history: history.collect(),
            terminal,
            input: saga.get("input").map(words::pretty).unwrap_or_default(),
            box_width: diagram::BOX_WIDTH,
            box_height: diagram::BOX_HEIGHT,
        }
    }
}

/// The definition that a saga is pinned to; another version of it is not its own.
fn find(definitions: &Value, saga: &Value) -> Option<Value> {
    let all = definitions["items"].as_array()?;
    let found = all.iter().find(|d| d["name"] == saga["definition"] && d["version"] == saga["definition_version"]);
    found.cloned()
}

fn awaiting(course: &Course) -> String {
    use super::course::State;
    let open = |state: State| matches!(state, State::Out | State::Delayed | State::Stuck);
    let parts = course.steps.iter().flat_map(|step| {
        let forth = open(step.forth.state).then(|| format!("do {}", step.name));
        let back = open(step.back.state).then(|| format!("undo {}", step.name));
        [forth, back]
    });
    parts.flatten().collect::<Vec<_>>().join(", ")
}

/// What the state allows. The API decides in the end: a pivot may have been passed meanwhile.
fn actions(id: u64, definition: &str, status: &str, version: u64) -> Vec<Action> {
    let (running, stuck) = (status == "RUNNING", matches!(status, "STUCK" | "COMPENSATION_STUCK"));
    let alive = running || stuck || status == "COMPENSATING";
    let all = [
        ("retry", "Retry now", alive, false),
        ("cancel", "Cancel", running || status == "STUCK", true),
        ("skip", "Skip the stuck step", stuck, true),
        ("resolve", "Mark resolved", stuck, true),
    ];
    let allowed = all.into_iter().filter(|(_, _, allowed, _)| *allowed);
    let version = version.to_string();
    allowed
        .map(|(verb, word, _, danger)| {
            let query = words::query(&[("definition", definition), ("version", &version)]);
            Action { verb, word, address: format!("/console/sagas/{id}/{verb}?{query}"), danger }
        })
        .collect()
}

pub(super) async fn show(
    State(console): State<Operators>,
    session: Session,
    Path(id): Path<u64>,
    Query(look): Query<Look>,
) -> Result<Response, Refusal> {
    page_of(&console, &session, id, &look.definition, login::done(&look.done)).await
}

/// The page with a notice above it.
pub(super) async fn page_of(
    console: &Operators,
    session: &Session,
    id: u64,
    definition: &str,
    notice: Option<Notice>,
) -> Result<Response, Refusal> {
    let told = Told::of(console, session, id, definition).await?;
    let page = super::page("sagas", format!("Saga {id}"), session).with(notice);
    let moving = told.moving(id, console.clock.now(), page.steers());
    let live = format!("/console/sagas/{id}/live?{}", query(definition));
    page::html(&SagaPage {
        id,
        live: (!moving.terminal).then_some(live),
        moving: page::text(&moving)?,
        trace: told.saga["trace_id"].as_str().map(|id| Trace::of(id, console.traces.as_deref())),
        messages: messages(console, session, id, definition).await?,
        page,
    })
}

/// The messages, where the API keeps them.
async fn messages(
    console: &Operators,
    session: &Session,
    id: u64,
    definition: &str,
) -> Result<Option<Vec<Message>>, Refusal> {
    let path = format!("/admin/sagas/{id}/messages?{}", query(definition));
    let told = match session.get(&*console.api, &path).await {
        Ok(told) => told,
        // Without its definition, or with a history that cannot be replayed, nobody knows what was said.
        Err(refusal) if refusal.status == axum::http::StatusCode::CONFLICT => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let message = |told: &Value| {
        let headers = told["headers"].as_object().into_iter().flatten();
        let header = |(name, value): (&String, &Value)| (name.clone(), plain(value));
        Message {
            at: told["at"].as_str().and_then(words::millis).map(words::clock).unwrap_or_default(),
            topic: text(told, "topic"),
            what: text(told, "direction").replace('_', " "),
            headers: headers.map(header).collect(),
            payload: payload(&told["payload"]),
        }
    };
    Ok(Some(told["items"].as_array().into_iter().flatten().map(message).collect()))
}

/// A payload for reading: JSON with lines, or the text that it is.
pub(super) fn payload(value: &Value) -> String {
    match value {
        Value::String(text) => {
            serde_json::from_str::<Value>(text).map_or_else(|_| text.clone(), |json| words::pretty(&json))
        }
        other => words::pretty(other),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

struct Following {
    events: Events,
    console: Operators,
    session: Session,
    id: u64,
    definition: String,
    ended: bool,
}

/// The moving part after each transition, until the saga has ended.
pub(super) async fn live(
    State(console): State<Operators>,
    session: Session,
    Path(id): Path<u64>,
    Query(look): Query<Look>,
) -> Result<Response, Refusal> {
    let path = format!("/admin/sagas/{id}/events?{}", query(&look.definition));
    let Some(body) = session.stream(&*console.api, &path, None).await? else {
        return Ok(live::answer(stream::iter([live::event("end", "", "")])));
    };
    let definition = look.definition;
    let following = Following { events: Events::of(body), console, session, id, definition, ended: false };
    Ok(live::answer(stream::unfold(following, |mut following| async move {
        if following.ended {
            return None;
        }
        following.events.next().await?;
        // All that has come by now is one picture.
        while following.events.more() {
            following.events.next().await?;
        }
        let Following { console, session, id, definition, .. } = &following;
        let told = Told::of(console, session, *id, definition).await.ok()?;
        let steers = session.role() >= Some(crate::session::Role::Operator);
        let moving = told.moving(*id, console.clock.now(), steers);
        let mut bytes = live::event("saga", "", &moving.render().ok()?).to_vec();
        if moving.terminal {
            following.ended = true;
            bytes.extend_from_slice(&live::event("end", "", ""));
        }
        Some((bytes.into(), following))
    })))
}

/// Back to a saga's page, with a word about what was done.
pub(super) fn back(id: u64, definition: &str, done: &str) -> Response {
    let address = address(id, definition);
    let joint = if address.contains('?') { '&' } else { '?' };
    page::see(&format!("{address}{joint}done={done}"))
}
