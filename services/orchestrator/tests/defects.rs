//! The original's defects that an orchestrator and a participant show together (g02, g03, g08, g09, g11).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, missing_docs, dead_code, reason = "tests")]

mod desk;

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use desk::{CURSED, World, world};
use saga_core::protocol::{Command, Outcome, Reply, Start};
use saga_core::{Json, Name, Op, SagaKey};
use saga_runtime::{Bus as _, Message, wire};
use serde_json::Value;

/// The letters of a topic, when there are `count`.
async fn letters(world: &World, topic: &str, count: usize) -> Vec<Value> {
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (_, page) = world.call("GET", &format!("/admin/dlq/{topic}"), None).await;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        if items.len() >= count {
            return items;
        }
        assert!(tokio::time::Instant::now() < limit, "{topic} has {items:?}");
        tokio::task::yield_now().await;
    }
}

async fn shop() -> World {
    let world = world().await;
    world.open.store(true, Ordering::SeqCst);
    world
}

#[tokio::test]
async fn g02_a_compensation_does_not_end_the_orchestrator() {
    let world = shop().await;
    for id in [1, 2] {
        world.bring(id, "COMPLETED").await;
        assert!(world.bring(13, "COMPENSATED").await["text"].as_str().unwrap().contains("refused, unlucky"));
    }
}

#[tokio::test]
async fn g03_a_record_without_headers_becomes_a_dead_letter_on_every_topic() {
    let world = shop().await;
    world.bring(1, "COMPLETED").await;
    for topic in ["parcel", "reply", "take", "give-back", "ship"] {
        let bare =
            Message { topic: Name::new(topic), key: Bytes::new(), headers: Vec::new().into(), payload: Bytes::new() };
        world.bus.publish(vec![bare]).await.unwrap();
        let letter = &letters(&world, topic, 1).await[0];
        assert!(letter["reason"].as_str().unwrap().contains("ce_type"), "{letter}");
    }
    world.bring(2, "COMPLETED").await;
}

#[tokio::test]
async fn g08_a_busy_database_is_waited_for_and_never_a_refusal() {
    let world = shop().await;
    world.bring(1, "COMPLETED").await;
    world.busy.store(5, Ordering::SeqCst);
    let saga = world.bring(2, "COMPLETED").await;
    assert_eq!(world.busy.load(Ordering::SeqCst), 0, "it was busy");
    assert!(!saga["text"].as_str().unwrap().contains("refused"), "{saga}");
}

#[tokio::test]
async fn g09_p19_what_no_handler_survives_is_kept_as_a_letter_and_the_others_go_on() {
    let world = shop().await;
    world.bring(1, "COMPLETED").await;
    let start = |id| {
        let start = Start { saga: SagaKey::new("parcel", id), input: Json::null() };
        wire::start_message(&"parcel".into(), &start)
    };
    // In one batch with others, before and behind it.
    world.bus.publish(vec![start(2), start(CURSED), start(3)]).await.unwrap();
    let letter = &letters(&world, "take", 1).await[0];
    assert!(letter["reason"].as_str().unwrap().contains("a bug, on purpose"), "{letter}");
    assert_eq!(letter["key"], CURSED.to_string());
    for id in [2, 3] {
        world.bring(id, "COMPLETED").await;
    }
    assert_eq!(world.saga(CURSED).await["status"], "RUNNING", "it still waits, and is not forgotten");
}

#[tokio::test]
async fn m07_a_command_that_wants_its_answer_nowhere_is_a_letter_and_holds_nobody_up() {
    let world = shop().await;
    world.bring(1, "COMPLETED").await;
    let command = |id, reply_to: &str| Command {
        saga: SagaKey::new("parcel", id),
        definition_version: 1,
        step: "take".into(),
        op: Op::Do,
        attempt: 1,
        input: Json::null(),
        outputs: vec![],
        reason: None,
        reply_to: reply_to.into(),
    };
    let batch = [command(2, "reply"), command(3, "nobody-made-this"), command(4, "reply")];
    world
        .bus
        .publish(batch.iter().map(|command| wire::command_message(&"take".into(), command)).collect())
        .await
        .unwrap();
    let letter = &letters(&world, "take", 1).await[0];
    assert!(letter["reason"].as_str().unwrap().contains("no topic nobody-made-this"), "{letter}");
    assert_eq!(letter["key"], "3");
    assert_eq!(world.stats.groups.of("desk").poisoned.get(), 1, "it is the desk's, not the orchestrator's");
    world.bring(5, "COMPLETED").await;
}

#[tokio::test]
async fn m07_m10_names_that_no_definition_can_have_are_letters() {
    let world = shop().await;
    world.bring(1, "COMPLETED").await;
    let reply = Reply {
        saga: SagaKey::new("par\0cel", 1),
        step: "take".into(),
        op: Op::Do,
        attempt: 1,
        outcome: Outcome::done(),
        work: None,
        repeated: false,
    };
    let huge = Start { saga: SagaKey::new("parcel", 2), input: Json::of(&"x".repeat(wire::MAX_PAYLOAD)).unwrap() };
    world.bus.publish(vec![wire::reply_message(&"reply".into(), &reply)]).await.unwrap();
    world.bus.publish(vec![wire::start_message(&"parcel".into(), &huge)]).await.unwrap();
    let reason = |letter: &Value| letter["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason(&letters(&world, "reply", 1).await[0]), r#"header ce_source cannot be "par\0cel""#);
    assert!(reason(&letters(&world, "parcel", 1).await[0]).contains("at most 262144"));
    world.bring(3, "COMPLETED").await;
}

#[tokio::test]
async fn g11_every_record_of_a_saga_has_its_id_as_key() {
    let world = shop().await;
    let topics = ["parcel", "take", "ship", "reply", "parcel-result"].map(Name::new);
    let mut witness = world.bus.subscribe("witness", &topics).await.unwrap();
    for (id, end) in [(1, "COMPLETED"), (13, "COMPENSATED")] {
        world.bring(id, end).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < topics.len() {
        let arrived = tokio::time::timeout(Duration::from_secs(20), witness.next(100)).await.unwrap().unwrap();
        for delivery in arrived {
            let key = delivery.message.key.clone();
            assert!(key == "1" || key == "13", "{:?}", delivery.message);
            seen.insert(delivery.position.topic.clone());
        }
        witness.commit().await.unwrap();
    }
}
