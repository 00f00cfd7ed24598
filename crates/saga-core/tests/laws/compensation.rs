//! Whatever begins a compensation, at whatever point: nothing is left of the saga, and what was not begun in time
//! completes.

use proptest::prelude::*;
use saga_core::definition::Kind;
use saga_core::protocol::{Outcome, ResultStatus};
use saga_core::{Definition, Event, Name, Op, Rejection, Status, Verb};

use crate::definitions::{DEADLINE, definitions, patient_definitions, purchase};
use crate::world::{Weather, World};

/// The steps that may say no.
fn refusable(definition: &Definition) -> Vec<Name> {
    definition.steps.iter().filter(|s| s.kind != Kind::Retriable).map(|s| s.name.clone()).collect()
}

fn refused_at(definition: &Definition, step: &Name, weather: Weather, seed: u64) -> World {
    let mut world = World::new(definition.clone(), weather, seed);
    world.shop.refuses.insert(step.clone());
    world.start();
    world.run();
    assert_eq!(world.status(), Status::Compensated, "{}", world.text());
    world
}

/// In the order of the history, the steps of the events that `pick` picks.
fn steps(world: &World, pick: fn(&Event) -> Option<&Name>) -> Vec<&Name> {
    world.history.iter().flatten().filter_map(pick).collect()
}

/// How many things happen in good weather, until it ends.
fn length(definition: &Definition) -> usize {
    let mut world = World::calm(definition.clone());
    (0..).find(|_| !world.step()).unwrap()
}

