//! Failures on purpose: switches for teaching and testing, where the configuration enables them.
//!
//! The form shows what all processes say alike. Where they differ (one began after the last order) its field is empty and the page
//! says so: a form that showed the worst of them would spread it to all with the next press.

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
    #[serde(flatten)]
    all: Switches,
    #[serde(default)]
    processes: Vec<Process>,
    #[serde(default)]
    unreached: Vec<Unreached>,
}

/// One of several.
#[derive(Deserialize)]
struct Process {
    url: String,
    #[serde(flatten)]
    own: Switches,
}

/// How switches stand, of one process or of all together, and what there is to switch.
#[derive(Deserialize)]
struct Switches {
    #[serde(default)]
    gateway: Gateway,
    #[serde(default)]
    steps: BTreeMap<String, Rates>,
    #[serde(default)]
    stopped: Vec<String>,
    #[serde(default)]
    choices: Choices,
}

#[derive(Deserialize)]
struct Unreached {
    url: String,
    problem: String,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Gateway {
    #[serde(default)]
    decline_rate: f64,
    #[serde(default)]
    latency_ms: u64,
}

#[derive(Clone, Default, Deserialize)]
struct Rates {
    #[serde(default)]
    unknown_rate: f64,
    #[serde(default)]
    retry_rate: f64,
    #[serde(default)]
    lost_rate: f64,
    #[serde(default)]
    op: Option<String>,
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
    unknown: Field,
    retry: Field,
    lost: Field,
    ways: Vec<Way>,
}

/// What stands in a field; nothing where processes differ.
type Field = String;

/// Which way of a step it is about.
struct Way {
    value: &'static str,
    word: &'static str,
    chosen: bool,
}

/// As the API names them; nothing is both.
const WAYS: [(&str, &str); 3] = [("", "doing and undoing"), ("do", "only doing"), ("undo", "only undoing")];

/// What one process says of itself.
struct Line {
    url: String,
    participants: String,
    wrong: String,
}

struct Participant {
    name: String,
    stopped: bool,
    /// In some processes, and not in all.
    differs: bool,
}

/// How the form is filled.
#[derive(Default)]
struct Filled {
    decline: Field,
    latency_ms: Field,
    steps: Vec<Step>,
    participants: Vec<Participant>,
    /// What processes do not say alike, as a person calls it.
    differing: Vec<String>,
}

#[derive(Template)]
#[template(path = "failures.html")]
struct Failures {
    page: Page,
    enabled: bool,
    form: Filled,
    processes: Vec<Line>,
    unreached: Vec<Unreached>,
}

#[derive(Deserialize)]
pub(super) struct Look {
    #[serde(default)]
    done: String,
}

impl Process {
    fn line(self) -> Line {
        let Switches { gateway, steps, stopped, choices } = self.own;
        let mut wrong: Vec<String> = stopped.iter().map(|name| format!("{name} takes no commands")).collect();
        let Gateway { decline_rate, latency_ms } = gateway;
        if decline_rate > 0.0 || latency_ms > 0 {
            wrong.push(format!("the gateway declines {} %, {latency_ms} ms slower", percent(decline_rate)));
        }
        for (step, rates) in &steps {
            let shares = [("unknown", rates.unknown_rate), ("try again", rates.retry_rate), ("lost", rates.lost_rate)];
            let shares = shares.iter().filter(|(_, share)| *share > 0.0);
            let shares: Vec<String> = shares.map(|(what, share)| format!("{what} {} %", percent(*share))).collect();
            let way = WAYS.iter().find(|(value, _)| rates.op.as_deref().unwrap_or_default() == *value);
            wrong.push(format!("{step} ({}): {}", way.map_or("", |(_, word)| word), shares.join(", ")));
        }
        if wrong.is_empty() {
            wrong.push("nothing".to_owned());
        }
        Line { url: self.url, participants: choices.participants.join(", "), wrong: wrong.join("; ") }
    }
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
    let form = told.filled();
    let Told { enabled, processes, unreached, .. } = told;
    page::html(&Failures {
        page: super::page("failures", "Failures", &session).with(login::done(&look.done)),
        enabled,
        form,
        processes: processes.into_iter().map(Process::line).collect(),
        unreached,
    })
}

impl Told {
    /// Each process's switches; those of the one that is asked, where there are no others.
    fn each(&self) -> Vec<&Switches> {
        match self.processes.is_empty() {
            true => vec![&self.all],
            false => self.processes.iter().map(|process| &process.own).collect(),
        }
    }

