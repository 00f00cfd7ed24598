//! PostgreSQL that says no: full, busy with itself, or with a row in it that makes no sense.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use saga::up::roles::ServiceRole;
use serde_json::json;

use crate::city::City;
use crate::scrapes::scrape;
use crate::town::{BodyJson as _, Person, cart, created, eventually, product};
use crate::traffic::{Load, MIX, accepted, balanced, city};

/// Lets every write of every service fail with the code and at the rate that stand in the table `trouble`.
const TROUBLE: &str = "
    create table trouble (code text, rate float);
    grant select on trouble to public;
    create function trouble() returns trigger language plpgsql as $$
    declare found trouble; begin
        select * into found from trouble;
        if random() < found.rate then raise exception 'on purpose' using errcode = found.code; end if;
        return null;
    end $$;";

/// Where each service's writes come by.
const TABLES: [(&str, &str); 5] = [
    ("product", "barrier"),
    ("order", "barrier"),
    ("payment", "barrier"),
    ("purchase", "purchase"),
    ("orchestrator", "history"),
];

pub fn prepare(city: &City) {
    for (service, table) in TABLES {
        let trigger =
            format!("{TROUBLE} create trigger trouble after insert or update on {table} execute function trouble()");
        city.sql(service, &trigger);
    }
}

fn trouble(city: &City, code: &str, rate: f64) {
    for (service, _) in TABLES {
        city.sql(service, &format!("delete from trouble; insert into trouble values ('{code}', {rate})"));
    }
}

/// An administrator and a product that everybody can buy.
async fn shop(city: &City) -> (Person, u64) {
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let category = created(&admin.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "" })).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 100)).await);
    (admin, cup)
}

#[tokio::test(flavor = "multi_thread")]
async fn d05_d08_d09_databases_that_are_full_or_busy_refuse_and_go_on_and_lose_nothing() {
    let city = city(1, |_| {}).await;
    let (admin, cup) = shop(&city).await;
    prepare(&city);
    let under_way = admin.buy(&[(cup, 1)]).await;
    trouble(&city, "53100", 1.0);
    let refused = admin.post("/api/v1/purchases", &cart(&[(cup, 1)])).await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "dependency_unavailable"));
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(admin.get(&format!("/api/v1/products/{cup}")).await.status, StatusCode::OK, "reading goes on");
    trouble(&city, "53100", 0.0);
    assert_eq!(admin.ended(under_way).await["status"], "COMPLETED");
    // Serialization failures, deadlocks, locks that are waited for too long: a third of everything.
    let load = Load::start(&city, &["--clients", "4", "--rate", "40", "--duration", "8s", "--mix", MIX]);
    let mut count = 30;
    for code in ["40001", "40P01", "55P03"] {
        trouble(&city, code, 0.3);
        accepted(&city, count).await;
        count += 40;
    }
    trouble(&city, "40001", 0.0);
    load.end();
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d12_a_saga_whose_rows_make_no_sense_is_left_alone_until_a_human_has_mended_them() {
    let mut city = city(1, |config| config.payment.sandbox.latency_ms = 1_500).await;
    let (admin, cup) = shop(&city).await;
    let broken = admin.buy(&[(cup, 1)]).await;
    let history = |column: &str| format!("select {column} from history where saga_id = {broken} and version = 1");
    let first = eventually("it is on its way", || async {
        let events = city.sql("orchestrator", &history("events"));
        (!events.is_empty()).then_some(events)
    })
    .await;
    city.kill(ServiceRole::Orchestrator, 0);
    let set = |events: &str| {
        let events = events.replace('\'', "''");
        format!("update history set events = '{events}' where saga_id = {broken} and version = 1")
    };
    city.sql("orchestrator", &set("[{\"Nonsense\":{}}]"));
    city.start(ServiceRole::Orchestrator, 0);
    city.process_ready(ServiceRole::Orchestrator, 0).await;
    let other = admin.buy(&[(cup, 1)]).await;
    assert_eq!(admin.ended(other).await["status"], "COMPLETED", "the others go on");
    let log = city.log(ServiceRole::Orchestrator, 0);
    assert!(log.contains("quarantined"), "{log}");
    assert!(scrape(&city.admin("orchestrator", 0)).await.of("saga_quarantined_total") > 0.0);
    let check = city.saga().args(["check", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(!check.status.success() && said.contains(&broken.to_string()), "the checker names it: {said}");
    // Mended, and taken over anew.
    city.kill(ServiceRole::Orchestrator, 0);
    city.sql("orchestrator", &set(&first));
    city.start(ServiceRole::Orchestrator, 0);
    assert_eq!(admin.ended(broken).await["status"], "COMPLETED");
    assert_eq!(balanced(&city).await["completed"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn d06_who_waits_for_an_exhausted_pool_is_told_in_time_and_it_recovers() {
    /// How long a request waits for a session.
    const ACQUIRE: Duration = Duration::from_secs(5);
    /// A statement's time, and a busy machine.
    const MORE: Duration = Duration::from_secs(3);
    let city = city(1, |config| config.stores.statement_timeout_ms = 1_500).await;
    let (admin, cup) = shop(&city).await;
    let session = city.holding("purchase", "lock table purchase in access exclusive mode");
    let paths = ["/api/v1/purchases", "/api/v1/purchases/1"];
    let mut requests = tokio::task::JoinSet::new();
    // Many more than the pool has sessions, each of which waits for the lock.
    for n in 0..24 {
        let admin = admin.clone();
        requests.spawn(async move {
            let began = Instant::now();
            let answer = match n % 3 {
                0 => admin.post("/api/v1/purchases", &cart(&[(cup, 1)])).await,
                which => admin.get(paths[which - 1]).await,
            };
            (n % 3, answer.status, answer.code(), began.elapsed())
        });
    }
    for (which, status, code, took) in requests.join_all().await {
        assert_eq!((status, code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "dependency_unavailable"));
        // A purchase waits for the group before its own, and then for itself; once each.
        let waits = if which == 0 { 2 } else { 1 };
        assert!(took < waits * ACQUIRE + MORE, "it took {took:?}");
    }
    assert_eq!(admin.get(&format!("/api/v1/products/{cup}")).await.status, StatusCode::OK, "the others go on");
    drop(session);
    eventually("it sells again", || async {
        let answer = admin.post("/api/v1/purchases", &cart(&[(cup, 1)])).await;
        (answer.status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    assert_eq!(admin.get(paths[0]).await.status, StatusCode::OK);
    balanced(&city).await;
}
