//! The orchestrator's store: a log in memory, of which a power loss takes what no sync has reached.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use saga_core::{Event, Millis, Name, SagaKey, Status};
use saga_runtime::StoreError;
use saga_runtime::retention::{Marks, Removed, Watermark, Watermarks};
use saga_runtime::store::{
    Awaited, CommitError, InFlight, Owner, SagaCount, SagaFilter, SagaRow, SagaStore, Transition, Written,
};

use super::Sim;
use super::laws::Laws;
use super::world::SWEEP_MS;

/// A saga as stored.
pub type Stored = (SagaRow, Vec<Vec<Event>>);

#[derive(Debug, Default)]
struct Disk {
    /// Everything that was written, in order.
    log: Vec<Transition>,
    /// How much of it no power loss can take.
    durable: usize,
    /// The fold of the log.
    sagas: BTreeMap<SagaKey, Stored>,
    epochs: BTreeMap<u32, u64>,
    /// Durable at once; removals are not, so what is removed may be back after a power loss.
    marks: BTreeMap<Name, u64>,
    /// Counts the power losses.
    boots: u64,
}

impl Disk {
    fn apply(&mut self, transition: Transition) -> Written {
        let key = transition.row.key.clone();
        let version = self.sagas.get(&key).map_or(0, |(row, _)| row.version);
        if transition.row.version != version + 1 {
            return Written::Conflict;
        }
        let (row, events) = (transition.row.clone(), transition.events.clone());
        self.log.push(transition);
        let stored = self.sagas.entry(key).or_insert_with(|| (row.clone(), Vec::new()));
        stored.0 = row;
        stored.1.push(events);
        Written::Yes
    }

    fn fence(&self, owner: Owner) -> Result<(), CommitError> {
        let current = self.epochs.get(&owner.partition).copied().unwrap_or_default();
        if current == owner.epoch { Ok(()) } else { Err(CommitError::Fenced(owner)) }
    }
}

/// A store that one machine has; whoever writes to it dies with it.
#[derive(Debug)]
pub struct SimStore {
    sim: Arc<Sim>,
    laws: Arc<Laws>,
    disk: Mutex<Disk>,
    raised: Raised,
}

/// When watermarks rose, for the law that nothing is removed within a sweep of that.
#[derive(Debug, Default)]
pub(super) struct Raised(Mutex<Vec<(Watermark, u64)>>);

impl Raised {
    pub(super) fn note(&self, sim: &Sim, definition: &Name, stands: Option<u64>) {
        let mut all = self.0.lock();
        let Some(up_to) = stands else { return };
        let mark = Watermark { definition: definition.clone(), up_to };
        if !all.iter().any(|(known, _)| *known == mark) {
            all.push((mark, sim.elapsed()));
        }
    }

    /// Somebody removes up to this.
    pub(super) fn judge(&self, sim: &Sim, removes: &Watermark, who: &str) {
        let all = self.0.lock();
        let covers = |mark: &Watermark| mark.definition == removes.definition && mark.up_to >= removes.up_to;
        let since = all.iter().filter(|(mark, _)| covers(mark)).map(|(_, at)| *at).min();
        if since.is_none_or(|at| sim.elapsed() < at + SWEEP_MS) {
            sim.broken(format!("{who}: {removes:?} is removed, and the watermark is from {since:?}"));
        }
    }
}

impl SimStore {
    /// An empty one.
    pub fn new(sim: Arc<Sim>, laws: Arc<Laws>) -> Self {
        Self { sim, laws, disk: Mutex::new(Disk::default()), raised: Raised::default() }
    }

    /// The power goes: a suffix of what was not synced is gone. Every process on this machine must be dead.
    pub fn power_loss(&self) {
        let mut disk = self.disk.lock();
        let unsynced = disk.log.len() - disk.durable;
        let lost = usize::try_from(self.sim.below(unsynced as u64 + 1)).unwrap_or_default();
        let kept = disk.log.len() - lost;
        let log: Vec<Transition> = disk.log.drain(..kept).collect();
        let (epochs, marks) = (std::mem::take(&mut disk.epochs), std::mem::take(&mut disk.marks));
        *disk = Disk { epochs, marks, boots: disk.boots + 1, ..Disk::default() };
        for transition in log {
            disk.apply(transition);
        }
        disk.durable = disk.log.len();
        self.sim.add("transitions lost", lost as u64);
        self.sim.note(|| format!("store: power lost with {lost} of {unsynced} unsynced transitions"));
        self.laws.rewound(&disk.sagas);
    }

    /// What is stored of a saga.
    pub fn saga(&self, key: &SagaKey) -> Option<Stored> {
        self.disk.lock().sagas.get(key).cloned()
    }

