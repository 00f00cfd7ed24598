//! What customers see of their payments.

use std::sync::Arc;

use chassis::problem::{Code, Problem};

use crate::domain::Payment;
use crate::store::Store;

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Payments {
    store: Arc<dyn Store>,
}

impl Payments {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// A customer's own payment.
    ///
    /// # Errors
    /// `not_found`, also for somebody else's.
    pub async fn show(&self, id: u64, customer_id: u64) -> Result<Payment, Problem> {
        let payment = self.store.find(id, customer_id).await?;
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
