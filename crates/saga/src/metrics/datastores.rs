//! Databases, caches and the bus of this process, as it sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chassis::metrics::{Page, SECONDS, Source, UNITS};
use saga_adapters::inproc::InProcBus;
use saga_adapters::postgres::Pg;
use saga_adapters::redis::Cluster;
use saga_adapters::sqlite::Db;
use saga_adapters::stats::DatabaseStats;
use saga_runtime::ReadStats;

use crate::up::roles::ServiceRole;

/// What is open. Dropped before the files are closed, with the router that holds it.
pub(crate) struct Datastores {
    pub(crate) files: Vec<Db>,
    pub(crate) databases: Vec<(ServiceRole, Pg)>,
    pub(crate) bus: Option<InProcBus>,
    pub(crate) cluster: Option<Cluster>,
    /// By service.
    pub(crate) reads: Vec<(&'static str, Arc<ReadStats>)>,
}

impl Source for Datastores {
    fn collect(&self, page: &mut Page) {
        for file in &self.files {
            let name = file.path().file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            database(name, file.stats(), page);
            let labels = [("database", name)];
            let help = "Writes that share one of the writer's transactions.";
            page.histogram("writer_batch", help, &labels, &file.stats().batch.snapshot(), UNITS);
            let (waiting, most) = file.queue();
            page.gauge_of("writer_queue", "Writes that wait for the writer.", &labels, waiting);
            page.gauge_of("writer_queue_limit", "Writes that may wait for it.", &labels, most);
        }
        for (role, pool) in &self.databases {
            let labels = [("database", role.as_str())];
            database(role.as_str(), pool.stats(), page);
            let (in_use, most) = pool.sessions();
            page.gauge_of("pool_sessions_in_use", "Sessions of a database that are in use.", &labels, in_use);
            page.gauge_of("pool_sessions_limit", "Sessions of a database, at most.", &labels, most);
            page.gauge_of("pool_waiting", "Callers that wait for a session.", &labels, pool.waiting());
            let waited = pool.stats().waited.snapshot();
            page.histogram("pool_wait_seconds", "How long sessions were waited for.", &labels, &waited, SECONDS);
        }
        for queue in self.bus.iter().flat_map(InProcBus::queues) {
            let labels = [("group", queue.group.as_str()), ("topic", queue.topic.as_str())];
            let help = "Records that found the queue of the bus in process full, and are sent again.";
            page.counter("bus_dropped", help, &labels, queue.dropped);
        }
        for (service, reads) in &self.reads {
            cache(service, reads, page);
        }
        if let Some(cluster) = &self.cluster {
            servers(cluster, page);
        }
    }
}

fn database(name: &str, stats: &DatabaseStats, page: &mut Page) {
    let labels = [("database", name)];
    let help = "How long transactions took (SQLite), or packets of statements until they were answered (PostgreSQL).";
    page.histogram("database_transaction_seconds", help, &labels, &stats.transaction.snapshot(), SECONDS);
    for (kind, counter) in [("transient", &stats.transient), ("full", &stats.full), ("fault", &stats.faults)] {
        let labels = [("database", name), ("kind", kind)];
        let help = "Errors of a database: those that pass, those for want of room, those that do not pass.";
        page.counter("database_errors", help, &labels, counter.get());
    }
}

fn cache(service: &str, reads: &ReadStats, page: &mut Page) {
    let ReadStats { hits, misses, locked, unlocked, shared, waited } = reads;
    for (result, counter) in [("hit", hits), ("miss", misses)] {
        let labels = [("service", service), ("result", result)];
        page.counter("cache_reads", "Looks into the shared cache.", &labels, counter.get());
    }
    for (result, counter) in [("acquired", locked), ("unavailable", unlocked), ("shared", shared)] {
        let labels = [("service", service), ("result", result)];
        let help = "Reads of the database for the cache: with its lock, without, or spared because another had read.";
        page.counter("cache_locks", help, &labels, counter.get());
    }
    let help = "Locks of the cache that another held when they were asked for.";
    page.counter("cache_lock_waits", help, &[("service", service)], waited.get());
}

/// The cache's servers. Each failure here is a question that the database answered instead.
fn servers(cluster: &Cluster, page: &mut Page) {
    let stats = cluster.stats();
    let failed = [("error", &stats.failures), ("timeout", &stats.timeouts), ("refused", &stats.refused)];
    for (kind, counter) in failed {
        let help =
            "Questions to the cache's servers that they did not answer: errors, no answer in time, not sent at all.";
        page.counter("cache_server_failures", help, &[("kind", kind)], read(counter));
    }
    let help = "Connections to the cache's servers that were made after the first.";
    page.counter("cache_server_reconnects", help, &[], read(&stats.rebuilds));
    let connected = f64::from(u8::from(cluster.is_connected()));
    page.gauge("cache_server_up", "Whether the cache's servers are connected to.", &[], connected);
    let help = "Parts of the cache whose servers do not answer: they are not asked for a moment.";
    page.gauge_of("cache_server_open_breakers", help, &[], cluster.open_breakers());
    let help = "Whether this kind of existence filter is in use.";
    if let Some(kind) = cluster.filter() {
        page.gauge("filter_in_use", help, &[("kind", &kind)], 1.0);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
