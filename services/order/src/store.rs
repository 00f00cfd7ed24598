//! The order service's store port.

pub mod postgres;
pub mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use saga_core::Millis;
use saga_core::protocol::{Command, Reply};
use saga_runtime::{StoreError, Watermarks};

use crate::domain::Order;

/// Rows of the order service.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Where its watermarks are, and what they allow to be removed.
    fn watermarks(&self) -> Arc<dyn Watermarks>;

    /// Handles a batch of commands as one transaction: barrier, effects, replies.
    async fn handle(&self, batch: Vec<Command>, steps: Steps, now: Millis) -> Result<Vec<Reply>, StoreError>;

    /// A customer's own order.
    async fn find(&self, id: u64, customer_id: u64) -> Result<Option<Order>, StoreError>;

    /// A customer's orders with ids below `before`, newest first.
    async fn list(&self, customer_id: u64, before: Option<u64>, limit: u32) -> Result<Vec<Order>, StoreError>;
}

/// The names of the two steps that this service takes part in.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Makes and cancels an order.
    pub create: &'static str,
    /// Confirms one.
    pub confirm: &'static str,
}

/// As the purchase saga calls them.
pub const STEPS: Steps = Steps { create: "create-order", confirm: "confirm-order" };
