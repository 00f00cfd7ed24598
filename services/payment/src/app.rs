//! What customers see of their payments.

use std::sync::Arc;

use chassis::problem::{Code, Problem};
use saga_runtime::{Loaded, ReadThrough};

use crate::domain::{Payment, Status};
use crate::store::Store;

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Payments {
    store: Arc<dyn Store>,
    cache: ReadThrough,
}

impl Payments {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>, cache: ReadThrough) -> Self {
        Self { store, cache }
    }

    /// A customer's own payment.
    ///
    /// # Errors
    /// `not_found`, also for somebody else's.
    pub async fn show(&self, id: u64, customer_id: u64) -> Result<Payment, Problem> {
        let find = async || {
            let found = self.store.find(id, customer_id).await?;
            // What was captured may still be voided; the others stay as they are for ever.
            let kept =
                |payment: Payment| Loaded { keep: payment.status != Status::Captured, version: 1, value: payment };
            Ok::<_, Problem>(found.map(kept))
        };
        // The cache knows payments, not whose they are to be shown to.
        let payment = self.cache.get(id, find).await?.filter(|payment| payment.customer_id == customer_id);
        payment.ok_or_else(|| Problem::new(Code::NotFound, "there is no such payment"))
    }

    /// A customer's payments below the id `before`, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, customer_id: u64, before: Option<u64>, limit: u32) -> Result<Vec<Payment>, Problem> {
        Ok(self.store.list(customer_id, before, limit).await?)
    }
}
