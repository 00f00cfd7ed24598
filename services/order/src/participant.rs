//! The order service's side of the purchase saga.

use std::sync::Arc;

use async_trait::async_trait;
use contracts::topics;
use saga_core::protocol::{Command, Reply};
use saga_core::{Name, Op};
use saga_runtime::{Clock, Participant, StoreError, Watermarks};

use crate::stats::Stats;
use crate::store::{STEPS, Store};

/// Makes, cancels and confirms orders.
pub struct OrderParticipant {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    stats: Arc<Stats>,
}

impl OrderParticipant {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, stats: Arc<Stats>) -> Self {
        Self { store, clock, stats }
    }
}

#[async_trait]
impl Participant for OrderParticipant {
    fn group(&self) -> &str {
        "order"
    }

    fn topics(&self) -> Vec<Name> {
        [topics::CREATE_ORDER, topics::ROLLBACK_ORDER, topics::CONFIRM_ORDER].map(Name::new).to_vec()
    }

    fn watermarks(&self) -> Option<Arc<dyn Watermarks>> {
        Some(self.store.watermarks())
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let confirmations: Vec<Command> =
            batch.iter().filter(|c| c.op == Op::Do && c.step == STEPS.confirm).cloned().collect();
        let replies = self.store.handle(batch, STEPS, self.clock.now()).await?;
        self.stats.confirmed(&confirmations, &replies);
        Ok(replies)
    }
}
