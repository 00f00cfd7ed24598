//! What every adapter of a port must pass, whichever brand is behind it.
//!
//! Each module has the cases of one port as functions over the port, and a macro that makes a test of each:
//! `testkit::bus_conformance!(make)`, where `make` is an async function that gives a fresh [`Fixture`] (for a shared
//! server: with names of its own). Nothing here knows a brand, and nothing waits longer than it must.

pub mod audit_log;
pub mod bus;
pub mod cache;
pub mod dead_letters;
pub mod filter;
pub mod lock;
pub mod saga_store;

use std::any::Any;
use std::time::Duration;

/// Longer than anything lawful takes, also on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What is tested, and what must live as long (a folder, a server).
pub struct Fixture<T> {
    /// What is tested.
    pub port: T,
    /// Dropped after it.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl<T> Fixture<T> {
    /// Nothing else to keep.
    pub fn new(port: T) -> Self {
        Self { port, keep: Box::new(()) }
    }

    /// Keeps `keep` alive as long as the port is used.
    pub fn keeping(port: T, keep: impl Any + Send + Sync) -> Self {
        Self { port, keep: Box::new(keep) }
    }
}

/// Awaits, at most [`LIMIT`].
///
/// # Panics
/// When that is over.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

/// Asks again and again until the answer is yes, at most [`LIMIT`].
///
/// # Panics
/// When that is over.
#[expect(clippy::disallowed_methods, reason = "asks a real thing again until the limit")]
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// One test a case; the suites' macros use it.
#[macro_export]
macro_rules! conformance_tests {
    ($port:ident, $make:expr; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let fixture = $make().await;
                $crate::conformance::$port::$case(&fixture.port).await;
                drop(fixture.keep);
            }
        )*
    };
}

/// One test a case and database; the services' own suites use it. `$sqlite` and `$postgres` are async functions that
/// give a fresh [`Fixture`] of the same port.
#[macro_export]
macro_rules! store_tests {
    ($sqlite:ident, $postgres:ident; $($case:ident),* $(,)?) => {
        $crate::store_tests!(@ on_sqlite, $sqlite; $($case),*);
        $crate::store_tests!(@ on_postgres, $postgres; $($case),*);
    };
    (@ $module:ident, $make:ident; $($case:ident),*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let fixture = super::$make().await;
                    super::$case(&fixture.port).await;
                    drop(fixture.keep);
                }
            )*
        }
    };
}
