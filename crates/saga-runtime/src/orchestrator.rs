//! The orchestrator loop: starts, replies, timers and operators in, decisions out.
//!
//! ```text
//!   batch ─► load (cache, else history) ─► decide each, in order ─► one commit ─► publish ─► offsets
//! ```
//!
//! **State rows are the outbox**: whatever is outstanding follows from a saga's history, so a crash anywhere in that
//! line loses nothing. Nothing goes out before its commit is on disk: what a participant or a customer has heard of is
//! never forgotten, so no other course can be taken. One loop drives one partition; its epoch fences every loop that
//! drove it before.

mod counted;
mod forget;
mod group;
mod overdue;
mod recovery;
mod repeat;
mod timers;
mod told;
mod traced;
mod unit;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use futures_util::FutureExt as _;
use saga_core::{Definition, Input, Millis, Name, Rejection, Saga, SagaKey};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::bus::{BusError, Subscription};
use crate::crash;
use crate::delivery::{pause, subscribe};
use crate::pace::Pace;
use crate::participant::LoopContext;
use crate::store::{Owner, SagaRow, SagaStore, StoreError};
use overdue::Patrol;
use timers::Timers;

pub use group::{GroupHandle, OrchestratorGroup};
pub use told::{Direction, ToldMessage, told_messages};

/// Every definition that sagas may be pinned to, by name and version.
#[derive(Clone, Debug, Default)]
pub struct Definitions(HashMap<Name, Vec<Arc<Definition>>>);

impl Definitions {
    /// Registers definitions; old versions stay until their last saga has ended.
    pub fn new(all: impl IntoIterator<Item = Definition>) -> Self {
        let mut map: HashMap<Name, Vec<Arc<Definition>>> = HashMap::new();
        for definition in all {
            let versions = map.entry(definition.name.clone()).or_default();
            versions.retain(|v| v.version != definition.version);
            versions.push(Arc::new(definition));
            versions.sort_by_key(|v| v.version);
        }
        Self(map)
    }

    /// The version that new sagas get.
    pub fn newest(&self, name: &Name) -> Option<&Arc<Definition>> {
        self.0.get(name)?.last()
    }

    /// A pinned version.
    pub fn version(&self, name: &Name, version: u32) -> Option<&Arc<Definition>> {
        self.0.get(name)?.iter().find(|d| d.version == version)
    }

    /// All, by name and version.
    pub fn all(&self) -> Vec<Arc<Definition>> {
        let mut all: Vec<_> = self.0.values().flatten().cloned().collect();
        all.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        all
    }

    /// The topics that commands of a definition's sagas go to, whichever version they have.
    pub fn command_topics(&self, name: &Name) -> Vec<Name> {
        let steps = self.0.get(name).into_iter().flatten().flat_map(|definition| &definition.steps);
        let mut topics: Vec<Name> =
            steps.flat_map(|step| [Some(&step.action), step.undo.as_ref()]).flatten().cloned().collect();
        topics.sort();
        topics.dedup();
        topics
    }

    /// The topics that the orchestrator listens on: starts and replies.
    pub fn inbound_topics(&self) -> Vec<Name> {
        let mut topics: Vec<Name> =
            self.all().iter().flat_map(|d| [d.start_topic.clone(), d.reply_topic.clone()]).collect();
        topics.sort();
        topics.dedup();
        topics
    }
}

/// The consumer group.
const GROUP: &str = "orchestrator";

/// How the orchestrator behaves beyond [`crate::delivery::LoopOptions`].
#[derive(Clone, Copy, Debug)]
pub struct OrchestratorOptions {
    /// Which share of the sagas; 0 in process.
    pub partition: u32,
    /// Sagas in flight that are kept in memory; the others are read when they are needed.
    pub cached: usize,
    /// How many taken-over sagas a second are sent again: their participants must keep up.
    pub recovery_rate: u32,
    /// A duplicate makes an outstanding command go out again only if it has been out this long, in ms.
    pub resend_after: Millis,
}

