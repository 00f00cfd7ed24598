//! What an operator may do, when, and what stays of it in the history.

use saga_core::definition::Builder;
use saga_core::retry::RetryPolicy;
use saga_core::{Definition, Event, Name, Op, Rejection, Status, Verb};

use crate::definitions::purchase;
use crate::world::{Weather, World};

/// The purchase saga, with a patience of two sendings.
fn impatient() -> Definition {
    let policy = RetryPolicy { initial: 100, factor: 1.0, max: 100, attempts: 2 };
    let builder: Builder = Definition::builder("purchase", 1).timeout(1_000).retry(policy, policy);
    let builder = builder.compensatable("stock", "take", "put-back").compensatable("order", "create", "drop");
    builder.pivot("payment", "charge", Some("void")).retriable("confirm", "confirm").build().unwrap()
}

/// A saga of which `step` is never answered, at rest.
fn stuck_at(step: &str) -> World {
    let mut world = World::new(impatient(), Weather::default(), 7);
    world.start();
    while world.out().iter().all(|(out, _)| out.as_str() != step) {
        assert!(world.step());
    }
    silence(&mut world);
    world
}

/// Nobody answers any more, until it is stuck.
fn silence(world: &mut World) {
    while !world.status().is_stuck() {
        world.wire.clear();
        assert!(world.step(), "{}", world.text());
    }
    world.wire.clear();
}

fn last(world: &World) -> Vec<&Event> {
    world.history.last().unwrap().iter().collect()
}

#[test]
fn s02_a_saga_that_nobody_answers_is_stuck_after_its_attempts_and_a_retry_begins_them_anew() {
    let mut world = stuck_at("order");
    assert_eq!(world.status(), Status::Stuck);
    world.operate(Verb::Retry).unwrap();
    assert_eq!(world.status(), Status::Running);
    assert!(matches!(last(&world)[..], [Event::Retried { actor, reason, .. }, Event::StepRepeated { attempt: 1, .. }]
        if actor == "ann" && reason == "because"));
    world.run();
    assert_eq!(world.status(), Status::Completed);
}

#[test]
fn a_cancel_of_a_stuck_saga_takes_everything_back() {
    let mut world = stuck_at("payment");
    world.operate(Verb::Cancel).unwrap();
    world.run();
    assert_eq!(world.status(), Status::Compensated);
    assert!(world.shop.there().is_empty());
}

#[test]
fn past_the_pivot_a_cancel_comes_too_late() {
    let mut world = stuck_at("confirm");
    let version = world.saga().version;
    assert_eq!(world.operate(Verb::Cancel), Err(Rejection::TooLate { status: Status::Stuck }));
    assert_eq!(world.saga().version, version, "nothing was written");
}

#[test]
fn a_skipped_step_counts_as_done_and_the_saga_goes_on() {
    let mut world = stuck_at("confirm");
    world.operate(Verb::Skip).unwrap();
    assert_eq!(world.status(), Status::Completed);
    let confirm = Name::new("confirm");
    assert!(matches!(last(&world)[..], [Event::Skipped { step, op: Op::Do, actor, .. }, Event::Completed { .. }]
        if *step == confirm && actor == "ann"));
}

#[test]
fn a_stuck_undo_is_skipped_and_the_rest_is_undone() {
    let mut world = stuck_at("payment");
    world.operate(Verb::Cancel).unwrap();
    silence(&mut world);
    assert_eq!(world.status(), Status::CompensationStuck);
    world.operate(Verb::Skip).unwrap();
    world.run();
    assert_eq!(world.status(), Status::Compensated);
    assert!(world.shop.there().is_empty());
}

#[test]
fn a_stuck_saga_is_resolved_as_it_ended_in_truth() {
    for end in [Status::Completed, Status::Compensated] {
        let mut world = stuck_at("confirm");
        world.operate(Verb::Resolve(end)).unwrap();
        assert_eq!(world.status(), end);
        let told = world.seen.last().unwrap();
        assert!(told.terminal, "the customer is told the end");
        assert_eq!(world.operate(Verb::Retry), Err(Rejection::TooLate { status: end }), "and it stays so");
    }
    let mut world = stuck_at("confirm");
    let lasting = Verb::Resolve(Status::Running);
    assert_eq!(world.operate(lasting), Err(Rejection::NotTerminal { status: Status::Running }));
}

#[test]
fn what_is_not_stuck_is_neither_skipped_nor_resolved() {
    for steps in 0..6 {
        let mut world = World::calm(purchase());
        world.run_for(steps);
        let status = world.status();
        for verb in [Verb::Skip, Verb::Resolve(Status::Completed)] {
            assert_eq!(world.operate(verb), Err(Rejection::NotStuck { status }));
        }
    }
}

#[test]
fn o02_of_two_retries_by_people_who_do_not_say_what_they_saw_one_is_obeyed() {
    let mut world = stuck_at("order");
    world.operate(Verb::Retry).unwrap();
    let saga = world.saga().clone();
    assert_eq!(world.operate(Verb::Retry), Err(Rejection::UnderWay { status: Status::Running }));
    assert_eq!(*world.saga(), saga, "nothing was written");
    // Who has seen that it is under way, and wants it at once all the same, says so.
    let again = saga_core::Input::Operator {
        verb: Verb::Retry,
        actor: "bob".into(),
        reason: "now".into(),
        version: Some(saga.version),
    };
    world.apply(again).unwrap();
    assert!(matches!(last(&world)[..], [Event::Retried { .. }, Event::StepRepeated { attempt: 1, .. }]));
}

#[test]
fn o02_a_verb_that_looked_at_an_older_version_changes_nothing() {
    let mut world = stuck_at("order");
    let actual = world.saga().version;
    let stale = saga_core::Input::Operator {
        verb: Verb::Retry,
        actor: "bob".into(),
        reason: "the same".into(),
        version: Some(actual - 1),
    };
    assert_eq!(world.apply(stale.clone()), Err(Rejection::StaleVersion { expected: actual - 1, actual }));
    assert_eq!(world.saga().version, actual);
}
