//! The clock port. Time is data: whoever needs it asks here, so a simulation can own it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use saga_core::Millis;

/// Tells the time and waits for it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the epoch. May jump either way; nothing may break when it does.
    fn now(&self) -> Millis;

    /// The same in nanoseconds, as finely as it is known: for measuring, never for deciding.
    fn nanos(&self) -> u64 {
        self.now().saturating_mul(1_000_000)
    }

    /// Returns at `at` or, for a past moment, at once. Cancel-safe.
    async fn sleep_until(&self, at: Millis) {
        let wait = at.saturating_sub(self.now());
        self.sleep(Duration::from_millis(wait)).await;
    }

    /// Returns after `wait`. Cancel-safe.
    #[expect(clippy::disallowed_methods, reason = "the one lawful place")]
    async fn sleep(&self, wait: Duration) {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
    }

    fn nanos(&self) -> u64 {
        u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn since_epoch() -> Duration {
    #[allow(clippy::disallowed_methods, reason = "the one lawful place: every other reads the clock port")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}
