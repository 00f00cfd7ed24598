//! The anomalies by name, one at a time in calm weather: what random worlds meet by chance is met here on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use saga_core::retry::RetryPolicy;
use saga_core::{Definition, Json, SagaKey, Status, Verb};
use saga_runtime::Message;
use saga_runtime::wire;
use testkit::sim::bus::Fate;
use testkit::sim::customer::Wish;
use testkit::sim::{self, Report, Sim, World, definitions};
use tokio::sync::Notify;

/// A world with one purchase, wanted from the beginning.
fn purchase(cancel: Option<u64>) -> (World, SagaKey) {
    asked_for(definitions::purchase(), 60_000, cancel)
}

/// The same of any definition, asked for so often (in ms).
fn asked_for(definition: Definition, every: u64, cancel: Option<u64>) -> (World, SagaKey) {
    let sim = Arc::new(Sim::new(7, true));
    let key = SagaKey::new(definition.name.clone(), 1);
    let (topic, input) = (definition.start_topic.clone(), Json::of(&2).unwrap());
    let wish = Wish { key: key.clone(), topic, input, at: 0, every, cancel };
    (World::new(sim, vec![definition], vec![wish], 10), key)
}

async fn open(world: &mut World) {
    world.start_all().await;
    world.open();
}

/// Waits in virtual time, at most ten minutes.
async fn until(world: &World, key: &SagaKey, status: Status) {
    for _ in 0..6_000 {
        if world.laws.status(key) == Some(status) {
            return;
        }
        world.sim.sleep(100).await;
    }
    panic!("{key} is {:?}, not {status:?}", world.laws.status(key));
}

fn is(message: &Message, kind: &str) -> bool {
    message.header("ce_type") == Some(kind)
}

fn lawful(report: &Report) {
    assert!(report.broken.is_empty(), "{:#?}\n{}", report.broken, report.trace.join("\n"));
}

fn count(report: &Report, what: &str) -> u64 {
    report.tally.get(what).copied().unwrap_or_default()
}

#[test]
fn a_reply_that_comes_twice_changes_nothing() {
    let report = sim::within(async {
        let (mut world, _) = purchase(None);
        world.bus.tap(|m| if is(m, wire::REPLY) { Fate::Doubled } else { Fate::Weather });
        open(&mut world).await;
        world.end().await
    });
    lawful(&report);
    assert_eq!((count(&report, "COMPLETED"), count(&report, "doubled")), (1, 4), "{:?}", report.tally);
    assert!(count(&report, "late_replies") >= 1, "{:?}", report.tally);
}

#[test]
fn a_command_that_is_lost_goes_out_again_when_its_time_is_over() {
    let report = sim::within(async {
        let (mut world, _) = purchase(None);
        let mut first = true;
        world.bus.tap(move |m| {
            let lose = m.topic == "create-order" && std::mem::take(&mut first);
            if lose { Fate::Lost } else { Fate::Weather }
        });
        open(&mut world).await;
        world.end().await
    });
    lawful(&report);
    assert_eq!((count(&report, "COMPLETED"), count(&report, "repeated")), (1, 1), "{:?}", report.tally);
}

