//! Participants: a resource of which sagas take and to which they give back, behind the runtime's barrier.
//!
//! One transaction a batch, with the rows' primary key as its only lock: what another replica wrote between our reading
//! and our commit makes us run again. Durable on return. With a gateway, charges stand around the transactions as in
//! the payment service.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use saga_core::definition::Kind;
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Name, Op, SagaKey};
use saga_runtime::barrier::{self, BarrierKey, BarrierRow, UNDONE_BEFORE_DO};
use saga_runtime::retention::{Marks, Removed, Watermark, Watermarks};
use saga_runtime::{Participant, StoreError};

use super::Sim;
use super::gateway::{Charged, SimGateway};
use super::laws::{Laws, StepKey};
use super::store::Raised;

type RowKey = (SagaKey, Name, Op);

/// What a participant keeps on its disk.
#[derive(Clone, Debug, Default)]
struct Tables {
    barrier: BTreeMap<RowKey, Outcome>,
    /// Who has taken how much.
    taken: BTreeMap<StepKey, u64>,
    available: u64,
    marks: BTreeMap<Name, u64>,
}

impl Tables {
    fn marks(&self) -> Marks {
        let mark = |(definition, up_to): (&Name, &u64)| Watermark { definition: definition.clone(), up_to: *up_to };
        self.marks.iter().map(mark).collect()
    }
}

/// What a transaction has changed.
#[derive(Debug, Default)]
struct Changes {
    done: Vec<StepKey>,
    undone: Vec<StepKey>,
}

/// A participant; its replicas share it.
pub struct SimParticipant {
    name: String,
    sim: Arc<Sim>,
    laws: Arc<Laws>,
    topics: Vec<Name>,
    gateway: Option<Arc<SimGateway>>,
    initial: u64,
    tables: Mutex<Tables>,
    raised: Raised,
}

fn row_key(key: &BarrierKey) -> RowKey {
    (key.saga.clone(), key.step.clone(), key.op)
}

/// Names a saga's charge at the gateway.
pub fn charge_key(saga: &SagaKey, step: &Name) -> String {
    format!("{saga}/{step}")
}

impl SimParticipant {
    /// One with so much to take from.
    pub fn new(
        name: &str,
        sim: Arc<Sim>,
        laws: Arc<Laws>,
        topics: Vec<Name>,
        gateway: Option<Arc<SimGateway>>,
        initial: u64,
    ) -> Self {
        let tables = Mutex::new(Tables { available: initial, ..Tables::default() });
        Self { name: name.to_owned(), sim, laws, topics, gateway, initial, tables, raised: Raised::default() }
    }

    /// The steps that have an effect here.
    pub fn effects(&self) -> Vec<StepKey> {
        self.tables.lock().taken.keys().cloned().collect()
    }

    /// Nothing appears or disappears.
    pub fn balance(&self) {
        let tables = self.tables.lock();
        let taken: u64 = tables.taken.values().sum();
        if tables.available + taken != self.initial {
            let available = tables.available;
            self.sim.broken(format!("{}: {available} left and {taken} taken of {}", self.name, self.initial));
        }
    }

    fn trouble(&self) -> Result<(), StoreError> {
        let weather = self.sim.weather();
        if self.sim.chance(weather.fault) {
            self.sim.count("participant faults");
            return Err(StoreError::Fault("the weather".into()));
        }
        if self.sim.chance(weather.transient) {
            return Err(StoreError::Transient("the weather".into()));
        }
        Ok(())
    }

    /// Barrier, effects and answers in one transaction.
    async fn transact(
        &self,
        batch: &[Command],
        charged: &BTreeMap<StepKey, Charged>,
    ) -> Result<Vec<Reply>, StoreError> {
        self.sim.work().await;
        self.trouble()?;
        let existing = self.load(&barrier::keys_of(batch));
        let marks = self.tables.lock().marks();
        self.sim.work().await;
        let replies = {
            let mut draft = self.tables.lock().clone();
            let mut changes = Changes::default();
            let done = barrier::run(batch, existing, &marks, |command| {
                self.sim.note(|| format!("{}: {} {}.{} runs", self.name, command.saga, command.step, command.op));
                Ok::<_, StoreError>(match command.op {
                    Op::Do => self.take(&mut draft, &mut changes, command, charged),
                    Op::Undo => self.give_back(&mut draft, &mut changes, command),
                })
            })?;
            insert(&mut draft, &done.new_rows)?;
            *self.tables.lock() = draft;
            self.laws.worked(&done.new_rows, &changes.done, &changes.undone);
            let blocked = |r: &&BarrierRow| matches!(&r.outcome, Outcome::Refused(no) if no.code == UNDONE_BEFORE_DO);
            self.sim.add("commands of what was removed", (batch.len() - done.replies.len()) as u64);
            self.sim.add("empty compensations", done.new_rows.iter().filter(blocked).count() as u64);
            done.replies
        };
        self.balance();
        self.sim.work().await;
        self.trouble()?;
        Ok(replies)
    }

