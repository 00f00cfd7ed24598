//! Taking a partition over: count the epoch up, then send whatever is outstanding again, at a pace.

use super::overdue::Patrol;
use super::{Orchestrator, OrchestratorError};
use crate::delivery::pause;
use crate::store::{Owner, SagaRow, StoreError};

/// Rows read at a time: a few hundred kilobytes.
pub(super) const PAGE: u32 = 2_000;

impl Orchestrator {
    /// Claims the partition and lays out timers for everything in flight. `false`: stopped before it was done.
    pub(super) async fn take_over(&mut self) -> Result<bool, OrchestratorError> {
        let mut failures = 0;
        loop {
            match self.try_take_over().await {
                Ok(taken) => {
                    self.owner = taken;
                    self.patrol = Patrol::from(self.context.clock.now());
                    return Ok(true);
                }
                Err(OrchestratorError::Store(error @ (StoreError::Transient(_) | StoreError::Full(_)))) => {
                    tracing::warn!(%error, "taking over failed; trying again");
                    let context = &self.context;
                    if !pause(&*context.clock, &context.stop, context.options, &mut failures).await {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_take_over(&mut self) -> Result<Owner, OrchestratorError> {
        let owner = self.store.claim(self.options.partition).await?;
        let now = self.context.clock.now();
        let mut after = None;
        let mut count = 0_u64;
        loop {
            let page: Vec<SagaRow> = self.store.in_flight(owner.partition, after.take(), PAGE).await?;
            for row in &page {
                let (name, version) = (&row.key.definition, row.definition_version);
                if self.definitions.version(name, version).is_none() {
                    return Err(OrchestratorError::MissingDefinition { name: name.clone(), version });
                }
                // Spread out, so that a hundred thousand sagas do not arrive at the participants in one breath.
                let wait = count * 1_000 / u64::from(self.options.recovery_rate.max(1));
                self.timers.set(&row.key, Some(now + wait));
                self.recovering.insert(row.key.clone());
                count += 1;
            }
            match page.last() {
                Some(last) if page.len() == PAGE as usize => after = Some(last.key.clone()),
                _ => break,
            }
        }
        tracing::info!(%owner, in_flight = count, "took over");
        Ok(owner)
    }
}
