//! The payment service's store port.

pub mod postgres;
pub mod sqlite;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use saga_core::Millis;
use saga_core::protocol::{Command, Reply};
use saga_runtime::{StoreError, Watermarks};

use crate::domain::Payment;
use crate::gateway::Charged;

/// Rows of the payment service.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Where its watermarks are, and what they allow to be removed.
    fn watermarks(&self) -> Arc<dyn Watermarks>;

    /// Which do commands, in the batch's order, have their final answer already: asked before the gateway is.
    async fn settled(&self, batch: Vec<Command>) -> Result<Vec<bool>, StoreError>;

    /// Handles do commands, whose charges have been made (by saga id), as one transaction: barrier, rows, replies.
    async fn charge(
        &self,
        batch: Vec<Command>,
        charged: HashMap<u64, Charged>,
        now: Millis,
    ) -> Result<Vec<Reply>, StoreError>;

    /// Before an undo: makes sure that a do which comes later has no effect.
    /// Tells, per command, whether something may have been charged and is not yet given back.
    async fn block(&self, batch: Vec<Command>, now: Millis) -> Result<Vec<bool>, StoreError>;

    /// Handles undo commands, whose charges have been given back, as one transaction: barrier, rows, replies.
    async fn void(&self, batch: Vec<Command>, now: Millis) -> Result<Vec<Reply>, StoreError>;

    /// A customer's own payment.
    async fn find(&self, id: u64, customer_id: u64) -> Result<Option<Payment>, StoreError>;

    /// A customer's payments with ids below `before`, newest first.
    async fn list(&self, customer_id: u64, before: Option<u64>, limit: u32) -> Result<Vec<Payment>, StoreError>;
}
