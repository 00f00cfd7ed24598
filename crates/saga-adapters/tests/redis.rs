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

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_replica_without_a_sign_of_life_ends_the_trust_until_it_is_forgotten_and_the_filter_filled_again() {
        let name = fresh("mortal");
        let options = FilterOptions { forget: Duration::from_secs(2), ..FilterOptions::default() };
        let one = replica(&name, options.clone()).await;
        fill(&one, &[1]).await;
        // In another runtime, which is gone at once: it takes leave of nobody.
        std::thread::spawn({
            let (urls, name, options) = (servers().await.urls(), name.clone(), options.clone());
            move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let filter = runtime.block_on(async {
                    let filter = RedisFilter::new(Cluster::connect(urls, patient()).unwrap(), &name, options);
                    until("it to join", || async { !filter.is_cut_off() }).await;
                    until("it to be in step", || denies(&filter, 9)).await;
                    filter
                });
                std::mem::forget(filter);
                runtime.shutdown_timeout(Duration::from_secs(1));
            }
        })
        .join()
        .unwrap();
        until("the lease to end", || async { one.may_contain(9).await }).await;
        let state = format!("{{{name}}}:filter");
        let (servers, master) = (servers().await, servers().await.master_of(&state).await);
        assert_ne!(servers.ask(master, &format!("HGET {state} pub")).await.unwrap(), "", "not forgotten yet");
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
        for adds_after in [true, false] {
            filter.begin(2).await;
            filter.add(&[1]).await;
            let version = servers.ask(master, &format!("HGET {state} bld")).await.unwrap();
            assert_eq!(servers.ask(master, &format!("DEL {state}:{version}")).await.unwrap(), "1");
            if adds_after {
                filter.add(&[2]).await;
            }
            filter.ready().await;
            assert!(filter.may_contain(1).await && filter.may_contain(9).await);
        }
    }
}

#[path = "redis/faults.rs"]
mod faults;
#[path = "redis/holders.rs"]
mod holders;
#[path = "redis/resharding.rs"]
mod resharding;
#[path = "redis/ways.rs"]
mod ways;
