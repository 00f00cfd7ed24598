//! A process elsewhere that has failures of its own: what the page shows where processes differ, and what its form does then.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use hyper::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::visitor::{Form, Visitor, text};
use crate::town::Town;

const PAGE: &str = "/console/failures";

/// As the orchestrator's process sees another one: what it has, and that it does as it is told.
pub struct Neighbour {
    pub url: String,
    has: Arc<Mutex<Value>>,
}

impl Neighbour {
    /// A process with one participant and its one step.
    pub async fn open(gateway: Value, rates: Value, is_stopped: bool) -> Self {
        let stopped: &[&str] = if is_stopped { &["order"] } else { &[] };
        let has = json!({ "gateway": gateway, "steps": { "create-order": rates }, "stopped": stopped });
        let has = Arc::new(Mutex::new(has));
        let router = Router::new().route("/admin/failures", get(shown).put(told)).with_state(Arc::clone(&has));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, has }
    }

    fn has(&self) -> Value {
        self.has.lock().clone()
    }
}

async fn shown(State(has): State<Arc<Mutex<Value>>>) -> Json<Value> {
    let mut view = has.lock().clone();
    view["enabled"] = true.into();
    view["choices"] = json!({ "steps": ["create-order"], "participants": ["order"] });
    Json(view)
}

async fn told(State(has): State<Arc<Mutex<Value>>>, Json(order): Json<Value>) -> Json<Value> {
    *has.lock() = json!({ "gateway": order["gateway"], "steps": order["steps"], "stopped": order["stopped"] });
    shown(State(has)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_has_left_over_is_not_given_to_all_by_the_next_press() {
    let left = json!({ "retry_rate": 0.5, "op": "undo" });
    let neighbour = Neighbour::open(json!({ "decline_rate": 0.25, "latency_ms": 0 }), left, true).await;
    let town = Town::open_with(|config| {
        config.failures.enabled = true;
        config.failures.elsewhere = vec![neighbour.url.clone()];
    })
    .await;
    let mut operator = Visitor::at(&town.home().admin());
    operator.log_in("/console", "admin@example.com").await;
    let page = text(&operator.get(PAGE).await);
    for words in ["Processes differ", "the share that the gateway declines", "create-order, try again", "order takes"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("create-order, unknown") && !page.contains("create-order, when"), "{page}");
    let form = Form::in_page(&page, PAGE);
    assert_eq!((form.value("decline"), form.value("latency_ms")), ("", "0"), "{form:?}");
    assert_eq!((form.value("retry.create-order"), form.value("unknown.create-order")), ("", "0"), "{form:?}");
    assert!(!form.ticked("stopped", "order"), "{form:?}");

    // One new value, all else as it stands.
    let set = operator.send_form(&form, &[("latency_ms", "5"), ("reason", "a lesson")]).await;
    assert_eq!(set.status, StatusCode::SEE_OTHER, "{}", text(&set));
    let desk = saga::remote::Admin::new(&town.home().admin(), town.home().token()).unwrap();
    let wanted = json!({ "gateway": { "decline_rate": 0.0, "latency_ms": 5 }, "steps": {}, "stopped": [] });
    let here = desk.get("/admin/failures?here=true").await.unwrap();
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&here[name], value, "here: {name}");
        assert_eq!(&neighbour.has()[name], value, "elsewhere: {name}");
    }
    assert!(!text(&operator.get(PAGE).await).contains("Processes differ"), "now they are alike");
}
