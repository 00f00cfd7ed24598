//! Cache, filter and lock on a real Redis cluster of six nodes, well and unwell.
//!
//! With `SAGA_REDIS_MODULE=…/redisbloom.so` the servers have `CF.*`, and the filter is a cuckoo filter.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use saga_adapters::inproc::InProcCache;
use saga_adapters::redis::{Cluster, FilterOptions, Layered, Options, RedisCache, RedisFilter, RedisLock};
use saga_runtime::SystemClock;
use saga_runtime::cache::{Cache, Filter, Lock};
use testkit::conformance::{Fixture, until};
use testkit::redis::RedisCluster;
use tokio::sync::OnceCell;

const LONG: Duration = Duration::from_secs(600);

/// One cluster for all tests that do not harm it; the guardian ends it with the process.
async fn servers() -> &'static RedisCluster {
    static SERVERS: OnceCell<RedisCluster> = OnceCell::const_new();
    SERVERS.get_or_init(RedisCluster::start).await
}

/// A name of its own for every test.
fn fresh(what: &str) -> String {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    format!("{what}-{}:", NAMES.fetch_add(1, Relaxed))
}

/// A busy machine is no failure here: the bounds have tests of their own.
fn patient() -> Options {
    Options { timeout: Duration::from_secs(2), ..Options::default() }
}

async fn connected(servers: &RedisCluster, options: Options) -> Cluster {
    let cluster = Cluster::connect(servers.urls(), options).unwrap();
    until("a connection", || async { cluster.status().starts_with("connected") }).await;
    cluster
}

mod the_cache {
    use super::*;

    async fn make() -> Fixture<Arc<dyn Cache>> {
        let cluster = connected(servers().await, patient()).await;
        Fixture::new(Arc::new(RedisCache::new(cluster, &fresh("cache"))))
    }

    testkit::cache_conformance!(make);
}

mod the_layered_cache {
    use super::*;

    async fn make() -> Fixture<Arc<dyn Cache>> {
        let cluster = connected(servers().await, patient()).await;
        let l2 = RedisCache::new(cluster, &fresh("layered"));
        Fixture::new(Arc::new(Layered::new(InProcCache::new(100, Arc::new(SystemClock)), l2, Duration::from_secs(2))))
    }

    testkit::cache_conformance!(make);
}

mod the_lock {
    use super::*;

    async fn make() -> Fixture<Arc<dyn Lock>> {
        let cluster = connected(servers().await, patient()).await;
        Fixture::new(Arc::new(RedisLock::new(cluster, &fresh("lock"))))
    }

    testkit::lock_conformance!(make);
}

mod the_filter {
    use super::*;

    async fn make() -> Fixture<Arc<dyn Filter>> {
        let cluster = connected(servers().await, patient()).await;
        Fixture::new(Arc::new(RedisFilter::new(cluster, &fresh("filter"), FilterOptions::default())))
    }

    testkit::filter_conformance!(make);
}

mod garbage {
    use super::*;

    #[tokio::test]
    async fn c15_garbage_at_a_key_is_a_miss_and_is_written_over() {
        let (servers, prefix) = (servers().await, fresh("garbage"));
        let cache = RedisCache::new(connected(servers, patient()).await, &prefix);
        let key = format!("{prefix}one");
        let master = servers.master_of(&key).await;
        for garbage in [format!("SET {key} x"), format!("SET {key} 99999999999999999999vx"), format!("LPUSH {key} x")] {
            servers.ask(master, &format!("DEL {key}")).await.unwrap();
            servers.ask(master, &garbage).await.unwrap();
            assert_eq!(cache.get("one").await, None, "{garbage}");
            cache.set("one", u64::MAX, Bytes::from_static(b"a"), LONG).await;
            assert_eq!(cache.get_versioned("one").await, Some((u64::MAX, Bytes::from_static(b"a"))), "{garbage}");
        }
    }

    #[tokio::test]
    async fn an_invalidation_that_did_not_reach_the_cluster_counts_in_this_process() {
        let (servers, prefix) = (servers().await, fresh("lost"));
        let l2 = RedisCache::new(connected(servers, patient()).await, &prefix);
        let l1 = InProcCache::new(100, Arc::new(SystemClock));
        l2.set("one", 1, Bytes::from_static(b"old"), LONG).await;
        l1.invalidate("one", 2).await;
        assert_eq!(Layered::new(l1, l2, Duration::from_secs(2)).get("one").await, None);
    }
}

