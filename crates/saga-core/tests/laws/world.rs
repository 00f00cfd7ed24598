//! A world in one struct: a saga, its history, a participant that never errs, and the messages between them.
//!
//! Every law drives the real `decide` through here; [`World::apply`] checks what must hold after each decision.

use std::collections::{BTreeMap, BTreeSet};

use saga_core::protocol::{Command, Outcome, Refusal, Reply, ResultEvent};
use saga_core::state::Phase;
use saga_core::{
    Definition, Effect, Event, Input, Json, Millis, Name, Op, Rejection, Saga, SagaKey, Status, Verb, decide,
    outstanding, replay, results,
};

use crate::names::{event_name, rejection_name};

/// More steps than any of these worlds needs: beyond it something goes round in circles.
const PATIENCE: usize = 20_000;

/// `SplitMix64` (Steele, Lea, Flood 2014).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

/// What goes wrong, in percent of the occasions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// A message arrives twice.
    pub(crate) twice: u64,
    /// Messages arrive in any order.
    pub(crate) disorder: bool,
    /// A message is lost.
    pub(crate) lost: u64,
    /// After every commit the state is read from the history again.
    pub(crate) crash: bool,
    /// The machine loses power in the middle of a commit.
    pub(crate) power: u64,
    /// A participant answers `retry` or `unknown`.
    pub(crate) hiccups: u64,
}

impl Weather {
    /// All of it.
    pub(crate) const STORM: Self = Self { twice: 30, disorder: true, lost: 20, crash: true, power: 4, hiccups: 20 };
}

/// A participant that never errs: the barrier, and a ledger of what it did.
#[derive(Default)]
pub(crate) struct Shop {
    answered: BTreeMap<(Name, Op), Outcome>,
    /// In order.
    pub(crate) ledger: Vec<(Name, Op)>,
    /// Steps whose do is refused.
    pub(crate) refuses: BTreeSet<Name>,
    /// Answers instead of handling, always.
    pub(crate) always: BTreeMap<(Name, Op), Outcome>,
}

impl Shop {
    fn handle(&mut self, command: &Command) -> Outcome {
        let key = (command.step.clone(), command.op);
        if let Some(stored) = self.answered.get(&key) {
            return stored.clone();
        }
        if let Some(outcome) = self.always.get(&key) {
            return outcome.clone();
        }
        let did = (command.step.clone(), Op::Do);
        let outcome = match command.op {
            Op::Do if self.refuses.contains(&command.step) => Outcome::refused("no", "business said no"),
            Op::Do => {
                self.ledger.push(key.clone());
                Outcome::Done(Json::of(&format!("{} did", command.step)).unwrap())
            }
            Op::Undo => {
                match self.answered.get(&did) {
                    Some(Outcome::Done(_)) => self.ledger.push(key.clone()),
                    Some(_) => {}
                    None => drop(self.answered.insert(did, Outcome::refused("undone_before_do", "too late"))),
                }
                Outcome::done()
            }
        };
        self.answered.insert(key, outcome.clone());
        outcome
    }

    /// The steps whose effect is there, in the order of the effects.
    pub(crate) fn there(&self) -> Vec<&str> {
        let undone = |step: &Name| self.ledger.contains(&(step.clone(), Op::Undo));
        let did = self.ledger.iter().filter(|(step, op)| *op == Op::Do && !undone(step));
        did.map(|(step, _)| step.as_str()).collect()
    }
}

/// What is on its way.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    Command(Command),
    Reply(Reply),
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) definition: Definition,
    pub(crate) key: SagaKey,
    pub(crate) saga: Option<Saga>,
    pub(crate) history: Vec<Vec<Event>>,
    /// What customers saw.
    pub(crate) seen: Vec<ResultEvent>,
    pub(crate) shop: Shop,
    pub(crate) wire: Vec<Parcel>,
    pub(crate) now: Millis,
    pub(crate) weather: Weather,
    pub(crate) rng: Rng,
    /// Names of every event and rejection that was seen.
    pub(crate) coverage: BTreeSet<&'static str>,
    /// Commits that a power loss took.
    pub(crate) losses: usize,
    /// It was woken and had nothing to do.
    idle: bool,
}

impl World {
    /// Nothing has happened yet.
    pub(crate) fn new(definition: Definition, weather: Weather, seed: u64) -> Self {
        Self {
            key: SagaKey::new(definition.name.clone(), 7),
            definition,
            saga: None,
            history: Vec::new(),
            seen: Vec::new(),
            shop: Shop::default(),
            wire: Vec::new(),
            now: 1_000_000,
            weather,
            rng: Rng(seed),
            coverage: BTreeSet::new(),
            losses: 0,
            idle: false,
        }
    }

