//! Every message on every topic, as it is really sent, against docs/asyncapi.yaml: none is undocumented, and none of the
//! documented ones is only there on paper.

use std::collections::BTreeSet;

use bytes::Bytes;
use saga_adapters::kafka::{KafkaBus, Options};
use saga_core::Name;
use saga_runtime::bus::{Bus as _, Message};
use saga_runtime::delivery::dead_letter_topic;
use saga_runtime::{Watermark, wire};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use crate::asyncapi::{Documented, messages};
use crate::city::City;
use crate::town::{BodyJson as _, PATIENCE, Person, created, eventually, product};
use crate::traffic::city;

/// Long enough for somebody to change their mind while the gateway thinks.
const GATEWAY_MS: u64 = 3_000;
/// No saga's.
const GARBAGE: &[u8] = b"garbage";

#[tokio::test(flavor = "multi_thread")]
async fn every_message_that_is_sent_is_documented_and_every_documented_one_is_sent() {
    let city = city(1, |config| config.payment.sandbox.latency_ms = GATEWAY_MS).await;
    let brokers = city.config.bus.url.trim_start_matches("kafka://");
    let options = Options { prefix: city.config.bus.prefix.clone(), ..Options::new(brokers, "test") };
    let bus = KafkaBus::new(options).unwrap();
    let newest = buy_and_regret(&city).await;
    let garbage = Message {
        topic: Name::new(contracts::topics::REPLY),
        key: Bytes::from_static(GARBAGE),
        headers: vec![("ce_type".into(), Bytes::from_static(b"saga.reply.v1"))].into(),
        payload: Bytes::from_static(b"{\"half\":"),
    };
    // What the purchase service promises two minutes after it may (`e2e/retention.rs` waits for its own words); what follows
    // from it is the orchestrator's.
    let mark = Watermark { definition: Name::new(contracts::purchase::DEFINITION), up_to: newest };
    let promise = wire::forget_message(&Name::new(contracts::topics::PURCHASE), &mark);
    bus.publish(vec![garbage, promise]).await.unwrap();

    let documented = messages();
    let all: BTreeSet<&str> = documented.iter().map(|message| message.name.as_str()).collect();
    assert_eq!(all.len(), 20, "{all:?}");
    let mut topics: Vec<Name> = contracts::topics::ALL.iter().map(|name| Name::new(*name)).collect();
    topics.extend(topics.clone().iter().map(dead_letter_topic));
    let mut reader = bus.subscribe("a-reader", &topics).await.unwrap();
    let (mut seen, limit) = (BTreeSet::new(), Instant::now() + PATIENCE);
    // Until there is nothing more to read, and nothing more is missed.
    loop {
        let missing: Vec<_> = all.difference(&seen).collect();
        let lag = bus.lag("a-reader", &topics).await.unwrap();
        let read = lag.partitions.iter().all(|place| place.lag == 0);
        if read && missing.is_empty() {
            return;
        }
        assert!(Instant::now() < limit, "read all: {read}; documented, and never sent: {missing:?}");
        let soon = Instant::now() + std::time::Duration::from_millis(500);
        let Ok(records) = timeout_at(soon, reader.next(500)).await else { continue };
        for record in records.unwrap() {
            if let Some(name) = identified(&documented, &record.message) {
                seen.insert(name);
            }
        }
        reader.commit().await.unwrap();
    }
}

/// Purchases that complete, are declined, find no stock, and are cancelled while they are being charged; the newest one.
async fn buy_and_regret(city: &City) -> u64 {
    let mary = Person::at(&city.public()).login("admin@example.com").await;
    let kitchen = json!({ "name": "Kitchen", "description": "" });
    let category = created(&mary.post("/api/v1/categories", &kitchen).await);
    let add = |price, inventory| {
        let (mary, body) = (mary.clone(), product(category, price, inventory));
        async move { created(&mary.post("/api/v1/products", &body).await) }
    };
    let (cup, spoon, plate) = (add(10, 10).await, add(13, 10).await, add(10, 1).await);
    let cancelled = mary.buy(&[(cup, 2)]).await;
    let path = format!("/api/v1/purchases/{cancelled}");
    eventually("it is being charged", || async {
        let purchase = mary.get(&path).await.body_json();
        purchase["steps"].as_array()?.iter().any(|step| step["step"] == "create-payment").then_some(())
    })
    .await;
    assert_eq!(mary.post(&format!("{path}/cancel"), &json!({ "reason": "changed my mind" })).await.status, 202);
    let (completed, declined, missed) =
        (mary.buy(&[(cup, 1)]).await, mary.buy(&[(spoon, 1)]).await, mary.buy(&[(plate, 2)]).await);
    for (purchase, status, code) in [
        (cancelled, "COMPENSATED", json!("cancelled")),
        (completed, "COMPLETED", Value::Null),
        (declined, "COMPENSATED", json!("payment_declined")),
        (missed, "COMPENSATED", json!("insufficient_stock")),
    ] {
        let ended = mary.ended(purchase).await;
        assert_eq!((&ended["status"], &ended["reason"]["code"]), (&json!(status), &code));
    }
    missed
}

/// Which documented message it is; `None`: what this test sent.
fn identified<'d>(documented: &'d [Documented], message: &Message) -> Option<&'d str> {
    let topic = message.topic.as_str();
    let is_letter = topic.ends_with(".dlq");
    if message.key == GARBAGE && !is_letter {
        return None;
    }
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("headers are text");
    let headers: Map<String, Value> =
        message.headers.iter().map(|(name, value)| (name.to_string(), text(value).into())).collect();
    if !is_letter {
        assert_eq!(text(&message.key), headers["saga_id"], "the key is the saga's id");
    }
    let here = |one: &&Documented| if is_letter { one.is_dead_letter() } else { one.address == topic };
    let mut found = Vec::new();
    for candidate in documented.iter().filter(here) {
        let differences = candidate.differences(&headers, &message.payload);
        if differences.is_empty() {
            return Some(&candidate.name);
        }
        found.push((&candidate.name, differences));
    }
    let payload = String::from_utf8_lossy(&message.payload);
    panic!("{topic} carries what is not documented: {headers:?} {payload}: {found:#?}");
}
