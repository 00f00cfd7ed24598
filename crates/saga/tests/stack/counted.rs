//! Every number that is documented is seen to be more than nothing, in one shop to which happens what they count.

use std::collections::BTreeSet;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use saga::remote::Admin;
use saga::up::roles::{ALL, ServiceRole};
use saga_core::protocol::{Outcome, Reply, Start};
use saga_core::{Json, Name, Op, SagaKey};
use saga_runtime::bus::{Bus as _, Message};
use saga_runtime::wire;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::city::{City, TOKEN};
use crate::databases::prepare;
use crate::faults::bus;
use crate::scrapes::{Seen, names, scrape};
use crate::town::{BodyJson as _, Person, cart, created, impatient, product};
use crate::traffic::city;

/// What this test does not bring about, and who does.
const ELSEWHERE: [(&str, &str); 14] = [
    (
        "saga_cache_lock_waits_total",
        "many who want one value that is slow to read: saga-adapters/tests/read_through.rs",
    ),
    ("saga_write_conflicts_total", "two owners that decide the same saga: the simulated world"),
    ("saga_promises_held_back_total", "two minutes at least on PostgreSQL: e2e/retention.rs, on files"),
    ("saga_rows_removed_total", "the same"),
    ("saga_quarantined_total", "a row that makes no sense: databases.rs"),
    ("saga_starts_left_to_sweeper_total", "4,096 starts that nobody takes: services/purchase/tests"),
    ("saga_results_gaps_total", "a lost result: services/purchase/tests"),
    ("saga_cache_server_failures_total", "Redis dies and hangs: caches.rs"),
    ("saga_cache_server_reconnects_total", "the same"),
    ("saga_cache_server_open_breakers", "the same, for a moment"),
    ("saga_runtime_queue", "a moment that no scrape has to hit"),
    ("saga_trace_spans_exported_total", "a collector: tracing.rs"),
    ("saga_trace_spans_dropped_total", "a collector that hangs: tracing.rs"),
    ("saga_metrics_left_out_total", "a thousand series of one name: crates/chassis/src/metrics"),
];

struct Shop {
    city: City,
    admin: Person,
    cup: u64,
    seen: Seen,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_counted_is_more_than_nothing_once_it_has_happened() {
    let folder = TempDir::new().unwrap();
    let city = city(1, |config| {
        config.orchestrator.definitions = vec![impatient(folder.path(), "2s")];
        config.failures.enabled = true;
        config.account.failures_per_account = 2;
        config.purchase.streams_per_customer = 1;
        (config.purchase.stale_after_ms, config.purchase.park_after_ms) = (1_000, 2_000);
    })
    .await;
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let kitchen = json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&admin.post("/api/v1/categories", &kitchen).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 1_000)).await);
    let mut shop = Shop { city, admin, cup, seen: Seen::default() };
    shop.every_day().await;
    shop.messages_that_should_not_be().await;
    shop.participants_that_fail().await;
    shop.databases_that_are_busy().await;

    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
    let names = names("In one process");
    let unknown: Vec<_> = elsewhere.iter().filter(|name| !names.contains(**name)).collect();
    assert!(unknown.is_empty(), "not documented: {unknown:?}");
    let never: Vec<&String> =
        names.iter().filter(|name| !elsewhere.contains(name.as_str()) && !shop.seen.has(name, &[])).collect();
    assert!(never.is_empty(), "never seen to be more than nothing: {never:#?}");
    for (name, labels) in TOLD_APART {
        for label in labels {
            assert!(shop.seen.has(name, &[label]), "{name} with {label}");
        }
    }
}

/// Labels that each must have been seen.
const TOLD_APART: [(&str, &[&str]); 13] = [
    ("saga_ended_total", &["completed", "compensated"]),
    ("saga_in_flight", &["\"RUNNING\"", "\"STUCK\""]),
    (
        "saga_messages_ignored_total",
        &["late_reply", "duplicate_start", "unknown_saga", "duplicate_command", "duplicate_result", "unknown_purchase"],
    ),
    ("saga_dead_letters_buried_total", &["\"orchestrator\"", "\"order\"", "\"purchase\""]),
    ("saga_step_outcomes_total", &["done", "refused"]),
    ("saga_auth_total", &["login\",result=\"accepted", "login\",result=\"refused", "login\",result=\"limited"]),
    (
        "saga_auth_total",
        &["register\",result=\"accepted", "register\",result=\"refused", "refresh\",result=\"accepted"],
    ),
    ("saga_auth_tokens_total", &["accepted", "invalid"]),
    ("saga_admission_refused_total", &["streams"]),
    ("saga_admission_slots", &["free", "parked"]),
    ("saga_cache_reads_total", &["hit", "miss"]),
    ("saga_cache_locks_total", &["acquired"]),
    ("saga_filter_checks_total", &["maybe", "absent"]),
];

