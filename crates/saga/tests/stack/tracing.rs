//! One trace per purchase over six processes and Kafka, seen from a collector; and a collector that dies.

#[path = "../e2e/tracing/collector.rs"]
mod collector;
#[path = "../e2e/tracing/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use saga::config::LogFormat;
use saga::remote::Admin;
use saga::up::roles::ServiceRole;
use serde_json::{Value, json};
use testkit::proxy::{Proxy, Way};

use crate::city::{City, TOKEN};
use crate::scrapes::scrape;
use crate::town::{Person, created, eventually, product};
use crate::traffic::{balanced, city_in};
use collector::{Collector, Told};
use tree::{assert_compensated, connected, counts, is_complete, trace_of};

/// Ends in 13: declined.
const DECLINED: i64 = 113;
/// OTLP's kinds of spans.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// Purchases that are measured.
const MEASURED: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_one_trace_over_six_processes_also_when_it_is_retried_restarted_or_nobody_takes_it() {
    let collector = Collector::open().await;
    let way = Proxy::before(collector.url.trim_start_matches("http://")).await;
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", way.address)),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "20".to_owned()),
        // A few purchases long, so that it is soon full.
        ("OTEL_BSP_MAX_QUEUE_SIZE", "128".to_owned()),
    ];
    let mut city = city_in(environment.to_vec(), |config| {
        config.failures.enabled = true;
        config.log.format = LogFormat::Json;
        config.log.filter = "info,saga_runtime=debug".to_owned();
    })
    .await;
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let kitchen = json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&admin.post("/api/v1/categories", &kitchen).await);
    let dear = created(&admin.post("/api/v1/products", &product(category, DECLINED, 1_000)).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 1_000)).await);

    let id = admin.buy(&[(dear, 1)]).await;
    assert_eq!(admin.ended(id).await["status"], "COMPENSATED");
    let spans = collector.until("the whole trace", |spans| is_complete(spans, id)).await;
    let trace = trace_of(&spans, id);
    assert_compensated(&trace, "postgresql");
    each_in_its_process(&trace);
    asked_over_grpc(&trace, &city);
    in_the_log(&city, id, &trace);

    retried_and_restarted(&mut city, &collector, &admin, dear).await;
    nobody_takes_them(&city, way, &admin, cup).await;
    balanced(&city).await;
    city.stop();
}

fn one<'t>(trace: &'t [Told], name: &str, kind: i32) -> &'t Told {
    let mut found = trace.iter().filter(|span| span.name == name && span.kind == kind);
    let span = found.next().unwrap_or_else(|| panic!("no {name} of kind {kind}"));
    assert!(found.next().is_none(), "{name} of kind {kind} twice");
    span
}

/// Each service tells its own part, by the names that messages and databases have.
fn each_in_its_process(trace: &[Told]) {
    let services: BTreeSet<&str> = trace.iter().map(|span| span.service.as_str()).collect();
    let all = ["saga-order", "saga-orchestrator", "saga-payment", "saga-product", "saga-purchase"];
    assert_eq!(services, BTreeSet::from(all), "the account service has no part in it");
    let takers = [
        ("update-product-inventory", "product"),
        ("create-order", "order"),
        ("create-payment", "payment"),
        ("rollback-order", "order"),
        ("rollback-product-inventory", "product"),
    ];
    for (topic, taker) in takers {
        let sent = one(trace, &format!("send {topic}"), PRODUCER);
        let taken = one(trace, &format!("process {topic}"), CONSUMER);
        assert_eq!((sent.service.as_str(), taken.service.as_str()), ("saga-orchestrator", &*format!("saga-{taker}")));
        assert_eq!(taken.parent, sent.id, "{topic}");
        assert_eq!(taken.attributes["messaging.consumer.group.name"], taker);
        for span in [sent, taken] {
            assert_eq!(span.attributes["messaging.system"], "kafka");
            assert_eq!(span.attributes["messaging.destination.name"], topic);
        }
        let written = trace.iter().find(|span| span.parent == taken.id && span.kind == CLIENT).unwrap();
        assert_eq!((&written.service, &*written.attributes["db.namespace"]), (&taken.service, taker));
        assert_eq!(written.attributes["db.system.name"], "postgresql");
    }
}

/// The question about prices: asked by one process, answered by another, through the edge.
fn asked_over_grpc(trace: &[Told], city: &City) {
    let name = "product.ProductService/CheckProducts";
    let root = one(trace, "POST /api/v1/purchases", SERVER);
    let (asks, answers) = (one(trace, name, CLIENT), one(trace, name, SERVER));
    assert_eq!((&asks.parent, &answers.parent), (&root.id, &asks.id));
    assert_eq!((asks.service.as_str(), answers.service.as_str()), ("saga-purchase", "saga-product"));
    for span in [asks, answers] {
        assert_eq!(span.attributes["rpc.system"], "grpc");
        assert_eq!(span.attributes["rpc.service"], "product.ProductService");
        assert_eq!(span.attributes["rpc.method"], "CheckProducts");
        assert_eq!(span.attributes["rpc.grpc.status_code"], "0");
    }
    let server = format!("http://{}:{}", asks.attributes["server.address"], asks.attributes["server.port"]);
    assert_eq!(server, city.internal());
    assert_eq!((&*root.attributes["http.route"], &*root.attributes["url.scheme"]), ("/api/v1/purchases", "http"));
}

