//! Sagas whose time is over and for whom no timer is set: looked for in the rows, a page at a time.
//!
//! Timers are in the memory of whichever loop decided last. An operator's verb may have been carried out by a loop that drives
//! another partition: should it end before anybody answers, the one that drives the saga was told nothing.

use saga_core::{Millis, SagaKey};

use super::recovery::PAGE;
use super::{Orchestrator, OrchestratorError};
use crate::store::StoreError;

/// Between two rounds, in ms. Seldom is soon enough, and a round may be long.
const EVERY: Millis = 30_000;
/// Between two pages of a round, in ms.
const BETWEEN: Millis = 1_000;
/// How long a saga's time must be over, in ms: a loop that has much to do comes to its timers late.
const SLACK: Millis = 10_000;

/// Where the round is.
#[derive(Debug, Default)]
pub(super) struct Patrol {
    next: Millis,
    after: Option<SagaKey>,
}

impl Patrol {
    /// When the next page is looked at, in ms since the epoch.
    pub(super) fn next(&self) -> Millis {
        self.next
    }
}

impl Orchestrator {
    /// Looks at the next page, if it is time for it.
    pub(super) async fn look_for_overdue(&mut self) -> Result<(), OrchestratorError> {
        let now = self.context.clock.now();
        // A clock that was set back does not end the rounds.
        if (now + 1..=now + EVERY).contains(&self.patrol.next) {
            return Ok(());
        }
        let page = match self.store.in_flight(self.owner.partition, self.patrol.after.take(), PAGE).await {
            Ok(page) => page,
            Err(StoreError::Fault(detail)) => return Err(StoreError::Fault(detail).into()),
            // It has other work to fail at.
            Err(_) => Vec::new(),
        };
        for row in &page {
            let key = &row.key;
            let is_over = row.wake_at.is_some_and(|at| at + SLACK <= now);
            let is_seen_to = self.recovering.contains(key) || self.timers.of(key).is_some_and(|at| at <= now);
            if is_over && !is_seen_to && !self.quarantined.contains(key) {
                tracing::info!(%key, saga_id = key.id, "its time is over and nobody saw to it: it is looked at again");
                self.doubt(key);
            }
        }
        let is_full = page.len() == PAGE as usize;
        self.patrol.after = page.last().filter(|_| is_full).map(|row| row.key.clone());
        self.patrol.next = now + if is_full { BETWEEN } else { EVERY };
        Ok(())
    }
}