    /// Started, in good weather.
    pub(crate) fn calm(definition: Definition) -> Self {
        let mut world = Self::new(definition, Weather::default(), 1);
        world.start();
        world
    }

    /// The saga; it must have been started.
    pub(crate) fn saga(&self) -> &Saga {
        self.saga.as_ref().unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        self.saga().status
    }

    /// Asks for the saga, as its starter does until it is told the end.
    pub(crate) fn start(&mut self) {
        self.apply(Input::Start(Json::of(&"input").unwrap())).unwrap();
    }

    /// An operator's verb.
    pub(crate) fn operate(&mut self, verb: Verb) -> Result<(), Rejection> {
        let (actor, reason) = ("ann".to_owned(), "because".to_owned());
        // Who gets no answer asks again; the answer that counts is one from a machine that stays on.
        let power = std::mem::take(&mut self.weather.power);
        let answer = self.apply(Input::Operator { verb, actor, reason, version: None });
        self.weather.power = power;
        answer
    }

    /// Decides, commits, checks, acts.
    pub(crate) fn apply(&mut self, input: Input) -> Result<(), Rejection> {
        let before = self.saga.clone();
        let decided = decide(&self.definition, &self.key, before.as_ref(), input.clone(), self.now);
        let again = decide(&self.definition, &self.key, before.as_ref(), input, self.now);
        assert_eq!(decided, again, "the same arguments give the same decision");
        let decision = match decided {
            Ok(decision) => decision,
            Err(rejection) => {
                self.coverage.insert(rejection_name(&rejection));
                return Err(rejection);
            }
        };
        self.idle = false;
        assert!(!decision.events.is_empty(), "a decision that changes nothing is a rejection");
        assert!(before.is_none_or(|b| decision.next.version == b.version + 1));
        if self.rng.percent(self.weather.power) {
            // In the middle of the commit: nothing of it is on disk, and nothing was done about it.
            self.losses += 1;
            self.lose_power();
            return Ok(());
        }
        self.coverage.extend(decision.events.iter().map(event_name));
        self.history.push(decision.events);
        let stored: Vec<Vec<Event>> = serde_json::from_str(&serde_json::to_string(&self.history).unwrap()).unwrap();
        assert_eq!(stored, self.history, "a history survives its JSON");
        let replayed = replay(&self.key, stored.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(replayed, decision.next, "a history replays to its state");
        self.saga = Some(if self.weather.crash { replayed } else { decision.next });
        self.act(decision.effects);
        let all = results(&self.key, self.history.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(self.seen, all, "what customers saw is what the history says they saw");
        Ok(())
    }

    fn act(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::SendCommand { command, .. } => self.wire.push(Parcel::Command(command)),
                Effect::PublishResult(event) => self.seen.push(event),
            }
        }
    }

    /// The orchestrator begins with what is on disk.
    pub(crate) fn lose_power(&mut self) {
        if self.history.is_empty() {
            self.saga = None;
            // Its starter has heard nothing and asks again.
            self.start();
            return;
        }
        self.saga = Some(replay(&self.key, self.history.iter().map(Vec::as_slice)).unwrap());
        let effects = outstanding(&self.definition, self.saga());
        self.act(effects);
    }

    /// One thing happens. `false`: nothing will ever happen again by itself.
    pub(crate) fn step(&mut self) -> bool {
        if self.wire.is_empty() {
            let wished = if self.idle { self.saga().wake_after(self.now) } else { self.saga().wake_at() };
            let Some(at) = wished else { return false };
            self.now = self.now.max(at);
            self.timer();
            return true;
        }
        let at = if self.weather.disorder { self.rng.below(self.wire.len()) } else { 0 };
        let parcel = self.wire.remove(at);
        if self.rng.percent(self.weather.twice) {
            self.wire.push(parcel.clone());
        }
        if !self.rng.percent(self.weather.lost) {
            self.deliver(parcel);
        }
        true
    }

