//! Servers that fail under a running shop, and messages that should not be.

use std::time::{Duration, Instant};

use bytes::Bytes;
use saga::up::roles::ServiceRole;
use saga_adapters::kafka::{KafkaBus, Options, PartitionLag};
use saga_core::Name;
use saga_runtime::bus::{Bus as _, Message};
use serde_json::json;

use crate::city::City;
use crate::servers::Servers;
use crate::town::{BodyJson as _, Person, cart, created, eventually, product};
use crate::traffic::{Load, MIX, accepted, balanced, city, city_on};

pub fn bus(city: &City) -> KafkaBus {
    let brokers = city.config.bus.url.trim_start_matches("kafka://");
    KafkaBus::new(Options { prefix: city.config.bus.prefix.clone(), ..Options::new(brokers, "test") }).unwrap()
}

fn topics() -> Vec<Name> {
    contracts::topics::ALL.iter().map(|name| Name::new(*name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn m01_m21_every_message_there_ever_was_is_delivered_again() {
    let mut city = city(1, |_| {}).await;
    Load::start(&city, &["--clients", "4", "--count", "300", "--mix", MIX]).end();
    let before = balanced(&city).await;
    city.kill_all();
    let bus = bus(&city);
    for group in ["orchestrator", "product", "order", "payment"] {
        let own: Vec<Name> = read_by(&bus, group).await.into_iter().map(|place| place.topic).collect();
        assert!(!own.is_empty(), "{group} has read something");
        eventually("the group is empty", || async { bus.rewind(group, &own).await.ok() }).await;
    }
    for role in saga::up::roles::ALL {
        city.start(role, 0);
    }
    city.ready().await;
    for group in ["orchestrator", "product", "order", "payment"] {
        eventually("everything is read again", || async {
            read_by(&bus, group).await.iter().all(|place| place.lag == 0).then_some(())
        })
        .await;
    }
    let after = balanced(&city).await;
    assert_eq!((&before["completed"], &before["compensated"]), (&after["completed"], &after["compensated"]));
}

/// How far a group is, where it has read anything.
async fn read_by(bus: &KafkaBus, group: &str) -> Vec<PartitionLag> {
    let lag = bus.lag(group, &topics()).await.unwrap();
    lag.partitions.into_iter().filter(|place| place.committed.is_some()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn m07_poison_on_every_topic_is_a_dead_letter_and_blocks_nothing() {
    let city = city(1, |_| {}).await;
    let bus = bus(&city);
    let inbound = topics();
    for topic in &inbound {
        let garbage = [&b"{\"half\":"[..], b"", b"\x00\xff", b"[1,2,3]"];
        let message = |payload: &&'static [u8]| Message {
            topic: topic.clone(),
            key: Bytes::from_static(b"7"),
            headers: vec![("ce_type".into(), Bytes::from_static(b"saga.command.v1"))].into(),
            payload: Bytes::from_static(payload),
        };
        bus.publish(garbage.iter().map(message).collect()).await.unwrap();
    }
    let operators = city.operators();
    eventually("every topic has its letters", || async {
        let listed = operators.get("/admin/dlq").await.unwrap();
        let items = listed["items"].as_array().unwrap();
        let all = items.len() == inbound.len() && items.iter().all(|item| item["count"] == 4);
        all.then_some(())
    })
    .await;
    let letters = operators.get("/admin/dlq/reply").await.unwrap();
    assert!(!letters["items"][0]["reason"].as_str().unwrap().is_empty(), "{letters}");
    // Sent again they die again, once.
    let redriven = operators.post("/admin/dlq/reply/redrive", &json!({ "reason": "a test" })).await.unwrap();
    assert_eq!(redriven["redriven"], 4);
    eventually("they are back", || async {
        let letters = operators.get("/admin/dlq/reply").await.unwrap();
        (letters["items"].as_array().unwrap().len() == 4).then_some(())
    })
    .await;
    // A name that PostgreSQL could not even be asked for.
    let reply = saga_core::protocol::Reply {
        saga: saga_core::SagaKey::new("pur\0chase", 7),
        step: "create-order".into(),
        op: saga_core::Op::Do,
        attempt: 1,
        outcome: saga_core::protocol::Outcome::done(),
        work: None,
        repeated: false,
    };
    bus.publish(vec![saga_runtime::wire::reply_message(&"reply".into(), &reply)]).await.unwrap();
    eventually("it is a letter", || async {
        let letters = operators.get("/admin/dlq/reply").await.unwrap();
        (letters["items"].as_array().unwrap().len() == 5).then_some(())
    })
    .await;
    Load::start(&city, &["--clients", "4", "--count", "50", "--mix", MIX]).end();
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d01_d02_the_database_is_restarted_under_load() {
    let servers = Servers::start();
    let city = city_on(&servers, 1, |_| {}).await;
    let load = Load::start(&city, &["--clients", "4", "--rate", "60", "--duration", "15s", "--mix", MIX]);
    // Orderly; as `-m immediate` does; orderly again.
    for (at, how) in [(60, "INT"), (150, "QUIT"), (240, "INT")] {
        accepted(&city, at).await;
        servers.stack(&["kill", "postgres", how]);
        servers.stack(&["wait", "postgres"]);
        servers.stack(&["start", "postgres"]);
    }
    load.end();
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m15_the_broker_is_restarted_under_load() {
    let servers = Servers::start();
    let city = city_on(&servers, 1, |_| {}).await;
    let load = Load::start(&city, &["--clients", "4", "--rate", "60", "--duration", "18s", "--mix", MIX]);
    accepted(&city, 50).await;
    for verb in [&["stop", "kafka"][..], &["start", "kafka"]] {
        servers.stack(verb);
    }
    accepted(&city, 150).await;
    servers.stack(&["kill", "kafka"]);
    servers.stack(&["start", "kafka"]);
    // n04: it says nothing for longer than a member of a group may be silent.
    servers.stack(&["kill", "kafka", "STOP"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    servers.stack(&["kill", "kafka", "CONT"]);
    load.end();
    balanced(&city).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m16_while_the_broker_is_away_for_long_purchases_are_taken_up_to_a_bound_and_all_end_when_it_is_back() {
    const BOUND: usize = 12;
    const GIVEN_UP: Duration = Duration::from_secs(1);
    let servers = Servers::start();
    let city = city_on(&servers, 1, |config| {
        config.bus.delivery_timeout_ms = u64::try_from(GIVEN_UP.as_millis()).unwrap();
        config.purchase.max_outstanding = BOUND;
        (config.purchase.max_in_flight, config.purchase.admission_wait_ms) = (4, 100);
        (config.purchase.stale_after_ms, config.purchase.park_after_ms) = (500, 1_000);
    })
    .await;
    let mary = Person::at(&city.public()).login("admin@example.com").await;
    let category = created(&mary.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "" })).await);
    let cup = created(&mary.post("/api/v1/products", &product(category, 10, 100)).await);
    assert_eq!(mary.ended(mary.buy(&[(cup, 1)]).await).await["status"], "COMPLETED");
    servers.stack(&["kill", "kafka"]);
    let (away, mut taken) = (Instant::now(), Vec::new());
    loop {
        let answer = mary.post("/api/v1/purchases", &cart(&[(cup, 1)])).await;
        match answer.status.as_u16() {
            202 => taken.push(answer.body_json()["id"].as_u64().unwrap()),
            // Its place is given up when it has had no news for a while.
            429 => assert!(!answer.header("retry-after").is_empty()),
            503 => {
                assert_eq!(answer.code(), "overloaded");
                assert!(!answer.header("retry-after").is_empty());
                // What was sent has been given up several times by then.
                if away.elapsed() > 5 * GIVEN_UP {
                    break;
                }
            }
            other => panic!("{other}: {}", String::from_utf8_lossy(&answer.body)),
        }
        assert!(
            away.elapsed() < Duration::from_secs(40),
            "no bound: {} of {BOUND} places taken, last {}; its log:\n{}",
            taken.len(),
            answer.status,
            city.log(ServiceRole::Purchase, 0)
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(taken.len(), BOUND, "as many as may be outstanding");
    servers.stack(&["start", "kafka"]);
    for id in taken {
        assert_eq!(mary.ended(id).await["status"], "COMPLETED");
    }
    eventually("it sells again", || async {
        let answer = mary.post("/api/v1/purchases", &cart(&[(cup, 1)])).await;
        (answer.status.as_u16() == 202).then_some(())
    })
    .await;
    assert_eq!(balanced(&city).await["completed"], BOUND + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn o02_a_process_that_waits_for_its_database_says_so_and_goes_on_by_itself() {
    let servers = Servers::start();
    let mut city = city_on(&servers, 1, |_| {}).await;
    city.kill(ServiceRole::Order, 0);
    servers.stack(&["stop", "postgres"]);
    city.start(ServiceRole::Order, 0);
    let order = Person::at(&city.address(ServiceRole::Order, 0));
    eventually("it says what it waits for", || async {
        let answer = order.try_get("/readyz?verbose").await?;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status.as_u16() == 503 && said.contains("database order")).then_some(())
    })
    .await;
    assert_eq!(order.try_get("/livez").await.unwrap().status.as_u16(), 200, "o03: it is alive");
    servers.stack(&["start", "postgres"]);
    city.process_ready(ServiceRole::Order, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m18_a_topic_that_is_missing_is_named() {
    let mut city = city(1, |_| {}).await;
    city.kill_all();
    // The same shop with topics of another name, which nobody made.
    city.config.bus.prefix = "nobody-made-these-".to_owned();
    city.write_settings();
    city.start(ServiceRole::Order, 0);
    let order = Person::at(&city.address(ServiceRole::Order, 0));
    eventually("it says what is missing", || async {
        let answer = order.try_get("/readyz?verbose").await?;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status.as_u16() == 503 && said.contains("saga migrate")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_healed_by_waiting_ends_a_start_at_once() {
    let city = city(1, |_| {}).await;
    for (key, value, named) in [
        ("SAGA_STORES__URL", "mysql://db/shop", "stores.url"),
        ("SAGA_STORES__URL", "postgres://nobody@127.0.0.1:1/x?sslmode=require", "sslmode"),
        ("SAGA_BUS__URL", "amqp://here", "bus.url"),
        ("SAGA_CACHE__URL", "memcached://here", "cache.url"),
        ("SAGA_STORES__ORDER", &wrong_owner(&city), "is the database of `payment`"),
        // a60
        ("SAGA_ADMIN_TOKEN", "admin", "SAGA_ADMIN_TOKEN: too short"),
    ] {
        let mut start = city.saga();
        start.env("SAGA_PEERS__ACCOUNT", city.internal()).env("SAGA_PEERS__PRODUCT", city.internal());
        let output = start.args(["serve", "order", "--listen", "127.0.0.1:0"]).env(key, value).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(named), "{key}={value}: {said}");
    }
}

/// Another service's database, reached by its own role.
fn wrong_owner(city: &City) -> String {
    city.config.stores.url.replace("{service}", "payment")
}
