//! The compatibility gate: histories that were written once replay for ever, to the same story.
//!
//! `SAGA_WRITE_HISTORIES=1 cargo test -p saga-core --test laws histories` writes files that are not there yet. One that is
//! there is never written again: if it no longer replays, the code is wrong.

use std::path::PathBuf;

use saga_core::render::saga_text;
use saga_core::{Event, SagaKey, Verb, replay, results};
use serde_json::{Value, json};

use crate::definitions::purchase;
use crate::world::{Weather, World};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories")
}

/// A saga in every kind of end, and on its way.
fn stories() -> Vec<(&'static str, World)> {
    let fresh = |weather| World::new(purchase(), weather, 11);
    let mut all = Vec::new();
    let mut world = World::calm(purchase());
    world.run();
    all.push(("completed", world));
    let mut world = fresh(Weather::default());
    world.shop.refuses.insert("create-payment".into());
    world.start();
    world.run();
    all.push(("declined", world));
    let mut world = World::calm(purchase());
    world.run_for(3);
    world.operate(Verb::Cancel).unwrap();
    world.run();
    all.push(("cancelled", world));
    let mut world = World::calm(purchase());
    world.run_for(4);
    all.push(("on-its-way", world));
    let mut world = fresh(Weather { hiccups: 60, ..Weather::default() });
    world.start();
    world.run();
    all.push(("with-hiccups", world));
    let mut world = fresh(Weather::default());
    world.shop.refuses.insert("confirm-order".into());
    world.start();
    world.run();
    all.push(("stuck", world));
    let mut world = fresh(Weather::default());
    world.shop.refuses.insert("confirm-order".into());
    world.start();
    world.run();
    world.operate(Verb::Skip).unwrap();
    all.push(("skipped", world));
    let mut world = World::calm(purchase());
    world.wire.clear();
    world.now += 300_000;
    world.timer();
    world.run();
    all.push(("deadline", world));
    all
}

#[test]
fn stored_histories_replay_to_their_stories() {
    let write = std::env::var_os("SAGA_WRITE_HISTORIES").is_some();
    for (name, world) in stories() {
        let path = folder().join(format!("{name}.json"));
        if write && !path.exists() {
            let shown = saga_text(world.saga(), world.history.iter().map(Vec::as_slice));
            let lines: Vec<&str> = shown.lines().collect();
            let stored = json!({ "key": world.key.to_string(), "shown": lines, "history": world.history });
            std::fs::write(&path, format!("{stored:#}\n")).unwrap();
        }
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let stored: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let history: Vec<Vec<Event>> = serde_json::from_value(stored["history"].clone()).unwrap();
        assert_eq!(
            serde_json::to_value(&history).unwrap(),
            stored["history"],
            "{}: written as it was read",
            file.display()
        );
        let (definition, id) = stored["key"].as_str().unwrap().split_once('/').unwrap();
        let key = SagaKey::new(definition, id.parse().unwrap());
        let slices = || history.iter().map(Vec::as_slice);
        let saga = replay(&key, slices()).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let shown: Vec<Value> = saga_text(&saga, slices()).lines().map(Value::from).collect();
        assert_eq!(Value::Array(shown), stored["shown"], "{}", file.display());
        let told = results(&key, slices()).unwrap();
        assert_eq!(told.len(), saga.seq as usize);
        assert_eq!(told.last().is_some_and(|event| event.terminal), saga.status.is_terminal());
    }
}

#[test]
fn what_cannot_follow_is_an_error_and_no_panic() {
    let world = stories().swap_remove(0).1;
    let replayed = |history: Vec<Vec<Event>>| replay(&world.key, history.iter().map(Vec::as_slice));
    for at in 0..world.history.len() {
        let mut without = world.history.clone();
        without.remove(at);
        assert!(at + 1 == world.history.len() || replayed(without).is_err(), "without entry {at}");
        let mut twice = world.history.clone();
        twice.insert(at, world.history[at].clone());
        assert!(replayed(twice).is_err(), "entry {at} twice");
    }
    assert!(replayed(Vec::new()).is_err());
    assert!(serde_json::from_value::<Event>(json!({ "teleported": { "at": 1 } })).is_err(), "an event of the future");
}
