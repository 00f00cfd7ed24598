//! Which of the last many were counted before.

use parking_lot::Mutex;

/// Ids that share a row: only when so many newer ones have come into a row is an id forgotten.
const WAYS: usize = 8;
/// Rows; 512 KiB with their ids. The newest fifty thousand are remembered but for one in a thousand: longer than a
/// command is sent again, at any speed.
const ROWS: usize = 8_192;

/// Tells whether an id is seen for the first time, so that what is delivered twice is counted once. A table of fixed size
/// that is made with the first id, where each id has one row and the row's oldest makes room.
#[derive(Debug, Default)]
pub struct Once(Mutex<Vec<[u64; WAYS]>>);

impl Once {
    /// Whether this is the first time. Ids are not 0.
    pub fn is_first(&self, id: u64) -> bool {
        let mut rows = self.0.lock();
        if rows.is_empty() {
            rows.resize(ROWS, [0; WAYS]);
        }
        let row = &mut rows[place(id)];
        if row.contains(&id) {
            return false;
        }
        row.copy_within(..WAYS - 1, 1);
        row[0] = id;
        true
    }
}

/// Ids grow by ones and by milliseconds: multiplied by 2^64 over the golden ratio their upper bits are spread evenly.
fn place(id: u64) -> usize {
    (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - ROWS.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_once_and_memory_is_bounded() {
        let once = Once::default();
        assert!(once.is_first(7) && !once.is_first(7));
        // As the shop makes them: some in each millisecond, from several nodes.
        let ids = (0..200_000_u64).map(|n| ((1_000_000 + n / 5) << 12) | ((n % 3) << 7) | (n % 5));
        let ids: Vec<u64> = ids.collect();
        for id in &ids {
            assert!(once.is_first(*id));
            assert!(!once.is_first(*id));
        }
        let forgotten = ids.iter().rev().take(50_000).filter(|id| !once.0.lock()[place(**id)].contains(id)).count();
        assert!(forgotten < 200, "{forgotten} of the newest fifty thousand");
        assert_eq!(once.0.lock().len(), ROWS);
    }
}