    fn filled(&self) -> Filled {
        let each = self.each();
        let mut form = Filled::default();
        let gateway = |what: fn(&Gateway) -> u64| common(each.iter().map(|own| what(&own.gateway)));
        form.decline = form.field("the share that the gateway declines", gateway(|one| percent(one.decline_rate)));
        form.latency_ms = form.field("how much slower the gateway is", gateway(|one| one.latency_ms));
        for name in &self.all.choices.steps {
            let here = each.iter().filter(|own| own.choices.steps.contains(name));
            let step = form.step(name, here.map(|own| own.steps.get(name).cloned().unwrap_or_default()).collect());
            form.steps.push(step);
        }
        for name in &self.all.choices.participants {
            let here = each.iter().filter(|own| own.choices.participants.contains(name));
            let stopped = common(here.map(|own| own.stopped.contains(name)));
            if stopped.is_none() {
                form.differing.push(format!("whether {name} takes commands"));
            }
            let differs = stopped.is_none();
            form.participants.push(Participant { name: name.clone(), stopped: stopped == Some(true), differs });
        }
        form
    }
}

impl Filled {
    fn field(&mut self, what: &str, value: Option<u64>) -> Field {
        if value.is_none() {
            self.differing.push(what.to_owned());
        }
        value.map_or_else(Field::new, |value| value.to_string())
    }

    /// A step as its processes say.
    fn step(&mut self, name: &str, each: Vec<Rates>) -> Step {
        // Where nothing goes wrong it is no matter which way.
        let failing = each.iter().filter(|rates| rates.unknown_rate + rates.retry_rate + rates.lost_rate > 0.0);
        let op = common(failing.map(|rates| rates.op.clone()));
        let mut share = |what: &str, rate: fn(&Rates) -> f64| {
            let alike = common(each.iter().map(|rates| percent(rate(rates))));
            // Rates that fail in different ways are different rates.
            self.field(&format!("{name}, {what}"), alike.filter(|share| op.is_some() || *share == 0))
        };
        let unknown = share("unknown", |rates| rates.unknown_rate);
        let retry = share("try again", |rates| rates.retry_rate);
        let lost = share("answer lost", |rates| rates.lost_rate);
        if op.is_none() {
            self.differing.push(format!("{name}, when"));
        }
        Step { name: name.to_owned(), unknown, retry, lost, ways: ways(op.flatten().as_deref()) }
    }
}

/// What all say, or that nobody says anything; `None`: they differ.
fn common<T: PartialEq + Default>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next().unwrap_or_default();
    all.all(|other| other == first).then_some(first)
}

fn ways(chosen: Option<&str>) -> Vec<Way> {
    let way = |(value, word)| Way { value, word, chosen: chosen.unwrap_or_default() == value };
    WAYS.into_iter().map(way).collect()
}

