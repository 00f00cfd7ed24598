//! Named places at which a test can let the process die, as by `kill -9`. In builds without the feature
//! `crash-points` (every build that is not for tests) there are none.
//!
//! `SAGA_CRASH_AT` names one: `orchestrator.committed`, `order.undo.published`, ….

/// Dies here if this is the place.
#[cfg(feature = "crash-points")]
pub fn point(service: &str, place: &str) {
    use std::sync::OnceLock;
    static AT: OnceLock<Option<String>> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "not a setting: only in builds for tests")]
    let at = AT.get_or_init(|| std::env::var("SAGA_CRASH_AT").ok());
    if at.as_deref().and_then(|at| at.strip_prefix(service)?.strip_prefix('.')) == Some(place) {
        // No unwinding, no drops, nothing flushed.
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_: &str, _: &str) {}
