//! Input that no honest participant sends: nothing panics, nothing is believed that was not asked, every history replays.

use std::collections::BTreeSet;

use proptest::prelude::*;
use saga_core::protocol::{Outcome, Refusal, Reply};
use saga_core::{Input, Json, Name, Op, Rejection, Status, Verb, decide};

use crate::definitions::{definitions, purchase};
use crate::names::{EVENTS, REJECTIONS};
use crate::world::{Rng, Weather, World};

fn outcome(rng: &mut Rng) -> Outcome {
    match rng.below(5) {
        0 | 1 => Outcome::Done(Json::null()),
        2 => Outcome::Refused(Refusal::new("no", "says somebody")),
        3 => Outcome::Retry("later".into()),
        _ => Outcome::Unknown("who knows".into()),
    }
}

/// A reply that was, perhaps, asked for.
fn reply(world: &mut World) -> Input {
    let steps: Vec<Name> = world.definition.steps.iter().map(|step| step.name.clone()).collect();
    let rng = &mut world.rng;
    let step = if rng.percent(5) { Name::new("no-such-step") } else { steps[rng.below(steps.len())].clone() };
    let op = if rng.percent(50) { Op::Do } else { Op::Undo };
    let attempt = u32::try_from(rng.below(4)).unwrap();
    let outcome = outcome(rng);
    Input::Reply(Reply { saga: world.key.clone(), step, op, attempt, outcome, work: None, repeated: false })
}

fn verb(world: &mut World) -> Input {
    let (now, rng) = (world.saga.as_ref().map(|saga| saga.version), &mut world.rng);
    let verb = match rng.below(6) {
        0 => Verb::Cancel,
        1 | 2 => Verb::Retry,
        3 => Verb::Skip,
        4 => Verb::Resolve(Status::Compensated),
        _ => Verb::Resolve(Status::Stuck),
    };
    let version = match rng.below(10) {
        0..=1 => Some(rng.next() % 5),
        2..=4 => now,
        _ => None,
    };
    Input::Operator { verb, actor: "eve".into(), reason: "for fun".into(), version }
}

/// Anything at all, `times` times. [`World::apply`] checks what must hold after each.
fn mistreat(world: &mut World, times: usize) {
    for _ in 0..times {
        let input = match world.rng.below(10) {
            0 => Input::Start(Json::null()),
            1 | 2 => {
                world.now += world.rng.next() % 5_000;
                Input::Timer
            }
            3 if world.rng.percent(30) => verb(world),
            _ => reply(world),
        };
        // The rejection is counted; nothing else may come of it.
        let before = world.saga.clone();
        if world.apply(input).is_err() {
            assert_eq!(world.saga, before, "a rejection changes nothing");
        }
    }
}

proptest! {
    #[test]
    fn whatever_arrives_nothing_panics_and_every_history_replays(definition in definitions(), seed: u64) {
        let mut world = World::new(definition, Weather { crash: true, ..Weather::default() }, seed);
        mistreat(&mut world, 200);
    }

    #[test]
    fn m04_a_late_answer_never_moves_a_saga_that_has_ended(definition in definitions(), seed: u64) {
        let mut world = World::new(definition, Weather::default(), seed);
        world.start();
        world.run();
        if world.status().is_terminal() {
            let version = world.saga().version;
            mistreat(&mut world, 50);
            prop_assert_eq!(world.saga().version, version);
        }
    }
}

#[test]
fn a_saga_is_not_driven_by_a_definition_that_does_not_know_its_steps() {
    let mut world = World::calm(purchase());
    world.run_for(3);
    let other = saga_core::Definition::builder("purchase", 1).compensatable("else", "else", "un-else").build().unwrap();
    world.now += 600_000;
    for _ in 0..50 {
        let input = if world.rng.percent(50) { reply(&mut world) } else { Input::Timer };
        let saga = world.saga().clone();
        // Whatever it says, it says it without a panic.
        let _ = decide(&other, &world.key, Some(&saga), input, world.now);
    }
}

#[test]
fn every_event_and_every_rejection_is_reached() {
    let mut coverage = BTreeSet::new();
    for seed in 0..1_000 {
        let mut world = World::new(purchase(), Weather::default(), seed);
        mistreat(&mut world, 60);
        coverage.extend(world.coverage.iter().copied());
    }
    // Cannot be reached by what arrives: see `histories::what_cannot_follow_is_an_error`.
    let unreachable = ["Rejection::Corrupt", "Event::StepStuck", "Event::Skipped"];
    let missing: Vec<_> = EVENTS
        .iter()
        .chain(REJECTIONS)
        .filter(|name| !coverage.contains(*name) && !unreachable.contains(name))
        .collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
    let unknown = world_without_saga();
    assert!(matches!(unknown, Err(Rejection::UnknownSaga(_))));
}

fn world_without_saga() -> Result<(), Rejection> {
    World::new(purchase(), Weather::default(), 1).apply(Input::Timer)
}
