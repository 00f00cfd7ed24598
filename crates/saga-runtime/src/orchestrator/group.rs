//! Drives whichever partitions are ours at the moment: one loop each, begun and ended as the bus says.
//!
//! The bus's word is a hint. What keeps two from driving one partition is the epoch in the store: the older one's
//! commits are refused, and its loop ends here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use saga_core::{Input, SagaKey};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Definitions, GROUP, OperateError, Orchestrator, OrchestratorError, OrchestratorHandle, OrchestratorOptions,
};
use crate::bus::{Assignment, BusError, Membership, Subscription};
use crate::delivery::pause;
use crate::participant::LoopContext;
use crate::store::{SagaRow, SagaStore};

/// A partition that was taken over by somebody else, though the bus still says that it is ours, is claimed again after
/// this long: by then the bus has noticed whoever was slow.
const RECLAIM_AFTER: Duration = Duration::from_secs(15);

/// Loops that take operators' verbs, by partition.
type Driven = Arc<RwLock<BTreeMap<u32, OrchestratorHandle>>>;

/// Hands verbs to whichever loops run here.
#[derive(Clone, Debug, Default)]
pub struct GroupHandle(Driven);

impl GroupHandle {
    /// Applies an operator's verb; answers the saga's row after it, which is durable.
    ///
    /// Any loop may do it: compare-and-set on the saga's version is what counts, and a loop that kept the saga in
    /// memory finds that it changed.
    ///
    /// # Errors
    /// As of [`OrchestratorHandle::operate`]. `Stopped`: no partition is driven here, or not any more.
    pub async fn operate(&self, key: SagaKey, input: Input) -> Result<SagaRow, OperateError> {
        let handle = self.0.read().values().next().cloned();
        handle.ok_or(OperateError::Stopped)?.operate(key, input).await
    }

    /// The partitions that are driven here.
    pub fn partitions(&self) -> Vec<u32> {
        self.0.read().keys().copied().collect()
    }
}

/// The loops of one process.
pub struct OrchestratorGroup {
    context: LoopContext,
    store: Arc<dyn SagaStore>,
    definitions: Arc<Definitions>,
    options: OrchestratorOptions,
    driven: Driven,
    /// By partition that the bus has given us: ends its loop.
    ours: BTreeMap<u32, CancellationToken>,
    running: JoinSet<Ended>,
}

/// A loop that ended, and what it read from.
struct Ended {
    partition: u32,
    stop: CancellationToken,
    subscription: Box<dyn Subscription>,
    result: Result<(), OrchestratorError>,
}

impl OrchestratorGroup {
    /// Loops to be, and the handle for their operators. `options.partition` is not looked at.
    pub fn new(
        context: LoopContext,
        store: Arc<dyn SagaStore>,
        definitions: Arc<Definitions>,
        options: OrchestratorOptions,
    ) -> (Self, GroupHandle) {
        let driven = Driven::default();
        let handle = GroupHandle(Arc::clone(&driven));
        let (ours, running) = (BTreeMap::new(), JoinSet::new());
        (Self { context, store, definitions, options, driven, ours, running }, handle)
    }

    /// Drives until stopped. Units of work in progress are finished first.
    ///
    /// # Errors
    /// When a loop meets a fault that touches every saga.
    pub async fn run(mut self) -> Result<(), OrchestratorError> {
        let Some(mut membership) = self.join().await else { return Ok(()) };
        let stop = self.context.stop.clone();
        let mut failures = 0;
        let result = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                Some(ended) = self.running.join_next() => match ended {
                    Ok(ended) => if let Err(error) = self.ended(ended) {
                        break Err(error);
                    },
                    Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
                },
                change = membership.next() => match change {
                    Ok(Assignment::Assigned { partition, subscription }) => {
                        failures = 0;
                        self.begin(partition, subscription, None);
                    }
                    Ok(Assignment::Revoked { partition }) => self.give_up(partition),
                    Err(BusError::Closed) => break Ok(()),
                    Err(error) => {
                        tracing::warn!(%error, "the group cannot be followed; trying again");
                        if !pause(&*self.context.clock, &stop, self.context.options, &mut failures).await {
                            break Ok(());
                        }
                    }
                },
            }
        };
        for stop in self.ours.values() {
            stop.cancel();
        }
        while self.running.join_next().await.is_some() {}
        result
    }

    async fn join(&self) -> Option<Box<dyn Membership>> {
        let LoopContext { bus, clock, stop, options, .. } = &self.context;
        let topics = self.definitions.inbound_topics();
        let mut failures = 0;
        loop {
            match bus.join(GROUP, &topics).await {
                Ok(membership) => return Some(membership),
                Err(BusError::Closed) => return None,
                Err(error) => {
                    tracing::warn!(%error, group = GROUP, "joining failed; trying again");
                    if !pause(&**clock, stop, *options, &mut failures).await {
                        return None;
                    }
                }
            }
        }
    }

    fn begin(&mut self, partition: u32, subscription: Box<dyn Subscription>, after: Option<Duration>) {
        self.give_up(partition);
        let stop = self.context.stop.child_token();
        self.ours.insert(partition, stop.clone());
        let context = LoopContext { stop: stop.clone(), ..self.context.clone() };
        let clock = Arc::clone(&context.clock);
        let options = OrchestratorOptions { partition, ..self.options };
        let (orchestrator, handle) =
            Orchestrator::new(context, Arc::clone(&self.store), Arc::clone(&self.definitions), options);
        if after.is_none() {
            self.driven.write().insert(partition, handle.clone());
        }
        let driven = Arc::clone(&self.driven);
        self.running.spawn(async move {
            let mut subscription = subscription;
            if let Some(wait) = after {
                tokio::select! {
                    () = stop.cancelled() => return Ended { partition, stop, subscription, result: Ok(()) },
                    () = clock.sleep(wait) => {}
                }
                driven.write().insert(partition, handle);
            }
            let result = orchestrator.drive(&mut *subscription).await;
            Ended { partition, stop, subscription, result }
        });
    }

    fn give_up(&mut self, partition: u32) {
        if let Some(stop) = self.ours.remove(&partition) {
            stop.cancel();
            self.driven.write().remove(&partition);
        }
    }

    fn ended(&mut self, ended: Ended) -> Result<(), OrchestratorError> {
        let Ended { partition, stop, subscription, result } = ended;
        // It was to end: the partition went elsewhere, or the process stops.
        if stop.is_cancelled() {
            return Ok(());
        }
        self.give_up(partition);
        match result {
            Ok(()) => Ok(()),
            Err(error @ OrchestratorError::Fenced(_)) => {
                tracing::warn!(%error, "the loop ends; it begins again should the partition stay ours");
                self.begin(partition, subscription, Some(RECLAIM_AFTER));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
