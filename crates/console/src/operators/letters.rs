//! Dead letters: which topics have them, what is in one, sending them again, throwing them away.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::act::{Confirm, viewers_only_look};
use super::saga::payload;
use crate::form::Form;
use crate::page::{self, CONSOLE, Notice, Page, Refusal};
use crate::session::Session;
use crate::{Operators, words};

/// Letters on a page.
const PAGE: usize = 50;

#[derive(Deserialize)]
struct Topic {
    topic: String,
    count: u64,
    oldest_at: String,
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Letter {
    id: u64,
    topic: String,
    partition: u32,
    offset: u64,
    at: String,
    attempts: u32,
    reason: String,
    key: String,
    headers: std::collections::BTreeMap<String, String>,
    payload: String,
}

struct TopicLine {
    topic: String,
    address: String,
    count: String,
    oldest: String,
}

#[derive(Template)]
#[template(path = "letters.html")]
struct Topics {
    page: Page,
    topics: Vec<TopicLine>,
}

pub(super) async fn topics(State(console): State<Operators>, session: Session) -> Result<Response, Refusal> {
    let found: List<Topic> = session.fetch(&*console.api, "/admin/dlq").await?;
    let line = |topic: Topic| TopicLine {
        address: format!("{CONSOLE}/letters/{}", words::encoded(&topic.topic)),
        count: words::count(topic.count),
        oldest: words::moment(&topic.oldest_at),
        topic: topic.topic,
    };
    page::html(&Topics {
        page: super::page("letters", "Dead letters", &session),
        topics: found.items.into_iter().map(line).collect(),
    })
}

struct LetterLine {
    id: u64,
    address: String,
    at: String,
    key: String,
    attempts: u32,
    reason: String,
}

#[derive(Template)]
#[template(path = "letter_list.html")]
struct Letters {
    page: Page,
    topic: String,
    address: String,
    letters: Vec<LetterLine>,
    next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Look {
    #[serde(default)]
    after: String,
    #[serde(default)]
    redrive: String,
    #[serde(default)]
    purge: String,
}

pub(super) async fn list(
    State(console): State<Operators>,
    session: Session,
    Path(topic): Path<String>,
    Query(look): Query<Look>,
) -> Result<Response, Refusal> {
    let limit = (PAGE + 1).to_string();
    let query = words::query(&[("limit", &limit), ("after", &look.after)]);
    let mut found: List<Letter> =
        session.fetch(&*console.api, &format!("/admin/dlq/{}?{query}", words::encoded(&topic))).await?;
    let more = found.items.len() > PAGE;
    found.items.truncate(PAGE);
    let address = format!("{CONSOLE}/letters/{}", words::encoded(&topic));
    let next = found.items.last().filter(|_| more).map(|last| format!("{address}?after={}", last.id));
    let line = |letter: Letter| LetterLine {
        id: letter.id,
        address: format!("{address}/{}", letter.id),
        at: words::moment(&letter.at),
        key: letter.key,
        attempts: letter.attempts,
        reason: letter.reason,
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let notice = match (number(&look.redrive), number(&look.purge)) {
        (Some(0), _) | (None, Some(0)) => Some(Notice::bad("Nothing was done: they are not there any more.")),
        (Some(count), _) => Some(Notice::good(format!("{count} sent again."))),
        (_, Some(count)) => Some(Notice::good(format!("{count} thrown away."))),
        _ => None,
    };
    let letters = found.items.into_iter().map(line).collect();
    let title = format!("Dead letters of {topic}");
    page::html(&Letters {
        page: super::page("letters", title, &session).with(notice),
        topic,
        letters,
        next,
        address: address.clone(),
    })
}

#[derive(Template)]
#[template(path = "letter.html")]
struct LetterPage {
    page: Page,
    letter: Letter,
    at: String,
    payload: String,
    address: String,
}

pub(super) async fn show(
    State(console): State<Operators>,
    session: Session,
    Path((topic, id)): Path<(String, u64)>,
) -> Result<Response, Refusal> {
    let path = format!("/admin/dlq/{}/{id}", words::encoded(&topic));
    let letter: Letter = session.fetch(&*console.api, &path).await?;
    page::html(&LetterPage {
        page: super::page("letters", format!("Dead letter {id}"), &session),
        at: words::moment(&letter.at),
        payload: payload(&Value::String(letter.payload.clone())),
        address: format!("{CONSOLE}/letters/{}", words::encoded(&letter.topic)),
        letter,
    })
}

#[derive(Deserialize)]
pub(super) struct Ask {
    #[serde(default)]
    ids: String,
}

/// The question before letters are sent again or thrown away: those with these ids, or all.
pub(super) async fn confirm(
    State(console): State<Operators>,
    session: Session,
    Path((topic, verb)): Path<(String, String)>,
    Query(ask): Query<Ask>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let path = format!("/admin/dlq/{}?limit=1", words::encoded(&topic));
    session.get(&*console.api, &path).await?;
    let page = super::page("letters", "Dead letters", &session);
    if !page.steers() {
        return Err(viewers_only_look());
    }
    let ids: Vec<u64> = ask.ids.split(',').filter_map(|id| id.parse().ok()).collect();
    let which = match ids.len() {
        0 => format!("all dead letters of {topic}"),
        1 => format!("dead letter {}", ids[0]),
        many => format!("{many} dead letters"),
    };
    let (question, explained, button, danger) = match verb.as_str() {
        "redrive" => (
            format!("Send {which} again?"),
            "They go to the topic that they came from. What cannot be handled comes back here.",
            "Send again",
            false,
        ),
        "purge" => (format!("Throw {which} away?"), "They are removed for good.", "Throw away", true),
        _ => return Err(Refusal::missing("page")),
    };
    let address = format!("{CONSOLE}/letters/{}", words::encoded(&topic));
    let ids = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let confirm = Confirm {
        page,
        question,
        explained: explained.to_owned(),
        action: format!("{address}/do/{verb}"),
        button: button.to_owned(),
        danger,
        back: address,
        hidden: vec![("ids", ids)],
        asks_status: false,
    };
    confirm.answer(&headers)
}

pub(super) async fn act(
    State(console): State<Operators>,
    session: Session,
    Path((topic, verb)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Refusal> {
    let (verb, counted) = match verb.as_str() {
        "redrive" => ("redrive", "redriven"),
        "purge" => ("purge", "purged"),
        _ => return Err(Refusal::missing("page")),
    };
    let mut choice = json!({ "reason": form.get("reason") });
    if !form.get("ids").is_empty() {
        let ids: Option<Vec<u64>> = form.get("ids").split(',').map(|id| id.parse().ok()).collect();
        // Not understood must not mean all.
        choice["ids"] = ids.ok_or_else(Refusal::forged)?.into();
    }
    let topic = words::encoded(&topic);
    let done = session.post(&*console.api, &format!("/admin/dlq/{topic}/{verb}"), &choice).await?;
    Ok(page::see(&format!("{CONSOLE}/letters/{topic}?{verb}={}", done[counted].as_u64().unwrap_or(0))))
}
