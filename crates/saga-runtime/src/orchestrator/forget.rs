//! Following a starter's promise: raise the watermark, pass it on. See [`crate::retention`].

use super::unit::Out;
use super::{Orchestrator, OrchestratorError};
use crate::retention::Watermark;
use crate::store::StoreError;
use crate::wire;

impl Orchestrator {
    /// Follows promises as far as sagas allow that have not ended, and tells the participants. Whatever cannot be done now
    /// is done when the starter says it again: in each of its sweeps.
    pub(super) async fn forget(&self, out: &mut Out) -> Result<(), OrchestratorError> {
        for promise in std::mem::take(&mut out.promises) {
            let Watermark { definition, up_to } = promise.clone();
            let stands = match self.store.raise(promise).await {
                Ok(stands) => stands,
                Err(StoreError::Fault(detail)) => return Err(StoreError::Fault(detail).into()),
                Err(error) => {
                    tracing::warn!(%error, "a watermark could not be raised; it will be later");
                    continue;
                }
            };
            if stands.is_none_or(|stands| stands < up_to) {
                self.context.stats.held_back.inc();
            }
            let Some(up_to) = stands else { continue };
            let mark = Watermark { definition, up_to };
            let topics = self.definitions.command_topics(&mark.definition);
            out.messages.extend(topics.iter().map(|topic| wire::forget_message(topic, &mark)));
        }
        Ok(())
    }
}
