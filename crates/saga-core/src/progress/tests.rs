#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use super::*;
use crate::decide::{Input, Verb, decide};
use crate::key::SagaKey;
use crate::protocol::{Outcome, Refusal, Reply};
use crate::state::Saga;
use crate::told::{What, told};
use crate::{Definition, Effect};

const TRIP: &str = "
saga: trip
version: 1
timeout: 5s
retry: { initial: 1ms, max: 1ms, attempts: 2 }
undo_retry: { initial: 1ms, max: 1ms, attempts: 2 }
steps:
  - { step: hotel, undo: cancel-hotel }
  - { step: pay, kind: pivot, undo: void }
  - { step: mail, kind: retriable }
";

/// A saga that is driven by hand.
struct Trip {
    definition: Definition,
    key: SagaKey,
    saga: Option<Saga>,
    history: Vec<Vec<Event>>,
    /// What the engine really sent.
    effects: Vec<Effect>,
    now: Millis,
}

impl Trip {
    fn begin() -> Self {
        let definition = Definition::from_yaml(TRIP).unwrap();
        let key = SagaKey::new("trip", 7);
        let mut trip = Self { definition, key, saga: None, history: vec![], effects: vec![], now: 0 };
        trip.input(Input::Start(Json::of(&"two").unwrap()));
        trip
    }

    fn input(&mut self, input: Input) {
        self.now += 100;
        let decision = decide(&self.definition, &self.key, self.saga.as_ref(), input, self.now).unwrap();
        self.history.push(decision.events);
        self.effects.extend(decision.effects);
        self.saga = Some(decision.next);
    }

    fn reply(&mut self, step: &str, op: Op, outcome: Outcome) {
        let work = Some(Work { began: self.now + 40, ms: 7 });
        let attempt = match self.saga.as_ref().unwrap().step(step).unwrap().phase {
            crate::state::Phase::Doing { attempt, .. } | crate::state::Phase::Undoing { attempt, .. } => attempt,
            _ => 1,
        };
        let (saga, step) = (self.key.clone(), step.into());
        self.input(Input::Reply(Reply { saga, step, op, attempt, outcome, work, repeated: false }));
    }

    fn operator(&mut self, verb: Verb) {
        self.input(Input::Operator { verb, actor: "ann".into(), reason: "to see".into(), version: None });
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for step in progress(&self.definition, self.history.iter().flatten()) {
            let after: Vec<&str> = step.after.iter().map(Name::as_str).collect();
            let _ = writeln!(out, "{} {} after [{}]", step.name, step.kind, after.join(" "));
            for (word, leg) in [("do", Some(&step.action)), ("undo", step.undo.as_ref())] {
                let Some(leg) = leg else { continue };
                let _ = write!(out, "  {word} {} {} x{}", leg.topic, leg.standing.as_str(), leg.attempts);
                let _ = write!(out, " sent {:?} ended {:?}", leg.sent_at, leg.done_at);
                let _ = write!(out, " queue {:?} run {:?}", leg.queue_ms(), leg.run_ms());
                let _ = writeln!(out, " {:?} {:?} {:?}", leg.code, leg.detail, leg.output.as_ref().map(Json::as_str));
            }
        }
        out
    }
}

