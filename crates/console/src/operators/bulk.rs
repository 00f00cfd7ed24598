//! One order for many sagas: first how many and which it would be, then the order itself, for exactly that number.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::act::viewers_only_look;
use super::course::text;
use super::sagas::{Filters, address};
use crate::Operators;
use crate::form::Form;
use crate::page::{self, CONSOLE, Notice, Page, Refusal};
use crate::session::Session;
use crate::words::{self, Badge};

const VERBS: [(&str, &str); 4] =
    [("retry", "Retry now"), ("cancel", "Cancel"), ("skip", "Skip the stuck step"), ("resolve", "Mark resolved")];

struct Sample {
    id: u64,
    address: String,
    status: Badge,
    awaiting: String,
}

/// What a dry run told.
struct Found {
    matched: u64,
    shown: String,
    sample: Vec<Sample>,
    filter: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "bulk.html")]
struct Bulk {
    page: Page,
    filters: Filters,
    verbs: Vec<(&'static str, &'static str, bool)>,
    status: String,
    reason: String,
    verb: String,
    found: Option<Found>,
    refused: Vec<(u64, String)>,
    back: String,
}

impl Bulk {
    fn of(page: Page, filters: Filters, verb: &str) -> Self {
        let verbs = VERBS.map(|(name, word)| (name, word, name == verb)).to_vec();
        let back = format!("{CONSOLE}/sagas?{}", filters.query());
        let nothing = String::new;
        let verb = verb.to_owned();
        Self {
            page,
            filters,
            verbs,
            status: nothing(),
            reason: nothing(),
            verb,
            found: None,
            refused: Vec::new(),
            back,
        }
    }
}

/// The question, with the filters of the list.
pub(super) async fn ask(
    State(console): State<Operators>,
    session: Session,
    Query(filters): Query<Filters>,
) -> Result<Response, Refusal> {
    // Whether who asks may see anything at all.
    session.get(&*console.api, "/admin/sagas?limit=1").await?;
    let page = super::page("sagas", "Many at once", &session);
    if !page.steers() {
        return Err(viewers_only_look());
    }
    page::html(&Bulk::of(page, filters, "retry"))
}

fn filters(form: &Form) -> Filters {
    let field = |name: &str| form.get(name).to_owned();
    Filters {
        state: field("state"),
        definition: field("definition"),
        step: field("step"),
        older_than: field("older_than"),
        started_after: words::as_utc(form.get("started_after")),
        started_before: words::as_utc(form.get("started_before")),
        q: field("q"),
        page_token: String::new(),
    }
}

/// As the API wants them: a number is a number, an id is a list of one.
fn wanted(filters: &Filters) -> Value {
    let mut wanted = Map::new();
    for (name, value) in filters.pairs().into_iter().filter(|(_, value)| !value.is_empty()) {
        let number = || value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from);
        match name {
            "older_than" => wanted.insert(name.to_owned(), number()),
            "q" => wanted.insert("ids".to_owned(), json!([number()])),
            _ => wanted.insert(name.to_owned(), value.into()),
        };
    }
    Value::Object(wanted)
}

/// Without a count: how many it would be. With one: does it.
pub(super) async fn act(State(console): State<Operators>, session: Session, form: Form) -> Result<Response, Refusal> {
    let filters = filters(&form);
    let expected = form.number::<u64>("expect_count");
    let mut order = json!({
        "verb": form.get("verb"), "filter": wanted(&filters), "reason": form.get("reason"), "dry_run": expected.is_none(),
    });
    if form.get("verb") == "resolve" {
        order["status"] = form.get("status").into();
    }
    if let Some(expected) = expected {
        order["expect_count"] = expected.into();
    }
    let told = session.post(&*console.api, "/admin/sagas/bulk", &order).await;
    let page = super::page("sagas", "Many at once", &session);
    let mut bulk = Bulk::of(page, filters, form.get("verb"));
    form.get("reason").clone_into(&mut bulk.reason);
    form.get("status").clone_into(&mut bulk.status);
    let mut status = StatusCode::OK;
    match told {
        Ok(told) if expected.is_none() => bulk.found = Some(found(&told)),
        Ok(told) => {
            let (applied, refused) =
                (told["applied"].as_u64().unwrap_or(0), told["refused_count"].as_u64().unwrap_or(0));
            bulk.page.notice = Some(match refused {
                0 => Notice::good(format!("Done, to {}.", words::count(applied))),
                _ => Notice::bad(format!("Done to {}; {} said no.", words::count(applied), words::count(refused))),
            });
            let refusal = |told: &Value| (told["id"].as_u64().unwrap_or(0), text(told, "detail"));
            bulk.refused = told["refused"].as_array().into_iter().flatten().map(refusal).collect();
        }
        Err(refusal) if matches!(refusal.code.as_str(), "conflict" | "validation_error") => {
            status = refusal.status;
            bulk.page.notice = Some(refusal.notice());
        }
        Err(refusal) => return Err(refusal),
    }
    let mut response = page::html(&bulk)?;
    *response.status_mut() = status;
    Ok(response)
}

fn found(told: &Value) -> Found {
    let sample = told["sample"].as_array().into_iter().flatten().map(|row| Sample {
        id: row["id"].as_u64().unwrap_or(0),
        address: address(row["id"].as_u64().unwrap_or(0), row["definition"].as_str().unwrap_or("purchase")),
        status: words::status(row["status"].as_str().unwrap_or_default()),
        awaiting: text(row, "awaiting"),
    });
    let filter = told["filter"].as_object().into_iter().flatten();
    let filter = filter.map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.replace('_', " "), value)
    });
    let matched = told["matched"].as_u64().unwrap_or(0);
    Found { matched, shown: words::count(matched), sample: sample.collect(), filter: filter.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_the_list_become_the_bulks() {
        let filters = Filters { state: "STUCK".into(), older_than: "60".into(), q: "7".into(), ..Filters::default() };
        assert_eq!(wanted(&filters), json!({ "state": "STUCK", "older_than": 60, "ids": [7] }));
        let moment = Filters { started_after: words::as_utc("2026-11-25T09:30"), ..Filters::default() };
        assert_eq!(wanted(&moment), json!({ "started_after": "2026-11-25T09:30:00Z" }));
        let odd = Filters { older_than: "soon".into(), ..Filters::default() };
        assert_eq!(wanted(&odd), json!({ "older_than": "soon" }), "refused by the API, not widened here");
    }
}
