//! Results of purchases that nobody watches wait for those that follow, to be written down together.
//!
//! ```text
//!   heard ─► held, by purchase ─┬─ the end came, or somebody watches ─► due
//!                               └─ the oldest has waited long enough ─► due, all of them
//! ```
//!
//! A purchase on the real stack has nine results, in five batches. To write its row five times costs more than what
//! the payment service does for it, and most purchases have ended before anybody asks. What is held is in the log of the
//! bus: its offset is committed when everything is written, so a crash only makes it arrive again.

use std::collections::HashMap;
use std::time::Duration;

use saga_core::protocol::ResultEvent;
use saga_runtime::Delivery;
use saga_runtime::trace::units::Handled;

/// Results held at once, at most: some megabytes.
const MOST: usize = 4_096;

/// A result that has arrived and is not yet written down.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Kept only as long as it may have to be buried.
    pub(crate) delivery: Delivery,
    pub(crate) event: ResultEvent,
    /// In ns since the epoch.
    pub(crate) arrived: u64,
    /// Its span, if its trace is kept.
    pub(crate) handled: Option<Handled>,
}

/// What waits.
#[derive(Debug)]
pub(crate) struct Held {
    purchases: HashMap<u64, Vec<Heard>>,
    count: usize,
    /// When the first of them came, in ns since the epoch.
    since: u64,
    patience: Duration,
}

impl Held {
    /// Holds nothing longer than `patience`; zero: nothing at all.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { purchases: HashMap::new(), count: 0, since: 0, patience }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A result came.
    pub(crate) fn hear(&mut self, heard: Heard) {
        if self.is_empty() {
            self.since = heard.arrived;
        }
        self.count += 1;
        self.purchases.entry(heard.event.saga_id).or_default().push(heard);
    }

    /// How long until everything is due; `None`: nothing waits.
    pub(crate) fn left(&mut self, now: u64) -> Option<Duration> {
        // A clock that was set back makes them wait once more, and no longer than usual.
        self.since = self.since.min(now);
        let waited = Duration::from_nanos(now - self.since);
        (!self.is_empty()).then(|| self.patience.saturating_sub(waited))
    }

    /// Takes what is to be written down now: purchases that have ended, those that somebody watches, and everything when
    /// the first has waited long enough or too many wait.
    pub(crate) fn due(&mut self, now: u64, is_watched: impl Fn(u64) -> bool) -> Vec<Heard> {
        let all = self.count >= MOST || self.left(now).is_some_and(|left| left.is_zero());
        let is_due =
            |id: &u64, heard: &mut Vec<Heard>| all || heard.iter().any(|heard| heard.event.terminal) || is_watched(*id);
        let due: Vec<Heard> = self.purchases.extract_if(is_due).flat_map(|(_, heard)| heard).collect();
        self.count -= due.len();
        due
    }
}

#[cfg(test)]
mod tests {
    use saga_core::protocol::ResultStatus;
    use saga_runtime::Message;
    use saga_runtime::bus::Position;

    use super::*;

    const LONG: Duration = Duration::from_nanos(100);

    fn heard(id: u64, seq: u32, terminal: bool, arrived: u64) -> Heard {
        let status = ResultStatus::Success;
        let event = ResultEvent { saga_id: id, seq, step: "a-step".into(), status, terminal, reason: None, at: 1 };
        let message = Message {
            topic: "purchase-result".into(),
            key: "7".into(),
            headers: Vec::new().into(),
            payload: "".into(),
        };
        let position = Position { topic: "purchase-result".into(), partition: 0, offset: u64::from(seq) };
        Heard { delivery: Delivery { message, position }, event, arrived, handled: None }
    }

    fn due(held: &mut Held, now: u64, watched: u64) -> Vec<(u64, u32)> {
        let mut due: Vec<_> =
            held.due(now, |id| id == watched).iter().map(|h| (h.event.saga_id, h.event.seq)).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn a_purchase_waits_until_it_has_ended_and_then_goes_as_a_whole() {
        let mut held = Held::new(LONG);
        held.hear(heard(1, 1, false, 10));
        held.hear(heard(2, 1, false, 10));
        assert_eq!(due(&mut held, 20, 0), []);
        held.hear(heard(1, 2, true, 30));
        assert_eq!(due(&mut held, 30, 0), [(1, 1), (1, 2)]);
        assert!(!held.is_empty());
    }

    #[test]
    fn who_is_watched_does_not_wait() {
        let mut held = Held::new(LONG);
        held.hear(heard(1, 1, false, 10));
        held.hear(heard(2, 1, false, 10));
        assert_eq!(due(&mut held, 10, 2), [(2, 1)]);
    }

    #[test]
    fn nothing_waits_longer_than_it_may_and_the_wait_begins_anew_after_that() {
        let mut held = Held::new(LONG);
        assert_eq!(held.left(5), None);
        held.hear(heard(1, 1, false, 10));
        held.hear(heard(2, 1, false, 90));
        assert_eq!(held.left(60), Some(Duration::from_nanos(50)));
        assert_eq!(due(&mut held, 110, 0), [(1, 1), (2, 1)]);
        assert!(held.is_empty());
        held.hear(heard(3, 1, false, 200));
        assert_eq!(held.left(200), Some(LONG));
        assert_eq!(held.left(150), Some(LONG), "the clock was set back");
        assert_eq!(due(&mut held, 249, 0), []);
        assert_eq!(due(&mut held, 250, 0), [(3, 1)], "and goes on from there");
    }

    #[test]
    fn with_no_patience_everything_is_due_at_once() {
        let mut held = Held::new(Duration::ZERO);
        held.hear(heard(1, 1, false, 10));
        assert_eq!(due(&mut held, 10, 0), [(1, 1)]);
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let mut held = Held::new(LONG);
        (0..4_096).for_each(|id| held.hear(heard(id, 1, false, 10)));
        assert_eq!(due(&mut held, 10, 0).len(), MOST);
    }
}
