//! Counters of what a loop saw: for `/readyz?verbose`, metrics and tests that must not be vacuous.
//!
//! Counted with relaxed atomics and never waited for. What is told apart (definitions, steps, groups) is known at the
//! start and does not grow with what arrives.

mod groups;
mod histogram;
mod sagas;

use std::sync::atomic::{AtomicU64, Ordering};

pub use groups::{Group, Groups};
pub use histogram::{Histogram, Snapshot, micros};
pub use sagas::{Ended, Moment, OfDefinition, OfStep, Sagas};

use crate::orchestrator::Definitions;

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// Counters since the start of the process.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $field: Counter,)*
            /// How late the earliest of the timers was that a loop woke up for.
            pub timer_lag: Histogram,
            /// By definition and step.
            pub sagas: Sagas,
            /// By participant.
            pub groups: Groups,
        }

        impl Stats {
            /// All counters by name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.get()),)*]
            }
        }
    };
}

stats! {
    /// Sagas started.
    started,
    /// Sagas that ended with all of it.
    completed,
    /// Sagas that ended with none of it.
    compensated,
    /// Sagas that came to need a human.
    stuck,
    /// Transitions committed.
    transitions,
    /// Commits: transitions per commit is the batch size.
    commits,
    /// Commands sent again by a timer.
    repeated,
    /// Commands sent again because a saga was taken over.
    recovered,
    /// Replies to what is not, or no longer, asked: late or duplicate.
    late_replies,
    /// Starts of sagas that exist.
    duplicate_starts,
    /// Messages about sagas that do not exist.
    unknown_sagas,
    /// Starts of sagas that have ended and were removed: ignored.
    late_starts,
    /// Commands for sagas that have ended and were removed: without effect or answer.
    late_commands,
    /// Commands that their participant had answered before: it gave the stored answer again, without an effect.
    duplicate_commands,
    /// Sagas of the orchestrator, and barrier rows of participants, that were removed because they are forgotten.
    removed,
    /// Promises of a starter that a saga which has not ended keeps from being followed in full.
    held_back,
    /// Compare-and-set that lost.
    conflicts,
    /// Commits refused because another owner had taken over.
    fenced,
    /// Messages that the bus took.
    published,
    /// Records that were not messages of ours.
    poisoned,
    /// Units that were run again because the store or the bus could not.
    retried_units,
    /// Sagas whose rows make no sense; they are left alone and a human is told.
    quarantined,
}

impl Stats {
    /// Of a process whose sagas have these definitions.
    pub fn of(definitions: &Definitions) -> Self {
        Self { sagas: Sagas::of(definitions), ..Self::default() }
    }
}

/// A counter that many threads count up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
