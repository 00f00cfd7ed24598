//! Ways to the cluster that are dead in one direction, and nobody is told.

use std::time::Instant;

use testkit::proxy::{Proxy, Way};

use super::faults::{ask_all, works};
use super::*;

/// Longer than leases run, breakers stay open and connections are waited for.
const CLOSED: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n01_a_way_to_the_cluster_that_is_dead_one_way_delays_nobody_and_heals() {
    let servers = RedisCluster::start().await;
    let mut ways = Vec::new();
    for url in servers.urls() {
        ways.push(Proxy::before(url.trim_start_matches("redis://")).await);
    }
    let addresses: Vec<String> = ways.iter().map(|way| way.address.clone()).collect();
    servers.announce(&addresses).await;
    let urls = ways.iter().map(|way| format!("redis://{}", way.address));
    let cluster = Cluster::connect(urls, Options::default()).unwrap();
    let cache = RedisCache::new(cluster.clone(), "{one}:cache:");
    let filter = RedisFilter::new(cluster.clone(), "one", FilterOptions::default());
    let lock = RedisLock::new(cluster.clone(), "{one}:lock:");
    for closed in [Way::Deaf, Way::Mute] {
        works(&cache, &filter, &lock).await;
        ways.iter().for_each(|way| way.set(closed));
        let began = Instant::now();
        let mut asked = 0;
        while began.elapsed() < CLOSED {
            // Each within its bound; and nothing comes through.
            assert!(!ask_all(&cache, &filter, &lock).await, "{closed:?}");
            // A row that exists, of which the filter could not be told.
            assert!(filter.may_contain(1_000 + asked).await, "{closed:?}: a wrong no");
            asked += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The breaker answers for it: requests do not queue up before a dead way.
        assert!(asked > 100, "{closed:?}: only {asked} in {CLOSED:?}");
        ways.iter().for_each(|way| way.set(Way::Open));
    }
    works(&cache, &filter, &lock).await;
}