/// A stream that has begun; its reader goes no further.
async fn stream(url: &str, path: &str, token: &str) -> TcpStream {
    let mut connection = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {token}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    connection.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    connection
}

impl Shop {
    async fn look(&mut self) {
        for role in ALL {
            self.seen.add(&scrape(&self.city.admin(role.as_str(), 0)).await);
        }
    }

    /// Looks until it has been seen.
    async fn until(&mut self, wanted: &[(&str, &[&str])]) {
        let limit = std::time::Instant::now() + crate::town::PATIENCE;
        loop {
            self.look().await;
            let missing: Vec<_> = wanted.iter().filter(|(name, labels)| !self.seen.has(name, labels)).collect();
            if missing.is_empty() {
                return;
            }
            assert!(std::time::Instant::now() < limit, "waited in vain for {missing:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn fail(&self, role: &str, mut plan: serde_json::Value) {
        plan["reason"] = "a lesson".into();
        let desk = Admin::new(&self.city.admin(role, 0), TOKEN).unwrap();
        desk.put("/admin/failures", &plan).await.unwrap();
    }

    /// People who buy, look, mistype, and come twice.
    async fn every_day(&mut self) {
        let Self { city, admin, cup, .. } = self;
        let bought = admin.buy(&[(*cup, 2)]).await;
        assert_eq!(admin.ended(bought).await["status"], "COMPLETED");
        // It has ended and changes no more: whoever asks again finds it in the cache.
        for _ in 0..3 {
            assert_eq!(admin.get(&format!("/api/v1/orders/{bought}")).await.status, StatusCode::OK);
        }
        assert_eq!(admin.ended(admin.buy(&[(*cup, 9_999)]).await).await["status"], "COMPENSATED");
        let (key, body) = ([("idempotency-key", "once".to_owned())], Bytes::from(cart(&[(*cup, 1)]).to_string()));
        for _ in 0..2 {
            let answer = admin.send(Method::POST, "/api/v1/purchases", &key, body.clone()).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED);
            assert_eq!(admin.ended(answer.body_json()["id"].as_u64().unwrap()).await["status"], "COMPLETED");
        }
        for product in [*cup, *cup, 4_503_599_627_370_495] {
            admin.get(&format!("/api/v1/products/{product}")).await;
        }
        let mary = Person::at(&city.public()).register("mary@example.com").await;
        let wrong = json!({ "email": "mary@example.com", "password": "a guess or two" });
        let login = async || mary.post("/api/v1/account/auth/login", &wrong).await.status;
        let guesses = [login().await, login().await, login().await];
        assert_eq!(guesses, [401, 401, 429].map(|code| StatusCode::from_u16(code).unwrap()));
        let again = json!({
            "email": "mary@example.com", "password": "a long password", "first_name": "M", "last_name": "G",
            "address": "12 Lake Road", "phone_number": "1234567",
        });
        assert_eq!(mary.post("/api/v1/account/auth/register", &again).await.status, StatusCode::CONFLICT);
        let refresh = json!({ "refresh_token": mary.refresh });
        assert_eq!(mary.post("/api/v1/account/auth/refresh", &refresh).await.status, StatusCode::OK);
        let forger = Person { token: format!("{}x", mary.token), ..mary.clone() };
        assert_eq!(forger.get("/api/v1/purchases").await.status, StatusCode::UNAUTHORIZED);
        let _customer = stream(&city.public(), "/api/v1/purchases/events", &mary.token).await;
        let refused = mary.get("/api/v1/purchases/events").await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        let _operator = stream(&city.admin("orchestrator", 0), "/admin/overview/events", TOKEN).await;
        self.until(&[("saga_streams_open", &[]), ("saga_overview_streams", &[]), ("saga_waiters", &[])]).await;
    }

    /// Garbage, a reply to nobody, a start that was here before, and one that no purchase asked for.
    async fn messages_that_should_not_be(&mut self) {
        let bus = bus(&self.city);
        let garbage = |topic: &str| Message {
            topic: Name::new(topic),
            key: Bytes::from_static(b"7"),
            headers: vec![("ce_type".into(), Bytes::from_static(b"saga.reply.v1"))].into(),
            payload: Bytes::from_static(b"{\"half\":"),
        };
        let of = |id| SagaKey::new(contracts::purchase::DEFINITION, id);
        let nobody = Reply {
            saga: of(77),
            step: "create-order".into(),
            op: Op::Do,
            attempt: 1,
            outcome: Outcome::done(),
            work: None,
            repeated: false,
        };
        let start = |id| {
            let start = Start { saga: of(id), input: Json::of(&json!({})).unwrap() };
            wire::start_message(&Name::new(contracts::topics::PURCHASE), &start)
        };
        let known = self.admin.buy(&[(self.cup, 1)]).await;
        self.admin.ended(known).await;
        let mut messages: Vec<Message> = ["reply", "create-order", "purchase-result"].map(garbage).into();
        messages.extend([wire::reply_message(&"reply".into(), &nobody), start(known), start(4_242)]);
        bus.publish(messages).await.unwrap();
        let kinds = ["unknown_saga", "duplicate_start", "duplicate_result", "unknown_purchase"];
        for kind in kinds {
            self.until(&[("saga_messages_ignored_total", &[kind])]).await;
        }
    }

    /// Answers that are lost until a human is needed, a participant that stands still, an owner that is replaced.
    async fn participants_that_fail(&mut self) {
        let (admin, cup) = (self.admin.clone(), self.cup);
        self.fail("payment", json!({ "steps": { "create-payment": { "lost_rate": 1.0, "op": "do" } } })).await;
        let stuck = admin.buy(&[(cup, 1)]).await;
        self.until(&[("saga_steps_stuck_total", &["create-payment"])]).await;
        self.fail("order", json!({ "stopped": ["order"] })).await;
        let waits = admin.buy(&[(cup, 1)]).await;
        // Asked five seconds apart at most.
        self.until(&[
            ("saga_step_timeouts_total", &["create-order"]),
            ("saga_in_flight", &["\"RUNNING\""]),
            ("saga_in_flight", &["\"STUCK\""]),
            ("saga_oldest_in_flight_seconds", &["\"RUNNING\""]),
            ("saga_stuck", &[]),
            ("saga_dead_letters", &["\"reply\""]),
            ("saga_consumer_lag", &["\"order\"", "\"create-order\""]),
            ("saga_admission_slots", &["parked"]),
        ])
        .await;
        let cancel = json!({ "reason": "the customer rang" });
        self.city.operators().post(&format!("/admin/sagas/{stuck}/cancel"), &cancel).await.unwrap();
        self.fail("payment", json!({})).await;
        // As if another process had taken over: the next commit of either partition is refused.
        self.city.sql("orchestrator", "update owner set epoch = epoch + 1");
        let next = admin.buy(&[(cup, 1)]).await;
        self.until(&[("saga_fenced_writes_total", &[])]).await;
        // A loop that was refused looks again after a quarter of a minute; another process would have gone on at once.
        self.city.kill(ServiceRole::Orchestrator, 0);
        self.city.start(ServiceRole::Orchestrator, 0);
        self.city.process_ready(ServiceRole::Orchestrator, 0).await;
        self.fail("order", json!({})).await;
        for purchase in [waits, next] {
            assert_eq!(admin.ended(purchase).await["status"], "COMPLETED");
        }
        assert_eq!(admin.ended(stuck).await["status"], "COMPENSATED");
        self.until(&[
            ("saga_messages_ignored_total", &["late_reply"]),
            ("saga_messages_ignored_total", &["duplicate_command"]),
            ("saga_commands_recovered_total", &[]),
            ("saga_money_refunds_total", &[]),
        ])
        .await;
    }

    /// Writes that fail for a moment, a table that somebody holds, and a question that is not answered in time.
    async fn databases_that_are_busy(&mut self) {
        prepare(&self.city);
        self.city.sql("order", "insert into trouble values ('40001', 1)");
        let purchase = self.admin.buy(&[(self.cup, 1)]).await;
        self.until(&[("saga_participant_retries_total", &["order"]), ("saga_database_errors_total", &["transient"])])
            .await;
        self.city.sql("order", "delete from trouble");
        assert_eq!(self.admin.ended(purchase).await["status"], "COMPLETED");

        let (orders, letters) = (
            self.city.holding("order", "lock table orders in access exclusive mode"),
            self.city.holding("orchestrator", "lock table dead_letter in access exclusive mode"),
        );
        let mut askers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let admin = self.admin.clone();
            askers.spawn(async move { admin.get("/api/v1/orders").await.status });
        }
        self.until(&[
            ("saga_pool_waiting", &["\"order\""]),
            ("saga_pool_sessions_in_use", &["\"order\""]),
            ("saga_poll_failures_total", &["dead_letters"]),
        ])
        .await;
        drop((orders, letters));
        askers.join_all().await;
        // The edge may have taken the order service for dead meanwhile.
        self.city.ready().await;
    }
}
