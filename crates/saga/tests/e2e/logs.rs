//! What the real binary writes to its log: every line in its format, with the traces of requests and sagas, and nothing that is
//! anybody's secret; and a log that nobody reads.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Process, run, saga};
use crate::browser::letters;
use crate::operators;
use crate::town::{BodyJson as _, Person, cart, created, eventually, product};
use crate::tracing::collector::{Collector, Told};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A shop that logs all it can, into a file.
async fn talkative(data: &Path, format: &str) -> (Process, std::path::PathBuf) {
    let path = data.join("log");
    let log = File::create(&path).unwrap();
    let mut command = saga(data);
    command.args(["--listen", "127.0.0.1:0"]).env("SAGA_LOG__FILTER", "trace").env("SAGA_LOG__FORMAT", format);
    command.env("SAGA_PAYMENT__SANDBOX__DECLINE_ENDINGS", r#"["13"]"#).env("OTEL_TRACES_SAMPLER", "always_off");
    command.env("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/secret.pem").env("OTEL_METRICS_EXPORTER", "none");
    let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    (Process::of(child, data).await, path)
}

/// Its exit code.
async fn ends(process: &mut Process) -> i32 {
    let limit = std::time::Instant::now() + crate::town::PATIENCE;
    loop {
        if let Some(code) = process.exited() {
            return code;
        }
        assert!(std::time::Instant::now() < limit, "it does not end");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Everything that customers, operators and forgers send; what of it must never be seen.
async fn drive(process: &Process, data: &Path) -> Vec<String> {
    let nobody = process.nobody();
    let admin = nobody.register("admin@example.com").await;
    let mary = nobody.register("mary.secret@example.com").await;
    let again = nobody.login("mary.secret@example.com").await;
    let wrong = json!({ "email": "mary.secret@example.com", "password": "not the pass-phrase" });
    assert_eq!(nobody.post("/api/v1/account/auth/login", &wrong).await.status, StatusCode::UNAUTHORIZED);
    let refreshed = nobody.post("/api/v1/account/auth/refresh", &json!({ "refresh_token": again.refresh })).await;
    let fresh = refreshed.body_json();
    let spent = nobody.post("/api/v1/account/auth/refresh", &json!({ "refresh_token": again.refresh })).await;
    assert_eq!(spent.status, StatusCode::UNAUTHORIZED);
    let category =
        created(&admin.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "Tea" })).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 100)).await);
    let dear = created(&admin.post("/api/v1/products", &product(category, 13, 100)).await);
    let traced = [("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))];
    let bought =
        mary.send(Method::POST, "/api/v1/purchases", &traced, Bytes::from(cart(&[(cup, 1)]).to_string())).await;
    let id = bought.body_json()["id"].as_u64().unwrap();
    assert_eq!(mary.ended(id).await["status"], "COMPLETED");
    assert_eq!(mary.ended(mary.buy(&[(dear, 1)]).await).await["status"], "COMPENSATED");

    // What is wrong in every way.
    for body in ["{\"email\": \"forty-two-bananas", "[\"forty-two-bananas\"]", "{\"forty-two-bananas\": 1}"] {
        for path in ["/api/v1/account/auth/register", "/api/v1/purchases"] {
            mary.send(Method::POST, path, &[], Bytes::from(body)).await;
        }
    }
    for token in ["forged-token-forged-token", &format!("{}x", mary.token), "a.b.c"] {
        let forger = Person { token: token.to_owned(), ..mary.clone() };
        assert_eq!(forger.get("/api/v1/purchases").await.status, StatusCode::UNAUTHORIZED);
    }
    let desk = Person { endpoint: saga::remote::Endpoint::parse(&process.run.admin).unwrap(), ..mary.clone() };
    assert_eq!(desk.get("/admin/sagas").await.status, StatusCode::FORBIDDEN);
    std::fs::write(data.join("password"), "operators pass-phrase\n").unwrap();
    let file = data.join("password");
    let made = [
        "admin",
        "create",
        "--email",
        "oscar.secret@example.com",
        "--password-file",
        file.to_str().unwrap(),
        "--reason",
        "he steers",
    ];
    assert!(run(data, &made).status.success());
    assert!(run(data, &["check", "--settled"]).status.success());

    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut secrets = vec![admin.token, admin.refresh, mary.token.clone(), mary.refresh, again.token, again.refresh];
    secrets.extend([text(&fresh["access_token"]), text(&fresh["refresh_token"]), process.run.token.clone()]);
    // The signature alone would be enough.
    secrets.push(mary.token.rsplit('.').next().unwrap().to_owned());
    secrets.extend(
        [
            "a long password",
            "not the pass-phrase",
            "operators pass-phrase",
            "mary.secret",
            "oscar.secret",
            "Godwin",
            "12 Lake Road",
            "forty-two-bananas",
            "forged-token",
            "order_items",
            "argon2id",
            "Bearer ",
        ]
        .map(str::to_owned),
    );
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_the_log_holds_traces_and_no_secrets_in_either_format() {
    for format in ["json", "text"] {
        let folder = TempDir::new().unwrap();
        let (mut process, path) = talkative(folder.path(), format).await;
        let secrets = drive(&process, folder.path()).await;
        process.signal("TERM");
        assert_eq!(ends(&mut process).await, 0);
        let log = std::fs::read_to_string(path).unwrap();
        assert!(log.lines().count() > 20, "it said something: {log}");
        assert!(log.contains(TRACE), "{format}: the caller's trace is in the log");
        assert!(log.contains("stopping"), "{format}: to the last line");
        let unheeded = log.lines().filter(|line| line.contains("OTEL_")).collect::<Vec<_>>();
        assert!(unheeded.len() == 1 && unheeded[0].contains("OTEL_EXPORTER_OTLP_CLIENT_KEY"), "{unheeded:?}");
        assert!(!unheeded[0].contains("METRICS") && !log.contains("secret.pem"), "{unheeded:?}");
        for secret in secrets {
            let found = log.lines().find(|line| line.contains(&secret));
            assert!(found.is_none(), "{format}: {secret:?} is in the log: {found:?}");
        }
        if format == "json" {
            all_is_json(&log);
        }
    }
}

fn all_is_json(log: &str) {
    let mut targets = BTreeSet::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for name in ["timestamp", "level", "target", "message"] {
            assert!(line[name].is_string(), "{name} is missing: {line}");
        }
        targets.insert(line["target"].as_str().unwrap().to_owned());
    }
    assert!(targets.iter().any(|target| target.starts_with("chassis")), "{targets:?}");
    // Lines of a request say which.
    let answered: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered: Vec<&Value> = answered.iter().filter(|line| line["message"] == "answered").collect();
    assert!(answered.len() > 15, "{}", answered.len());
    for line in answered {
        assert_eq!(line["span"]["trace_id"].as_str().map(str::len), Some(32), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_a_stuck_saga_and_of_a_dead_letter_lead_to_their_traces() {
    const OTHER: &str = "0af7651916cd43dd8448eb211c80319c";
    let folder = TempDir::new().unwrap();
    let (data, collector) = (folder.path(), Collector::open().await);
    let headers = format!(r#"[["saga_id","77"],["traceparent","00-{OTHER}-b7ad6b7169203331-01"]]"#);
    letters::prepared(data, &[("it is odd", &headers)]).await;
    let path = data.join("log");
    let mut command = saga(data);
    let config = operators::settings(data, "unknown_rate = 1.0");
    command.args(["--listen", "127.0.0.1:0", "--config", &config]).env("SAGA_LOG__FORMAT", "json");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url).env("OTEL_BSP_SCHEDULE_DELAY", "20");
    let child = command.stdout(Stdio::null()).stderr(File::create(&path).unwrap()).spawn().unwrap();
    let process = Process::of(child, data).await;
    let says = async |message: &str| {
        let found = eventually(message, || async {
            let log = std::fs::read_to_string(&path).unwrap();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.into_iter().find(|line| line["message"].as_str().is_some_and(|said| said.starts_with(message)))
        });
        found.await
    };

    let mary = process.nobody().register("mary@example.com").await;
    let category = created(&mary.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "Tea" })).await);
    let cup = created(&mary.post("/api/v1/products", &product(category, 10, 100)).await);
    let traced = [("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))];
    let body = Bytes::from(cart(&[(cup, 1)]).to_string());
    let bought = mary.send(Method::POST, "/api/v1/purchases", &traced, body).await.body_json();
    let stuck = says("saga stuck").await;
    assert_eq!((&stuck["level"], &stuck["saga_id"]), (&json!("ERROR"), &bought["id"]), "{stuck}");
    assert_eq!(stuck["trace_id"], TRACE, "{stuck}");
    // That is what the collector has it under.
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let tried = |span: &Told| span.name == "process create-payment" && hex(&span.trace) == TRACE;
    collector.until("the payment's attempts are in that trace", |spans| spans.iter().any(tried)).await;

    // Sent again it is read again, and given up again.
    let desk = saga::remote::Admin::new(&process.run.admin, &process.run.token).unwrap();
    desk.post("/admin/dlq/reply/redrive", &json!({ "reason": "to see" })).await.unwrap();
    let letter = says("dead letter").await;
    assert_eq!((&letter["saga_id"], &letter["trace_id"]), (&json!(77), &json!(OTHER)), "{letter}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_no_purchase_and_says_what_was_lost() {
    for format in ["text", "json"] {
        unread(format).await;
    }
}

/// A shop whose log nobody reads for a while.
async fn unread(format: &str) {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let mut command = saga(data);
    command.args(["--listen", "127.0.0.1:0"]).env("SAGA_LOG__FILTER", "debug").env("SAGA_LOG__FORMAT", format);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut unread = child.stderr.take().unwrap();
    let mut process = Process::of(child, data).await;
    let mary = process.nobody().register("mary@example.com").await;
    let category = created(&mary.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "Tea" })).await);
    let cup = created(&mary.post("/api/v1/products", &product(category, 10, 100)).await);
    // A pipe holds 64 KiB, the queue 8,192 lines: more than both.
    let mut askers = Vec::new();
    for _ in 0..8 {
        let mary = mary.clone();
        askers.push(tokio::spawn(async move {
            let mut connection = saga::remote::Connection::new(&mary.endpoint);
            for _ in 0..1_500 {
                let path = format!("/nothing/{}", "here".repeat(20));
                connection.send(Method::GET, &path, None, Bytes::new()).await.unwrap();
            }
        }));
    }
    for asker in askers {
        asker.await.unwrap();
    }
    for _ in 0..5 {
        assert_eq!(mary.ended(mary.buy(&[(cup, 1)]).await).await["status"], "COMPLETED");
    }
    // Somebody reads again: what was lost is said, and it goes on.
    let (heard, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut all, mut some) = (Vec::new(), [0; 65_536]);
        while let Ok(count @ 1..) = unread.read(&mut some) {
            all.extend_from_slice(&some[..count]);
            heard.send(String::from_utf8_lossy(&all).into_owned()).ok();
        }
    });
    let mut log = String::new();
    eventually("the loss is told", || {
        log = hears.try_iter().last().unwrap_or_else(|| log.clone());
        let told = log.contains("were dropped");
        async move { told.then_some(()) }
    })
    .await;
    assert!(log.len() > 65_536, "{format}: the pipe was full");
    if format == "json" {
        // The one that tells it, too; the last line may still be coming.
        let whole = &log[..=log.rfind('\n').unwrap()];
        let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().any(|line| line["lost"].as_u64() > Some(0)), "{:?}", lines.last());
    }
    process.signal("TERM");
    assert_eq!(ends(&mut process).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_or_one_service_of_it_whose_output_nobody_reads_can_be_stopped() {
    for alone in [false, true] {
        let folder = TempDir::new().unwrap();
        let data = folder.path();
        let mut command = saga(data);
        if alone {
            // Of all services the one that needs no broker: that nobody is there costs it nothing but lines of the log.
            command.args(["serve", "account"]).env("SAGA_BUS__URL", "kafka://127.0.0.1:1");
        }
        command.args(["--listen", "127.0.0.1:0"]).env("SAGA_LOG__FILTER", "debug");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _unread = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let mut process = Process::of(child, data).await;
        let mut connection = saga::remote::Connection::new(&process.nobody().endpoint);
        for _ in 0..1_500 {
            connection.send(Method::GET, &format!("/{}", "x".repeat(200)), None, Bytes::new()).await.unwrap();
        }
        drop(connection);
        process.signal("TERM");
        assert_eq!(ends(&mut process).await, 0, "alone: {alone}");
    }
}
