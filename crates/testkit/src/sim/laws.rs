//! The laws of the world, checked at every commit and every message.
//!
//! What is written here is told by the stores and the bus, never by the engine: it is the other side's book.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use saga_core::definition::Kind;
use saga_core::protocol::{Outcome, Reply, ResultEvent};
use saga_core::{Definition, Event, Name, Op, SagaKey, Status, replay, results};
use saga_runtime::Message;
use saga_runtime::barrier::BarrierRow;
use saga_runtime::store::SagaRow;
use saga_runtime::wire::{self, Inbound};

use super::Sim;
use super::store::Stored;

/// A step of a saga.
pub type StepKey = (SagaKey, Name);

#[derive(Debug, Default)]
struct Book {
    /// What the orchestrator's store holds.
    stored: BTreeMap<SagaKey, Stored>,
    /// Up to which version no power loss can take it.
    durable: BTreeMap<SagaKey, u64>,
    /// Effects that participants hold, and those that they took back.
    effects: BTreeSet<StepKey>,
    undone: BTreeSet<StepKey>,
    /// The participants' stored answers.
    answers: BTreeMap<(SagaKey, Name, Op), Outcome>,
    /// What customers were shown.
    seen: BTreeMap<SagaKey, BTreeMap<u32, ResultEvent>>,
    /// Starts and commands that were published.
    said: Vec<Message>,
}

/// The book and the laws.
#[derive(Debug)]
pub struct Laws {
    sim: Arc<Sim>,
    definitions: Vec<Definition>,
    book: Mutex<Book>,
}

impl Laws {
    /// An empty book.
    pub fn new(sim: Arc<Sim>, definitions: Vec<Definition>) -> Self {
        Self { sim, definitions, book: Mutex::new(Book::default()) }
    }

    /// The definition of a saga.
    pub fn definition(&self, key: &SagaKey) -> Option<&Definition> {
        self.definitions.iter().find(|d| d.name == key.definition)
    }

    /// The orchestrator's store has a new transition of this saga.
    pub fn committed(&self, stored: &Stored) {
        let (row, history) = stored;
        let mut book = self.book.lock();
        if book.stored.get(&row.key).is_some_and(|(before, _)| before.status.is_terminal()) {
            self.sim.broken(format!("{} went on after its end", row.key));
        }
        match replay(&row.key, history.iter().map(Vec::as_slice)) {
            Ok(saga) => {
                let same = saga.version == row.version
                    && saga.status == row.status
                    && saga.wake_at() == row.wake_at
                    && saga.updated_at == row.updated_at
                    && saga.definition_version == row.definition_version;
                if !same {
                    self.sim.broken(format!("{}: the row {row:?} is not the fold of its history {saga:?}", row.key));
                }
            }
            Err(error) => self.sim.broken(format!("{}: the history does not replay: {error}", row.key)),
        }
        self.pivot_holds(&row.key, history);
        book.stored.insert(row.key.clone(), stored.clone());
        self.whole(&book, &row.key);
    }

    /// After its pivot nothing is taken back.
    fn pivot_holds(&self, key: &SagaKey, history: &[Vec<Event>]) {
        let definition = self.definition(key);
        let is_pivot = |name: &Name| {
            definition.and_then(|d| d.index(name.as_str()).map(|at| d.steps[at].kind)) == Some(Kind::Pivot)
        };
        let mut passed = false;
        for event in history.iter().flatten() {
            match event {
                Event::StepCompleted { step, .. } if is_pivot(step) => passed = true,
                Event::CompensationBegun { .. } | Event::UndoStarted { .. } | Event::Compensated { .. } if passed => {
                    self.sim.broken(format!("{key} was compensated after its pivot"));
                }
                _ => {}
            }
        }
    }

    /// Up to this version the saga is on disk.
    pub fn durable(&self, key: &SagaKey, version: u64) {
        self.book.lock().durable.insert(key.clone(), version);
    }