    fn deliver(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Command(command) => {
                let hiccup = self.rng.percent(self.weather.hiccups);
                let outcome = match (hiccup, self.rng.percent(50)) {
                    (false, _) => self.shop.handle(&command),
                    (true, true) => Outcome::Retry("busy".into()),
                    (true, false) => {
                        // The connection broke in the commit: it may have happened, here it did.
                        self.shop.handle(&command);
                        Outcome::Unknown("connection lost".into())
                    }
                };
                self.wire.push(Parcel::Reply(command.reply(outcome)));
            }
            Parcel::Reply(reply) => match self.apply(Input::Reply(reply)) {
                Ok(()) | Err(Rejection::NotAwaited { .. } | Rejection::UnknownSaga(_)) => {}
                Err(other) => panic!("an honest reply came to {other:?}"),
            },
        }
    }

    /// The moment that the saga wanted to be woken at: something must come of it, or it would be woken for ever.
    pub(crate) fn timer(&mut self) {
        let (before, now) = (self.saga().wake_at(), self.now);
        match self.apply(Input::Timer) {
            Ok(()) => {}
            Err(Rejection::NothingDue) if self.saga().wake_after(now).is_none_or(|at| at > now) => self.idle = true,
            Err(rejection) => panic!("woken at {now} as it wished ({before:?}), and then: {rejection:?}"),
        }
    }

    /// Runs until nothing happens any more.
    pub(crate) fn run(&mut self) {
        for _ in 0..PATIENCE {
            if !self.step() {
                self.check_end();
                return;
            }
        }
        panic!("it does not come to rest:\n{}", self.text());
    }

    /// Runs `steps` things.
    pub(crate) fn run_for(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// What must hold once nothing happens any more.
    fn check_end(&mut self) {
        let status = self.status();
        let all: Vec<&str> = self.definition.steps.iter().map(|s| s.name.as_str()).collect();
        match status {
            Status::Completed => assert_eq!(sorted(self.shop.there()), sorted(all), "all of it:\n{}", self.text()),
            Status::Compensated => {
                assert_eq!(self.shop.there(), Vec::<&str>::new(), "none of it:\n{}", self.text());
            }
            Status::Stuck | Status::CompensationStuck => {}
            other => panic!("at rest while {other:?}:\n{}", self.text()),
        }
        let ends: Vec<usize> = (0..self.seen.len()).filter(|&at| self.seen[at].terminal).collect();
        assert_eq!(ends, if status.is_terminal() { vec![self.seen.len() - 1] } else { vec![] }, "one end, the last");
        for (at, event) in self.seen.iter().enumerate() {
            assert_eq!(event.seq as usize, at + 1, "no gaps");
        }
        let mut effects = self.shop.ledger.clone();
        effects.sort();
        effects.dedup();
        assert_eq!(effects.len(), self.shop.ledger.len(), "no effect twice");
        self.check_order_of_undoing();
    }

    /// Whatever ran after another step is undone before it.
    fn check_order_of_undoing(&self) {
        let at = |step: &Name, op: Op| self.shop.ledger.iter().position(|l| *l == (step.clone(), op));
        for spec in &self.definition.steps {
            for &earlier in &spec.after {
                let earlier = &self.definition.steps[earlier].name;
                if let (Some(mine), Some(its)) = (at(&spec.name, Op::Do), at(earlier, Op::Do)) {
                    assert!(its < mine, "{} ran before {earlier}, which it waits for:\n{}", spec.name, self.text());
                }
                if let Some(its) = at(earlier, Op::Undo)
                    && at(&spec.name, Op::Do).is_some()
                {
                    let mine = at(&spec.name, Op::Undo);
                    assert!(mine.is_some_and(|m| m < its), "{earlier} undone under {}:\n{}", spec.name, self.text());
                }
            }
        }
    }

    /// The steps that have a command out.
    pub(crate) fn out(&self) -> Vec<(Name, Op)> {
        let out = self.saga().steps.iter().filter_map(|step| match step.phase {
            Phase::Doing { .. } => Some((step.name.clone(), Op::Do)),
            Phase::Undoing { .. } => Some((step.name.clone(), Op::Undo)),
            _ => None,
        });
        out.collect()
    }

    /// The last reason for a compensation.
    pub(crate) fn reason(&self) -> Option<&Refusal> {
        self.saga().reason.as_ref()
    }

    /// For messages of failures.
    pub(crate) fn text(&self) -> String {
        let transitions = self.history.iter().map(Vec::as_slice);
        let saga = saga_core::render::saga_text(self.saga(), transitions);
        format!(
            "{}{saga}ledger: {:?}\nwire: {:?}",
            saga_core::render::definition_text(&self.definition),
            self.shop.ledger,
            self.wire
        )
    }
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}