proptest! {
    #[test]
    fn s06_a_refusal_at_every_step_leaves_nothing(definition in definitions()) {
        for step in refusable(&definition) {
            let world = refused_at(&definition, &step, Weather::default(), 0);
            prop_assert_eq!(world.reason().unwrap().code.as_str(), "no");
            let completed = steps(&world, |e| match e { Event::StepCompleted { step, .. } => Some(step), _ => None });
            let undone = steps(&world, |e| match e { Event::UndoStarted { step, .. } => Some(step), _ => None });
            let of_completed: Vec<_> = undone.iter().filter(|s| completed.contains(s)).collect();
            prop_assert!(of_completed.iter().eq(&completed.iter().rev().collect::<Vec<_>>()), "{}", world.text());
        }
    }

    #[test]
    fn each_undo_is_acknowledged_before_the_next_is_sent(definition in definitions()) {
        for step in refusable(&definition) {
            let world = refused_at(&definition, &step, Weather::default(), 0);
            let mut out = 0_i32;
            for event in world.history.iter().flatten() {
                match event {
                    Event::UndoStarted { .. } => out += 1,
                    Event::StepUndone { .. } => out -= 1,
                    _ => {}
                }
                prop_assert!((0..=1).contains(&out));
            }
        }
    }

    #[test]
    fn s06_m01_it_leaves_nothing_when_every_message_arrives_twice(definition in definitions(), seed: u64) {
        for step in refusable(&definition) {
            refused_at(&definition, &step, Weather { twice: 50, ..Weather::default() }, seed);
        }
    }

    #[test]
    fn m05_it_leaves_nothing_when_replies_come_late_and_in_any_order(definition in definitions(), seed: u64) {
        for step in refusable(&definition) {
            refused_at(&definition, &step, Weather { disorder: true, twice: 30, ..Weather::default() }, seed);
        }
    }

    #[test]
    fn it_leaves_nothing_in_a_storm(definition in patient_definitions(), seed: u64) {
        for step in refusable(&definition) {
            let mut world = World::new(definition.clone(), Weather::STORM, seed);
            world.shop.refuses.insert(step);
            world.start();
            world.run();
            prop_assert_eq!(world.status(), Status::Compensated);
        }
    }

    #[test]
    fn s11_a_cancel_at_every_point_leaves_nothing_or_comes_too_late(definition in definitions()) {
        for point in 0..=length(&definition) {
            let mut world = World::calm(definition.clone());
            world.run_for(point);
            match world.operate(Verb::Cancel) {
                Ok(()) => {
                    world.run();
                    prop_assert_eq!(world.status(), Status::Compensated);
                    prop_assert_eq!(world.reason().unwrap().code.as_str(), "cancelled");
                }
                Err(Rejection::TooLate { .. }) => {
                    world.run();
                    prop_assert_eq!(world.status(), Status::Completed);
                }
                Err(other) => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn s11_a_cancel_in_a_storm_leaves_nothing_or_comes_too_late(
        definition in patient_definitions(), seed: u64, point in 0usize..60,
    ) {
        let mut world = World::new(definition, Weather::STORM, seed);
        world.start();
        world.run_for(point);
        let cancelled = world.operate(Verb::Cancel).is_ok();
        world.run();
        prop_assert!(world.status().is_terminal());
        prop_assert!(!cancelled || world.status() == Status::Compensated);
    }

    #[test]
    fn a_cancel_after_a_power_loss_leaves_nothing_either(
        definition in patient_definitions(), seed: u64, point in 0usize..40,
    ) {
        // Only the participants remember what was lost; the cancel is quicker than their stored replies.
        let mut world = World::new(definition, Weather { power: 1, ..Weather::default() }, seed);
        world.start();
        world.run_for(point);
        world.lose_power();
        world.wire.retain(|_| false);
        let cancelled = world.operate(Verb::Cancel).is_ok();
        let effects = saga_core::outstanding(&world.definition, world.saga());
        for effect in effects {
            if let saga_core::Effect::SendCommand { command, .. } = effect {
                world.wire.push(crate::world::Parcel::Command(command));
            }
        }
        world.run();
        prop_assert!(!cancelled || world.status() == Status::Compensated);
        prop_assert!(cancelled || world.status() == Status::Completed);
    }

    #[test]
    fn s13_a_deadline_at_every_point_leaves_nothing_or_is_noted(definition in definitions()) {
        let Some(_) = definition.deadline else { return Ok(()) };
        for point in 0..=length(&definition) {
            let mut world = World::calm(definition.clone());
            world.run_for(point);
            world.now += DEADLINE;
            if world.saga().wake_at().is_some() {
                world.timer();
                let compensating = world.status() == Status::Compensating;
                prop_assert!(!compensating || world.reason().unwrap().code == "deadline_exceeded");
                world.wire.extend(Vec::new());
            }
            world.run();
            prop_assert!(world.status().is_terminal() || world.status().is_stuck());
        }
    }

    #[test]
    fn an_unknown_outcome_at_every_point_changes_nothing_in_the_end(definition in patient_definitions(), seed: u64) {
        for at in 0..definition.steps.len() {
            let step = definition.steps[at].name.clone();
            for outcome in [Outcome::Unknown("?".into()), Outcome::Retry("busy".into())] {
                let mut world = World::new(definition.clone(), Weather::default(), seed);
                world.shop.always.insert((step.clone(), Op::Do), outcome);
                world.start();
                world.run_for(30);
                world.shop.always.clear();
                world.run();
                let compensated_by_deadline = world.reason().is_some_and(|r| r.code == "deadline_exceeded");
                prop_assert!(world.status() == Status::Completed || compensated_by_deadline);
            }
        }
    }
}

#[test]
fn m05_a_success_that_arrives_while_compensating_is_undone() {
    let mut world = World::calm(purchase());
    // The do is handled, its reply waits.
    world.step();
    world.operate(Verb::Cancel).unwrap();
    assert_eq!(world.shop.there(), ["update-product-inventory"]);
    world.run();
    assert_eq!(world.status(), Status::Compensated);
}

#[test]
fn m02_an_undo_that_overtakes_its_do_blocks_it() {
    let mut world = World::calm(purchase());
    let late = world.wire.remove(0);
    world.operate(Verb::Cancel).unwrap();
    while world.status() == Status::Compensating {
        world.step();
    }
    world.wire.push(late);
    world.run();
    assert_eq!(world.status(), Status::Compensated);
    assert!(world.shop.ledger.is_empty());
}

#[test]
fn g04_m06_a_reply_after_the_end_changes_nothing() {
    let mut world = World::calm(purchase());
    let mut replies = Vec::new();
    while world.step() {
        replies.extend(world.wire.iter().filter(|p| matches!(p, crate::world::Parcel::Reply(_))).cloned());
    }
    let before = world.saga().clone();
    world.wire = replies;
    while !world.wire.is_empty() {
        world.step();
    }
    assert_eq!(*world.saga(), before);
}

#[test]
fn s13_after_the_pivot_a_deadline_changes_nothing_and_the_saga_goes_forward() {
    let mut world = World::calm(purchase());
    while !world.out().iter().any(|(step, _)| *step == "confirm-order") {
        world.step();
    }
    world.now += 300_000;
    world.timer();
    assert_eq!(world.status(), Status::Running);
    assert!(
        world.saga().wake_after(world.now).is_none_or(|at| at > world.now),
        "it is not woken for the same thing again"
    );
    world.run();
    assert_eq!(world.status(), Status::Completed);
}

#[test]
fn s07_a_refusal_after_the_pivot_parks_the_saga_instead_of_undoing_it() {
    let mut world = World::new(purchase(), Weather::default(), 0);
    world.shop.refuses.insert(Name::new("confirm-order"));
    world.start();
    world.run();
    assert_eq!(world.status(), Status::Stuck);
    assert_eq!(world.shop.there().len(), 3);
}

#[test]
fn g10_a_step_is_announced_when_it_is_sent_and_reported_when_it_is_committed() {
    let mut world = World::new(purchase(), Weather::default(), 0);
    world.shop.refuses.insert(Name::new("create-payment"));
    world.start();
    world.run();
    use ResultStatus::{Execute, Failed, Rollback, Success};
    let seen: Vec<_> = world.seen.iter().map(|e| (e.step.as_str(), e.status)).collect();
    assert_eq!(
        seen,
        [
            ("update-product-inventory", Execute),
            ("update-product-inventory", Success),
            ("create-order", Execute),
            ("create-order", Success),
            ("create-payment", Execute),
            ("create-payment", Failed),
            ("create-order", Rollback),
            ("update-product-inventory", Rollback),
            ("purchase", Rollback),
        ]
    );
    assert!(world.seen.last().unwrap().reason.is_some());
}
