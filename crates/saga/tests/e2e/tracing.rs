//! One trace per purchase, seen from a collector: whole when it is taken back, tried again, or cut in two by `kill -9`.

pub mod collector;
mod tls;
pub mod tree;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use collector::{Collector, Told};
use contracts::product::product_service_client::ProductServiceClient;
use contracts::product::{CartItem, CheckProductsRequest};
use hyper::Method;
use saga::remote::RunFile;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tree::{assert_compensated, connected, counts, trace_of, whole};

use crate::binary::{Process, saga};
use crate::town::{Person, cart, created, eventually, product};

/// Ends in 13: declined.
const DECLINED: i64 = 113;

/// The binary, telling this collector what it does.
fn traced(data: &Path, endpoint: &str, protocol: &str) -> Command {
    let mut command = saga(data);
    command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    command.env("OTEL_BSP_SCHEDULE_DELAY", "20");
    command
}

async fn started(mut command: Command, data: &Path) -> Process {
    Process::of(command.spawn().unwrap(), data).await
}

/// The first account, and a product.
async fn stocked(process: &Process, price: i64) -> (Person, u64) {
    let admin = process.nobody().register("admin@example.com").await;
    let category = serde_json::json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&admin.post("/api/v1/categories", &category).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, price, 1_000)).await);
    (admin, cup)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_purchase_is_one_connected_trace_with_every_do_and_undo_over_grpc_and_over_http() {
    for protocol in ["grpc", "http/protobuf"] {
        let (data, collector) = (TempDir::new().unwrap(), Collector::open().await);
        let mut command = traced(data.path(), &collector.url, protocol);
        command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop%207").env("OTEL_SERVICE_NAME", "tea");
        let process = started(command, data.path()).await;
        let (admin, cup) = stocked(&process, DECLINED).await;
        let id = admin.buy(&[(cup, 1)]).await;
        assert_eq!(admin.ended(id).await["status"], "COMPENSATED");
        let spans = collector.until("the whole trace", |spans| whole(spans, id)).await;
        assert_compensated(&trace_of(&spans, id), "sqlite");
        collector.look(|heard| {
            assert!(heard.tenants.iter().all(|tenant| tenant == "shop 7"), "{:?}", heard.tenants);
            assert!(heard.resources.iter().all(|resource| resource["service.name"] == "tea"));
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_in_the_trace() {
    let (data, collector) = (TempDir::new().unwrap(), Collector::open().await);
    let mut command = traced(data.path(), &collector.url, "grpc");
    command.env("SAGA_PAYMENT__SANDBOX__RETRY_RATE", "0.3");
    let process = started(command, data.path()).await;
    let (admin, cup) = stocked(&process, 100).await;
    // The sandbox asks by chance to try again: seldom so often that the waits, which double, outlast the patience here.
    for _ in 0..20 {
        let id = admin.buy(&[(cup, 1)]).await;
        assert_eq!(admin.ended(id).await["status"], "COMPLETED");
        let spans = collector.until("the whole trace", |spans| whole(spans, id)).await;
        let trace = trace_of(&spans, id);
        connected(&trace);
        let step = trace.iter().find(|span| span.name == "create-payment do").unwrap();
        let attempts: usize = step.attributes["saga.attempts"].parse().unwrap();
        let sent: Vec<&Told> = trace.iter().filter(|span| span.name == "send create-payment").collect();
        assert_eq!(sent.len(), attempts);
        assert!(sent.iter().all(|span| span.parent == step.id));
        let tried = trace.iter().filter(|span| span.name == "process create-payment");
        let mut outcomes: Vec<&str> = tried.map(|span| span.attributes["saga.outcome"].as_str()).collect();
        outcomes.sort_unstable();
        let mut expected = vec!["done"];
        expected.resize(attempts, "retry");
        assert_eq!(outcomes, expected);
        if attempts > 1 {
            return;
        }
    }
    panic!("the gateway never asked to try again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_survives_kill_9_in_the_middle_of_its_saga() {
    let (data, collector) = (TempDir::new().unwrap(), Collector::open().await);
    let mut command = traced(data.path(), &collector.url, "grpc");
    // The gateway is thinking when the process dies.
    command.env("SAGA_PAYMENT__SANDBOX__LATENCY_MS", "600000");
    let mut process = started(command, data.path()).await;
    let (mut admin, cup) = stocked(&process, DECLINED).await;
    let id = admin.buy(&[(cup, 1)]).await;
    // What was sent before the kill: everything up to the payment.
    let has = |spans: &[Told], name: &str, count: usize| spans.iter().filter(|span| span.name == name).count() >= count;
    let before = collector.until("the order is made", |spans| {
        has(spans, "POST /api/v1/purchases", 1) && has(spans, "process reply", 2) && has(spans, "transaction order", 1)
    });
    assert!(!has(&before.await, "saga purchase", 1), "it has not ended");
    eventually("the saga waits for the payment", || async {
        let shown = crate::binary::run(data.path(), &["sagas", "show", &id.to_string(), "--json"]);
        crate::binary::stdout(&shown).contains("create-payment").then_some(())
    })
    .await;
    process.kill();

    let process = started(traced(data.path(), &collector.url, "grpc"), data.path()).await;
    admin.endpoint = process.nobody().endpoint;
    assert_eq!(admin.ended(id).await["status"], "COMPENSATED");
    let spans = collector.until("the rest of the trace", |spans| whole(spans, id)).await;
    let trace = trace_of(&spans, id);
    connected(&trace);
    let counts = counts(&trace);
    for name in ["create-order do", "create-payment do", "create-order undo", "update-product-inventory undo"] {
        assert_eq!(counts.get(name), Some(&1), "{counts:?}");
    }
    let processes = collector.look(|heard| heard.resources.len());
    assert!(processes > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_goes_on_over_http_and_over_grpc() {
    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (data, collector) = (TempDir::new().unwrap(), Collector::open().await);
    let mut command = traced(data.path(), &collector.url, "grpc");
    // Nothing but what callers want.
    command.env("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let process = started(command, data.path()).await;
    let (admin, cup) = stocked(&process, 100).await;
    let body = cart(&[(cup, 1)]).to_string();
    let extra = [("traceparent", CALLER.to_owned())];
    let answer = admin.send(Method::POST, "/api/v1/purchases", &extra, body.into()).await;
    assert_eq!(answer.status, hyper::StatusCode::ACCEPTED);
    let run = RunFile::read(data.path()).unwrap().unwrap();
    let mut client = ProductServiceClient::connect(run.internal).await.unwrap();
    let item = CartItem { product_id: cup, quantity: 1 };
    let mut request = tonic::Request::new(CheckProductsRequest { items: vec![item] });
    request.metadata_mut().insert("traceparent", CALLER.parse().unwrap());
    client.check_products(request).await.unwrap();
    let wanted = ["POST /api/v1/purchases", "product.ProductService/CheckProducts", "saga purchase"];
    let all = |spans: &[Told]| wanted.iter().all(|name| spans.iter().any(|span| span.name == *name));
    let spans = collector.until("all three", all).await;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for span in &spans {
        assert_eq!(hex(&span.trace), CALLER[3..35], "{} was not asked for", span.name);
    }
    for name in &wanted[..2] {
        let span = spans.iter().find(|span| span.name == *name).unwrap();
        assert_eq!((hex(&span.parent).as_str(), span.kind), (&CALLER[36..52], 2), "{name}");
    }
    let grpc = spans.iter().find(|span| span.name == wanted[1]).unwrap();
    assert_eq!((grpc.attributes["rpc.system"].as_str(), &*grpc.attributes["rpc.grpc.status_code"]), ("grpc", "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_off_or_not_sampled_nothing_leaves_the_process_and_nothing_is_kept() {
    for (name, value) in
        [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_TRACES_SAMPLER", "always_off")]
    {
        let (data, collector) = (TempDir::new().unwrap(), Collector::open().await);
        let mut command = traced(data.path(), &collector.url, "grpc");
        command.env(name, value);
        let mut process = started(command, data.path()).await;
        let (admin, cup) = stocked(&process, DECLINED).await;
        let id = admin.buy(&[(cup, 1)]).await;
        admin.ended(id).await;
        let shown = crate::binary::run(data.path(), &["sagas", "show", &id.to_string(), "--json"]);
        let shown = crate::binary::stdout(&shown);
        let silent = !shown.replace("\"trace_id\":null", "").contains("trace");
        assert!(shown.contains("COMPENSATED") && silent, "{shown}");
        // What had been waiting would be sent at the end.
        process.signal("TERM");
        assert_eq!(process.end().0, Some(0));
        assert_eq!(collector.look(|heard| heard.tenants.len()), 0, "{name}={value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_is_not_there_costs_a_line_in_the_log_and_nothing_else() {
    // Takes connections and never says a word.
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging_url = format!("http://{}", hanging.local_addr().unwrap());
    let nobody_url = format!("http://127.0.0.1:{}", testkit::port::unused());
    for (url, protocol) in [(&hanging_url, "grpc"), (&hanging_url, "http/protobuf"), (&nobody_url, "grpc")] {
        let data = TempDir::new().unwrap();
        let log = data.path().join("log");
        let mut command = traced(data.path(), url, protocol);
        command.env("OTEL_EXPORTER_OTLP_TIMEOUT", "100").env("OTEL_BSP_MAX_QUEUE_SIZE", "64");
        command.stderr(File::create(&log).unwrap());
        let mut process = started(command, data.path()).await;
        let (admin, cup) = stocked(&process, 100).await;
        let mut slowest = std::time::Duration::ZERO;
        for _ in 0..20 {
            let since = std::time::Instant::now();
            let id = admin.buy(&[(cup, 1)]).await;
            assert_eq!(admin.ended(id).await["status"], "COMPLETED");
            slowest = slowest.max(since.elapsed());
        }
        // Had one waited for a batch to be given up, that is 4 times 100 ms and three pauses: two seconds.
        assert!(slowest < std::time::Duration::from_millis(1_500), "{slowest:?}");
        let said = || std::fs::read_to_string(&log).unwrap().matches("traces cannot be exported").count();
        eventually("it is said", || async { (said() > 0).then_some(()) }).await;
        for _ in 0..20 {
            admin.buy(&[(cup, 1)]).await;
        }
        process.signal("TERM");
        assert_eq!(process.end().0, Some(0));
        assert_eq!(said(), 1, "{}", std::fs::read_to_string(&log).unwrap());
    }
}
