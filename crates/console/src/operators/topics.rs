//! Who reads what, and how far: groups, topics, partitions, and what waits in them.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::page::{self, Page, Refusal};
use crate::session::Session;
use crate::{Operators, words};

#[derive(Deserialize)]
struct List {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    group: String,
    members: Vec<String>,
    waiting: u64,
    places: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    topic: String,
    partition: u32,
    waiting: u64,
    #[serde(default)]
    end: Option<u64>,
}

struct GroupShown {
    group: String,
    members: String,
    waiting: String,
    lags: bool,
    places: Vec<PlaceShown>,
}

struct PlaceShown {
    topic: String,
    partition: u32,
    waiting: String,
    lags: bool,
    end: String,
}

#[derive(Deserialize)]
struct Known {
    items: Vec<Topic>,
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
    partitions: Vec<Extent>,
    messages: u64,
}

#[derive(Deserialize)]
struct Extent {
    partition: u32,
    begin: u64,
    end: u64,
}

struct TopicShown {
    topic: String,
    address: String,
    messages: String,
    /// Each partition with its first and its next offset.
    partitions: String,
}

#[derive(Template)]
#[template(path = "topics.html")]
struct Topics {
    page: Page,
    groups: Vec<GroupShown>,
    topics: Vec<TopicShown>,
}

/// More than that waits: said in another colour.
const MUCH: u64 = 1_000;

pub(super) async fn list(State(console): State<Operators>, session: Session) -> Result<Response, Refusal> {
    let found: List = session.fetch(&*console.api, "/admin/topics").await?;
    let known: Known = session.fetch(&*console.api, "/admin/topics/list").await?;
    let extent = |extent: &Extent| format!("{}: {}–{}", extent.partition, extent.begin, extent.end);
    let topic = |topic: Topic| TopicShown {
        address: format!("/console/topics/{}", words::encoded(&topic.topic)),
        messages: words::count(topic.messages),
        partitions: topic.partitions.iter().map(extent).collect::<Vec<_>>().join(", "),
        topic: topic.topic,
    };
    let place = |place: Place| PlaceShown {
        topic: place.topic,
        partition: place.partition,
        waiting: words::count(place.waiting),
        lags: place.waiting > MUCH,
        end: place.end.map(words::count).unwrap_or_default(),
    };
    let group = |group: Group| GroupShown {
        members: match group.members.len() {
            0 => "nobody".to_owned(),
            1 => "1 member".to_owned(),
            many => format!("{many} members"),
        },
        waiting: words::count(group.waiting),
        lags: group.waiting > MUCH,
        group: group.group,
        places: group.places.into_iter().map(place).collect(),
    };
    let groups = found.items.into_iter().map(group).collect();
    let topics = known.items.into_iter().map(topic).collect();
    page::html(&Topics { page: super::page("topics", "Topics", &session), groups, topics })
}
