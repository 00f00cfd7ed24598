//! What is in a topic: records, the newest first. Looking takes nothing.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::saga::payload;
use crate::page::{self, CONSOLE, Page, Refusal};
use crate::session::Session;
use crate::{Operators, words};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Look {
    partition: String,
    from: String,
    key: String,
}

#[derive(Deserialize)]
struct Told {
    partition: u32,
    offset: u64,
    #[serde(default)]
    at: Option<String>,
    key: String,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    payload: String,
    #[serde(default)]
    encoding: String,
    #[serde(default)]
    truncated: bool,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Told>,
    #[serde(default)]
    next_from: Option<u64>,
    #[serde(default)]
    kept_since: Option<String>,
}

struct Record {
    place: String,
    at: String,
    key: String,
    headers: Vec<(String, String)>,
    payload: String,
    note: &'static str,
}

#[derive(Template)]
#[template(path = "records.html")]
struct Records {
    page: Page,
    topic: String,
    address: String,
    look: Look,
    records: Vec<Record>,
    next: Option<String>,
    kept_since: String,
}

pub(super) async fn list(
    State(console): State<Operators>,
    session: Session,
    Path(topic): Path<String>,
    Query(look): Query<Look>,
) -> Result<Response, Refusal> {
    let asked = [("partition", look.partition.as_str()), ("from", &look.from), ("key", &look.key), ("limit", "50")];
    let encoded = words::encoded(&topic);
    let path = format!("/admin/topics/{encoded}/messages?{}", words::query(&asked));
    let (found, notice) = match session.fetch::<List>(&*console.api, &path).await {
        Ok(found) => (found, None),
        Err(refusal) if refusal.code == "validation_error" => {
            (List { items: Vec::new(), next_from: None, kept_since: None }, Some(refusal.notice()))
        }
        Err(refusal) => return Err(refusal),
    };
    let record = |told: Told| Record {
        place: format!("{}/{}", told.partition, told.offset),
        at: told.at.as_deref().map(words::moment).unwrap_or_default(),
        key: told.key,
        headers: told.headers.into_iter().collect(),
        payload: payload(&Value::String(told.payload)),
        note: match (told.encoding.as_str(), told.truncated) {
            ("base64", true) => "bytes, in base64; cut off",
            ("base64", false) => "bytes, in base64",
            (_, true) => "cut off",
            _ => "",
        },
    };
    let address = format!("{CONSOLE}/topics/{encoded}");
    let next = found.next_from.map(|from| {
        let from = from.to_string();
        let query = [("partition", look.partition.as_str()), ("from", &from), ("key", &look.key)];
        format!("{address}?{}", words::query(&query))
    });
    page::html(&Records {
        page: super::page("topics", format!("Topic {topic}"), &session).with(notice),
        kept_since: found.kept_since.as_deref().map(words::moment).unwrap_or_default(),
        records: found.items.into_iter().map(record).collect(),
        topic,
        address,
        look,
        next,
    })
}
