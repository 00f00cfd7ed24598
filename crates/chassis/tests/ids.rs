//! Ids only grow, fit 53 bits, and do not trust the clock.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chassis::ids::{IdGen, MAX_NODE};
use proptest::prelude::*;
use saga_core::Millis;
use saga_runtime::Clock;

/// 2026 in ms since the epoch.
const NOW: Millis = 1_767_225_600_000;

struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

fn at(now: Millis, node: u16) -> (Arc<HandClock>, IdGen) {
    let clock = Arc::new(HandClock(AtomicU64::new(now)));
    (clock.clone(), IdGen::new(node, clock))
}

#[test]
fn t01_a_clock_that_jumps_back_an_hour_gives_no_id_twice() {
    let (clock, ids) = at(NOW, 3);
    let mut last = 0;
    for now in [NOW, NOW - 3_600_000, NOW - 1, NOW, NOW + 1, 0, u64::MAX >> 24] {
        clock.0.store(now, Ordering::Relaxed);
        for _ in 0..300 {
            let id = ids.next();
            assert!(id > last && id < 1 << 53, "{id} after {last} at {now}");
            last = id;
        }
    }
}

#[test]
fn a_burst_within_one_millisecond_borrows_from_the_future_and_gives_it_back() {
    let (clock, ids) = at(NOW, 0);
    let burst: HashSet<u64> = (0..1_000).map(|_| ids.next()).collect();
    assert_eq!(burst.len(), 1_000);
    // 1,000 ids at 128 a millisecond: eight milliseconds later the clock has caught up.
    clock.0.store(NOW + 8, Ordering::Relaxed);
    let id = ids.next();
    assert_eq!((id >> 12) + 1_735_689_600_000, NOW + 8);
    assert!(!burst.contains(&id));
}

#[test]
fn threads_that_share_a_generator_never_get_the_same_id() {
    let (_, ids) = at(NOW, 9);
    let take = || (0..5_000).map(|_| ids.next()).collect::<Vec<u64>>();
    let all: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|of_one| of_one.windows(2).all(|pair| pair[0] < pair[1])));
    assert_eq!(all.iter().flatten().collect::<HashSet<_>>().len(), 20_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g24_whatever_the_clock_does_ids_grow_and_carry_their_node(
        node in 0..=MAX_NODE,
        // Up to 2094: until then 41 bits of milliseconds last.
        moments in proptest::collection::vec(0..3_900_000_000_000_u64, 1..60),
    ) {
        let (clock, ids) = at(0, node);
        let mut last = None;
        for now in moments {
            clock.0.store(now, Ordering::Relaxed);
            let id = ids.next();
            prop_assert!(last < Some(id));
            prop_assert!(id < 1 << 53);
            prop_assert_eq!((id >> 7) & u64::from(MAX_NODE), u64::from(node));
            last = Some(id);
        }
    }
}