    /// The store has lost a suffix; this is left, and on disk.
    pub fn rewound(&self, sagas: &BTreeMap<SagaKey, Stored>) {
        let mut book = self.book.lock();
        let lost = book.stored.len() - sagas.len();
        self.sim.add("whole sagas lost", lost as u64);
        book.stored.clone_from(sagas);
        book.durable = sagas.iter().map(|(key, (row, _))| (key.clone(), row.version)).collect();
    }

    /// A participant has committed these answers, and with them these effects and undos.
    pub fn worked(&self, answers: &[BarrierRow], done: &[StepKey], undone: &[StepKey]) {
        let mut book = self.book.lock();
        for row in answers {
            let key = (row.key.saga.clone(), row.key.step.clone(), row.key.op);
            if book.answers.insert(key, row.outcome.clone()).is_some() {
                self.sim.broken(format!("{:?} was answered a second time", row.key));
            }
        }
        for step in done {
            if book.undone.contains(step) {
                self.sim.broken(format!("{}: {} was done after its undo", step.0, step.1));
            }
            if !book.effects.insert(step.clone()) {
                self.sim.broken(format!("{}: {} was done twice", step.0, step.1));
            }
            self.whole(&book, &step.0);
        }
        for step in undone {
            book.undone.insert(step.clone());
            book.effects.remove(step);
            self.whole(&book, &step.0);
        }
    }

    /// All or nothing.
    fn whole(&self, book: &Book, key: &SagaKey) {
        let (Some((row, _)), Some(definition)) = (book.stored.get(key), self.definition(key)) else { return };
        let has = |name: &Name| book.effects.contains(&(key.clone(), name.clone()));
        match row.status {
            Status::Completed => {
                for step in definition.steps.iter().filter(|s| !has(&s.name)) {
                    self.sim.broken(format!("{key} is completed without {}", step.name));
                }
            }
            Status::Compensated => {
                for step in definition.steps.iter().filter(|s| has(&s.name)) {
                    self.sim.broken(format!("{key} is compensated, and {} is still there", step.name));
                }
            }
            Status::Running | Status::Compensating | Status::Stuck | Status::CompensationStuck => {}
        }
    }

    /// Somebody publishes: is what it says committed, or even on disk?
    pub fn published(&self, message: &Message) {
        if message.topic.as_str().ends_with(".dlq") {
            self.sim.count("dead letters");
            return;
        }
        let inbound = wire::parse(message);
        if matches!(inbound, Ok(Inbound::Start(_) | Inbound::Cancel(_) | Inbound::Command(_))) {
            self.book.lock().said.push(message.clone());
        }
        match inbound {
            Ok(Inbound::Command(command)) => {
                self.committed_command(&command.saga, &command.step, command.op);
            }
            Ok(Inbound::Reply(reply)) => self.stored_answer(&reply),
            Ok(Inbound::Result { definition, event }) => self.durable_result(&definition, &event),
            Ok(Inbound::Start(_) | Inbound::Cancel(_) | Inbound::Forget(_)) => {}
            Err(poison) => self.sim.broken(format!("an unlawful message: {poison}: {message:?}")),
        }
    }

    /// Something that was said before, at any time.
    pub fn said(&self, sim: &Sim) -> Option<Message> {
        let book = self.book.lock();
        let at = usize::try_from(sim.below(book.said.len() as u64)).ok()?;
        book.said.get(at).cloned()
    }

    /// Until when echoes are listened to: some sweeps after the calm.
    pub fn end_of_echoes(&self) -> u64 {
        240_000
    }

    fn committed_command(&self, key: &SagaKey, step: &Name, op: Op) {
        let book = self.book.lock();
        let known = book.stored.get(key).is_some_and(|(_, history)| {
            history.iter().flatten().any(|event| match event {
                Event::StepStarted { step: started, .. } => op == Op::Do && started == step,
                Event::UndoStarted { step: started, .. } => op == Op::Undo && started == step,
                _ => false,
            })
        });
        if !known {
            self.sim.broken(format!("{key}: {step}.{op} was sent before it was committed"));
        }
    }

    fn stored_answer(&self, reply: &Reply) {
        let book = self.book.lock();
        let stored = book.answers.get(&(reply.saga.clone(), reply.step.clone(), reply.op));
        if reply.outcome.is_final() && stored != Some(&reply.outcome) {
            self.sim.broken(format!("{}: {:?} was answered before it was committed", reply.saga, reply));
        }
    }