    fn load(&self, keys: &[BarrierKey]) -> Vec<BarrierRow> {
        let tables = self.tables.lock();
        let row = |key: &BarrierKey| {
            let outcome = tables.barrier.get(&row_key(key))?.clone();
            Some(BarrierRow { key: key.clone(), outcome })
        };
        keys.iter().filter_map(row).collect()
    }

    fn take(
        &self,
        draft: &mut Tables,
        changes: &mut Changes,
        command: &Command,
        charged: &BTreeMap<StepKey, Charged>,
    ) -> Outcome {
        let step = (command.saga.clone(), command.step.clone());
        let weather = self.sim.weather();
        if self.gateway.is_some() {
            match charged.get(&step) {
                Some(Charged::Approved) => {}
                Some(Charged::Declined) => return Outcome::refused("payment_declined", "by the gateway"),
                Some(Charged::Unknown) => return Outcome::Unknown("the gateway did not answer".into()),
                Some(Charged::Retry) | None => return Outcome::Retry("the gateway is busy".into()),
            }
        } else if self.sim.chance(weather.retry) {
            return Outcome::Retry("busy".into());
        }
        let wanted: u64 = command.input.parse().unwrap_or_default();
        let definition = self.laws.definition(&command.saga);
        let kind = definition.and_then(|d| d.index(command.step.as_str()).map(|at| d.steps[at].kind));
        let may_refuse = kind != Some(Kind::Retriable) && self.gateway.is_none();
        let refused = if may_refuse { self.sim.chance(weather.refuse) } else { self.unlawfully_refused() };
        if refused || (may_refuse && draft.available < wanted) {
            return Outcome::refused("insufficient_stock", format!("{} of {wanted}", draft.available));
        }
        let taken = wanted.min(draft.available);
        draft.available -= taken;
        *draft.taken.entry(step.clone()).or_default() += taken;
        changes.done.push(step);
        Json::of(&taken).map_or_else(|_| Outcome::done(), Outcome::Done)
    }

    fn unlawfully_refused(&self) -> bool {
        self.gateway.is_none() && self.sim.chance(self.sim.weather().refuse_unlawfully)
    }

    fn give_back(&self, draft: &mut Tables, changes: &mut Changes, command: &Command) -> Outcome {
        if self.sim.chance(self.sim.weather().retry) {
            return Outcome::Retry("busy".into());
        }
        if self.unlawfully_refused() {
            return Outcome::refused("conflict", "it has left the house");
        }
        let step = (command.saga.clone(), command.step.clone());
        draft.available += draft.taken.remove(&step).unwrap_or_default();
        changes.undone.push(step);
        Outcome::done()
    }

    /// As the payment service does: what is not settled is charged, then the transaction; blocked by an undo, give it
    /// back.
    async fn charge(&self, gateway: &SimGateway, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let mut charged = BTreeMap::new();
        self.sim.work().await;
        self.trouble()?;
        let settled: Vec<bool> = {
            let tables = self.tables.lock();
            let marks = tables.marks();
            let settled =
                |c: &Command| marks.covers(&c.saga) || tables.barrier.contains_key(&row_key(&BarrierKey::of(c)));
            batch.iter().map(settled).collect()
        };
        for (command, _) in batch.iter().zip(settled.iter().copied()).filter(|(_, settled)| !settled) {
            let answer = gateway.charge(&charge_key(&command.saga, &command.step)).await;
            charged.insert((command.saga.clone(), command.step.clone()), answer);
        }
        let replies = self.transact(&batch, &charged).await?;
        for (command, _) in batch.iter().zip(settled).filter(|(_, settled)| !settled) {
            // Forgotten between our look and our transaction: what does not stand is given back.
            let step = (command.saga.clone(), command.step.clone());
            let forgotten = !replies.iter().any(|r| r.saga == command.saga && r.step == command.step);
            if forgotten && !self.tables.lock().taken.contains_key(&step) {
                self.sim.count("forgotten charges given back");
                gateway.void(&charge_key(&command.saga, &command.step)).await.map_err(StoreError::Transient)?;
            }
        }
        for reply in &replies {
            // Whatever the gateway said last: an answer before a crash or a failed transaction may have been a yes.
            if matches!(&reply.outcome, Outcome::Refused(r) if r.code == UNDONE_BEFORE_DO) {
                self.sim.count("hanging charges given back");
                let given = gateway.void(&charge_key(&reply.saga, &reply.step)).await;
                given.map_err(StoreError::Transient)?;
            }
        }
        Ok(replies)
    }