    /// All keys.
    pub fn keys(&self) -> Vec<SagaKey> {
        self.disk.lock().sagas.keys().cloned().collect()
    }

    fn trouble(&self) -> Result<(), StoreError> {
        let weather = self.sim.weather();
        if self.sim.chance(weather.transient) {
            self.sim.count("store was busy");
            return Err(StoreError::Transient("the weather".into()));
        }
        Ok(())
    }

    fn room(&self) -> Result<(), StoreError> {
        if self.sim.weather().full {
            self.sim.count("disk was full");
            return Err(StoreError::Full("the weather".into()));
        }
        Ok(())
    }

    /// After a write everything durable may be acted on: the laws are told.
    fn synced(&self, disk: &mut Disk, up_to: usize) {
        while disk.durable < up_to {
            let row = &disk.log[disk.durable].row;
            self.laws.durable(&row.key, row.version);
            disk.durable += 1;
        }
    }
}

#[async_trait]
impl Watermarks for SimStore {
    async fn raise(&self, mark: Watermark) -> Result<Option<u64>, StoreError> {
        self.sim.work().await;
        self.trouble()?;
        let mut disk = self.disk.lock();
        let open = disk.sagas.values().map(|(row, _)| row).filter(|row| !row.status.is_terminal());
        let lowest = open.filter(|row| row.key.definition == mark.definition).map(|row| row.key.id).min();
        let wanted = lowest.map_or(Some(mark.up_to), |lowest| lowest.checked_sub(1).map(|below| below.min(mark.up_to)));
        if let Some(wanted) = wanted {
            let stands = disk.marks.entry(mark.definition.clone()).or_insert(wanted);
            *stands = wanted.max(*stands);
        }
        let stands = disk.marks.get(&mark.definition).copied();
        self.raised.note(&self.sim, &mark.definition, stands);
        self.sim.note(|| format!("store: {mark:?} wanted, {stands:?} stands"));
        Ok(stands)
    }

    async fn marks(&self) -> Result<Marks, StoreError> {
        self.sim.work().await;
        let mark = |(definition, up_to): (&Name, &u64)| Watermark { definition: definition.clone(), up_to: *up_to };
        Ok(self.disk.lock().marks.iter().map(mark).collect())
    }

    async fn remove(&self, mark: Watermark, limit: u32) -> Result<Removed, StoreError> {
        self.sim.work().await;
        self.trouble()?;
        self.raised.judge(&self.sim, &mark, "store");
        let mut disk = self.disk.lock();
        let up_to = disk.marks.get(&mark.definition).map_or(0, |up_to| mark.up_to.min(*up_to));
        let gone = |(key, (row, _)): &(&SagaKey, &Stored)| {
            key.definition == mark.definition && key.id <= up_to && row.status.is_terminal()
        };
        let gone: Vec<SagaKey> = disk.sagas.iter().filter(gone).map(|(key, _)| key.clone()).collect();
        let bite: Vec<&SagaKey> = gone.iter().take(limit as usize).collect();
        for key in &bite {
            disk.sagas.remove(*key);
            self.sim.note(|| format!("store: {key} removed"));
        }
        self.sim.add("sagas removed", bite.len() as u64);
        Ok(Removed { count: bite.len() as u64, more: bite.len() < gone.len() })
    }
}

#[async_trait]
impl SagaStore for SimStore {
    async fn claim(&self, partition: u32) -> Result<Owner, StoreError> {
        self.sim.work().await;
        self.room()?;
        self.trouble()?;
        let epoch = {
            let mut disk = self.disk.lock();
            let epoch = disk.epochs.entry(partition).or_default();
            *epoch += 1;
            let epoch = *epoch;
            let all = disk.log.len();
            self.synced(&mut disk, all);
            epoch
        };
        self.sim.note(|| format!("store: partition {partition} claimed, epoch {epoch}"));
        self.sim.work().await;
        self.trouble()?;
        Ok(Owner { partition, epoch })
    }

