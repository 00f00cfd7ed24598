//! The audit port: who did what to what, why, and how it ended.
//!
//! Promised: an order that changes something leaves exactly one line. The line is begun before anything is changed and
//! ended when the outcome is known, so that no effect is without a line; one that still says [`BEGUN`] belongs to a
//! process that died between, or that could not write any more. It is withdrawn if it is certain that nothing was changed:
//! the order was refused, or there was nothing to do. What was done to a saga also stands in its history.

use async_trait::async_trait;
use saga_core::Millis;

use crate::store::StoreError;

/// The outcome of a line whose order has not ended.
pub const BEGUN: &str = "begun";
/// The outcome of what was done.
pub const DONE: &str = "done";
/// The most that is kept of a line's details, in bytes.
pub const LONGEST_DETAILS: usize = 8_192;

/// Who wants what, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    /// When, in ms since the epoch.
    pub at: Millis,
    /// Who, as the door knows them: `account 123`, `local`.
    pub actor: String,
    /// What: `saga.retry`.
    pub action: String,
    /// To what: `purchase/123`, a topic, an address.
    pub target: String,
    /// Why, in their words.
    pub reason: String,
    /// More, as JSON; see [`details`].
    pub details: String,
}

/// A line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditLine {
    /// Ascending with time.
    pub id: u64,
    /// Who wanted what.
    pub entry: AuditEntry,
    /// `done`; `failed: <code>` of what may have been done in part; or [`BEGUN`]. (Older lines: `refused: <code>`.)
    pub outcome: String,
}

/// Which lines. All conditions hold together; the newest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditFilter {
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only to this target.
    pub target: Option<String>,
    /// Only lines before this one (from the page before).
    pub before: Option<u64>,
    /// At most this many.
    pub limit: u32,
}

/// Keeps the lines. None is ever changed or removed once it has ended.
#[async_trait]
pub trait AuditLog: Send + Sync + 'static {
    /// Begins a line, durably; its id.
    ///
    /// # Errors
    /// See [`StoreError`]; the order must not be carried out.
    async fn begin(&self, entry: AuditEntry) -> Result<u64, StoreError>;

    /// Ends a line. One that has ended stays as it is.
    ///
    /// # Errors
    /// See [`StoreError`]; the line says [`BEGUN`].
    async fn end(&self, id: u64, outcome: String, details: String) -> Result<(), StoreError>;

    /// Takes back a line that has begun and not ended: nothing came of the order. One that has ended stays as it is.
    ///
    /// # Errors
    /// See [`StoreError`]; the line says [`BEGUN`].
    async fn withdraw(&self, id: u64) -> Result<(), StoreError>;

    /// A page for people.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list(&self, filter: AuditFilter) -> Result<Vec<AuditLine>, StoreError>;
}

/// Details as they are kept: as JSON, and where that is longer than [`LONGEST_DETAILS`], only that it was.
pub fn details(value: &serde_json::Value) -> String {
    let text = value.to_string();
    if text.len() <= LONGEST_DETAILS { text } else { format!("{{\"omitted_bytes\":{}}}", text.len()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn details_that_are_too_long_are_left_out_and_say_so() {
        assert_eq!(details(&json!({ "ids": [1] })), r#"{"ids":[1]}"#);
        let long = details(&json!({ "ids": vec![1_u64 << 50; 1_000] }));
        assert!(long.len() < 50 && long.contains("omitted_bytes"), "{long}");
    }
}
