//! The id under which a request stands in the logs: the caller's own (W3C Trace Context) or a new one.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::HeaderMap;

/// 128 bits, shown as 32 hexadecimal digits; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceId(u128);

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Tells processes apart; within one, requests are counted.
#[expect(clippy::disallowed_methods, reason = "no id of a row: it only has to differ between processes")]
static PROCESS: LazyLock<u64> = LazyLock::new(|| getrandom::u64().unwrap_or(1) | 1);
static COUNT: AtomicU64 = AtomicU64::new(0);

impl TraceId {
    /// The trace that a request says it belongs to, or a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get("traceparent").and_then(|value| Self::from_traceparent(value.to_str().ok()?));
        given.unwrap_or_else(Self::next)
    }

    /// A new one.
    pub fn next() -> Self {
        Self(u128::from(*PROCESS) << 64 | u128::from(COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// `00-<32 hex>-<16 hex>-<2 hex>`, in lower case; a later version may append more. Anything else is none.
    fn from_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut next = |length| parts.next().filter(|part| part.len() == length && part.bytes().all(is_hex));
        let (version, trace, parent, _flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        if version == "ff" || (version == "00" && parts.next().is_some()) || parent.bytes().all(|b| b == b'0') {
            return None;
        }
        u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0).map(Self)
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn read(text: &str) -> Option<String> {
        TraceId::from_traceparent(text).map(|id| id.to_string())
    }

    #[test]
    fn a_callers_trace_is_kept_and_a_forged_one_is_not() {
        assert_eq!(read(&format!("00-{GIVEN}-00f067aa0ba902b7-01")).as_deref(), Some(GIVEN));
        assert_eq!(read(&format!("01-{GIVEN}-00f067aa0ba902b7-01-more")).as_deref(), Some(GIVEN));
        for wrong in [
            "".to_owned(),
            format!("00-{GIVEN}-00f067aa0ba902b7-01-more"),
            format!("ff-{GIVEN}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{GIVEN}-{}-01", "0".repeat(16)),
            format!("00-{}-00f067aa0ba902b7-01", GIVEN.to_uppercase()),
            format!("00-{}\n-00f067aa0ba902b7-01", &GIVEN[1..]),
            format!("00-+{}-00f067aa0ba902b7-01", &GIVEN[1..]),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn new_traces_differ() {
        assert_ne!(TraceId::next(), TraceId::next());
        assert_eq!(TraceId::next().to_string().len(), 32);
    }
}
