//! Cache, filter and lock in a Redis cluster (version 7 or newer, or Valkey).
//!
//! Redis holds only what can be rebuilt. Whatever goes wrong with it (not there, hung, failing over, too slow, too
//! busy) is answered at once, or within one operation's timeout, with *I do not know*: the database is asked.
//!
//! **Architecture Invariant:** nothing here returns an error to a caller after [`Cluster::connect`], and that one only
//! fails for an address that cannot be read. A cluster that is down stops no process and no request.

mod breaker;
mod cache;
mod cluster;
mod filter;
mod lock;
mod look;
mod script;
mod slot;

pub use cache::{Layered, RedisCache};
pub use cluster::{BadAddress, Cluster, Options, Stats};
pub use filter::{FilterOptions, RedisFilter};
pub use lock::RedisLock;
pub use look::{NodeView, look};

use tokio::time::Instant;

/// The monotonic clock: timeouts and leases are lengths of real time, and no jump of the wall clock may bend them.
#[expect(clippy::disallowed_methods, reason = "only differences are used, and nothing of the domain depends on them")]
fn now() -> Instant {
    Instant::now()
}

/// Waits a length of real time.
#[expect(clippy::disallowed_methods, reason = "real time, like the servers that are waited for")]
async fn sleep(wait: std::time::Duration) {
    tokio::time::sleep(wait).await;
}

/// A number that no other process has: it tells tokens and replicas apart, and hides nothing.
#[expect(clippy::disallowed_methods, reason = "no id of the domain")]
fn nonce() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
}
