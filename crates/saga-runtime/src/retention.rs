//! Forgetting: rows of sagas that ended long ago are removed, and nothing that comes late brings them back.
//!
//! A saga's row, and its barrier rows, are what makes a late start or command harmless. They may go only where something
//! smaller stands in for all of them: the definition's **watermark**, one durable number a store. Whatever it covers and
//! is not known there has ended and was removed: it is not started, and has no effect, ever again.
//!
//! ```text
//!   starter       promises: everything up to P has ended, and I will never ask for it again
//!   orchestrator  W = min(P, the lowest saga that has not ended - 1), stored    ─► a sweep later: rows removed
//!   participant   W' = W, stored                                                ─► a sweep later: barrier rows removed
//! ```
//!
//! **The order is the proof.** A watermark is looked at where the row would be written, in that statement. One that began
//! before the watermark was committed may not see it; but it still meets the row itself, which is removed a sweep
//! ([`LoopOptions::sweep`](crate::LoopOptions)) later at the earliest, and no statement or transaction of ours lives as
//! long as that (a database ends them; on SQLite one is over before the next begins).

use std::sync::Arc;

use async_trait::async_trait;
use saga_core::{Name, SagaKey};

use crate::participant::LoopContext;
use crate::store::StoreError;

/// Rows (or sagas, with all their rows) that are removed in one transaction: some milliseconds of it.
const BITE: u32 = 250;
/// A removal leaves the store alone for so many times as long as it took: the shop goes on meanwhile.
const RESTS: u32 = 3;

/// Up to which id the sagas of a definition are forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watermark {
    /// Whose.
    pub definition: Name,
    /// This one too.
    pub up_to: u64,
}

/// The watermarks of a store, one a definition at most.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks(Vec<Watermark>);

impl Marks {
    /// Up to which id the sagas of `definition` are forgotten; `None`: none of them is.
    pub fn of(&self, definition: &Name) -> Option<u64> {
        self.0.iter().find(|mark| mark.definition == *definition).map(|mark| mark.up_to)
    }

    /// Whether what is not known of this saga is forgotten, not new.
    pub fn covers(&self, saga: &SagaKey) -> bool {
        self.of(&saga.definition).is_some_and(|up_to| saga.id <= up_to)
    }

    /// All of them.
    pub fn all(&self) -> &[Watermark] {
        &self.0
    }
}

impl FromIterator<Watermark> for Marks {
    fn from_iter<I: IntoIterator<Item = Watermark>>(marks: I) -> Self {
        Self(marks.into_iter().collect())
    }
}

/// What one removal did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// How many sagas, or rows, went.
    pub count: u64,
    /// Whether there may be more to remove.
    pub more: bool,
}

/// The watermarks of a store, and what they allow to be removed from it.
#[async_trait]
pub trait Watermarks: Send + Sync + 'static {
    /// Raises a watermark, durably; it is never lowered, and never put where a saga stands that has not ended. Answers
    /// where it stands now; `None`: nothing is forgotten.
    ///
    /// # Errors
    /// See [`StoreError`]; it may have been raised.
    async fn raise(&self, mark: Watermark) -> Result<Option<u64>, StoreError>;

    /// Where they stand.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn marks(&self) -> Result<Marks, StoreError>;

    /// Removes about `limit` of what is forgotten, the lowest ids first, none above `mark` or above the watermark.
    ///
    /// # Errors
    /// See [`StoreError`]; it may have been removed.
    async fn remove(&self, mark: Watermark, limit: u32) -> Result<Removed, StoreError>;
}

/// Removes what is forgotten until stopped: in each sweep only what an earlier one, here, has found to be forgotten.
pub async fn remove_forgotten(context: &LoopContext, store: Arc<dyn Watermarks>) {
    let LoopContext { clock, stop, options, .. } = context;
    let mut ripe = Marks::default();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = clock.sleep(options.sweep) => {}
        }
        let found = match store.marks().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "reading the watermarks failed; trying again later");
                continue;
            }
        };
        for mark in ripe.0 {
            if let Err(error) = remove_all(context, &*store, mark).await {
                tracing::warn!(%error, "removing what is forgotten failed; trying again later");
            }
        }
        ripe = found;
    }
}

async fn remove_all(context: &LoopContext, store: &dyn Watermarks, mark: Watermark) -> Result<(), StoreError> {
    let LoopContext { clock, stop, stats, .. } = context;
    loop {
        let begun = clock.nanos();
        let removed = store.remove(mark.clone(), BITE).await?;
        stats.removed.add(removed.count);
        if !removed.more || stop.is_cancelled() {
            return Ok(());
        }
        let took = std::time::Duration::from_nanos(clock.nanos().saturating_sub(begun));
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = clock.sleep(took * RESTS) => {}
        }
    }
}