/// Holds the first command; answers the bell that says it is held, and the one that lets it go.
fn hold_first_command(world: &World) -> (Arc<Notify>, Arc<Notify>) {
    let (held, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (ring, wait) = (held.clone(), release.clone());
    let mut first = true;
    world.bus.tap(move |m| {
        if is(m, wire::COMMAND) && std::mem::take(&mut first) {
            ring.notify_one();
            return Fate::Held(wait.clone());
        }
        Fate::Weather
    });
    (held, release)
}

#[test]
fn p05_a_crash_between_commit_and_publish_loses_nothing() {
    let report = sim::within(async {
        let (mut world, key) = purchase(None);
        let (held, _release) = hold_first_command(&world);
        open(&mut world).await;
        held.notified().await;
        assert_eq!(world.laws.status(&key), Some(Status::Running), "committed");
        world.crash().await;
        world.start_all().await;
        world.end().await
    });
    lawful(&report);
    assert_eq!((count(&report, "COMPLETED"), count(&report, "started")), (1, 1), "{:?}", report.tally);
    assert!(count(&report, "recovered") >= 1, "{:?}", report.tally);
}

#[test]
fn p18_an_owner_that_slept_through_its_deposition_harms_nothing() {
    let report = sim::within(async {
        let (mut world, key) = purchase(None);
        let (held, release) = hold_first_command(&world);
        open(&mut world).await;
        held.notified().await;
        world.start_orchestrator();
        until(&world, &key, Status::Completed).await;
        release.notify_one();
        world.end().await
    });
    lawful(&report);
    assert_eq!((count(&report, "COMPLETED"), count(&report, "fenced commits")), (1, 1), "{:?}", report.tally);
}

#[test]
fn an_undo_without_a_do_has_no_effect() {
    let report = sim::within(async {
        let (mut world, _) = purchase(Some(2_000));
        world.bus.tap(|m| if m.topic == "update-product-inventory" { Fate::Lost } else { Fate::Weather });
        open(&mut world).await;
        world.end().await
    });
    lawful(&report);
    assert_eq!((count(&report, "COMPENSATED"), count(&report, "empty compensations")), (1, 1), "{:?}", report.tally);
}

#[test]
fn a_do_that_arrives_after_its_undo_has_no_effect() {
    let report = sim::within(async {
        let (mut world, _) = purchase(Some(2_000));
        world.bus.tap(|m| if m.topic == "update-product-inventory" { Fate::Late(20_000) } else { Fate::Weather });
        open(&mut world).await;
        world.end().await
    });
    lawful(&report);
    assert_eq!(count(&report, "COMPENSATED"), 1, "{:?}", report.tally);
    let late = report.trace.iter().any(|l| l.contains("undone_before_do"));
    assert!(late, "the late do was refused:\n{}", report.trace.join("\n"));
}

/// Any loop may carry out an operator's verb. The one that drives the saga is not told, and keeps what was before in memory.
#[test]
fn what_another_loop_has_decided_is_gone_on_with_at_once() {
    let report = sim::within(async {
        let (mut world, key) = purchase(None);
        world.bus.tap(|m| if m.topic == "update-product-inventory" { Fate::Lost } else { Fate::Weather });
        open(&mut world).await;
        world.start_neighbour();
        until(&world, &key, Status::Running).await;
        world.operate_elsewhere(key.clone(), Verb::Cancel);
        until(&world, &key, Status::Compensated).await;
        // Well before the first command is sent again, and the answer to that shows what has happened.
        assert!(world.sim.elapsed() < 5_000, "{} ms", world.sim.elapsed());
        world.end().await
    });
    lawful(&report);
}

/// Each step is tried twice, then a human is told; the last one has no way back.
fn tried_twice() -> Definition {
    let twice = RetryPolicy { attempts: 2, ..RetryPolicy::DO };
    let builder = Definition::builder("short", 1).topics("short", "reply", "short-result").deadline(60_000);
    builder
        .retry(twice, twice)
        .compensatable("first", "product.first", "product.first")
        .retriable("last", "product.last")
        .build()
        .unwrap()
}

/// What its last step is told is lost, so a human was told; there is a loop beside the one that drives it.
async fn stuck_beside_a_neighbour() -> (World, SagaKey) {
    let (mut world, key) = asked_for(tried_twice(), u64::from(u32::MAX), None);
    world.bus.tap(|m| if m.topic == "product.last" { Fate::Lost } else { Fate::Weather });
    open(&mut world).await;
    world.start_neighbour();
    until(&world, &key, Status::Stuck).await;
    (world, key)
}

/// Nobody asks again for this saga, and whoever has its timer is gone.
#[test]
fn what_a_loop_has_decided_that_is_gone_is_gone_on_with() {
    let report = sim::within(async {
        let (mut world, key) = stuck_beside_a_neighbour().await;
        let (held, _release) = hold_first_command(&world);
        world.operate_elsewhere(key.clone(), Verb::Retry);
        held.notified().await;
        assert_eq!(world.laws.status(&key), Some(Status::Running), "committed");
        world.replace_neighbour().await;
        until(&world, &key, Status::Completed).await;
        world.end().await
    });
    lawful(&report);
}

/// Its deadline came too late to turn it back, and is over for ever.
#[test]
fn what_waits_for_a_human_past_its_deadline_is_left_alone() {
    let report = sim::within(async {
        let (mut world, key) = asked_for(tried_twice(), u64::from(u32::MAX), None);
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        world.bus.tap(move |m| {
            let is_last = m.topic == "product.last";
            count.fetch_add(usize::from(is_last), Ordering::Relaxed);
            if is_last { Fate::Lost } else { Fate::Weather }
        });
        open(&mut world).await;
        until(&world, &key, Status::Stuck).await;
        world.sim.sleep(600_000).await;
        assert_eq!(sent.load(Ordering::Relaxed), 2);
        world.end().await
    });
    lawful(&report);
}

/// Each further command of it would else be a timer that is ten minutes late: an alert, and nothing to be done about it.
#[test]
fn nobody_is_late_for_a_deadline_that_was_over_before() {
    let report = sim::within(async {
        let (world, key) = stuck_beside_a_neighbour().await;
        world.sim.sleep(600_000).await;
        world.operate_elsewhere(key.clone(), Verb::Retry);
        until(&world, &key, Status::Running).await;
        until(&world, &key, Status::Stuck).await;
        assert!(world.lateness() < 1_000_000, "{} µs", world.lateness());
        world.end().await
    });
    lawful(&report);
}

#[test]
fn what_is_stuck_is_not_sent_round_and_round() {
    let report = sim::within(async {
        let (mut world, key) = purchase(None);
        world.sim.weather.lock().refuse_unlawfully = 1_000;
        open(&mut world).await;
        until(&world, &key, Status::Stuck).await;
        world.end().await
    });
    lawful(&report);
    assert_eq!(count(&report, "STUCK"), 1, "{:?}", report.tally);
    assert!(report.trace.len() < 500, "{} lines", report.trace.len());
}
