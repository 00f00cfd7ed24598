//! When each saga in flight wants to be looked at. In memory only: it follows from the rows.

use std::collections::{BTreeSet, HashMap};

use saga_core::{Millis, Saga, SagaKey};

/// One moment per saga.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Millis, SagaKey)>,
    at: HashMap<SagaKey, Millis>,
}

impl Timers {
    /// Sets, moves or (with `None`) clears a saga's moment.
    pub(super) fn set(&mut self, key: &SagaKey, at: Option<Millis>) {
        let before = match at {
            Some(at) => self.at.insert(key.clone(), at),
            None => self.at.remove(key),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.queue.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.queue.insert((at, key.clone()));
        }
    }

    /// When a saga wants to be looked at; a moment that is over is now, and nobody is late for it.
    pub(super) fn follow(&mut self, saga: &Saga, now: Millis) {
        self.set(&saga.key, saga.wake_at().map(|at| at.max(now)));
    }

    /// A saga's moment.
    pub(super) fn of(&self, key: &SagaKey) -> Option<Millis> {
        self.at.get(key).copied()
    }

    /// The earliest moment.
    pub(super) fn next(&self) -> Option<Millis> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes out up to `limit` sagas whose moment has come. They are gone until they are set again.
    pub(super) fn due(&mut self, now: Millis, limit: usize) -> Vec<SagaKey> {
        let mut due = Vec::new();
        while due.len() < limit && self.next().is_some_and(|at| at <= now) {
            if let Some((_, key)) = self.queue.pop_first() {
                self.at.remove(&key);
                due.push(key);
            }
        }
        due
    }
}
