//! Slots that move between masters while everything uses them.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::faults::{BOUND, adapters, victims, works};
use super::*;

/// Values in the slot that moves, so that some are here and some are there.
const KEYS: u64 = 40;
/// One more operation's timeout. And seconds, for now: an answer of one second has been seen, where its timeout should
/// have ended it after 150 ms; why is not known.
const SCRIPT_AGAIN: Duration = Duration::from_millis(150 + 2_000);
/// Longer than a moment; and short, as a release that does not arrive leaves it held for so long.
const HELD: Duration = Duration::from_secs(1);
/// How long the slot stays half moved.
const HALF_MOVED: Duration = Duration::from_millis(300);

/// Everything that is done while the slot moves.
struct Traffic {
    cache: RedisCache,
    filter: RedisFilter,
    lock: RedisLock,
    is_over: AtomicBool,
    held: AtomicBool,
    rounds: AtomicU64,
    found: AtomicU64,
    locked: AtomicU64,
}

impl Traffic {
    /// An operation that is answered in time, whatever the answer.
    async fn bounded<T>(what: &str, operation: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let answer = operation.await;
        // A script that the new master does not know yet is sent again.
        assert!(started.elapsed() < BOUND + SCRIPT_AGAIN, "{what} took {:?}", started.elapsed());
        answer
    }

    /// Versions only rise: whoever has seen one never sees an older one again, nor another key's.
    async fn write_and_read(&self, first: u64) {
        let mut seen = vec![0; KEYS as usize + 1];
        for version in 1_u64.. {
            for key in (first..=KEYS).step_by(2) {
                let name = format!("k{key}");
                let value = Bytes::from(format!("{name} {version}"));
                Self::bounded("setting", self.cache.set(&name, version, value, LONG)).await;
                if version % 5 == 0 {
                    Self::bounded("invalidating", self.cache.invalidate(&name, version)).await;
                }
                let Some((known, value)) = Self::bounded("getting", self.cache.get_versioned(&name)).await else {
                    continue;
                };
                assert_eq!(value, format!("{name} {known}"), "another's value");
                assert!(known >= seen[key as usize] && known <= version, "{known} after {}", seen[key as usize]);
                seen[key as usize] = known;
                self.found.fetch_add(1, Relaxed);
            }
            self.rounds.fetch_add(1, Relaxed);
            if self.is_over.load(Relaxed) {
                return;
            }
        }
    }

    /// What was added may always be there.
    async fn add_and_ask(&self) {
        for id in 100.. {
            let started = Instant::now();
            self.filter.add(&[id]).await;
            // One that is not known to have happened waits until nobody trusts the filter.
            assert!(started.elapsed() < Duration::from_secs(1) + 2 * BOUND, "an add took {:?}", started.elapsed());
            for id in [1, 100 + (id - 100) / 2, id] {
                assert!(Self::bounded("filtering", self.filter.may_contain(id)).await, "a false 404 for {id}");
            }
            if self.is_over.load(Relaxed) {
                return;
            }
        }
    }

    /// A lock that moves with its slot is still one.
    async fn take_the_lock(&self) {
        while !self.is_over.load(Relaxed) {
            let Some(guard) = Self::bounded("locking", self.lock.acquire("one", HELD, Duration::ZERO)).await else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            assert!(!self.held.swap(true, Relaxed), "two have it");
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.held.store(false, Relaxed);
            self.locked.fetch_add(1, Relaxed);
            drop(guard);
        }
    }

    /// Two rounds of everything, and the half-moved time.
    async fn goes_on(&self) {
        let before = self.rounds.load(Relaxed);
        until("some rounds", || async { self.rounds.load(Relaxed) > before + 4 }).await;
        tokio::time::sleep(HALF_MOVED).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c03_slots_move_between_masters_and_every_answer_is_right_and_in_time() {
    // Nobody else fails over meanwhile; and a cluster whose masters have not changed.
    let _alone = victims().await;
    let servers = RedisCluster::start().await;
    let (cluster, cache, filter, lock, key) = adapters(&servers).await;
    works(&cache, &filter, &lock).await;
    let counter = AtomicU64::default;
    let (is_over, held) = (AtomicBool::default(), AtomicBool::default());
    let (rounds, found, locked) = (counter(), counter(), counter());
    let traffic = Traffic { cache, filter, lock, is_over, held, rounds, found, locked };
    let moves = async {
        traffic.goes_on().await;
        for _ in 0..2 {
            let (found, locked) = (traffic.found.load(Relaxed), traffic.locked.load(Relaxed));
            let master = servers.master_of(&key).await;
            let to = servers.another_master(master).await;
            servers.move_slot(&key, to, traffic.goes_on()).await;
            // Redirected, and not only refused.
            traffic.goes_on().await;
            assert!(traffic.found.load(Relaxed) > found);
            until("the lock to be had again", || async { traffic.locked.load(Relaxed) > locked }).await;
        }
        traffic.is_over.store(true, Relaxed);
    };
    tokio::join!(
        moves,
        traffic.write_and_read(1),
        traffic.write_and_read(2),
        traffic.add_and_ask(),
        traffic.take_the_lock()
    );
    let Traffic { cache, filter, lock, .. } = traffic;
    works(&cache, &filter, &lock).await;
    assert!(cluster.status().starts_with("connected;"), "{cluster:?}");
    servers.healthy().await;
}