    fn durable_result(&self, definition: &Name, event: &ResultEvent) {
        let key = SagaKey { definition: definition.clone(), id: event.saga_id };
        let book = self.book.lock();
        let durable = book.durable.get(&key).copied().unwrap_or_default();
        let history = book.stored.get(&key).map(|(_, history)| history.as_slice()).unwrap_or_default();
        let kept = history.iter().take(usize::try_from(durable).unwrap_or_default()).map(Vec::as_slice);
        let lawful = results(&key, kept).is_ok_and(|all| all.contains(event));
        if !lawful {
            self.sim.broken(format!("{key}: a customer is told {event:?}, which is not on disk"));
        }
    }

    /// An operator was told that this row stands.
    pub fn promised(&self, row: &SagaRow) {
        let durable = self.book.lock().durable.get(&row.key).copied().unwrap_or_default();
        if durable < row.version {
            self.sim.broken(format!("an operator was told of {} at version {}, not on disk", row.key, row.version));
        }
    }

    /// A customer is shown this. Answers whether it is new to them.
    pub fn shown(&self, key: &SagaKey, event: &ResultEvent) {
        let mut book = self.book.lock();
        let seen = book.seen.entry(key.clone()).or_default();
        match seen.get(&event.seq) {
            Some(before) if before != event => {
                self.sim.broken(format!("{key}: a customer was shown {before:?}, and now {event:?}"));
            }
            Some(_) => {}
            None => {
                seen.insert(event.seq, event.clone());
            }
        }
    }

    /// What the store holds of a saga, as last told.
    pub fn status(&self, key: &SagaKey) -> Option<Status> {
        self.book.lock().stored.get(key).map(|(row, _)| row.status)
    }

    /// Whether a customer was shown everything to the end, without a gap.
    pub fn shown_to_the_end(&self, key: &SagaKey) -> bool {
        let book = self.book.lock();
        let Some(seen) = book.seen.get(key) else { return false };
        let gapless = seen.keys().zip(1..).all(|(seq, wanted)| *seq == wanted);
        gapless && seen.values().next_back().is_some_and(|last| last.terminal)
    }

    /// The effects that are there.
    pub fn effects(&self) -> BTreeSet<StepKey> {
        self.book.lock().effects.clone()
    }

    /// At the end of the world: every saga that was asked for has ended or needs a human and says why, and customers
    /// have been shown exactly what happened.
    pub fn ended(&self, asked: &[SagaKey]) {
        let book = self.book.lock();
        for key in asked {
            let Some((row, history)) = book.stored.get(key) else {
                self.sim.broken(format!("{key} was asked for and never started"));
                continue;
            };
            self.whole(&book, key);
            let told = results(key, history.iter().map(Vec::as_slice)).unwrap_or_default();
            if !told.iter().zip(1..).all(|(event, seq)| event.seq == seq) {
                self.sim.broken(format!("{key}: the results have gaps: {told:?}"));
            }
            if told.iter().filter(|e| e.terminal).count() != usize::from(row.status.is_terminal()) {
                self.sim.broken(format!("{key} is {:?} with other than one end: {told:?}", row.status));
            }
            let shown: Vec<ResultEvent> = book.seen.get(key).into_iter().flat_map(|s| s.values().cloned()).collect();
            let wrong = if row.status.is_terminal() { shown != told } else { !shown.iter().all(|e| told.contains(e)) };
            if wrong {
                self.sim.broken(format!("{key}: customers were shown {shown:?}, but it was {told:?}"));
            }
            self.sim.count(row.status.as_str());
            let why = |e: &Event| matches!(e, Event::StepStuck { detail, .. } if !detail.is_empty());
            if row.status.is_stuck() && !history.iter().flatten().any(why) {
                self.sim.broken(format!("{key} is stuck and says not why"));
            }
            if !row.status.is_terminal() && !row.status.is_stuck() {
                self.sim.broken(format!("{key} is still {:?}, awaiting {:?}", row.status, row.awaiting));
            }
        }
    }
}
