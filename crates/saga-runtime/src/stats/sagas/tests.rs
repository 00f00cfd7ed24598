#![allow(clippy::unwrap_used, reason = "tests")]

use saga_core::protocol::{Outcome, Refusal, Reply};
use saga_core::{Decision, Input, Json, SagaKey, decide};

use super::*;

const FILE: &str = "
saga: purchase
version: 1
timeout: 1s
retry: { initial: 100ms, factor: 2, max: 30s }
undo_retry: { initial: 100ms, factor: 2, max: 30s, attempts: 2 }
steps:
  - { step: take, kind: compensatable, do: take, undo: give-back }
  - { step: pay, kind: pivot, do: pay }
";

/// One saga and what was counted of it.
struct World {
    definition: Definition,
    stats: Sagas,
    saga: Option<Saga>,
}

impl World {
    fn new() -> Self {
        let definition = Definition::from_yaml(FILE).unwrap();
        let stats = Sagas::of(&Definitions::new([definition.clone()]));
        Self { definition, stats, saga: None }
    }

    fn input(&mut self, input: Input, now: Millis) {
        let key = SagaKey::new("purchase", 7);
        let Decision { events, next, .. } = decide(&self.definition, &key, self.saga.as_ref(), input, now).unwrap();
        self.stats.decided(&self.definition, self.saga.as_ref(), &next, &events);
        self.saga = Some(next);
    }

    fn reply(&mut self, step: &str, op: Op, outcome: Outcome, now: Millis) {
        let saga = SagaKey::new("purchase", 7);
        // To the last sending: an older one's *retry* is late.
        let attempt =
            self.saga.as_ref().and_then(|saga| out(saga, &step.into(), op)).map_or(1, |(attempt, ..)| attempt);
        let reply = Reply { saga, step: step.into(), op, attempt, outcome, work: None, repeated: false };
        self.input(Input::Reply(reply), now);
    }

    /// When the saga wants to be looked at.
    fn wake(&self) -> Millis {
        self.saga.as_ref().unwrap().wake_at().unwrap()
    }

    fn of(&self) -> &OfDefinition {
        &self.stats.all()[0]
    }

    /// Attempts, done, refused, retries, timeouts, stuck.
    fn step(&self, step: &str, op: Op) -> [u64; 6] {
        let of = self.of().step(&step.into(), op).unwrap();
        [&of.attempts, &of.done, &of.refused, &of.retries, &of.timeouts, &of.stuck].map(Counter::get)
    }
}

#[test]
fn a_purchase_that_goes_well_is_counted_once_in_each_place() {
    let mut world = World::new();
    world.input(Input::Start(Json::null()), 1_000);
    world.reply("take", Op::Do, Outcome::done(), 1_004);
    world.reply("pay", Op::Do, Outcome::done(), 1_010);
    assert_eq!(world.step("take", Op::Do), [1, 1, 0, 0, 0, 0]);
    assert_eq!(world.step("pay", Op::Do), [1, 1, 0, 0, 0, 0]);
    let of = world.of();
    assert_eq!((of.started.get(), of.completed.count.get(), of.compensated.count.get()), (1, 1, 0));
    assert_eq!(of.completed.took.snapshot().sum, 10_000);
    assert_eq!(of.step(&"take".into(), Op::Do).unwrap().took.snapshot().sum, 4_000);
    assert_eq!(of.step(&"pay".into(), Op::Do).unwrap().took.snapshot().sum, 6_000);
}

#[test]
fn a_silent_participant_is_a_timeout_and_one_that_asks_for_time_is_not() {
    let mut world = World::new();
    world.input(Input::Start(Json::null()), 0);
    world.input(Input::Timer, world.wake());
    world.input(Input::Timer, world.wake());
    assert_eq!(world.step("take", Op::Do), [3, 0, 0, 0, 2, 0]);
    world.reply("take", Op::Do, Outcome::Retry("busy".into()), 4_000);
    world.input(Input::Timer, world.wake());
    assert_eq!(world.step("take", Op::Do), [4, 0, 0, 1, 2, 0]);
}

#[test]
fn a_refusal_is_a_compensation_and_an_undo_that_never_answers_is_stuck() {
    let mut world = World::new();
    world.input(Input::Start(Json::null()), 0);
    world.reply("take", Op::Do, Outcome::done(), 1);
    world.reply("pay", Op::Do, Outcome::Refused(Refusal::new("declined", "no")), 2);
    for _ in 0..2 {
        world.input(Input::Timer, world.wake());
    }
    assert_eq!(world.step("pay", Op::Do), [1, 0, 1, 0, 0, 0]);
    assert_eq!(world.step("take", Op::Undo), [2, 0, 0, 0, 1, 1]);
    assert_eq!(world.of().compensations.get(), 1);
    assert_eq!(world.of().compensated.count.get(), 0, "not yet");
    world.reply("take", Op::Undo, Outcome::done(), 90_000);
    assert_eq!(world.of().compensated.count.get(), 1);
    assert_eq!(world.of().compensated.took.snapshot().sum, 90_000_000);
}

#[test]
fn o05_names_that_no_definition_has_add_nothing() {
    let world = World::new();
    for number in 0..1_000 {
        let command = Command {
            saga: SagaKey::new(format!("made-up-{number}").as_str(), 1),
            definition_version: 1,
            step: format!("step-{number}").as_str().into(),
            op: Op::Do,
            attempt: 1,
            input: Json::null(),
            outputs: vec![],
            reason: None,
            reply_to: "reply".into(),
        };
        world.stats.taken_up(&command, 0, 5);
        world.stats.taken_up(&Command { saga: SagaKey::new("purchase", 1), ..command }, 0, 5);
    }
    assert_eq!(world.stats.all().len(), 1);
    assert_eq!(world.of().steps.len(), 3, "take, its undo, pay");
    assert!(world.of().steps.iter().all(|step| step.queued.snapshot().count() == 0));
}
