//! The lock in process: `SET NX PX` and compare-and-delete, with a bounded wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use saga_core::Millis;
use saga_runtime::Clock;
use saga_runtime::cache::{Lock, LockGuard};
use tokio::sync::Notify;

/// Locks by name.
pub struct InProcLock {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Shared {
    held: Mutex<Held>,
    released: Notify,
}

#[derive(Default)]
struct Held {
    by_name: HashMap<String, Holder>,
    tokens: u64,
}

struct Holder {
    token: u64,
    expires_at: Millis,
}

impl std::fmt::Debug for InProcLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcLock").field("held", &self.shared.held.lock().by_name.len()).finish()
    }
}

impl InProcLock {
    /// No lock is held.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::default(), clock }
    }

    /// A token, or when to look again.
    fn try_take(&self, name: &str, ttl: Duration) -> Result<u64, Millis> {
        let now = self.clock.now();
        let mut held = self.shared.held.lock();
        if let Some(holder) = held.by_name.get(name)
            && holder.expires_at > now
        {
            return Err(holder.expires_at);
        }
        held.tokens += 1;
        let token = held.tokens;
        held.by_name.insert(name.to_owned(), Holder { token, expires_at: after(now, ttl) });
        Ok(token)
    }

    fn guard(&self, name: &str, token: u64) -> LockGuard {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        LockGuard::new(move || {
            let mut held = shared.held.lock();
            // It may have expired and be somebody else's by now.
            if held.by_name.get(&name).is_some_and(|holder| holder.token == token) {
                held.by_name.remove(&name);
                drop(held);
                shared.released.notify_waiters();
            }
        })
    }
}

#[async_trait]
impl Lock for InProcLock {
    async fn acquire(&self, name: &str, ttl: Duration, wait: Duration) -> Option<LockGuard> {
        let until = after(self.clock.now(), wait);
        let mut waited = false;
        loop {
            let mut released = std::pin::pin!(self.shared.released.notified());
            // Listening begins before the look, so that nothing slips between.
            released.as_mut().enable();
            match self.try_take(name, ttl) {
                Ok(token) => return Some(self.guard(name, token).waited_for(waited)),
                Err(_) if self.clock.now() >= until => return None,
                Err(expires_at) => {
                    waited = true;
                    tokio::select! {
                        () = released => {}
                        () = self.clock.sleep_until(expires_at.min(until)) => {}
                    }
                }
            }
        }
    }
}

fn after(now: Millis, wait: Duration) -> Millis {
    now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}
