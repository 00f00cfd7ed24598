//! Failures on purpose: switches for teaching and testing, where the configuration enables them.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::Method;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::form::Form;
use crate::page::{self, Page, Refusal};
use crate::session::Session;
use crate::{Operators, login};

#[derive(Deserialize)]
struct Told {
    enabled: bool,
    #[serde(default)]
    gateway: Gateway,
    #[serde(default)]
    steps: BTreeMap<String, Rates>,
    #[serde(default)]
    stopped: Vec<String>,
    #[serde(default)]
    choices: Choices,
}

#[derive(Default, Deserialize)]
struct Gateway {
    #[serde(default)]
    decline_rate: f64,
    #[serde(default)]
    latency_ms: u64,
}

#[derive(Default, Deserialize)]
struct Rates {
    #[serde(default)]
    unknown_rate: f64,
    #[serde(default)]
    retry_rate: f64,
    #[serde(default)]
    lost_rate: f64,
}

#[derive(Default, Deserialize)]
struct Choices {
    #[serde(default)]
    steps: Vec<String>,
    #[serde(default)]
    participants: Vec<String>,
}

/// A step with its switches, in percent.
struct Step {
    name: String,
    unknown: u64,
    retry: u64,
    lost: u64,
}

struct Participant {
    name: String,
    stopped: bool,
}

#[derive(Template)]
#[template(path = "failures.html")]
struct Failures {
    page: Page,
    enabled: bool,
    decline: u64,
    latency_ms: u64,
    steps: Vec<Step>,
    participants: Vec<Participant>,
}

#[derive(Deserialize)]
pub(super) struct Look {
    #[serde(default)]
    done: String,
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share between 0 and 1")]
fn percent(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * 100.0).round() as u64
}

pub(super) async fn show(
    State(console): State<Operators>,
    session: Session,
    Query(look): Query<Look>,
) -> Result<Response, Refusal> {
    let told: Told = session.fetch(&*console.api, "/admin/failures").await?;
    let step = |name: &String| {
        let rates = told.steps.get(name);
        let of = |rate: fn(&Rates) -> f64| percent(rates.map_or(0.0, rate));
        Step {
            name: name.clone(),
            unknown: of(|rates| rates.unknown_rate),
            retry: of(|rates| rates.retry_rate),
            lost: of(|rates| rates.lost_rate),
        }
    };
    let participant = |name: &String| Participant { name: name.clone(), stopped: told.stopped.contains(name) };
    page::html(&Failures {
        page: super::page("failures", "Failures", &session).with(login::done(&look.done)),
        enabled: told.enabled,
        decline: percent(told.gateway.decline_rate),
        latency_ms: told.gateway.latency_ms,
        steps: told.choices.steps.iter().map(step).collect(),
        participants: told.choices.participants.iter().map(participant).collect(),
    })
}

/// Sets all switches as the form says.
pub(super) async fn set(State(console): State<Operators>, session: Session, form: Form) -> Result<Response, Refusal> {
    let share = |name: &str| form.number::<f64>(name).map_or(0.0, |percent| percent / 100.0);
    let steps: Map<String, Value> = form
        .all("step")
        .map(|step| {
            let rates = json!({
                "unknown_rate": share(&format!("unknown.{step}")), "retry_rate": share(&format!("retry.{step}")),
                "lost_rate": share(&format!("lost.{step}")),
            });
            (step.to_owned(), rates)
        })
        .filter(|(_, rates)| ["unknown_rate", "retry_rate", "lost_rate"].iter().any(|rate| rates[*rate] != 0.0))
        .collect();
    let body = json!({
        "enabled": form.get("off").is_empty(),
        "gateway": { "decline_rate": share("decline"), "latency_ms": form.number::<u64>("latency_ms").unwrap_or(0) },
        "steps": steps,
        "stopped": form.all("stopped").collect::<Vec<_>>(),
        "reason": form.get("reason"),
    });
    session.tell(&*console.api, Method::PUT, "/admin/failures", &[], &body).await?;
    Ok(page::see("/console/failures?done=failures"))
}
