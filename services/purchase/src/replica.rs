//! One of several purchase services.
//!
//! A customer's stream is open at one of them, and any of them may be the one that writes an event down. So each has a
//! consumer group of its own and hears every result; the row decides which of them applies an event (the others find it
//! applied), and each tells its own customers. Slots are held by whoever accepted the purchase: its id says who that was.

use std::collections::HashMap;
use std::ops::Range;

use chassis::ids;
use parking_lot::Mutex;

use crate::store::Group;

/// More than are ever on their way; then it begins anew, and some customers hear something twice.
const MOST: usize = 500_000;

/// Which one, and what it has told.
#[derive(Debug)]
pub(crate) struct Replica {
    node: u16,
    /// By purchase on its way: the last event that its streams were told.
    told: Mutex<HashMap<u64, u32>>,
}

impl Replica {
    pub(crate) fn new(node: u16) -> Self {
        Self { node, told: Mutex::default() }
    }

    /// Its consumer group.
    pub(crate) fn group(&self) -> String {
        format!("purchase-{}", self.node)
    }

    /// Whether it accepted this purchase.
    pub(crate) fn is_own(&self, id: u64) -> bool {
        ids::node_of(id) == self.node
    }

    /// Which events of a group its customers have not heard, and whether the end is among them. `fresh` are those that
    /// this one wrote down; `duplicates` stood there before, by whomever.
    pub(crate) fn untold(&self, group: &Group, fresh: &Range<usize>, duplicates: usize) -> (Range<usize>, bool) {
        let known = fresh.end.max(duplicates);
        let mut told = self.told.lock();
        let last = told.get(&group.id).copied().unwrap_or(0);
        let first = group.events[..known].partition_point(|event| event.seq <= last);
        let untold = first..known;
        let Some(newest) = group.events[untold.clone()].last() else { return (0..0, false) };
        if newest.terminal {
            told.remove(&group.id);
        } else {
            if told.len() >= MOST {
                told.clear();
            }
            told.insert(group.id, newest.seq);
        }
        (untold, newest.terminal)
    }
}

#[cfg(test)]
mod tests {
    use saga_core::protocol::{ResultEvent, ResultStatus};

    use super::*;

    fn group(seqs: Range<u32>, last: u32) -> Group {
        let event = |seq| ResultEvent {
            saga_id: 7,
            seq,
            step: "a-step".into(),
            status: ResultStatus::Success,
            terminal: seq == last,
            reason: None,
            at: 1,
        };
        Group { id: 7, events: seqs.map(event).collect() }
    }

    #[test]
    fn what_another_wrote_down_is_told_here_too_and_once() {
        let replica = Replica::new(3);
        assert_eq!(replica.untold(&group(1..4, 9), &(0..0), 3), (0..3, false));
        assert_eq!(replica.untold(&group(1..4, 9), &(0..0), 3), (0..0, false), "delivered again");
        assert_eq!(replica.untold(&group(3..6, 9), &(1..3), 1), (1..3, false), "one is known, two are new");
        assert_eq!(replica.untold(&group(6..10, 9), &(0..0), 4), (0..4, true));
    }

    #[test]
    fn what_comes_after_a_gap_is_not_told() {
        let replica = Replica::new(3);
        assert_eq!(replica.untold(&group(5..8, 9), &(0..0), 0), (0..0, false));
    }

    #[test]
    fn slots_belong_to_whoever_made_the_id() {
        let own = 3 << 7;
        assert!(Replica::new(3).is_own(own) && !Replica::new(4).is_own(own));
    }
}