    async fn commit(&self, owner: Owner, batch: Vec<Transition>) -> Result<Vec<Written>, CommitError> {
        self.sim.work().await;
        self.room()?;
        self.trouble()?;
        let written = {
            let mut disk = self.disk.lock();
            if let Err(fenced) = disk.fence(owner) {
                self.sim.count("fenced commits");
                self.sim.note(|| format!("store: {owner} is fenced"));
                return Err(fenced);
            }
            let mut written = Vec::with_capacity(batch.len());
            let mut lost = HashSet::new();
            for transition in batch {
                let (key, version) = (transition.row.key.clone(), transition.row.version);
                self.sim.note(|| format!("store: {key} v{version} {:?}", transition.events));
                let forgotten = disk.marks.get(&key.definition).is_some_and(|up_to| key.id <= *up_to);
                if forgotten && version == 1 && !disk.sagas.contains_key(&key) {
                    self.sim.count("starts of what was removed");
                    written.push(Written::Conflict);
                    continue;
                }
                let goes_on = !transition.row.status.is_terminal();
                written.push(if lost.contains(&key) { Written::Conflict } else { disk.apply(transition) });
                if written.last() == Some(&Written::Conflict) {
                    lost.insert(key.clone());
                }
                if forgotten && goes_on && written.last() == Some(&Written::Yes) {
                    self.sim.broken(format!("{key} goes on, and it is forgotten"));
                }
                match (written.last(), disk.sagas.get(&key)) {
                    (Some(Written::Yes), Some(stored)) => self.laws.committed(stored),
                    _ => self.sim.note(|| format!("store: {key} v{version} conflicts")),
                }
            }
            let all = disk.log.len();
            self.synced(&mut disk, all);
            written
        };
        self.sim.work().await;
        self.trouble()?;
        Ok(written)
    }

    async fn histories(&self, keys: Vec<SagaKey>) -> Result<Vec<Vec<Vec<Event>>>, StoreError> {
        self.sim.work().await;
        self.trouble()?;
        let disk = self.disk.lock();
        Ok(keys.iter().map(|key| disk.sagas.get(key).map(|(_, history)| history.clone()).unwrap_or_default()).collect())
    }

    async fn in_flight(&self, partition: u32, after: Option<SagaKey>, limit: u32) -> Result<Vec<SagaRow>, StoreError> {
        self.sim.work().await;
        self.trouble()?;
        let disk = self.disk.lock();
        let rows = disk.sagas.values().map(|(row, _)| row);
        let wanted = rows.filter(|row| partition == 0 && !row.status.is_terminal() && after.as_ref() < Some(&row.key));
        Ok(wanted.take(limit as usize).cloned().collect())
    }

    async fn list(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
        let disk = self.disk.lock();
        let rows = disk.sagas.values().map(|(row, _)| row);
        let place = |row: &SagaRow| (row.started_at, row.key.id, row.key.definition.clone());
        let before = filter.before.as_ref().map(|(at, key)| (*at, key.id, key.definition.clone()));
        let below = |row: &SagaRow| before.as_ref().is_none_or(|before| place(row) < *before);
        let mut rows: Vec<SagaRow> = rows.filter(|row| filter.admits(row) && below(row)).cloned().collect();
        rows.sort_by_key(place);
        rows.reverse();
        rows.truncate(filter.limit as usize);
        Ok(rows)
    }

    async fn count_in_flight(&self) -> Result<Vec<InFlight>, StoreError> {
        let disk = self.disk.lock();
        let open = || disk.sagas.values().map(|(row, _)| row).filter(|row| !row.status.is_terminal());
        let in_flight = |SagaCount { definition, status, count }| {
            let same = |row: &&SagaRow| row.key.definition == definition && row.status == status;
            let oldest_at = open().filter(same).map(|row| row.started_at).min().unwrap_or_default();
            InFlight { definition, status, count, oldest_at }
        };
        Ok(count(open()).into_iter().map(in_flight).collect())
    }

    async fn count_awaited(&self) -> Result<Vec<Awaited>, StoreError> {
        let disk = self.disk.lock();
        let mut all: BTreeMap<(Name, String), (u64, Millis)> = BTreeMap::new();
        for (row, _) in disk
            .sagas
            .values()
            .filter(|(row, _)| !row.status.is_terminal() && !row.status.is_stuck() && !row.awaiting.is_empty())
        {
            let of = all.entry((row.key.definition.clone(), row.awaiting.clone())).or_insert((0, Millis::MAX));
            *of = (of.0 + 1, of.1.min(row.updated_at));
        }
        let awaited = |((definition, awaiting), (count, oldest_at))| Awaited { definition, awaiting, count, oldest_at };
        Ok(all.into_iter().map(awaited).collect())
    }

    async fn count_started(&self, from: Millis) -> Result<Vec<SagaCount>, StoreError> {
        let disk = self.disk.lock();
        Ok(count(disk.sagas.values().map(|(row, _)| row).filter(|row| row.started_at >= from)))
    }

    async fn count_ended(&self) -> Result<Vec<SagaCount>, StoreError> {
        let disk = self.disk.lock();
        Ok(count(disk.sagas.values().map(|(row, _)| row).filter(|row| row.status.is_terminal())))
    }
}

fn count<'r>(rows: impl Iterator<Item = &'r SagaRow>) -> Vec<SagaCount> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry((row.key.definition.clone(), row.status.as_str())).or_default() += 1;
    }
    let count =
        |((definition, status), count)| Status::from_text(status).map(|status| SagaCount { definition, status, count });
    counts.into_iter().filter_map(count).collect()
}