/// Several replicas of one service, and what becomes of the filter's keys.
mod the_shared_filter {
    use super::*;

    async fn replica(name: &str, options: FilterOptions) -> RedisFilter {
        RedisFilter::new(connected(servers().await, patient()).await, name, options)
    }

    async fn fill(filter: &RedisFilter, ids: &[u64]) {
        filter.begin(ids.len() as u64).await;
        filter.add(ids).await;
        filter.ready().await;
    }

    async fn denies(filter: &RedisFilter, id: u64) -> bool {
        !filter.may_contain(id).await
    }

    #[tokio::test]
    async fn what_one_replica_fills_the_others_use() {
        let name = fresh("shared");
        let (one, two) =
            (replica(&name, FilterOptions::default()).await, replica(&name, FilterOptions::default()).await);
        two.needs_filling().await;
        fill(&one, &[1, 2]).await;
        until("two to deny", || denies(&two, 3)).await;
        two.add(&[3]).await;
        for id in 1..=3 {
            assert!(one.may_contain(id).await && two.may_contain(id).await, "{id}");
        }
    }

    #[tokio::test]
    async fn an_id_whose_row_is_still_being_written_is_in_the_next_version_too() {
        let name = fresh("flight");
        let (one, two) =
            (replica(&name, FilterOptions::default()).await, replica(&name, FilterOptions::default()).await);
        fill(&one, &[1]).await;
        two.add(&[7]).await;
        // One reads rows that are visible; 7 is not among them yet. 8 is added while it reads.
        one.begin(1).await;
        one.add(&[1]).await;
        two.add(&[8]).await;
        one.ready().await;
        until("one to deny", || denies(&one, 100)).await;
        for id in [1, 7, 8] {
            assert!(one.may_contain(id).await && two.may_contain(id).await, "{id}");
        }
    }

    #[tokio::test]
    async fn of_two_that_fill_at_a_time_nothing_is_lost() {
        let name = fresh("two");
        let (one, two) =
            (replica(&name, FilterOptions::default()).await, replica(&name, FilterOptions::default()).await);
        one.begin(2).await;
        two.begin(2).await;
        one.add(&[1]).await;
        two.add(&[1, 2]).await;
        one.ready().await;
        assert!(one.may_contain(9).await, "the other one's is the one to come");
        one.add(&[3]).await;
        two.ready().await;
        until("both to deny", || async { denies(&one, 9).await && denies(&two, 9).await }).await;
        for id in 1..=3 {
            assert!(one.may_contain(id).await && two.may_contain(id).await, "{id}");
        }
    }

