//! Which of the last many were counted before.

use std::collections::HashSet;

use parking_lot::Mutex;

/// Ids that are remembered at least: longer than a command is sent again, at any speed.
const REMEMBERED: usize = 50_000;

/// Tells whether an id is seen for the first time, so that what is delivered twice is counted once. Remembers the last
/// fifty thousand at least, and a hundred thousand at most.
#[derive(Debug, Default)]
pub struct Once(Mutex<[HashSet<u64>; 2]>);

impl Once {
    /// Whether this is the first time.
    pub fn is_first(&self, id: u64) -> bool {
        let mut both = self.0.lock();
        let [young, old] = &mut *both;
        if young.contains(&id) || old.contains(&id) {
            return false;
        }
        if young.len() >= REMEMBERED {
            std::mem::swap(young, old);
            young.clear();
        }
        young.insert(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_once_and_memory_is_bounded() {
        let once = Once::default();
        assert!(once.is_first(7) && !once.is_first(7));
        for id in 100..100 + 2 * REMEMBERED as u64 {
            assert!(once.is_first(id));
            assert!(!once.is_first(id));
        }
        let sizes = once.0.lock().each_ref().map(HashSet::len);
        assert!(sizes.iter().all(|size| *size <= REMEMBERED), "{sizes:?}");
        assert!(!once.is_first(100 + 2 * REMEMBERED as u64 - 1 - REMEMBERED as u64 / 2), "of late");
    }
}
