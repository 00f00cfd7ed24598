//! What operators can do: look at sagas, steer them, deal with dead letters.

use std::sync::Arc;
use std::time::Duration;

use chassis::metrics::{Page, Source};
use saga_core::{Event, Input, Millis, Saga, SagaKey, Verb, replay};
use saga_runtime::audit::AuditLog;
use saga_runtime::dead_letters::DeadLetters;
use saga_runtime::store::{InFlight, SagaCount, SagaFilter, SagaRow, SagaStore};
use saga_runtime::{Bus, Clock, Definitions, GroupHandle, LoopContext, OperateError, Stats, StoreError};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::overview::Looks;

/// How often what has ended is counted, in ms: it reads an index from end to end.
pub const COUNT_EVERY: Millis = 5_000;

/// What the service keeps.
pub struct Stores {
    /// The sagas.
    pub sagas: Arc<dyn SagaStore>,
    /// Records that could not be handled.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Who did what.
    pub audit: Arc<dyn AuditLog>,
}

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Sagas {
    pub(crate) store: Arc<dyn SagaStore>,
    definitions: Arc<Definitions>,
    handle: GroupHandle,
    /// Records that could not be handled.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Where re-driven records go.
    pub bus: Arc<dyn Bus>,
    /// Who did what.
    pub audit: Arc<dyn AuditLog>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    stats: Arc<Stats>,
    /// One at a time sends letters again or removes them.
    pub moving_letters: Arc<Mutex<()>>,
    /// What had ended, and when it was counted. Whoever comes while it is counted waits for that.
    ended: Arc<Mutex<Option<Ended>>>,
    /// What the overview keeps between two looks.
    pub(crate) looks: Looks,
    /// What runs here.
    pub about: About,
    /// Since when, in ms since the epoch.
    pub since: Millis,
}

/// What runs here.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The program's version.
    pub version: &'static str,
    /// `embedded` or `stack`.
    pub profile: &'static str,
    /// Cancelled when the process begins to end: streams end then.
    pub closing: CancellationToken,
}

type Ended = (Millis, Arc<Vec<SagaCount>>);

/// How many sagas there are.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Those in flight, now.
    pub open: Vec<InFlight>,
    /// Those that have ended.
    pub ended: Arc<Vec<SagaCount>>,
    /// When those that have ended were counted, in ms since the epoch.
    pub as_of: Millis,
}

/// A saga with its whole history.
pub struct Detail {
    /// The history, one entry a transition.
    pub history: Vec<Vec<Event>>,
    /// Its fold; `None` when it does not replay: the saga is quarantined.
    pub saga: Option<Saga>,
}

impl Source for Sagas {
    fn collect(&self, page: &mut Page) {
        let help = "Event streams of the overview: while there are none, nobody asks the databases for it.";
        page.gauge_of("overview_streams", help, &[], self.looks.open());
    }
}

impl Sagas {
    /// Puts the use cases together.
    pub fn new(
        stores: Stores,
        definitions: Arc<Definitions>,
        handle: GroupHandle,
        context: &LoopContext,
        about: About,
    ) -> Self {
        let Stores { sagas: store, dead_letters, audit } = stores;
        let LoopContext { bus, clock, stats, .. } = context.clone();
        let (moving_letters, ended, looks, since) = (Arc::default(), Arc::default(), Looks::default(), clock.now());
        Self {
            store,
            definitions,
            handle,
            dead_letters,
            bus,
            audit,
            clock,
            stats,
            moving_letters,
            ended,
            looks,
            about,
            since,
        }
    }

    /// A page of sagas, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
        self.store.list(filter).await
    }

    /// How many sagas there are. What has ended is counted anew every [`COUNT_EVERY`] ms at most, however many ask.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let open = self.store.count_in_flight().await?;
        let mut known = self.ended.lock().await;
        let now = self.clock.now();
        if let Some((as_of, ended)) = known.as_ref().filter(|(as_of, _)| now.saturating_sub(*as_of) < COUNT_EVERY) {
            return Ok(Counts { open, ended: Arc::clone(ended), as_of: *as_of });
        }
        let ended = Arc::new(self.store.count_ended().await?);
        *known = Some((now, Arc::clone(&ended)));
        Ok(Counts { open, ended, as_of: now })
    }

    /// One saga; `None` when there is none of that name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn show(&self, key: &SagaKey) -> Result<Option<Detail>, StoreError> {
        let mut histories = self.store.histories(vec![key.clone()]).await?;
        let history = histories.pop().unwrap_or_default();
        if history.is_empty() {
            return Ok(None);
        }
        let saga = replay(key, history.iter().map(Vec::as_slice)).ok();
        Ok(Some(Detail { history, saga }))
    }

    /// Whether a saga that is not there is forgotten, and up to which id they are.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forgotten(&self, key: &SagaKey) -> Result<Option<u64>, StoreError> {
        let marks = self.store.marks().await?;
        Ok(marks.of(&key.definition).filter(|_| marks.covers(key)))
    }

    /// Applies a verb; answers the row after it.
    ///
    /// # Errors
    /// When the saga's state or version does not allow it.
    pub async fn operate(
        &self,
        key: SagaKey,
        verb: Verb,
        actor: String,
        reason: String,
        version: Option<u64>,
    ) -> Result<SagaRow, OperateError> {
        self.handle.operate(key, Input::Operator { verb, actor, reason, version }).await
    }

    /// What time it is, in ms since the epoch.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Waits, by the service's clock.
    pub async fn sleep(&self, wait: Duration) {
        self.clock.sleep(wait).await;
    }

    /// The definitions in force.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// What the loop saw since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
