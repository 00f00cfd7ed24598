//! Cache, filter and lock on a real Redis cluster of six nodes, well and unwell.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use saga_adapters::inproc::InProcCache;
use saga_adapters::redis::{Cluster, FilterOptions, Layered, Options, RedisCache, RedisFilter, RedisLock};
use saga_runtime::SystemClock;
use saga_runtime::cache::{Cache, Filter, Lock};
use testkit::conformance::{Fixture, until};
use testkit::redis::RedisCluster;
use tokio::sync::OnceCell;

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
