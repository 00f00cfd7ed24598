//! What is not kept for ever.

use std::sync::Arc;
use std::time::Duration;

use saga_runtime::LoopContext;
use saga_runtime::dead_letters::{DeadLetters, forget_old};

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
}
