//! One purchase: its steps as they happen, there and back.
//!
//! A purchase takes some milliseconds, a person needs longer to see it. So the stream shows one event after another at reading
//! speed; what happened is what the API told, and the times shown are the real ones.

use std::time::Duration;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use super::Visitor;
use super::buy::Reason;
use crate::form::Form;
use crate::live::{self, Events};
use crate::page::{self, Page, Refusal, SHOP};
use crate::session::Session;
use crate::words::{self, Badge};
use crate::{Shop, login};

/// Between two events on the page.
const PACE: Duration = Duration::from_millis(450);
/// The steps of the built-in saga, to show what is still to come. Others are shown when they begin.
const COURSE: [&str; 4] = ["update-product-inventory", "create-order", "create-payment", "confirm-order"];

/// An event, as the API tells it.
#[derive(Deserialize)]
struct Happened {
    step: String,
    status: String,
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    reason: Option<Reason>,
    occurred_at: String,
}

/// A step and what became of it, there and back.
#[derive(Clone, PartialEq, Debug)]
struct Step {
    name: String,
    title: String,
    forth: Badge,
    back: Option<Badge>,
    /// When, for people; why not.
    at: String,
    why: String,
}

/// A purchase as it is known so far: a fold over its events.
#[derive(Default)]
struct Course {
    steps: Vec<Step>,
    status: &'static str,
    reason: Option<(String, String)>,
    first: Option<u64>,
    last: Option<u64>,
}

const WAITING: Badge = Badge { class: "idle", icon: "○", word: "waiting" };
const DOING: Badge = Badge { class: "busy", icon: "▶", word: "on its way" };
const DONE: Badge = Badge { class: "good", icon: "✓", word: "done" };
const REFUSED: Badge = Badge { class: "bad", icon: "✕", word: "refused" };
const UNDOING: Badge = Badge { class: "back", icon: "◀", word: "to be taken back" };
const UNDONE: Badge = Badge { class: "undone", icon: "↺", word: "taken back" };
const NOT_UNDONE: Badge = Badge { class: "bad", icon: "!", word: "not taken back yet" };

impl Course {
    fn new() -> Self {
        let steps = COURSE.map(Step::waiting);
        Self { steps: steps.into(), status: "PENDING", ..Self::default() }
    }

    fn step(&mut self, name: &str) -> &mut Step {
        let at = self.steps.iter().position(|step| step.name == name).unwrap_or_else(|| {
            self.steps.push(Step::waiting(name));
            self.steps.len() - 1
        });
        &mut self.steps[at]
    }

    fn fold(&mut self, event: &Happened) {
        let at = words::millis(&event.occurred_at);
        self.first = self.first.or(at);
        self.last = at.or(self.last);
        if let Some(reason) = &event.reason {
            self.reason.get_or_insert_with(|| (reason.code.clone(), reason.detail.clone()));
        }
        if event.terminal {
            self.status = if event.status == "SUCCESS" { "COMPLETED" } else { "COMPENSATED" };
            if self.status == "COMPENSATED" {
                self.steps.iter_mut().filter(|step| step.back == Some(UNDOING)).for_each(|step| step.back = None);
            }
            return;
        }
        let time = at.map(words::clock).unwrap_or_default();
        let step = self.step(&event.step);
        match event.status.as_str() {
            "EXECUTE" => step.forth = DOING,
            "SUCCESS" => step.forth = DONE,
            "FAILED" => step.forth = REFUSED,
            "ROLLBACK" => step.back = Some(UNDONE),
            "ROLLBACK_FAILED" => step.back = Some(NOT_UNDONE),
            _ => {}
        }
        step.at = time;
        if let Some(reason) = &event.reason {
            step.why.clone_from(&reason.detail);
        }
        let back = matches!(event.status.as_str(), "FAILED" | "ROLLBACK" | "ROLLBACK_FAILED");
        if back {
            self.status = "COMPENSATING";
            // What was done is what is to be taken back.
            self.steps.iter_mut().filter(|s| s.forth == DONE && s.back.is_none()).for_each(|s| s.back = Some(UNDOING));
        } else if self.status == "PENDING" {
            self.status = "RUNNING";
        }
    }
}

impl Step {
    fn waiting(name: &str) -> Self {
        let nothing = String::new;
        Self {
            name: name.to_owned(),
            title: words::step(name),
            forth: WAITING,
            back: None,
            at: nothing(),
            why: nothing(),
        }
    }
}

/// The part of the page that moves.
#[derive(Template)]
#[template(path = "purchase_live.html")]
struct Moving {
    id: u64,
    token: String,
    status: Badge,
    ended: bool,
    said: String,
    steps: Vec<Step>,
    took: String,
    code: String,
    cancellable: bool,
}