#[test]
fn a_saga_that_completes_after_a_delay_shows_who_waited_and_who_worked() {
    let mut trip = Trip::begin();
    trip.reply("hotel", Op::Do, Outcome::Done(Json::of(&12).unwrap()));
    trip.reply("pay", Op::Do, Outcome::Retry("busy".into()));
    trip.input(Input::Timer);
    trip.reply("pay", Op::Do, Outcome::done());
    let expected = "\
hotel compensatable after []
  do hotel DONE x1 sent Some(100) ended Some(200) queue Some(40) run Some(7) None None Some(\"12\")
  undo cancel-hotel WAITING x0 sent None ended None queue None run None None None None
pay pivot after [hotel]
  do pay DONE x2 sent Some(200) ended Some(500) queue Some(40) run Some(7) None None None
  undo void WAITING x0 sent None ended None queue None run None None None None
mail retriable after [pay]
  do mail RUNNING x1 sent Some(500) ended None queue None run None None None None
";
    assert_eq!(trip.text(), expected);
}

#[test]
fn a_saga_that_is_taken_back_shows_both_ways() {
    let mut trip = Trip::begin();
    trip.reply("hotel", Op::Do, Outcome::done());
    trip.reply("pay", Op::Do, Outcome::Refused(Refusal::new("declined", "no money")));
    trip.reply("hotel", Op::Undo, Outcome::Unknown("gone".into()));
    trip.now += 10;
    trip.input(Input::Timer);
    trip.reply("hotel", Op::Undo, Outcome::Unknown("gone".into()));
    trip.operator(Verb::Skip);
    let expected = "\
hotel compensatable after []
  do hotel DONE x1 sent Some(100) ended Some(200) queue Some(40) run Some(7) None None None
  undo cancel-hotel SKIPPED x2 sent Some(300) ended Some(710) queue None run None None Some(\"2 attempts; the last: gone\") None
pay pivot after [hotel]
  do pay REFUSED x1 sent Some(200) ended Some(300) queue Some(40) run Some(7) Some(\"declined\") Some(\"no money\") None
  undo void WAITING x0 sent None ended None queue None run None None None None
mail retriable after [pay]
  do mail WAITING x0 sent None ended None queue None run None None None None
";
    assert_eq!(trip.text(), expected);
}

#[test]
fn a_step_that_was_given_up_without_an_answer_says_so() {
    let mut trip = Trip::begin();
    trip.operator(Verb::Cancel);
    let steps = progress(&trip.definition, trip.history.iter().flatten());
    assert_eq!(steps[0].action.standing, Standing::Unknown);
    assert_eq!(steps[0].undo.as_ref().map(|undo| undo.standing), Some(Standing::Running));
    // Clocks that disagree make no negative wait.
    let skewed = Leg { last_sent_at: Some(900), work: Some(Work { began: 100, ms: 3 }), ..Leg::new("hotel".into()) };
    assert_eq!(skewed.queue_ms(), Some(0));
}

/// What is told from the history is what was sent, message by message, and what was answered.
#[test]
fn what_was_told_follows_from_the_history_exactly() {
    let mut completed = Trip::begin();
    completed.reply("hotel", Op::Do, Outcome::Done(Json::of(&12).unwrap()));
    completed.reply("pay", Op::Do, Outcome::Retry("busy".into()));
    completed.input(Input::Timer);
    completed.reply("pay", Op::Do, Outcome::done());
    completed.reply("mail", Op::Do, Outcome::done());
    let mut resolved = Trip::begin();
    resolved.reply("hotel", Op::Do, Outcome::Done(Json::of(&12).unwrap()));
    resolved.reply("pay", Op::Do, Outcome::Refused(Refusal::new("declined", "no money")));
    resolved.reply("hotel", Op::Undo, Outcome::Refused(Refusal::new("never", "not here")));
    resolved.operator(Verb::Retry);
    resolved.reply("hotel", Op::Undo, Outcome::Refused(Refusal::new("never", "not here")));
    resolved.operator(Verb::Resolve(crate::Status::Compensated));
    for (trip, answers) in [(completed, 4), (resolved, 2)] {
        let all = told(&trip.definition, &trip.key, trip.history.iter().map(Vec::as_slice)).unwrap();
        let (mut sent, mut answered) = (Vec::new(), 0);
        for message in all {
            match message.what {
                What::Sent(effect) => sent.push(effect),
                What::Answered(reply) => {
                    assert_eq!((reply.saga, reply.work.unwrap().ms), (trip.key.clone(), 7));
                    answered += 1;
                }
            }
        }
        assert_eq!(answered, answers);
        assert_eq!(sent, trip.effects);
    }
}
