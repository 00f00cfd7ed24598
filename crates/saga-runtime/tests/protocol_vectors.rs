//! `docs/protocol.md` is the specification: its vectors are read from the page itself and must hold.
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use saga_core::protocol::Command;
use saga_core::{Json, Name, Op, SagaKey};
use saga_runtime::Message;
use saga_runtime::barrier::{self, BarrierRow};
use saga_runtime::wire::{self, Inbound};
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// The JSON blocks that follow a `<!-- kind: name -->` comment, with their names.
fn blocks(kind: &str) -> Vec<(String, Value)> {
    let opening = format!("<!-- {kind}: ");
    let found = PAGE.split(&opening).skip(1).map(|rest| {
        let (name, rest) = rest.split_once(" -->\n```json\n").unwrap();
        let (json, _) = rest.split_once("\n```").unwrap();
        let value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{kind} {name}: {e}"));
        (name.to_owned(), value)
    });
    let found: Vec<_> = found.collect();
    assert!(found.len() >= 4, "the page has {kind} blocks");
    found
}

fn message(block: &Value) -> Message {
    let text = |key: &str| block[key].as_str().unwrap_or_default();
    let header = |(name, value): (&String, &Value)| {
        (std::borrow::Cow::Owned(name.to_owned()), Bytes::from(value.as_str().unwrap().to_owned()))
    };
    Message {
        topic: text("topic").into(),
        key: Bytes::from(text("key").to_owned()),
        headers: block["headers"].as_object().unwrap().iter().map(header).collect(),
        payload: Bytes::from(block["payload"].to_string()),
    }
}

/// What a parsed message is when it is written again.
fn written(topic: &Name, inbound: &Inbound) -> Message {
    match inbound {
        Inbound::Start(start) => wire::start_message(topic, start),
        Inbound::Cancel(cancel) => wire::cancel_message(topic, cancel),
        Inbound::Command(command) => wire::command_message(topic, command),
        Inbound::Reply(reply) => wire::reply_message(topic, reply),
        Inbound::Result { definition, event } => wire::result_message(topic, definition, event),
        Inbound::Forget(mark) => wire::forget_message(topic, mark),
    }
}

fn as_block(message: &Message) -> Value {
    let text = |bytes: &Bytes| Value::from(std::str::from_utf8(bytes).unwrap());
    let headers: serde_json::Map<_, _> = message.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect();
    serde_json::json!({
        "topic": message.topic,
        "key": text(&message.key),
        "headers": headers,
        "payload": serde_json::from_slice::<Value>(&message.payload).unwrap(),
    })
}

#[test]
fn every_vector_is_read_and_written_again_without_a_difference() {
    for (name, block) in blocks("vector") {
        let message = message(&block);
        let inbound = wire::parse(&message).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(as_block(&written(&message.topic, &inbound)), block, "{name}");
    }
}

#[test]
fn every_poison_vector_is_refused_for_its_reason() {
    for (name, block) in blocks("poison") {
        let reason = wire::parse(&message(&block)).map_err(|poison| poison.to_string());
        assert_eq!(reason, Err(block["poison"].as_str().unwrap().to_owned()), "{name}");
    }
}

#[test]
fn unknown_headers_and_fields_change_nothing() {
    for (name, block) in blocks("vector") {
        let plain = message(&block);
        let mut more = block.clone();
        more["headers"]["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into();
        let kind = block["headers"]["ce_type"].as_str().unwrap();
        // A start's payload is the saga's own input: there a field more is another input.
        if kind != wire::START {
            more["payload"]["added_later"] = true.into();
        }
        assert_eq!(wire::parse(&message(&more)), wire::parse(&plain), "{name}");
    }
}

#[test]
fn the_barrier_answers_every_series_as_the_page_says() {
    for (name, series) in blocks("barrier") {
        let mut rows: Vec<BarrierRow> = Vec::new();
        for (at, line) in series.as_array().unwrap().iter().enumerate() {
            let command = Command {
                saga: SagaKey::new("purchase", 1),
                definition_version: 1,
                step: "step".into(),
                op: if line["op"] == "do" { Op::Do } else { Op::Undo },
                attempt: 1,
                input: Json::null(),
                outputs: vec![],
                reason: None,
                reply_to: "reply".into(),
            };
            let mut called = false;
            let outcome = barrier::run(&[command], rows.clone(), &saga_runtime::Marks::default(), |_| {
                called = true;
                wire::outcome_from_json(line["effect"].to_string().as_bytes())
            });
            let outcome = outcome.unwrap();
            rows.extend(outcome.new_rows);
            let reply: Value = serde_json::from_str(&wire::outcome_to_json(&outcome.replies[0].outcome)).unwrap();
            assert_eq!((called, &reply), (line["called"] == true, &line["reply"]), "{name}, line {}", at + 1);
        }
    }
}
