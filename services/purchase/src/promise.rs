//! Promising never to ask for purchases again that ended long ago, so that everybody may forget their sagas.
//!
//! ```text
//!   sweep n      P := everything up to here ended before the retention time; on disk; nothing is written below it any more
//!   sweep n + 1  send min(P, the lowest purchase in flight - 1)
//! ```
//!
//! A sweep lies between because a purchase may be on its way into the database, below P, when P is stored: by the next
//! sweep it is there, and is seen in flight, or has ended like the others. See `saga_runtime::retention`.

use std::sync::Arc;
use std::time::Duration;

use saga_core::Millis;
use saga_runtime::{Bus, Clock, StoreError, Watermark, wire};
use tokio_util::sync::CancellationToken;

use crate::outbound::Course;
use crate::store::Store;

/// Purchases looked at in one transaction.
const BITE: u32 = 1_000;

/// What is forgotten, and how often that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forget {
    /// Sagas of purchases that ended so long ago.
    pub after: Duration,
    /// How far apart the looks are; see `saga_runtime::LoopOptions::sweep`.
    pub sweep: Duration,
}

/// The loop and what it needs.
pub(crate) struct Promiser {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) course: Course,
    pub(crate) stop: CancellationToken,
    pub(crate) forget: Forget,
}

impl Promiser {
    /// Promises until stopped.
    pub(crate) async fn run(self) {
        let mut ripe = None;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.clock.sleep(self.forget.sweep) => {}
            }
            match self.sweep(ripe).await {
                Ok(promised) => ripe = Some(promised),
                Err(error) => tracing::warn!(%error, "looking for sagas to forget failed; trying again later"),
            }
        }
    }

    /// Says again what an earlier sweep has found, and finds more.
    async fn sweep(&self, ripe: Option<u64>) -> Result<u64, StoreError> {
        if let Some(ripe) = ripe {
            let lowest = self.store.lowest_in_flight().await?;
            let up_to = lowest.map_or(ripe, |lowest| ripe.min(lowest.saturating_sub(1)));
            if up_to > 0 {
                self.say(up_to).await;
            }
        }
        let kept = Millis::try_from(self.forget.after.as_millis()).unwrap_or(Millis::MAX);
        loop {
            let promised = self.store.promise(self.clock.now().saturating_sub(kept), BITE).await?;
            if !promised.more || self.stop.is_cancelled() {
                return Ok(promised.up_to);
            }
        }
    }

    async fn say(&self, up_to: u64) {
        let mark = Watermark { definition: self.course.definition.clone(), up_to };
        let message = wire::forget_message(&self.course.start_topic, &mark);
        if let Err(error) = self.bus.publish(vec![message]).await {
            tracing::warn!(%error, "what may be forgotten could not be said; it will be later");
        }
    }
}
