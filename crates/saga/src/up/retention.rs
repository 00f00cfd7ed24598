//! What is not kept for ever.

use std::sync::Arc;
use std::time::Duration;

use saga_runtime::LoopContext;
use saga_runtime::dead_letters::{DeadLetters, forget_old};
use saga_runtime::retention::remove_forgotten;
use saga_runtime::store::SagaStore;

use super::services::Core;

impl Core {
    /// Removes dead letters that are too old, as long as this process runs; unless they are kept for ever.
    pub(super) fn forget_letters(&self, context: &LoopContext, letters: &Arc<dyn DeadLetters>) {
        let days = self.config.retention.dead_letter_days;
        if days > 0 {
            let keep = Duration::from_secs(days.saturating_mul(86_400));
            self.loops.spawn(forget_old(context.clone(), Arc::clone(letters), keep));
        }
    }

    /// Removes sagas that are forgotten: none are, unless a starter promised never to ask for them again.
    pub(super) fn remove_sagas(&self, context: &LoopContext, store: &Arc<dyn SagaStore>) {
        let (context, store) = (context.clone(), Arc::clone(store));
        self.loops.spawn(async move { remove_forgotten(&context, store).await });
    }

    /// Which purchases' sagas are to be forgotten.
    pub(super) fn forget(&self, sweep: Duration) -> Option<purchase::Forget> {
        let days = self.config.retention.saga_days;
        let after = Duration::from_secs(days.saturating_mul(86_400));
        (days > 0).then_some(purchase::Forget { after, sweep })
    }
}