impl Default for OrchestratorOptions {
    fn default() -> Self {
        Self { partition: 0, cached: 10_000, recovery_rate: 10_000, resend_after: 1_000 }
    }
}

/// Why an operator's verb had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OperateError {
    /// The saga's state does not allow it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// One of the others; and perhaps only because it was done, in a commit whose answer was lost.
    #[error("{0}; perhaps by this order: a commit's answer was lost")]
    Unsure(#[source] Box<Self>),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others kept writing the saga in between.
    #[error("others kept changing the saga meanwhile; look at it and try again")]
    Contended,
    /// The loop is not running.
    #[error("the orchestrator is not running")]
    Stopped,
}

struct Request {
    key: SagaKey,
    input: Input,
    answer: oneshot::Sender<Result<SagaRow, OperateError>>,
}

/// Hands verbs to a running orchestrator.
#[derive(Clone, Debug)]
pub struct OrchestratorHandle(mpsc::Sender<Request>);

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("key", &self.key).field("input", &self.input).finish_non_exhaustive()
    }
}

impl OrchestratorHandle {
    /// Applies an operator's verb; answers the saga's row after it, which is durable.
    ///
    /// # Errors
    /// [`OperateError`]: nothing was changed, if it is [`Rejected`](OperateError::Rejected) or
    /// [`Contended`](OperateError::Contended); else that is not certain.
    pub async fn operate(&self, key: SagaKey, input: Input) -> Result<SagaRow, OperateError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Request { key, input, answer }).await.map_err(|_| OperateError::Stopped)?;
        answered.await.map_err(|_| OperateError::Stopped)?
    }
}

/// Why the loop ended by itself.
#[derive(Debug, Error)]
pub enum OrchestratorError {
    /// Another owner has taken over.
    #[error("{0} was taken over by a newer owner")]
    Fenced(Owner),
    /// Sagas are in flight whose definition is not registered.
    #[error("sagas of {name} version {version} are in flight, but there is no such definition: add its file again")]
    MissingDefinition {
        /// Of which definition.
        name: Name,
        /// Which version.
        version: u32,
    },
    /// See [`StoreError`].
    #[error("the orchestrator's store failed: {0}")]
    Store(#[from] StoreError),
}

/// The loop's state: everything in it can be lost at any moment.
pub struct Orchestrator {
    context: LoopContext,
    store: Arc<dyn SagaStore>,
    definitions: Arc<Definitions>,
    options: OrchestratorOptions,
    requests: mpsc::Receiver<Request>,
    owner: Owner,
    cache: Cache,
    timers: Timers,
    /// Taken over and not yet sent again.
    recovering: HashSet<SagaKey>,
    /// Of these it was said that their histories cannot go on.
    quarantined: HashSet<SagaKey>,
    patrol: Patrol,
}

impl Orchestrator {
    /// An orchestrator and the handle for its operators. It owns nothing until [`run`](Self::run).
    pub fn new(
        context: LoopContext,
        store: Arc<dyn SagaStore>,
        definitions: Arc<Definitions>,
        options: OrchestratorOptions,
    ) -> (Self, OrchestratorHandle) {
        // Operators are few; the bound only keeps a stopped loop from collecting verbs.
        let (sender, requests) = mpsc::channel(64);
        let orchestrator = Self {
            context,
            store,
            definitions,
            options,
            requests,
            owner: Owner { partition: options.partition, epoch: 0 },
            cache: Cache::new(options.cached),
            timers: Timers::default(),
            recovering: HashSet::new(),
            quarantined: HashSet::new(),
            patrol: Patrol::default(),
        };
        (orchestrator, OrchestratorHandle(sender))
    }