    #[tokio::test]
    async fn a_replica_without_a_sign_of_life_ends_the_trust_until_it_is_forgotten_and_the_filter_filled_again() {
        let name = fresh("mortal");
        let options = FilterOptions { forget: Duration::from_secs(2), ..FilterOptions::default() };
        let one = replica(&name, options.clone()).await;
        // In another runtime, which is gone at once: it takes leave of nobody.
        std::thread::spawn({
            let (urls, name, options) = (servers().await.urls(), name.clone(), options.clone());
            move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let filter = runtime.block_on(async {
                    let filter = RedisFilter::new(Cluster::connect(urls, patient()).unwrap(), &name, options);
                    until("a sign", || async { !filter.is_cut_off() }).await;
                    filter
                });
                runtime.shutdown_background();
                drop(filter);
            }
        })
        .join()
        .unwrap();
        fill(&one, &[1]).await;
        until("the lease to end", || async { one.may_contain(9).await }).await;
        tokio::time::timeout(Duration::from_secs(20), one.needs_filling()).await.unwrap();
        assert!(one.may_contain(9).await, "forgotten together with what it may have missed");
        fill(&one, &[1]).await;
        assert!(denies(&one, 9).await);
    }

    #[tokio::test]
    async fn an_add_that_fails_ends_the_trust_of_all_replicas_before_it_returns() {
        let (servers, name) = (servers().await, fresh("revoked"));
        // One that can be cut off alone: by what its user may do.
        let user = name.trim_end_matches(':');
        let everywhere = async |rule: &str| {
            for node in 0..testkit::redis::NODES {
                servers.ask(node, &format!("ACL SETUSER {user} {rule}")).await.unwrap();
            }
        };
        everywhere("on >secret ~* +@all").await;
        let urls = servers.urls().into_iter().map(|url| url.replace("//", &format!("//{user}:secret@")));
        let cluster = Cluster::connect(urls, patient()).unwrap();
        let two = RedisFilter::new(cluster, &name, FilterOptions::default());
        until("two to join", || async { !two.is_cut_off() }).await;
        let one = replica(&name, FilterOptions::default()).await;
        fill(&one, &[1]).await;
        until("both to deny", || async { denies(&one, 9).await && denies(&two, 9).await }).await;
        everywhere("-@all").await;
        two.add(&[7]).await;
        for filter in [&one, &two] {
            assert!(filter.may_contain(7).await && filter.may_contain(9).await);
        }
        everywhere("+@all").await;
        one.needs_filling().await;
        fill(&one, &[1]).await;
        until("both to deny", || async { denies(&one, 9).await && denies(&two, 9).await }).await;
        assert!(one.may_contain(7).await && two.may_contain(7).await, "its row may not have been visible yet");
    }

    #[tokio::test]
    async fn c11_whatever_key_is_lost_everything_may_exist_until_it_is_filled_again() {
        let (servers, name) = (servers().await, fresh("c11"));
        let filter = replica(&name, FilterOptions::default()).await;
        let state = format!("{{{name}}}:filter");
        let master = servers.master_of(&state).await;
        for lose_ids in [false, true] {
            fill(&filter, &[1]).await;
            assert!(denies(&filter, 9).await);
            let lost = if lose_ids {
                let version = servers.ask(master, &format!("HGET {state} pub")).await.unwrap();
                format!("{state}:{version}")
            } else {
                state.clone()
            };
            assert_eq!(servers.ask(master, &format!("DEL {lost}")).await.unwrap(), "1");
            for _ in 0..100 {
                assert!(filter.may_contain(9).await);
            }
            filter.add(&[2]).await;
            assert!(filter.may_contain(9).await, "an add makes it no filter");
            filter.needs_filling().await;
        }
        fill(&filter, &[1]).await;
        assert!(denies(&filter, 9).await);
    }

    #[tokio::test]
    async fn a_version_that_was_lost_while_it_was_filled_is_not_published() {
        let (servers, name) = (servers().await, fresh("half"));
        let filter = replica(&name, FilterOptions::default()).await;
        let state = format!("{{{name}}}:filter");
        let master = servers.master_of(&state).await;
        filter.begin(2).await;
        filter.add(&[1]).await;
        let version = servers.ask(master, &format!("HGET {state} bld")).await.unwrap();
        assert_eq!(servers.ask(master, &format!("DEL {state}:{version}")).await.unwrap(), "1");
        filter.add(&[2]).await;
        filter.ready().await;
        assert!(filter.may_contain(1).await && filter.may_contain(9).await);
    }
}

/// A cluster of their own, one test at a time; each leaves it whole.
mod faults {
    use std::time::Instant;

    use tokio::sync::{Mutex, MutexGuard};

    use super::*;

    /// What an operation may take: its timeout, and what a busy machine adds.
    const BOUND: Duration = Duration::from_millis(150 + 350);