/// Sets all switches as the form says.
pub(super) async fn set(State(console): State<Operators>, session: Session, form: Form) -> Result<Response, Refusal> {
    let share = |name: &str| form.number::<f64>(name).map_or(0.0, |percent| percent / 100.0);
    let steps: Map<String, Value> = form
        .all("step")
        .map(|step| {
            let mut rates = json!({
                "unknown_rate": share(&format!("unknown.{step}")), "retry_rate": share(&format!("retry.{step}")),
                "lost_rate": share(&format!("lost.{step}")),
            });
            let way = form.get(&format!("op.{step}"));
            if !way.is_empty() {
                rates["op"] = way.into();
            }
            (step.to_owned(), rates)
        })
        .filter(|(_, rates)| ["unknown_rate", "retry_rate", "lost_rate"].iter().any(|rate| rates[*rate] != 0.0))
        .collect();
    // All off is what the button says, whatever stands in the fields.
    if !form.get("off").is_empty() {
        let body = json!({ "enabled": false, "reason": form.get("reason") });
        session.tell(&*console.api, Method::PUT, "/admin/failures", &[], &body).await?;
        return Ok(page::see("/console/failures?done=failures"));
    }
    let body = json!({
        "gateway": { "decline_rate": share("decline"), "latency_ms": form.number::<u64>("latency_ms").unwrap_or(0) },
        "steps": steps,
        "stopped": form.all("stopped").collect::<Vec<_>>(),
        "reason": form.get("reason"),
    });
    session.tell(&*console.api, Method::PUT, "/admin/failures", &[], &body).await?;
    Ok(page::see("/console/failures?done=failures"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn filled(told: Value) -> Filled {
        serde_json::from_value::<Told>(told).unwrap().filled()
    }

    fn chosen(step: &Step) -> &str {
        step.ways.iter().find(|way| way.chosen).unwrap().value
    }

    #[test]
    fn the_form_shows_what_all_processes_say_and_nothing_where_they_differ() {
        let order = json!({ "steps": ["create-order"], "participants": ["order"] });
        let process = |url: &str, gateway: Value, steps: Value, stopped: Value, choices: &Value| json!({ "url": url, "gateway": gateway, "steps": steps, "stopped": stopped, "choices": choices });
        let slow = |decline: f64| json!({ "decline_rate": decline, "latency_ms": 7 });
        let undone = json!({ "create-order": { "retry_rate": 0.5, "lost_rate": 0.1, "op": "undo" } });
        let later = json!({ "create-order": { "retry_rate": 0.5 } });
        let other = json!({ "steps": ["take"], "participants": ["product"] });
        let form = filled(json!({
            "enabled": true,
            "gateway": slow(0.5), "steps": undone, "stopped": ["order", "product"],
            "choices": { "steps": ["create-order", "take"], "participants": ["order", "product"] },
            "processes": [
                process("one", slow(0.5), undone.clone(), json!(["order"]), &order),
                process("two", slow(0.0), later, json!([]), &order),
                // What another process does not have it cannot say otherwise.
                process("three", slow(0.5), json!({}), json!(["product"]), &other),
            ],
        }));
        assert_eq!((form.decline.as_str(), form.latency_ms.as_str()), ("", "7"));
        let [step, take] = form.steps.as_slice() else { panic!("two steps") };
        assert_eq!((step.unknown.as_str(), step.retry.as_str(), step.lost.as_str(), chosen(step)), ("0", "", "", ""));
        assert_eq!((take.unknown.as_str(), take.retry.as_str(), chosen(take)), ("0", "0", ""));
        let stopped: Vec<_> = form.participants.iter().map(|one| (one.stopped, one.differs)).collect();
        assert_eq!(stopped, [(false, true), (true, false)]);
        assert_eq!(
            form.differing,
            [
                "the share that the gateway declines",
                "create-order, try again",
                "create-order, answer lost",
                "create-order, when",
                "whether order takes commands"
            ]
        );
    }

    #[test]
    fn a_process_alone_says_it_for_all() {
        let form = filled(json!({
            "enabled": true, "gateway": { "decline_rate": 0.25 }, "stopped": ["till"],
            "steps": { "pay": { "unknown_rate": 1.0, "op": "do" } },
            "choices": { "steps": ["pay"], "participants": ["till"] },
        }));
        assert_eq!(
            (form.decline.as_str(), form.steps[0].unknown.as_str(), chosen(&form.steps[0])),
            ("25", "100", "do")
        );
        assert!(form.participants[0].stopped && form.differing.is_empty());
    }
}
