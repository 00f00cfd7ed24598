//! How long a record takes over a broker: `cargo run --release --example bus_latency host:port`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "an example"
)]

use std::time::Instant;

use saga_adapters::kafka::{KafkaBus, LARGEST_RECORD, Options, TopicPlan};
use saga_core::Name;
use saga_runtime::bus::{Bus as _, Message};

#[tokio::main]
async fn main() {
    let brokers = std::env::args().nth(1).expect("host:port of a broker");
    let bus = KafkaBus::new(Options {
        prefix: format!("latency-{}-", std::process::id()),
        ..Options::new(brokers, "latency")
    })
    .unwrap();
    let topic = Name::new("there");
    let plan =
        TopicPlan { name: topic.clone(), partitions: 6, replication: 1, retention_ms: None, largest: LARGEST_RECORD };
    bus.create(&[plan]).await.unwrap();
    let mut subscription = bus.subscribe("readers", std::slice::from_ref(&topic)).await.unwrap();
    let (mut acknowledged, mut received) = (Vec::new(), Vec::new());
    for number in 0..500_u32 {
        let key = number.to_string();
        let message =
            Message { topic: topic.clone(), key: key.clone().into(), headers: vec![].into(), payload: key.into() };
        let began = Instant::now();
        let (sent, arrived) = tokio::join!(bus.publish(vec![message]), subscription.next(10));
        sent.unwrap();
        acknowledged.push(began.elapsed());
        assert_eq!(arrived.unwrap().len(), 1);
        received.push(began.elapsed());
        subscription.commit().await.unwrap();
    }
    for (what, mut times) in [("acknowledged", acknowledged), ("received", received)] {
        times.sort();
        println!("{what}: p50 {:?}, p90 {:?}, p99 {:?}", times[250], times[450], times[495]);
    }
}
