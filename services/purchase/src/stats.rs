//! Counters of what the service saw: for `/readyz?verbose`, metrics, and tests that must not be vacuous.

use saga_runtime::stats::Counter;

use crate::domain::Status;

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Stats {
    /// Purchases that were written.
    pub accepted: Counter,
    /// Answers given again for a key.
    pub replayed: Counter,
    /// Requests that found no slot.
    pub refused: Counter,
    /// Those of them that were refused because very many purchases do not end.
    pub backlog: Counter,
    /// Streams that were refused.
    pub streams_refused: Counter,
    /// Requests for a purchase that were not let wait for its news.
    pub polls_refused: Counter,
    /// Result events applied.
    pub applied: Counter,
    /// Result events that were there already, or came after the end.
    pub duplicates: Counter,
    /// Batches in which a purchase's events had a gap.
    pub gaps: Counter,
    /// Purchases that were not there.
    pub unknown: Counter,
    /// Records that became dead letters.
    pub poisoned: Counter,
    /// Purchases that ended with all of it.
    pub completed: Counter,
    /// Purchases that ended with none of it.
    pub compensated: Counter,
    /// Questions about outstanding purchases.
    pub asked: Counter,
}

impl Stats {
    /// All counters by name.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let Self { accepted, replayed, refused, applied, duplicates, gaps, unknown, poisoned, .. } = self;
        vec![
            ("accepted", accepted.get()),
            ("replayed", replayed.get()),
            ("refused", refused.get()),
            ("applied", applied.get()),
            ("duplicates", duplicates.get()),
            ("gaps", gaps.get()),
            ("unknown", unknown.get()),
            ("poisoned", poisoned.get()),
            ("completed", self.completed.get()),
            ("compensated", self.compensated.get()),
            ("asked", self.asked.get()),
            ("polls_refused", self.polls_refused.get()),
        ]
    }

    pub(crate) fn ended(&self, status: Status) {
        match status {
            Status::Completed => self.completed.inc(),
            Status::Compensated => self.compensated.inc(),
            Status::Pending | Status::Running | Status::Compensating | Status::CompensationStuck => {}
        }
    }
}
