//! Nodes that are killed or hang. A cluster of their own, one test at a time; each leaves it whole.

use std::time::Instant;

use tokio::sync::{Mutex, MutexGuard};

use super::*;

/// What an operation may take: its timeout, and what a busy machine adds.
pub(super) const BOUND: Duration = Duration::from_millis(150 + 350);

pub(super) async fn victims() -> MutexGuard<'static, RedisCluster> {
    static VICTIMS: OnceCell<Mutex<RedisCluster>> = OnceCell::const_new();
    let victims = VICTIMS.get_or_init(|| async { Mutex::new(RedisCluster::start().await) }).await.lock().await;
    // Also after a test that failed.
    victims.repair().await;
    victims
}

/// Every port's operations, each within the bound; whether the cache gave what was set.
pub(super) async fn ask_all(cache: &RedisCache, filter: &RedisFilter, lock: &RedisLock) -> bool {
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
pub(super) async fn adapters(servers: &RedisCluster) -> (Cluster, RedisCache, RedisFilter, RedisLock, String) {
    let tag = fresh("fault");
    let cluster = connected(servers, Options::default()).await;
    let cache = RedisCache::new(cluster.clone(), &format!("{{{tag}}}:cache:"));
    let filter = RedisFilter::new(cluster.clone(), &tag, FilterOptions::default());
    let lock = RedisLock::new(cluster.clone(), &format!("{{{tag}}}:lock:"));
    (cluster, cache, filter, lock, format!("{{{tag}}}:filter"))
}

pub(super) async fn fill(filter: &RedisFilter, ids: &[u64]) {
    filter.begin(ids.len() as u64).await;
    filter.add(ids).await;
    filter.ready().await;
}

/// Cache and filter work (again).
pub(super) async fn works(cache: &RedisCache, filter: &RedisFilter, lock: &RedisLock) {
    until("the cache to work", || ask_all(cache, filter, lock)).await;
    until("the filter to work", || async {
        fill(filter, &[1]).await;
        !filter.may_contain(9).await
    })
    .await;
    // A release that died with its master leaves it held for its time.
    let short = Duration::from_secs(1);
    until("the lock to work", || async { lock.acquire("two", short, Duration::ZERO).await.is_some() }).await;
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
    let mut straggler = alone(&servers.urls()[master]).await;
    let check = capture_check(&servers, master, &filter).await;
    assert_eq!(check.query_async::<Vec<u8>>(&mut straggler).await.unwrap(), [0], "it denies while it may");
    servers.hang(master);
    // It lies there before any word of the replacement.
    let asked = tokio::spawn(async move { check.query_async::<Vec<u8>>(&mut straggler).await });
    servers.master_other_than(&key, master).await;
    servers.resume(master);
    let answer = asked.await.unwrap();
    assert!(answer.unwrap_or_default().is_empty(), "a replaced master may not deny");
    servers.repair().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_promoted_while_all_leases_run_denies_nothing() {
    let servers = victims().await;
    let cluster = connected(&servers, Options::default()).await;
    let (lease, renew) = (Duration::from_secs(5), Duration::from_secs(1));
    let name = fresh("promoted");
    let filter = RedisFilter::new(cluster, &name, FilterOptions { lease, renew, ..FilterOptions::default() });
    until("the filter to work", || async {
        fill(&filter, &[1]).await;
        !filter.may_contain(9).await
    })
    .await;
    let key = format!("{{{name}}}:filter");
    let master = servers.master_of(&key).await;
    servers.take_over(master).await;
    servers.master_other_than(&key, master).await;
    assert!(filter.may_contain(9).await, "before any renewal tells the new master");
    servers.repair().await;
}

/// A connection to one node that waits for ever.
async fn alone(url: &str) -> redis::aio::MultiplexedConnection {
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    redis::Client::open(url).unwrap().get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

/// The call by which the filter asks for id 9, as its server saw it.
async fn capture_check(servers: &RedisCluster, master: usize, filter: &RedisFilter) -> redis::Cmd {
    servers.ask(master, "CONFIG SET slowlog-log-slower-than 0").await.unwrap();
    let mut admin = alone(&servers.urls()[master]).await;
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
