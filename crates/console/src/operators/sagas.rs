//! The list of sagas: filters that stand in the address, pages, and (asked for apart, so that the list never waits for
//! them) how many there are.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use crate::Operators;
use crate::page::{self, CONSOLE, Page, Refusal};
use crate::session::Session;
use crate::words::{self, Badge};

/// States to choose from, as the API names them.
const STATES: [(&str, &str); 6] = [
    ("RUNNING", "running"),
    ("COMPENSATING", "compensating"),
    ("STUCK", "stuck"),
    ("COMPENSATION_STUCK", "compensation stuck"),
    ("COMPLETED", "completed"),
    ("COMPENSATED", "compensated"),
];
/// Ages to choose from, in seconds.
const AGES: [(&str, &str); 5] =
    [("60", "1 minute"), ("300", "5 minutes"), ("3600", "1 hour"), ("86400", "1 day"), ("604800", "7 days")];

/// The filters, by the API's names.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filters {
    pub(super) state: String,
    pub(super) definition: String,
    pub(super) step: String,
    pub(super) older_than: String,
    #[serde(deserialize_with = "words::utc")]
    pub(super) started_after: String,
    #[serde(deserialize_with = "words::utc")]
    pub(super) started_before: String,
    pub(super) q: String,
    pub(super) page_token: String,
}

impl Filters {
    /// For the API and for an address of ours alike; without the page.
    pub(super) fn query(&self) -> String {
        words::query(&self.pairs())
    }

    pub(super) fn pairs(&self) -> [(&str, &str); 7] {
        [
            ("state", self.state.as_str()),
            ("definition", &self.definition),
            ("step", &self.step),
            ("older_than", &self.older_than),
            ("started_after", &self.started_after),
            ("started_before", &self.started_before),
            ("q", &self.q),
        ]
    }

    /// For the fields in which a browser asks for day and time.
    pub(super) fn after(&self) -> &str {
        self.started_after.trim_end_matches('Z')
    }

    pub(super) fn before(&self) -> &str {
        self.started_before.trim_end_matches('Z')
    }

    fn paged(&self, token: &str, limit: &str) -> String {
        let more = [("page_token", token), ("limit", limit)];
        words::query(&[&self.pairs()[..], &more[..]].concat())
    }
}

#[derive(Deserialize)]
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) definition: String,
    definition_version: u32,
    version: u64,
    pub(super) status: String,
    #[serde(default)]
    pub(super) awaiting: String,
    started_at: String,
    pub(super) updated_at: String,
}

#[derive(Deserialize)]
pub(super) struct Rows {
    pub(super) items: Vec<Row>,
    #[serde(default)]
    next_page_token: Option<String>,
}

struct Line {
    id: u64,
    address: String,
    definition: String,
    status: Badge,
    awaiting: String,
    started: String,
    updated: String,
    version: u64,
}

/// Something to choose in a filter.
struct Choice {
    value: &'static str,
    word: &'static str,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "sagas.html")]
struct List {
    page: Page,
    filters: Filters,
    states: Vec<Choice>,
    ages: Vec<Choice>,
    lines: Vec<Line>,
    filtered: bool,
    next: Option<String>,
    first: Option<String>,
    /// The filters of this page, for the bulk.
    query: String,
}

fn choices(all: &[(&'static str, &'static str)], chosen: &str) -> Vec<Choice> {
    all.iter().map(|(value, word)| Choice { value, word, chosen: *value == chosen }).collect()
}

pub(super) async fn list(
    State(console): State<Operators>,
    session: Session,
    Query(filters): Query<Filters>,
) -> Result<Response, Refusal> {
    let path = format!("/admin/sagas?{}", filters.paged(&filters.page_token, "50"));
    let found = session.fetch::<Rows>(&*console.api, &path).await;
    let (rows, notice) = match found {
        Ok(rows) => (rows, None),
        // A filter that cannot be: the form stays, with what is wrong about it.
        Err(refusal) if refusal.code == "validation_error" => {
            (Rows { items: Vec::new(), next_page_token: None }, Some(refusal.notice()))
        }
        Err(refusal) => return Err(refusal),
    };
    let lines = rows.items.into_iter().map(|row| Line {
        id: row.id,
        address: address(row.id, &row.definition),
        definition: format!("{} v{}", row.definition, row.definition_version),
        status: words::status(&row.status),
        awaiting: row.awaiting,
        started: words::moment(&row.started_at),
        updated: words::moment(&row.updated_at),
        version: row.version,
    });
    let page_of = |token: &str| format!("{CONSOLE}/sagas?{}", filters.paged(token, ""));
    page::html(&List {
        page: super::page("sagas", "Sagas", &session).with(notice),
        states: choices(&STATES, &filters.state),
        ages: choices(&AGES, &filters.older_than),
        lines: lines.collect(),
        next: rows.next_page_token.map(|token| page_of(&token)),
        first: (!filters.page_token.is_empty()).then(|| page_of("")),
        query: filters.query(),
        filtered: !filters.query().is_empty(),
        filters,
    })
}

/// The address of a saga's page. Purchases are what there mostly is.
pub(super) fn address(id: u64, definition: &str) -> String {
    match definition {
        "purchase" => format!("{CONSOLE}/sagas/{id}"),
        _ => format!("{CONSOLE}/sagas/{id}?{}", words::query(&[("definition", definition)])),
    }
}

#[derive(Deserialize)]
struct Counted {
    status: String,
    count: u64,
}

#[derive(Deserialize)]
struct Counts {
    items: Vec<Counted>,
    #[serde(default)]
    oldest_in_flight_at: Option<String>,
}

struct Tile {
    status: Badge,
    address: String,
    count: String,
}

#[derive(Template)]
#[template(path = "counts.html")]
struct CountsPart {
    tiles: Vec<Tile>,
    oldest: String,
}

/// How many there are of each state: a part of the list's page, loaded after it.
pub(super) async fn counts(
    State(console): State<Operators>,
    session: Session,
    Query(filters): Query<Filters>,
) -> Result<Response, Refusal> {
    let of_definition = words::query(&[("definition", &filters.definition)]);
    let counts: Counts = session.fetch(&*console.api, &format!("/admin/sagas/counts?{of_definition}")).await?;
    let of = |state: &str| {
        counts.items.iter().filter(|counted| counted.status == state).map(|counted| counted.count).sum::<u64>()
    };
    let tiles = STATES.iter().map(|(state, _)| Tile {
        status: words::status(state),
        address: format!("{CONSOLE}/sagas?{}", Filters { state: (*state).to_owned(), ..filters.clone() }.query()),
        count: words::count(of(state)),
    });
    let now = console.clock.now();
    let oldest = counts.oldest_in_flight_at.as_deref().and_then(words::millis);
    page::html(&CountsPart {
        tiles: tiles.collect(),
        oldest: oldest.map(|at| words::span(now.saturating_sub(at))).unwrap_or_default(),
    })
}
