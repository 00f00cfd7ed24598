//! The product service's side of the purchase saga: takes stock, and puts back what the ledger says was taken.

use std::sync::Arc;

use async_trait::async_trait;
use contracts::topics;
use saga_core::Name;
use saga_core::protocol::{Command, Reply};
use saga_runtime::{Clock, Participant, StoreError, Watermarks};

use crate::store::Store;

/// Takes stock and gives it back.
pub struct ProductParticipant {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl ProductParticipant {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }
}

#[async_trait]
impl Participant for ProductParticipant {
    fn group(&self) -> &str {
        "product"
    }

    fn topics(&self) -> Vec<Name> {
        [topics::UPDATE_PRODUCT_INVENTORY, topics::ROLLBACK_PRODUCT_INVENTORY].map(Name::new).to_vec()
    }

    fn watermarks(&self) -> Option<Arc<dyn Watermarks>> {
        Some(self.store.watermarks())
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.store.handle(batch, self.clock.now()).await
    }
}
