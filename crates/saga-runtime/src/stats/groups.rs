//! What each participant of a process did.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{Counter, Histogram};

/// A participant's batches.
#[derive(Debug)]
pub struct Group {
    /// The consumer group.
    pub name: String,
    /// Commands in a unit of work.
    pub batch: Histogram,
    /// How long the participant took for one, in microseconds: mostly its transaction.
    pub handling: Histogram,
    /// Records that became dead letters.
    pub poisoned: Counter,
    /// Batches that could not be written and were tried again.
    pub retried: Counter,
}

/// All of them: as many as a process runs.
#[derive(Debug, Default)]
pub struct Groups(RwLock<Vec<Arc<Group>>>);

impl Groups {
    /// The group of this name.
    pub fn of(&self, name: &str) -> Arc<Group> {
        let mut groups = self.0.write();
        if let Some(known) = groups.iter().find(|group| group.name == name) {
            return Arc::clone(known);
        }
        let group = Arc::new(Group {
            name: name.to_owned(),
            batch: Histogram::sizes(),
            handling: Histogram::durations(),
            poisoned: Counter::default(),
            retried: Counter::default(),
        });
        groups.push(Arc::clone(&group));
        group
    }

    /// Every group so far.
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.0.read().clone()
    }
}