    async fn victims() -> MutexGuard<'static, RedisCluster> {
        static VICTIMS: OnceCell<Mutex<RedisCluster>> = OnceCell::const_new();
        let victims = VICTIMS.get_or_init(|| async { Mutex::new(RedisCluster::start().await) }).await.lock().await;
        // Also after a test that failed.
        victims.repair().await;
        victims
    }

    /// Every port's operations, each within the bound; whether the cache gave what was set.
    async fn ask_all(cache: &RedisCache, filter: &RedisFilter, lock: &RedisLock) -> bool {
        let bounded = async |what: &str, started: Instant| {
            let took = started.elapsed();
            assert!(took < BOUND, "{what} took {took:?}");
        };
        let started = Instant::now();
        cache.set("one", 1, Bytes::from_static(b"a"), LONG).await;
        bounded("setting", started).await;
        let started = Instant::now();
        let found = cache.get("one").await;
        bounded("getting", started).await;
        let started = Instant::now();
        assert!(filter.may_contain(1).await, "a wrong no");
        bounded("filtering", started).await;
        let started = Instant::now();
        drop(lock.acquire("one", LONG, Duration::ZERO).await);
        bounded("locking", started).await;
        found.is_some()
    }

    /// All in one slot: one master's fate is theirs.
    async fn adapters(servers: &RedisCluster) -> (Cluster, RedisCache, RedisFilter, RedisLock, String) {
        let tag = fresh("fault");
        let cluster = connected(servers, Options::default()).await;
        let cache = RedisCache::new(cluster.clone(), &format!("{{{tag}}}:cache:"));
        let filter = RedisFilter::new(cluster.clone(), &tag, FilterOptions::default());
        let lock = RedisLock::new(cluster.clone(), &format!("{{{tag}}}:lock:"));
        (cluster, cache, filter, lock, format!("{{{tag}}}:filter"))
    }

    async fn fill(filter: &RedisFilter, ids: &[u64]) {
        filter.begin(ids.len() as u64).await;
        filter.add(ids).await;
        filter.ready().await;
    }

    /// Cache and filter work (again).
    async fn works(cache: &RedisCache, filter: &RedisFilter, lock: &RedisLock) {
        until("the cache to work", || ask_all(cache, filter, lock)).await;
        until("the filter to work", || async {
            fill(filter, &[1]).await;
            !filter.may_contain(9).await
        })
        .await;
        until("the lock to work", || async { lock.acquire("two", LONG, Duration::ZERO).await.is_some() }).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn c01_the_master_of_a_key_is_killed() {
        let servers = victims().await;
        let (_cluster, cache, filter, lock, key) = adapters(&servers).await;
        works(&cache, &filter, &lock).await;
        let master = servers.master_of(&key).await;
        servers.kill(master);
        let killed = Instant::now();
        while killed.elapsed() < Duration::from_secs(1) {
            ask_all(&cache, &filter, &lock).await;
        }
        servers.master_other_than(&key, master).await;
        // The replica has the ids, perhaps not all: it denies nothing.
        for _ in 0..100 {
            assert!(filter.may_contain(9).await, "the promoted replica is trusted");
        }
        works(&cache, &filter, &lock).await;
        servers.repair().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn c02_the_master_of_a_key_hangs() {
        let servers = victims().await;
        let (cluster, cache, filter, lock, key) = adapters(&servers).await;
        works(&cache, &filter, &lock).await;
        let (rebuilds, master) = (cluster.stats().rebuilds.load(Relaxed), servers.master_of(&key).await);
        servers.hang(master);
        let started = Instant::now();
        filter.add(&[2]).await;
        assert!(started.elapsed() < Duration::from_secs(1) + 2 * BOUND, "an add waits for one lease, once");
        let started = Instant::now();
        filter.add(&[3]).await;
        assert!(started.elapsed() < BOUND);
        until("the connection to be made anew", || async {
            ask_all(&cache, &filter, &lock).await;
            cluster.stats().rebuilds.load(Relaxed) > rebuilds
        })
        .await;
        works(&cache, &filter, &lock).await;
        let healed = started.elapsed();
        assert!(healed < Duration::from_secs(15), "{healed:?}");
        servers.resume(master);
        servers.repair().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_master_that_hung_and_was_replaced_denies_nothing_when_it_goes_on() {
        let servers = victims().await;
        let (_cluster, cache, filter, lock, key) = adapters(&servers).await;
        works(&cache, &filter, &lock).await;
        // Whoever still asks the old master: a client of it alone.
        let master = servers.master_of(&key).await;
        let old = servers.urls()[master].clone();
        let mut straggler = redis::Client::open(old).unwrap().get_multiplexed_async_connection().await.unwrap();
        let check = capture_check(&servers, master, &filter).await;
        assert_eq!(check.query_async::<u8>(&mut straggler).await.unwrap(), 0, "it denies while it may");
        servers.hang(master);
        servers.master_other_than(&key, master).await;
        servers.resume(master);
        for _ in 0..50 {
            match check.query_async::<u8>(&mut straggler).await {
                Ok(answer) => assert_eq!(answer, 2, "a replaced master may not deny"),
                // It has heard of its replacement.
                Err(_) => break,
            }
        }
        servers.repair().await;
    }

    /// The call by which the filter asks for id 9, as its server saw it.
    async fn capture_check(servers: &RedisCluster, master: usize, filter: &RedisFilter) -> redis::Cmd {
        servers.ask(master, "CONFIG SET slowlog-log-slower-than 0").await.unwrap();
        let url = servers.urls()[master].clone();
        let mut admin = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        type Entry = (u64, u64, u64, Vec<Vec<u8>>, String, String);
        let mut check = None;
        until("the call", || async {
            assert!(!filter.may_contain(9).await);
            let get = redis::cmd("SLOWLOG").arg("GET").arg(20).take();
            let log: Vec<Entry> = get.query_async(&mut admin.clone()).await.unwrap();
            log.iter().any(|entry| is_check(&entry.3))
        })
        .await;
        let log: Vec<Entry> = redis::cmd("SLOWLOG").arg("GET").arg(20).query_async(&mut admin).await.unwrap();
        for entry in log.into_iter().filter(|entry| is_check(&entry.3)) {
            let mut command = redis::Cmd::new();
            for argument in &entry.3 {
                command.arg(argument);
            }
            check = Some(command);
        }
        servers.ask(master, "CONFIG SET slowlog-log-slower-than 10000").await.unwrap();
        check.unwrap()
    }

    /// Three arguments, of which the last is an item.
    fn is_check(call: &[Vec<u8>]) -> bool {
        call.len() == 7 && call[0].eq_ignore_ascii_case(b"evalsha") && call[4] == b"1000" && call[6].len() == 8
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn c01_the_whole_cluster_goes_and_comes_back() {
        let servers = victims().await;
        let (cluster, cache, filter, lock, _) = adapters(&servers).await;
        works(&cache, &filter, &lock).await;
        (0..testkit::redis::NODES).for_each(|node| servers.kill(node));
        let killed = Instant::now();
        while killed.elapsed() < Duration::from_millis(1500) {
            assert!(!ask_all(&cache, &filter, &lock).await);
        }
        let started = Instant::now();
        for _ in 0..100 {
            ask_all(&cache, &filter, &lock).await;
        }
        assert!(started.elapsed() < 4 * BOUND, "the breaker answers: {:?}", started.elapsed());
        assert!(cluster.status().contains("do not answer") || cluster.status().starts_with("not"), "{cluster:?}");
        servers.repair().await;
        works(&cache, &filter, &lock).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn c01_the_cluster_comes_after_the_service() {
        let servers = RedisCluster::plan();
        let cluster = Cluster::connect(servers.urls(), Options::default()).unwrap();
        let cache = RedisCache::new(cluster.clone(), "");
        let filter = RedisFilter::new(cluster.clone(), "late", FilterOptions::default());
        let lock = RedisLock::new(cluster.clone(), "");
        let started = Instant::now();
        assert!(!ask_all(&cache, &filter, &lock).await);
        fill(&filter, &[1]).await;
        assert!(started.elapsed() < BOUND, "nothing is waited for");
        assert!(filter.is_cut_off() && filter.may_contain(9).await);
        assert!(cluster.status().starts_with("not connected"), "{cluster:?}");
        servers.create().await;
        works(&cache, &filter, &lock).await;
        let kind = if std::env::var_os(testkit::redis::MODULE).is_some() { "cuckoo (CF.*)" } else { "bitmap" };
        assert!(cluster.status().starts_with(&format!("connected; filter: {kind}")), "{cluster:?}");
    }

    #[tokio::test]
    async fn more_operations_than_may_be_at_a_time_are_not_waited_for() {
        let servers = victims().await;
        let cluster = connected(&servers, Options { concurrent: 4, ..Options::default() }).await;
        let cache = RedisCache::new(cluster.clone(), &fresh("many"));
        let gets = (0..100).map(|_| cache.get("one"));
        futures_util::future::join_all(gets).await;
        assert!(cluster.stats().refused.load(Relaxed) >= 50, "{:?}", cluster.stats());
        assert!(cluster.stats().misses.load(Relaxed) >= 4, "{:?}", cluster.stats());
    }
}
