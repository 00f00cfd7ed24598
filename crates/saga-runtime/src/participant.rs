//! The participant loop: commands in, one transaction, replies out, then the offsets.

use std::sync::Arc;

use async_trait::async_trait;
use saga_core::Name;
use saga_core::protocol::{Command, Reply};

use crate::store::StoreError;

/// A service's side of a saga: what it does and undoes.
#[async_trait]
pub trait Participant: Send + Sync + 'static {
    /// The consumer group: the service's name.
    fn group(&self) -> &str;

    /// The topics that carry its commands.
    fn topics(&self) -> Vec<Name>;

    /// One batch, one transaction: barrier, effects and stored replies, all durable on return.
    /// Answers one reply per command, in order.
    ///
    /// # Errors
    /// The whole transaction was rolled back (or, for `Transient`, its fate is unknown and the barrier will tell).
    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError>;
}

/// Shared participants are participants.
#[async_trait]
impl<P: Participant + ?Sized> Participant for Arc<P> {
    fn group(&self) -> &str {
        (**self).group()
    }

    fn topics(&self) -> Vec<Name> {
        (**self).topics()
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        (**self).handle(batch).await
    }
}
