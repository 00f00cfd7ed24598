//! A world: who is in it, how it begins, and when it is quiet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use saga_core::{Definition, Input, Name, SagaKey, Status, Verb};
use saga_runtime::bus::{BusError, Delivery, Subscription};
use saga_runtime::orchestrator::OrchestratorError;
use saga_runtime::participant::LoopContext;
use saga_runtime::retention::{Watermarks as _, remove_forgotten};
use saga_runtime::{
    Definitions, LoopOptions, OperateError, Orchestrator, OrchestratorHandle, OrchestratorOptions, Participant, Stats,
    run_participant,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bus::SimBus;
use super::clock::SimClock;
use super::customer::{self, Wish};
use super::definitions::{self, GATEWAY, PARTICIPANTS, participant_of};
use super::gateway::SimGateway;
use super::laws::Laws;
use super::participant::{Replica, SimParticipant, charge_key};
use super::process::Process;
use super::store::SimStore;
use super::weather::Weather;
use super::{Report, Sim};

/// Longer than any transaction takes in the worst weather.
const SWEEP: Duration = Duration::from_millis(SWEEP_MS);
pub(super) const SWEEP_MS: u64 = 20_000;

/// A running orchestrator.
pub struct Instance {
    pub(super) process: Process<Result<(), OrchestratorError>>,
    pub(super) handle: OrchestratorHandle,
    pub(super) stop: CancellationToken,
    stats: Arc<Stats>,
    /// Stopped with `SIGSTOP`.
    pub(super) asleep: bool,
}

/// A partition without records.
struct Silence;

#[async_trait]
impl Subscription for Silence {
    async fn next(&mut self, _: usize) -> Result<Vec<Delivery>, BusError> {
        std::future::pending().await
    }

    async fn commit(&mut self) -> Result<(), BusError> {
        Ok(())
    }
}

/// Everything that a seed brings forth.
pub struct World {
    /// Chance, time, record.
    pub sim: Arc<Sim>,
    /// The book.
    pub laws: Arc<Laws>,
    /// The orchestrator's disk.
    pub store: Arc<SimStore>,
    /// The bus.
    pub bus: SimBus,
    /// The orchestrators' clock.
    pub clock: Arc<SimClock>,
    /// One machine and one process for all, as in the embedded shop.
    pub embedded: bool,
    /// Starters promise, everybody forgets, and what was said comes again long after.
    pub forgetful: bool,
    gateway: Arc<SimGateway>,
    pub(super) participants: Vec<Arc<SimParticipant>>,
    definitions: Vec<Definition>,
    wishes: Vec<Wish>,
    options: OrchestratorOptions,
    /// How far apart the loops' units begin.
    pace: Duration,
    pub(super) tracker: TaskTracker,
    /// Orchestrators that may run or sleep; the last was started last.
    pub(super) orchestrators: Vec<Instance>,
    /// Drives a partition without records, and takes operators' verbs.
    pub(super) neighbour: Option<Instance>,
    /// One per participant.
    pub(super) workers: Vec<Option<Process<()>>>,
    /// Replaced, and not knowing it.
    pub(super) sleepers: Vec<Process<()>>,
    /// Of operators: each has a reason of its own.
    orders: AtomicU64,
}

impl World {
    /// The world of a seed.
    pub fn of_seed(seed: u64, traced: bool) -> Self {
        let sim = Arc::new(Sim::new(seed, traced));
        let mut all = vec![definitions::purchase()];
        all.extend(
            ["alpha", "beta"]
                .iter()
                .take(usize::try_from(sim.below(3)).unwrap_or_default())
                .map(|name| definitions::any(&sim, name)),
        );
        let wishes = (0..2 + sim.below(5))
            .map(|id| {
                let definition = sim.pick(&all);
                Wish::draw(&sim, SagaKey::new(definition.name.clone(), 100 + id), definition.start_topic.clone())
            })
            .collect();
        let initial = 2 + sim.below(20);
        let mut world = Self::new(sim, all, wishes, initial);
        world.embedded = world.sim.chance(400);
        world.options.cached = *world.sim.pick(&[1, 2, 1_000]);
        world.options.resend_after = *world.sim.pick(&[0, 1_000]);
        world.pace = Duration::from_millis(*world.sim.pick(&[0, 0, 5, 300]));
        world.options.recovery_rate = *world.sim.pick(&[1, 10, 10_000]);
        world
    }

    /// A world of these definitions and wishes, in calm weather.
    pub fn new(sim: Arc<Sim>, definitions: Vec<Definition>, wishes: Vec<Wish>, initial: u64) -> Self {
        let laws = Arc::new(Laws::new(sim.clone(), definitions.clone()));
        let mut groups: Vec<(String, Vec<Name>)> = PARTICIPANTS.iter().map(|p| ((*p).to_owned(), vec![])).collect();
        for step in definitions.iter().flat_map(|d| &d.steps) {
            for topic in [Some(&step.action), step.undo.as_ref()].into_iter().flatten() {
                groups[participant_of(topic)].1.push(topic.clone());
            }
        }
        let gateway = Arc::new(SimGateway::new(sim.clone()));
        let participants = groups
            .iter()
            .enumerate()
            .map(|(at, (name, topics))| {
                let gateway = (at == GATEWAY).then(|| gateway.clone());
                let (sim, laws) = (sim.clone(), laws.clone());
                Arc::new(SimParticipant::new(name, sim, laws, topics.clone(), gateway, initial))
            })
            .collect();
        let registered = Definitions::new(definitions.clone());
        groups.push(("orchestrator".to_owned(), registered.inbound_topics()));
        groups.push((customer::GROUP.to_owned(), definitions.iter().map(|d| d.result_topic.clone()).collect()));
        Self {
            store: Arc::new(SimStore::new(sim.clone(), laws.clone())),
            bus: SimBus::new(sim.clone(), laws.clone(), groups),
            clock: Arc::new(SimClock::new(sim.clone())),
            embedded: false,
            forgetful: false,
            gateway,
            participants,
            definitions,
            wishes,
            options: OrchestratorOptions::default(),
            pace: Duration::ZERO,
            tracker: TaskTracker::new(),
            orchestrators: Vec::new(),
            neighbour: None,
            orders: AtomicU64::new(0),
            workers: (0..PARTICIPANTS.len()).map(|_| None).collect(),
            sleepers: Vec::new(),
            sim,
            laws,
        }
    }

    fn context(&self, stop: &CancellationToken, stats: &Arc<Stats>) -> LoopContext {
        LoopContext {
            bus: Arc::new(self.bus.clone()),
            clock: self.clock.clone(),
            stop: stop.clone(),
            stats: stats.clone(),
            options: LoopOptions {
                batch: 8,
                poison_after: 3,
                backoff: Duration::from_millis(20),
                pace: self.pace,
                sweep: SWEEP,
            },
            tracer: saga_runtime::trace::Tracer::default(),
        }
    }

    /// Starts an orchestrator; whoever owned the partition does not any more.
    pub fn start_orchestrator(&mut self) {
        let (stop, stats) = (CancellationToken::new(), Arc::new(Stats::default()));
        let definitions = Arc::new(Definitions::new(self.definitions.clone()));
        let context = self.context(&stop, &stats);
        let (orchestrator, handle) = Orchestrator::new(context, self.store.clone(), definitions, self.options);
        let (context, store) = (self.context(&stop, &stats), self.store.clone());
        let process = Process::start(&self.tracker, async move {
            let mut removing = std::pin::pin!(remove_forgotten(&context, store));
            let mut running = std::pin::pin!(orchestrator.run());
            let mut removes = true;
            loop {
                tokio::select! {
                    biased;
                    ended = &mut running => break ended,
                    () = &mut removing, if removes => removes = false,
                }
            }
        });
        self.sim.note(|| "an orchestrator starts".to_owned());
        self.orchestrators.push(Instance { process, handle, stop, stats, asleep: false });
    }

    /// Starts an orchestrator that drives another partition, of which no record ever comes: it hears of sagas from operators.
    pub fn start_neighbour(&mut self) {
        let (stop, stats) = (CancellationToken::new(), Arc::new(Stats::default()));
        let definitions = Arc::new(Definitions::new(self.definitions.clone()));
        let options = OrchestratorOptions { partition: 1, ..self.options };
        let context = self.context(&stop, &stats);
        let (orchestrator, handle) = Orchestrator::new(context, self.store.clone(), definitions, options);
        let process = Process::start(&self.tracker, async move { orchestrator.drive(&mut Silence).await });
        self.sim.note(|| "a neighbour starts".to_owned());
        self.neighbour = Some(Instance { process, handle, stop, stats, asleep: false });
    }

    /// Starts a participant.
    pub fn start_participant(&mut self, at: usize) {
        let (stop, stats) = (CancellationToken::new(), Arc::new(Stats::default()));
        let participant: Arc<dyn Participant> = Arc::new(Replica(self.participants[at].clone()));
        let work = run_participant(self.context(&stop, &stats), participant);
        self.sim.note(|| format!("{} starts", PARTICIPANTS[at]));
        self.workers[at] = Some(Process::start(&self.tracker, work));
    }

    /// Starts whatever is not running.
    pub async fn start_all(&mut self) {
        self.reap().await;
        if self.orchestrators.iter().all(|i| i.asleep) {
            self.start_orchestrator();
        }
        for at in 0..self.workers.len() {
            if self.workers[at].is_none() {
                self.start_participant(at);
            }
        }
    }

    /// Looks at the orchestrators that ended by themselves: only a newer owner is a lawful reason.
    pub async fn reap(&mut self) {
        let (ended, alive): (Vec<_>, Vec<_>) = self.orchestrators.drain(..).partition(|i| i.process.ended());
        self.orchestrators = alive;
        for instance in ended {
            let Instance { process, stop, stats, .. } = instance;
            self.tally(&stats);
            match process.join().await {
                Some(Err(OrchestratorError::Fenced(owner))) => {
                    self.sim.note(|| format!("the orchestrator of {owner} ends: fenced"));
                }
                Some(Ok(())) if stop.is_cancelled() => {}
                other => self.sim.broken(format!("an orchestrator ended by itself: {other:?}")),
            }
        }
    }

    /// Kills an orchestrator.
    pub(super) async fn kill(&self, instance: Instance) {
        self.tally(&instance.stats);
        instance.process.kill().await;
    }

    fn tally(&self, stats: &Stats) {
        for (name, count) in stats.all() {
            self.sim.add(name, count);
        }
        if stats.quarantined.get() > 0 {
            self.sim.broken("a saga was quarantined");
        }
    }

    /// The customers begin to ask.
    pub fn open(&self) {
        for wish in &self.wishes {
            let (sim, bus) = (self.sim.clone(), self.bus.clone());
            self.tracker.spawn(customer::ask(sim.clone(), bus.clone(), self.laws.clone(), wish.clone()));
            self.tracker.spawn(customer::regret(sim, bus, wish.clone()));
        }
        if self.forgetful {
            let (sim, bus, laws) = (self.sim.clone(), self.bus.clone(), self.laws.clone());
            for definition in &self.definitions {
                let mut keys: Vec<SagaKey> = self.wishes.iter().map(|wish| wish.key.clone()).collect();
                keys.retain(|key| key.definition == definition.name);
                let topic = definition.start_topic.clone();
                self.tracker.spawn(customer::promise(sim.clone(), bus.clone(), laws.clone(), topic, keys));
            }
            self.tracker.spawn(customer::echo(sim, bus, laws));
        }
        let topics = self.definitions.iter().map(|d| d.result_topic.clone()).collect();
        self.tracker.spawn(customer::watch(self.bus.clone(), self.laws.clone(), self.sim.clone(), topics));
    }

    /// From the beginning to the end.
    pub async fn live(mut self) -> Report {
        *self.sim.weather.lock() = if self.sim.chance(850) { Weather::draw(&self.sim) } else { Weather::CALM };
        self.sim.note(|| format!("embedded: {}, {:?}, {:#?}", self.embedded, self.sim.weather(), self.wishes));
        self.start_all().await;
        if self.sim.chance(500) {
            self.start_neighbour();
        }
        self.open();
        for _ in 0..2 + self.sim.below(16) {
            let wait = self.sim.below(4_000);
            if self.sim.chance(300) {
                self.sim.sleep(wait).await;
            } else {
                self.sim.tripped(1 + self.sim.below(60), wait).await;
            }
            if self.sim.failed() {
                return self.sim.report();
            }
            self.disaster().await;
        }
        self.calm().await;
        self.end().await
    }

    /// Waits until it is quiet, and judges.
    pub async fn end(mut self) -> Report {
        let mut quiet = 0;
        // Half a minute of silence: the latest record has arrived. Four hours: nothing lawful takes as long.
        for second in 0..14_400 {
            if quiet == 30 || self.sim.failed() {
                break;
            }
            self.sim.sleep(1_000).await;
            self.reap().await;
            self.start_all().await;
            self.bus.redrive();
            // Of what is forgetful, longer: it is removed, and what was said before comes again after that.
            let patience = if self.forgetful { self.sim.elapsed() < self.laws.end_of_echoes() } else { false };
            quiet = if patience {
                0
            } else if self.is_quiet() {
                quiet + 1
            } else {
                0
            };
            if second == 400 && self.sim.chance(500) {
                self.retry_what_is_stuck();
            }
        }
        self.reap().await;
        for instance in std::mem::take(&mut self.orchestrators).into_iter().chain(self.neighbour.take()) {
            self.kill(instance).await;
        }
        self.judge_marks().await;
        if !self.sim.failed() {
            self.judge();
        }
        self.sim.add("virtual seconds", self.sim.elapsed() / 1_000);
        self.sim.report()
    }

    fn is_quiet(&self) -> bool {
        self.wishes.iter().all(|wish| match self.laws.status(&wish.key) {
            Some(status) if status.is_terminal() => self.laws.shown_to_the_end(&wish.key),
            Some(status) => status.is_stuck() && self.sim.elapsed() > 450_000,
            None => false,
        })
    }

    /// An operator looks at what needs a human.
    pub(super) fn retry_what_is_stuck(&self) {
        for key in self.store.keys() {
            if self.laws.status(&key).is_some_and(Status::is_stuck) {
                self.operate(key, Verb::Retry);
            }
        }
    }

    /// An operator's verb, to whoever was started last, or to who drives another partition.
    pub(super) fn operate(&self, key: SagaKey, verb: Verb) {
        if self.neighbour.is_some() && self.sim.chance(500) {
            return self.operate_elsewhere(key, verb);
        }
        if let Some(instance) = self.orchestrators.iter().rfind(|i| !i.asleep) {
            self.order(instance, key, verb);
        }
    }

    /// How late timers were that the orchestrators of now woke up for, all together, in µs.
    pub fn lateness(&self) -> u64 {
        self.orchestrators.iter().map(|instance| instance.stats.timer_lag.snapshot().sum).sum()
    }

    /// An operator's verb, to who drives another partition than the saga's.
    pub fn operate_elsewhere(&self, key: SagaKey, verb: Verb) {
        if let Some(neighbour) = &self.neighbour {
            self.sim.count("verbs elsewhere");
            self.order(neighbour, key, verb);
        }
    }

    /// Every other one with the version that was looked at. Who is told for certain that nothing came of it must not find it in
    /// the history: their line of the audit log is taken back.
    fn order(&self, instance: &Instance, key: SagaKey, verb: Verb) {
        let (handle, laws, sim) = (instance.handle.clone(), self.laws.clone(), self.sim.clone());
        let (store, order) = (self.store.clone(), self.orders.fetch_add(1, Ordering::Relaxed));
        let version = store.saga(&key).filter(|_| order % 2 == 0).map(|(row, _)| row.version);
        let reason = format!("order {order}.");
        self.tracker.spawn(async move {
            let input = Input::Operator { verb, actor: "operator".into(), reason: reason.clone(), version };
            let answer = handle.operate(key.clone(), input).await;
            sim.note(|| format!("an operator is told {answer:?}"));
            let done = store.saga(&key).is_some_and(|(_, history)| format!("{history:?}").contains(&reason));
            match &answer {
                Err(error @ (OperateError::Rejected(_) | OperateError::Contended)) if done => {
                    sim.broken(format!("an operator is told for certain that {error}, and it was done"));
                }
                Err(OperateError::Unsure(_)) if done => sim.count("operators who were not sure, and it was done"),
                _ => {}
            }
            if let Ok(row) = answer {
                sim.count("operator's verbs");
                laws.promised(&row);
            }
        });
    }

    async fn judge_marks(&self) {
        *self.sim.weather.lock() = Weather::CALM;
        let ours = self.store.marks().await.unwrap_or_default();
        for participant in &self.participants {
            let theirs = participant.marks().await.unwrap_or_default();
            for mark in theirs.all().iter().filter(|mark| ours.of(&mark.definition) < Some(mark.up_to)) {
                self.sim.broken(format!("{} forgets {mark:?}, the orchestrator {ours:?}", participant.group()));
            }
        }
    }

    fn judge(&self) {
        let asked: Vec<SagaKey> = self.wishes.iter().map(|wish| wish.key.clone()).collect();
        self.laws.ended(&asked);
        let there: Vec<_> = self.participants.iter().flat_map(|p| p.effects()).collect();
        if there.iter().cloned().collect::<std::collections::BTreeSet<_>>() != self.laws.effects() {
            self.sim.broken(format!("the participants hold {there:?}, the book says {:?}", self.laws.effects()));
        }
        for key in &asked {
            let Some(definition) = self.laws.definition(key) else { continue };
            for step in definition.steps.iter().filter(|s| participant_of(&s.action) == GATEWAY) {
                let holds = self.gateway.holds(&charge_key(key, &step.name));
                let should = match self.laws.status(key) {
                    Some(Status::Completed) => true,
                    Some(Status::Compensated) => false,
                    _ => continue,
                };
                if holds != should {
                    self.sim.broken(format!("{key} is {:?}; money held: {holds}", self.laws.status(key)));
                }
            }
        }
    }
}
