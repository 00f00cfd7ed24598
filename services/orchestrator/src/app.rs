//! What operators can do: look at sagas, steer them, deal with dead letters.

use std::sync::Arc;
use std::time::Duration;

use saga_core::{Event, Input, Millis, Saga, SagaKey, Verb, replay};
use saga_runtime::dead_letters::DeadLetters;
use saga_runtime::store::{SagaFilter, SagaRow, SagaStore};
use saga_runtime::{Bus, Clock, Definitions, GroupHandle, OperateError, Stats, StoreError};

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Sagas {
    store: Arc<dyn SagaStore>,
    definitions: Arc<Definitions>,
    handle: GroupHandle,
    /// Records that could not be handled.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Where re-driven records go.
    pub bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    stats: Arc<Stats>,
}

/// A saga with its whole history.
pub struct Detail {
    /// The history, one entry a transition.
    pub history: Vec<Vec<Event>>,
    /// Its fold; `None` when it does not replay: the saga is quarantined.
    pub saga: Option<Saga>,
}

impl Sagas {
    /// Puts the use cases together.
    pub fn new(
        store: Arc<dyn SagaStore>,
        definitions: Arc<Definitions>,
        handle: GroupHandle,
        dead_letters: Arc<dyn DeadLetters>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        stats: Arc<Stats>,
    ) -> Self {
        Self { store, definitions, handle, dead_letters, bus, clock, stats }
    }

    /// A page of sagas, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
        self.store.list(filter).await
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
        tracing::info!(%key, ?verb, actor, reason, "operator");
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
