//! The kinds of sagas, drawn.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::course::{Course, text};
use super::diagram::{self, Diagram, Shows};
use crate::page::{self, Page, Refusal};
use crate::session::Session;
use crate::{Operators, words};

struct Step {
    name: String,
    kind: String,
    forth: String,
    back: String,
    after: String,
    timeout: String,
}

struct Shown {
    name: String,
    version: u64,
    deadline: String,
    diagram: Diagram,
    steps: Vec<Step>,
    text: String,
}

#[derive(Template)]
#[template(path = "definitions.html")]
struct Definitions {
    page: Page,
    definitions: Vec<Shown>,
    box_width: u32,
    box_height: u32,
}

pub(super) async fn list(State(console): State<Operators>, session: Session) -> Result<Response, Refusal> {
    let found = session.get(&*console.api, "/admin/definitions").await?;
    let definitions = found["items"].as_array().into_iter().flatten().map(shown).collect();
    page::html(&Definitions {
        page: super::page("definitions", "Definitions", &session),
        definitions,
        box_width: diagram::BOX_WIDTH,
        box_height: diagram::BOX_HEIGHT,
    })
}

fn shown(definition: &Value) -> Shown {
    let step = |step: &Value| Step {
        name: text(step, "name"),
        kind: text(step, "kind"),
        forth: text(step, "do"),
        back: text(step, "undo"),
        after: step["after"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        timeout: step["timeout_ms"].as_u64().map(words::span).unwrap_or_default(),
    };
    Shown {
        name: text(definition, "name"),
        version: definition["version"].as_u64().unwrap_or(0),
        deadline: definition["deadline_ms"].as_u64().map(words::span).unwrap_or_default(),
        diagram: Diagram::of(&Course::of(&Value::Null, Some(definition)), Shows::Definition),
        steps: definition["steps"].as_array().into_iter().flatten().map(step).collect(),
        text: text(definition, "text"),
    }
}