/// What the orchestrator logs about a saga says which, and under which trace.
fn in_the_log(city: &City, id: u64, trace: &[Told]) {
    let lines = lines_about(city, id);
    let said: Vec<&str> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
    assert_eq!(said, ["saga began", "compensation begins", "saga ended"], "{lines:#?}");
    let hex: String = trace[0].trace.iter().map(|byte| format!("{byte:02x}")).collect();
    for line in &lines {
        assert_eq!((&line["trace_id"], &line["level"]), (&json!(hex), &json!("DEBUG")), "{line}");
    }
    assert_eq!(lines[2]["status"], "COMPENSATED");
}

fn lines_about(city: &City, id: u64) -> Vec<Value> {
    let log = city.log(ServiceRole::Orchestrator, 0);
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    lines.filter(|line| line["saga_id"] == id).collect()
}

/// The payment asks to be tried again, the orchestrator dies meanwhile, and then it is declined.
async fn retried_and_restarted(city: &mut City, collector: &Collector, admin: &Person, dear: u64) {
    let payment = Admin::new(&city.admin("payment", 0), TOKEN).unwrap();
    let again = json!({ "steps": { "create-payment": { "retry_rate": 1.0, "op": "do" } }, "reason": "a lesson" });
    payment.put("/admin/failures", &again).await.unwrap();
    let id = admin.buy(&[(dear, 1)]).await;
    let replied = |spans: &[Told]| {
        let trace = trace_of(spans, id);
        let said = |span: &&Told| span.attributes.get("saga.outcome").is_some_and(|outcome| outcome == "retry");
        trace.iter().filter(said).count() >= 2 && trace.iter().filter(|span| span.name == "process reply").count() >= 4
    };
    collector.until("it was asked to be tried again", replied).await;
    city.kill(ServiceRole::Orchestrator, 0);
    city.start(ServiceRole::Orchestrator, 0);
    city.process_ready(ServiceRole::Orchestrator, 0).await;
    payment.put("/admin/failures", &json!({ "reason": "enough" })).await.unwrap();
    assert_eq!(admin.ended(id).await["status"], "COMPENSATED");

    let spans = collector.until("the rest of the trace", |spans| is_complete(spans, id)).await;
    let trace = trace_of(&spans, id);
    connected(&trace);
    let counts = counts(&trace);
    for name in ["saga purchase", "create-order do", "create-payment do", "create-order undo"] {
        assert_eq!(counts.get(name), Some(&1), "{name}: {counts:?}");
    }
    let step = trace.iter().find(|span| span.name == "create-payment do").unwrap();
    let attempts: usize = step.attributes["saga.attempts"].parse().unwrap();
    assert!(attempts > 1 && counts["send create-payment"] == attempts, "{attempts}: {counts:?}");
    let processes = collector.look(|heard| {
        let of = heard.resources.iter().filter(|resource| resource["service.name"] == "saga-orchestrator");
        of.count()
    });
    assert!(processes > 1, "told by two");
}

/// The same purchases while the collector hangs, then while it is gone, take no longer.
async fn nobody_takes_them(city: &City, way: Proxy, admin: &Person, cup: u64) {
    let alive = purchases(admin, cup).await;
    way.set(Way::Deaf);
    let lost = || async {
        let mut lost = 0.0;
        for role in ["orchestrator", "purchase", "order"] {
            lost += scrape(&city.admin(role, 0)).await.of("saga_trace_spans_dropped_total");
        }
        lost
    };
    eventually("spans are lost", || async {
        purchases(admin, cup).await;
        (lost().await > 0.0).then_some(())
    })
    .await;
    let hangs = purchases(admin, cup).await;
    // What is open ends with the next word, and nobody listens any more.
    way.set(Way::Cutting(1));
    drop(way);
    let gone = purchases(admin, cup).await;
    // A request to the collector is given up after ten seconds.
    let bound = alive * 2 + Duration::from_secs(2);
    assert!(hangs < bound && gone < bound, "{alive:?} with a collector, {hangs:?} hanging, {gone:?} without");
}

async fn purchases(admin: &Person, cup: u64) -> Duration {
    let since = Instant::now();
    for _ in 0..MEASURED {
        let id = admin.buy(&[(cup, 1)]).await;
        assert_eq!(admin.ended(id).await["status"], "COMPLETED");
    }
    since.elapsed()
}
