//! In-process twins of broker, cache, filter and lock: the embedded profile, and the tests.
//!
//! They pass the same conformance suites as the real ones. What they hold dies with the process, and may.

mod bus;
mod cache;
mod filter;
mod kept;
mod lock;

pub use bus::{InProcBus, QueueStats};
pub use cache::InProcCache;
pub use filter::InProcFilter;
pub use lock::InProcLock;
