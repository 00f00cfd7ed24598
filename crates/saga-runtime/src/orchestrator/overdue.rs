//! Sagas whose time is over and whose timer, if there is one, is later: looked for in the rows, a page at a time.
//!
//! Timers are in the memory of whichever loop decided last. An operator's verb may have been carried out by a loop that drives
//! another partition: should it end before anybody answers, the one that drives the saga was told nothing. What is found gets
//! a timer that fires at once, and is read again for it.

use std::collections::HashMap;

use saga_core::{Millis, Saga, SagaKey};

use super::Orchestrator;
use super::recovery::PAGE;
use crate::store::SagaRow;

/// Between two rounds, in ms. Seldom is soon enough, and a round may be long.
const EVERY: Millis = 30_000;
/// Between two pages of a round, in ms.
const BETWEEN: Millis = 1_000;
/// How long a saga's time must be over, in ms: a loop that has much to do comes to its timers late.
const SLACK: Millis = 10_000;

/// Where the round is.
#[derive(Debug, Default)]
pub(super) struct Patrol {
    next: Millis,
    after: Option<SagaKey>,
    /// Counts the rounds.
    round: u64,
    /// At which version a saga had nothing to do though its time is over (a deadline came too late to turn it back), and in
    /// which round that was last seen.
    idle: HashMap<SagaKey, (u64, u64)>,
}

impl Patrol {
    /// Begins after `now`.
    pub(super) fn from(now: Millis) -> Self {
        Self { next: now + EVERY, ..Self::default() }
    }

    /// When the next page is looked at, in ms since the epoch.
    pub(super) fn next(&self) -> Millis {
        self.next
    }

    /// There is nothing to do for a saga as it is now, and its row will go on saying that its time is over.
    pub(super) fn leave_alone(&mut self, saga: &Saga) {
        self.idle.insert(saga.key.clone(), (saga.version, self.round));
    }

    /// Whether there was nothing to do for the saga as this row has it; seen once more.
    fn leaves_alone(&mut self, row: &SagaRow) -> bool {
        let known = self.idle.get_mut(&row.key).filter(|(version, _)| *version == row.version);
        known.map(|(_, seen)| *seen = self.round).is_some()
    }

    /// The page up to `last` was looked at `now`; `None`: it was the last one of its round.
    fn turn(&mut self, last: Option<SagaKey>, now: Millis) {
        self.next = now + if last.is_some() { BETWEEN } else { EVERY };
        if last.is_none() {
            // What was not seen in this round has ended elsewhere.
            let round = self.round;
            self.idle.retain(|_, (_, seen)| *seen >= round);
            self.round += 1;
        }
        self.after = last;
    }

    /// A saga has moved on.
    pub(super) fn moved(&mut self, key: &SagaKey) {
        self.idle.remove(key);
    }
}

impl Orchestrator {
    /// Looks at the next page, if it is time for it.
    pub(super) async fn look_for_overdue(&mut self) {
        let now = self.context.clock.now();
        // A clock that was set back does not end the rounds.
        if (now + 1..=now + EVERY).contains(&self.patrol.next) {
            return;
        }
        let page = match self.store.in_flight(self.owner.partition, self.patrol.after.clone(), PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "looking for sagas whose time is over failed; trying again");
                self.patrol.next = now + EVERY;
                return;
            }
        };
        let mut overdue: Vec<&SagaRow> = page.iter().filter(|row| self.is_overdue(row, now)).collect();
        overdue.retain(|row| !self.patrol.leaves_alone(row));
        if let Some(first) = overdue.first() {
            tracing::info!(count = overdue.len(), first = %first.key, "sagas whose time is over are looked at again");
        }
        for SagaRow { key, .. } in overdue {
            self.cache.remove(key);
            self.timers.set(key, Some(now));
        }
        let is_full = page.len() == PAGE as usize;
        self.patrol.turn(page.last().filter(|_| is_full).map(|row| row.key.clone()), now);
    }

    fn is_overdue(&self, row: &SagaRow, now: Millis) -> bool {
        let is_seen_to = match self.timers.of(&row.key) {
            Some(at) => at <= now || self.recovering.contains(&row.key),
            None => false,
        };
        row.wake_at.is_some_and(|at| at + SLACK <= now) && !is_seen_to && !self.quarantined.contains(&row.key)
    }
}