    /// Drives the partition's sagas until stopped. A unit of work in progress is finished first.
    ///
    /// # Errors
    /// When another owner takes over, or the store reports a fault that touches every saga.
    pub async fn run(self) -> Result<(), OrchestratorError> {
        let LoopContext { bus, clock, stop, options, .. } = self.context.clone();
        let topics = self.definitions.inbound_topics();
        match subscribe(&*bus, &*clock, GROUP, &topics, &stop, options).await {
            Some(mut subscription) => self.drive(&mut *subscription).await,
            None => Ok(()),
        }
    }

    /// The same, reading from a subscription that has this partition's records.
    ///
    /// # Errors
    /// See [`run`](Self::run).
    pub async fn drive(mut self, subscription: &mut dyn Subscription) -> Result<(), OrchestratorError> {
        let LoopContext { clock, stop, options, .. } = self.context.clone();
        if !self.take_over().await? {
            return Ok(());
        }
        let mut failures = 0;
        let mut pace = Pace::hub(options.pace, options.batch);
        loop {
            if !pace.turn(&*clock, &stop).await {
                return Ok(());
            }
            self.look_for_overdue().await;
            let wake = self.timers.next();
            let until = wake.map_or(self.patrol.next(), |wake| wake.min(self.patrol.next()));
            let (mut deliveries, mut requests) = (Vec::new(), Vec::new());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(request) = self.requests.recv() => {
                    requests.push(request);
                    while requests.len() < options.batch && let Ok(more) = self.requests.try_recv() {
                        requests.push(more);
                    }
                    // However many verbs come, what the participants say is heard. An error comes again.
                    if let Some(Ok(arrived)) = subscription.next(options.batch).now_or_never() {
                        deliveries = arrived;
                    }
                }
                arrived = subscription.next(options.batch) => match arrived {
                    Ok(arrived) => deliveries = arrived,
                    Err(BusError::Closed) => return Ok(()),
                    Err(error) => {
                        tracing::warn!(%error, "receiving failed; trying again");
                        if !pause(&*clock, &stop, options, &mut failures).await {
                            return Ok(());
                        }
                        continue;
                    }
                },
                () = clock.sleep_until(until) => {}
            }
            failures = 0;
            let now = clock.now();
            if let Some(late) = wake.and_then(|wake| now.checked_sub(wake)) {
                self.context.stats.timer_lag.observe_millis(late);
            }
            let due = self.timers.due(now, options.batch);
            pace.begin(&*clock, deliveries.len() + requests.len() + due.len());
            if !due.is_empty() {
                crash::point(GROUP, "timer");
            }
            let received = !deliveries.is_empty();
            if received {
                crash::point(GROUP, "fetched");
            }
            if !self.unit(deliveries, requests, due).await? {
                return Ok(());
            }
            self.cache.trim();
            crash::point(GROUP, "published");
            if received && let Err(error) = subscription.commit().await {
                tracing::warn!(%error, "committing the offsets failed; the batch will be delivered again");
            }
        }
    }
}

/// In-flight sagas in memory, oldest out first. A stale entry does no harm: what is decided on it meets the version fence,
/// and what it refuses is read again (but a timer, which [`overdue`] sets again).
struct Cache {
    sagas: HashMap<SagaKey, Saga>,
    order: VecDeque<SagaKey>,
    limit: usize,
}

impl Cache {
    fn new(limit: usize) -> Self {
        Self { sagas: HashMap::new(), order: VecDeque::new(), limit }
    }

    fn get(&self, key: &SagaKey) -> Option<&Saga> {
        self.sagas.get(key)
    }

    fn put(&mut self, saga: Saga) {
        let key = saga.key.clone();
        if self.sagas.insert(key.clone(), saga).is_none() {
            self.order.push_back(key);
        }
    }

    /// Forgets the oldest entries over the limit. Between units only: what a unit has loaded it needs to the end.
    fn trim(&mut self) {
        // The order also holds keys that were removed; it is never longer than twice the limit.
        while self.sagas.len() > self.limit || self.order.len() > 2 * self.limit.max(8) {
            let Some(oldest) = self.order.pop_front() else { break };
            self.sagas.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &SagaKey) {
        self.sagas.remove(key);
    }
}