impl Moving {
    fn of(id: u64, token: &str, course: &Course) -> Self {
        let ended = matches!(course.status, "COMPLETED" | "COMPENSATED");
        let took = course.first.zip(course.last).map(|(first, last)| words::span(last.saturating_sub(first)));
        let (code, detail) = course.reason.clone().unwrap_or_default();
        let said = match course.status {
            "COMPLETED" => "All steps are done. Thank you.".to_owned(),
            "COMPENSATED" if detail.is_empty() => {
                "It was taken back: nothing was bought, nothing was charged.".to_owned()
            }
            "COMPENSATED" => format!("It was taken back: {detail}. Nothing was bought, nothing was charged."),
            "COMPENSATING" => "It cannot go on: what was done is taken back, newest first.".to_owned(),
            "RUNNING" => "Step by step …".to_owned(),
            _ => "It is written down and about to begin …".to_owned(),
        };
        let charged = course.steps.iter().any(|step| step.name == "create-payment" && step.forth == DONE);
        Self {
            id,
            token: token.to_owned(),
            status: words::status(course.status),
            ended,
            said,
            steps: course.steps.clone(),
            took: took.unwrap_or_default(),
            code,
            cancellable: !ended && !charged && course.status != "COMPENSATING",
        }
    }
}

/// What the API tells of a purchase.
#[derive(Deserialize)]
struct Purchase {
    status: String,
    amount: i64,
    currency_code: String,
    created_at: String,
    order_items: Vec<Item>,
    steps: Vec<Stood>,
    #[serde(default)]
    ended_at: Option<String>,
    #[serde(default)]
    reason: Option<Reason>,
}

#[derive(Deserialize)]
struct Item {
    product_id: u64,
    quantity: i64,
    unit_price: i64,
}

#[derive(Deserialize)]
struct Stood {
    step: String,
    status: String,
    #[serde(default)]
    reason: Option<Reason>,
    updated_at: String,
}

impl Purchase {
    /// As it stands, without what happened on the way.
    fn course(&self) -> Course {
        let mut course = Course::new();
        for stood in &self.steps {
            let why =
                stood.reason.as_ref().map(|reason| Reason { code: reason.code.clone(), detail: reason.detail.clone() });
            if matches!(stood.status.as_str(), "ROLLBACK" | "ROLLBACK_FAILED") {
                course.step(&stood.step).forth = DONE;
            }
            course.fold(&Happened {
                step: stood.step.clone(),
                status: stood.status.clone(),
                terminal: false,
                reason: why,
                occurred_at: stood.updated_at.clone(),
            });
        }
        if let Some(reason) = &self.reason {
            course.reason = Some((reason.code.clone(), reason.detail.clone()));
        }
        course.first = words::millis(&self.created_at);
        course.last = self.ended_at.as_deref().and_then(words::millis).or(course.last);
        course.status = match self.status.as_str() {
            "COMPLETED" => "COMPLETED",
            "COMPENSATED" => "COMPENSATED",
            "COMPENSATING" => "COMPENSATING",
            "PENDING" => "PENDING",
            _ => course.status,
        };
        course
    }
}

struct Line {
    name: String,
    quantity: i64,
    price: String,
    sum: String,
}

#[derive(Template)]
#[template(path = "purchase.html")]
struct PurchasePage {
    page: Page,
    id: u64,
    at: String,
    amount: String,
    lines: Vec<Line>,
    moving: String,
    follow: bool,
}

#[derive(Deserialize)]
pub(super) struct Look {
    #[serde(default)]
    from: String,
    #[serde(default)]
    done: String,
}

pub(super) async fn show(
    State(shop): State<Shop>,
    session: Session,
    Path(id): Path<u64>,
    Query(look): Query<Look>,
) -> Result<Response, Refusal> {
    let purchase: Purchase = session.fetch(&*shop.api, &format!("/api/v1/purchases/{id}")).await?;
    let visitor = Visitor::of(&shop, &session).await?;
    let paths: Vec<String> =
        purchase.order_items.iter().map(|item| format!("/api/v1/products/{}", item.product_id)).collect();
    let names =
        futures_util::future::join_all(paths.iter().map(|path| session.fetch::<super::Product>(&*shop.api, path)));
    let named = names.await;
    let lines = purchase.order_items.iter().zip(named).map(|(item, product)| Line {
        name: product.map_or_else(|_| format!("Product {}", item.product_id), |product| product.name),
        quantity: item.quantity,
        price: words::money(item.unit_price, &purchase.currency_code),
        sum: words::money(item.unit_price.saturating_mul(item.quantity), &purchase.currency_code),
    });
    // Straight after buying it is shown from its start, by the stream.
    let from_start = look.from == "start";
    let course = if from_start { Course::new() } else { purchase.course() };
    let moving = Moving::of(id, &session.form_token(), &course);
    page::html(&PurchasePage {
        page: visitor.page("purchases", "Purchase", &session).with(login::done(&look.done)),
        id,
        at: words::moment(&purchase.created_at),
        amount: words::money(purchase.amount, &purchase.currency_code),
        lines: lines.collect(),
        follow: from_start || !moving.ended,
        moving: page::text(&moving)?,
    })
}