    /// As the payment service does: block the do, give back, then the transaction.
    async fn void(&self, gateway: &SimGateway, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.block(&batch).await?;
        let (mut given_back, mut replies) = (Vec::new(), Vec::new());
        let marks = self.tables.lock().marks();
        for command in batch {
            if marks.covers(&command.saga) {
                given_back.push(command);
                continue;
            }
            match gateway.void(&charge_key(&command.saga, &command.step)).await {
                Ok(()) => given_back.push(command),
                Err(detail) => replies.push(command.reply(Outcome::Retry(detail))),
            }
        }
        replies.extend(self.transact(&given_back, &BTreeMap::new()).await?);
        Ok(replies)
    }

    async fn block(&self, batch: &[Command]) -> Result<(), StoreError> {
        self.sim.work().await;
        self.trouble()?;
        let mut rows: Vec<BarrierRow> = Vec::new();
        {
            let mut tables = self.tables.lock();
            let marks = tables.marks();
            for command in batch.iter().filter(|command| !marks.covers(&command.saga)) {
                let key = BarrierKey { op: Op::Do, ..BarrierKey::of(command) };
                let outcome = Outcome::refused(UNDONE_BEFORE_DO, "the step was undone before it ran");
                if let Entry::Vacant(row) = tables.barrier.entry(row_key(&key)) {
                    row.insert(outcome.clone());
                    rows.push(BarrierRow { key, outcome });
                }
            }
        }
        self.laws.worked(&rows, &[], &[]);
        self.sim.work().await;
        self.trouble()
    }
}

/// The rows' primary key, and their condition: a watermark that has risen since it was read.
fn insert(draft: &mut Tables, rows: &[BarrierRow]) -> Result<(), StoreError> {
    let marks = draft.marks();
    for row in rows {
        if marks.covers(&row.key.saga) {
            return Err(StoreError::Transient(format!("forgotten meanwhile: {:?}", row.key)));
        }
        if draft.barrier.insert(row_key(&row.key), row.outcome.clone()).is_some() {
            return Err(StoreError::Transient(format!("duplicate key {:?}", row.key)));
        }
    }
    Ok(())
}

#[async_trait]
impl Watermarks for SimParticipant {
    async fn raise(&self, mark: Watermark) -> Result<Option<u64>, StoreError> {
        self.sim.work().await;
        self.trouble()?;
        let mut tables = self.tables.lock();
        let definition = mark.definition.clone();
        let stands = tables.marks.entry(mark.definition).or_insert(mark.up_to);
        *stands = mark.up_to.max(*stands);
        self.raised.note(&self.sim, &definition, Some(*stands));
        Ok(Some(*stands))
    }

    async fn marks(&self) -> Result<Marks, StoreError> {
        self.sim.work().await;
        Ok(self.tables.lock().marks())
    }

    async fn remove(&self, mark: Watermark, limit: u32) -> Result<Removed, StoreError> {
        self.sim.work().await;
        self.trouble()?;
        self.raised.judge(&self.sim, &mark, &self.name);
        let mut tables = self.tables.lock();
        let up_to = tables.marks.get(&mark.definition).map_or(0, |up_to| mark.up_to.min(*up_to));
        let covered = |(saga, ..): &&RowKey| saga.definition == mark.definition && saga.id <= up_to;
        let gone: Vec<RowKey> = tables.barrier.keys().filter(covered).cloned().collect();
        let bite: Vec<&RowKey> = gone.iter().take(limit as usize).collect();
        bite.iter().for_each(|key| _ = tables.barrier.remove(*key));
        self.sim.add("barrier rows removed", bite.len() as u64);
        Ok(Removed { count: bite.len() as u64, more: bite.len() < gone.len() })
    }
}

/// One of a participant's replicas.
pub struct Replica(pub Arc<SimParticipant>);

#[async_trait]
impl Participant for Replica {
    fn group(&self) -> &str {
        self.0.group()
    }

    fn topics(&self) -> Vec<Name> {
        self.0.topics()
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.0.handle(batch).await
    }

    fn watermarks(&self) -> Option<Arc<dyn Watermarks>> {
        Some(self.0.clone())
    }
}

#[async_trait]
impl Participant for SimParticipant {
    fn group(&self) -> &str {
        &self.name
    }

    fn topics(&self) -> Vec<Name> {
        self.topics.clone()
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let Some(gateway) = &self.gateway else { return self.transact(&batch, &BTreeMap::new()).await };
        let place: Vec<BarrierKey> = batch.iter().map(BarrierKey::of).collect();
        let (dos, undos): (Vec<Command>, Vec<Command>) = batch.into_iter().partition(|c| c.op == Op::Do);
        let mut replies = if dos.is_empty() { Vec::new() } else { self.charge(gateway, dos).await? };
        if !undos.is_empty() {
            replies.extend(self.void(gateway, undos).await?);
        }
        replies.sort_by_key(|r| place.iter().position(|k| k.saga == r.saga && k.step == r.step && k.op == r.op));
        Ok(replies)
    }
}