/// The moving part again and again, until the purchase has ended.
pub(super) async fn live(State(shop): State<Shop>, session: Session, Path(id): Path<u64>) -> Result<Response, Refusal> {
    let path = format!("/api/v1/purchases/{id}/events");
    // From its beginning each time: the steps before belong to the picture.
    let Some(body) = session.stream(&*shop.api, &path, None).await? else {
        return Ok(live::answer(stream::iter([live::event("end", "", "")])));
    };
    let following =
        Following { events: Events::of(body), course: Course::new(), shop, token: session.form_token(), ended: false };
    Ok(live::answer(stream::unfold(following, move |mut following| async move {
        if following.ended {
            return None;
        }
        let Some(event) = following.events.next().await else {
            // The token has expired, or the service stops: the browser comes back.
            return None;
        };
        let happened: Happened = serde_json::from_str(&event.data).ok()?;
        if following.course.first.is_some() {
            following.shop.clock.sleep(PACE).await;
        }
        following.course.fold(&happened);
        let moving = Moving::of(id, &following.token, &following.course);
        let mut bytes = live::event("purchase", "", &moving.render().ok()?).to_vec();
        if moving.ended {
            following.ended = true;
            bytes.extend_from_slice(&live::event("end", "", ""));
        }
        Some((bytes.into(), following))
    })))
}

struct Following {
    events: Events,
    course: Course,
    shop: Shop,
    token: String,
    ended: bool,
}

pub(super) async fn cancel(
    State(shop): State<Shop>,
    session: Session,
    Path(id): Path<u64>,
    _: Form,
) -> Result<Response, Refusal> {
    let path = format!("/api/v1/purchases/{id}/cancel");
    let asked = session.post(&*shop.api, &path, &json!({ "reason": "cancelled on the shop's page" })).await;
    match asked {
        Ok(_) => Ok(page::see(&format!("{SHOP}/purchases/{id}?done=cancelled"))),
        Err(refusal) if refusal.status == StatusCode::CONFLICT => {
            Err(Refusal { detail: format!("{} Nothing was changed.", refusal.detail), ..refusal })
        }
        Err(refusal) => Err(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(step: &str, status: &str) -> Happened {
        let reason =
            (status == "FAILED").then(|| Reason { code: "payment_declined".into(), detail: "declined".into() });
        let terminal = step == "purchase";
        Happened {
            step: step.into(),
            status: status.into(),
            terminal,
            reason,
            occurred_at: "2026-11-24T08:00:00.004Z".into(),
        }
    }

    fn after(events: &[(&str, &str)]) -> Course {
        let mut course = Course::new();
        events.iter().for_each(|(step, status)| course.fold(&happened(step, status)));
        course
    }

    #[test]
    fn a_declined_purchase_is_shown_going_back_over_what_was_done() {
        let there = [
            ("update-product-inventory", "EXECUTE"),
            ("update-product-inventory", "SUCCESS"),
            ("create-order", "EXECUTE"),
            ("create-order", "SUCCESS"),
            ("create-payment", "EXECUTE"),
            ("create-payment", "FAILED"),
        ];
        let course = after(&there);
        let backs: Vec<_> = course.steps.iter().map(|step| step.back).collect();
        assert_eq!(backs, [Some(UNDOING), Some(UNDOING), None, None]);
        assert_eq!((course.status, course.steps[2].why.as_str()), ("COMPENSATING", "declined"));
        let back = [("create-order", "ROLLBACK"), ("update-product-inventory", "ROLLBACK"), ("purchase", "ROLLBACK")];
        let course = after(&[&there[..], &back[..]].concat());
        let backs: Vec<_> = course.steps.iter().map(|step| step.back).collect();
        assert_eq!((backs, course.status), (vec![Some(UNDONE), Some(UNDONE), None, None], "COMPENSATED"));
        assert!(Moving::of(1, "", &course).said.contains("declined"));
    }

    #[test]
    fn a_purchase_of_another_saga_shows_its_steps_as_they_begin() {
        let course = after(&[("wrap-it", "EXECUTE")]);
        assert_eq!(course.steps.last().map(|step| (step.title.as_str(), step.forth)), Some(("Wrap it", DOING)));
    }
}
