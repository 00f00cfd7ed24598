//! Which adapter stands behind which port: chosen by the URLs of the configuration, one place for all roles.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chassis::health::Health;
use product::Existence;
use saga_adapters::inproc::{InProcBus, InProcCache, InProcFilter};
use saga_adapters::kafka::KafkaBus;
use saga_adapters::postgres::audit_log::PgAuditLog;
use saga_adapters::postgres::saga_store::{self as pg_sagas, PgSagaStore};
use saga_adapters::postgres::{Pg, dead_letters as pg_letters};
use saga_adapters::redis::{self, Cluster, FilterOptions, Layered, RedisCache, RedisFilter, RedisLock};
use saga_adapters::sqlite::audit_log::SqliteAuditLog;
use saga_adapters::sqlite::dead_letters::{self, SqliteDeadLetters};
use saga_adapters::sqlite::saga_store::{self, SqliteSagaStore};
use saga_adapters::sqlite::{Db, Schema};
use saga_core::Name;
use saga_runtime::audit::AuditLog;
use saga_runtime::cache::{Filter, Lock as _};
use saga_runtime::dead_letters::{DeadLetterSink, DeadLetters};
use saga_runtime::store::SagaStore;
use saga_runtime::{Bus, Clock, Definitions, ReadStats, ReadThrough, SystemClock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::folder::Folder;
use super::places::{self, Place};
use super::roles::ServiceRole;
use crate::config::Config;
use crate::metrics::datastores::Datastores;

/// How often servers are asked whether they are there.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Values of a service in this process's memory, and for how long: what another replica changed is seen after that.
const IN_MEMORY: usize = 10_000;
const SHORT: Duration = Duration::from_secs(1);
/// How long values that do not change stay in Redis.
const KEPT: Duration = Duration::from_secs(600);
/// A replica that fills the filter for longer is taken for dead.
const FILLED_WITHIN: Duration = Duration::from_secs(60);

/// Opens what the roles of this process need, and remembers it for the shutdown.
pub(crate) struct Backends<'a> {
    config: &'a Config,
    folder: Option<&'a Folder>,
    health: Health,
    open: Open,
    /// Who did what: in the orchestrator's database, else in the account service's.
    audit: Option<Arc<dyn AuditLog>>,
    /// What was counted of reads past the cache, by service.
    reads: Vec<(&'static str, Arc<ReadStats>)>,
}

/// What is open.
#[derive(Default)]
pub(crate) struct Open {
    files: Vec<Db>,
    databases: Vec<(ServiceRole, Pg)>,
    in_process: Option<InProcBus>,
    kafka: Option<KafkaBus>,
    redis: Option<Cluster>,
}

/// The bus.
pub(crate) struct Messages {
    pub(crate) bus: Arc<dyn Bus>,
    /// Where dead letters are, if that is not in the orchestrator's database.
    pub(crate) letters: Option<Arc<dyn DeadLetters>>,
}

/// The orchestrator's rows.
pub(crate) struct Sagas {
    pub(crate) store: Arc<dyn SagaStore>,
    pub(crate) letters: Arc<dyn DeadLetters>,
    /// Where letters on dead-letter topics are to be brought, if the bus has such topics.
    pub(crate) sink: Option<Arc<dyn DeadLetterSink>>,
    /// Who did what.
    pub(crate) audit: Arc<dyn AuditLog>,
}

/// A service's rows, in a file or in a database.
macro_rules! store {
    ($name:ident, $role:ident) => {
        pub(crate) async fn $name(&mut self) -> anyhow::Result<Arc<dyn $name::store::Store>> {
            Ok(match places::of(self.config, ServiceRole::$role)? {
                Place::File => Arc::new($name::SqliteStore::new(self.file(&$name::SCHEMA)?)),
                Place::Postgres(url) => {
                    let database = self.database(ServiceRole::$role, &url, &$name::PG_SCHEMA).await?;
                    Arc::new($name::PgStore::new(database))
                }
            })
        }
    };
}

impl<'a> Backends<'a> {
    pub(crate) fn new(config: &'a Config, folder: Option<&'a Folder>, health: Health) -> Self {
        Self { config, folder, health, open: Open::default(), audit: None, reads: Vec::new() }
    }

    store!(product, Product);
    store!(order, Order);
    store!(payment, Payment);
    store!(purchase, Purchase);

    pub(crate) async fn orchestrator(&mut self, letters: Option<Arc<dyn DeadLetters>>) -> anyhow::Result<Sagas> {
        let place = places::of(self.config, ServiceRole::Orchestrator)?;
        let (store, audit, own): (Arc<dyn SagaStore>, Arc<dyn AuditLog>, Letters) = match place {
            Place::File => {
                let file = self.file(&saga_store::SCHEMA)?;
                let own = match &letters {
                    Some(_) => None,
                    None => Some(Arc::new(SqliteDeadLetters::new(self.file(&dead_letters::SCHEMA)?))),
                };
                let audit = Arc::new(SqliteAuditLog::new(file.clone()));
                (Arc::new(SqliteSagaStore::new(file)), audit, own.map(|own| (own.clone() as _, own as _)))
            }
            Place::Postgres(url) => {
                let database = self.database(ServiceRole::Orchestrator, &url, &pg_sagas::SCHEMA).await?;
                let own = Arc::new(pg_letters::PgDeadLetters::new(database.clone()));
                let audit = Arc::new(PgAuditLog::new(database.clone()));
                (Arc::new(PgSagaStore::new(database)), audit, Some((own.clone() as _, own as _)))
            }
        };
        self.audit = Some(Arc::clone(&audit));
        match (letters, own) {
            (Some(letters), _) => Ok(Sagas { store, letters, sink: None, audit }),
            (None, Some((letters, sink))) => Ok(Sagas { store, letters, sink: Some(sink), audit }),
            (None, None) => anyhow::bail!("dead letters are kept nowhere"),
        }
    }

    pub(crate) async fn account(&mut self) -> anyhow::Result<Arc<dyn account::store::Store>> {
        let (store, audit): (Arc<dyn account::store::Store>, Arc<dyn AuditLog>) =
            match places::of(self.config, ServiceRole::Account)? {
                Place::File => {
                    let file = self.file(&account::SCHEMA)?;
                    (Arc::new(account::SqliteStore::new(file.clone())), Arc::new(SqliteAuditLog::new(file)))
                }
                Place::Postgres(url) => {
                    let database = self.database(ServiceRole::Account, &url, &account::PG_SCHEMA).await?;
                    (Arc::new(account::PgStore::new(database.clone())), Arc::new(PgAuditLog::new(database)))
                }
            };
        self.audit.get_or_insert(audit);
        Ok(store)
    }

    /// Who did what, if that is kept here.
    pub(crate) fn audit(&self) -> Option<Arc<dyn AuditLog>> {
        self.audit.clone()
    }

    /// Brings one service's file or database up to date.
    pub(crate) async fn migrate(&mut self, role: ServiceRole) -> anyhow::Result<()> {
        match role {
            ServiceRole::Account => drop(self.account().await?),
            ServiceRole::Product => drop(self.product().await?),
            ServiceRole::Order => drop(self.order().await?),
            ServiceRole::Payment => drop(self.payment().await?),
            ServiceRole::Purchase => drop(self.purchase().await?),
            ServiceRole::Orchestrator => drop(self.orchestrator(None).await?),
            ServiceRole::Console => {}
        }
        Ok(())
    }

    /// Lets go of everything.
    pub(crate) async fn close(self) {
        self.open.close().await;
    }

    fn file(&mut self, schema: &Schema) -> anyhow::Result<Db> {
        let folder = self.folder.context("a file is needed, and there is no data folder")?;
        let path = folder.file(&format!("{}.db", schema.name));
        let db = Db::open(&path, schema, &self.config.options())
            .context("a database file is refused; restore it, or move the data folder away to begin anew")?;
        self.open.files.push(db.clone());
        Ok(db)
    }

    async fn database(&mut self, role: ServiceRole, url: &str, schema: &Schema) -> anyhow::Result<Pg> {
        let condition = condition(role);
        self.health.set(&condition, Err("connecting".to_owned()));
        let database = Pg::connect(&places::database(self.config, role, url), schema).await?;
        self.health.set(&condition, Ok(()));
        self.open.databases.push((role, database.clone()));
        Ok(database)
    }

    pub(crate) async fn messages(&mut self, definitions: &Definitions) -> anyhow::Result<Messages> {
        let topics: Vec<Name> = definitions.all().iter().flat_map(|definition| definition.topics()).collect();
        if let Some(brokers) = places::brokers(self.config)? {
            let options = places::bus(self.config, &brokers, &format!("saga-{}", self.config.node));
            let bus = KafkaBus::new(options).context("bus.url")?;
            self.open.kafka = Some(bus.clone());
            return Ok(Messages { bus: Arc::new(bus), letters: None });
        }
        let letters = Arc::new(SqliteDeadLetters::new(self.file(&dead_letters::SCHEMA)?));
        let bus = InProcBus::observable(topics, self.config.bus.queue, letters.clone(), Arc::new(SystemClock));
        self.open.in_process = Some(bus.clone());
        Ok(Messages { bus: Arc::new(bus), letters: Some(letters) })
    }

    /// The bus, where it is in this process: then this process is the only one.
    pub(crate) fn in_process(&self) -> Option<&InProcBus> {
        self.open.in_process.as_ref()
    }

    /// The cluster, if caches are in Redis.
    fn cluster(&mut self) -> anyhow::Result<Option<Cluster>> {
        let Some(nodes) = places::nodes(self.config)? else { return Ok(None) };
        if self.open.redis.is_none() {
            let nodes = nodes.split(',').map(|node| format!("redis://{node}"));
            self.open.redis = Some(Cluster::connect(nodes, redis::Options::default()).context("cache.url")?);
        }
        Ok(self.open.redis.clone())
    }

    /// A service's names in the cluster: several shops can share one.
    fn name(&self, service: &str) -> String {
        format!("{}{service}", self.config.bus.prefix)
    }

    /// A service's reads past a cache that its replicas share; the database each time where there is none.
    pub(crate) fn read_through(&mut self, service: &'static str) -> anyhow::Result<ReadThrough> {
        let Some(cluster) = self.cluster()? else { return Ok(ReadThrough::none()) };
        let l1 = InProcCache::new(IN_MEMORY, Arc::new(SystemClock));
        let cache = Layered::new(l1, RedisCache::new(cluster.clone(), &self.name(service)), SHORT);
        let lock = RedisLock::new(cluster, &self.name(service));
        Ok(self.counted(service, ReadThrough::new(Arc::new(cache), Arc::new(lock), service, KEPT)))
    }

    /// The same for products, which the service itself keeps in memory.
    pub(crate) fn quotes(&mut self, ttl: Duration) -> anyhow::Result<ReadThrough> {
        let Some(cluster) = self.cluster()? else { return Ok(ReadThrough::none()) };
        let cache = RedisCache::new(cluster.clone(), &self.name("product"));
        let lock = RedisLock::new(cluster, &self.name("product"));
        Ok(self.counted("product", ReadThrough::new(Arc::new(cache), Arc::new(lock), "product", ttl)))
    }

    fn counted(&mut self, service: &'static str, reads: ReadThrough) -> ReadThrough {
        self.reads.push((service, reads.stats()));
        reads
    }

    /// What is open, for metrics. To be dropped before that is closed.
    pub(crate) fn datastores(&self) -> Datastores {
        let Open { files, databases, in_process, redis, .. } = &self.open;
        Datastores {
            files: files.clone(),
            databases: databases.clone(),
            bus: in_process.clone(),
            cluster: redis.clone(),
            reads: self.reads.clone(),
        }
    }

    /// Which products may exist; and, where the replicas share the filter, who fills it.
    pub(crate) fn existence(&mut self) -> anyhow::Result<(Existence, Option<SharedFilter>)> {
        if let Some(cluster) = self.cluster()? {
            let name = self.name("product");
            let member = Some(format!("product-{}", self.config.node));
            let options = FilterOptions { member, ..FilterOptions::default() };
            let filter = Arc::new(RedisFilter::new(cluster.clone(), &name, options));
            let lock = RedisLock::new(cluster, &format!("{name}-filter"));
            return Ok((Existence { filter: filter.clone(), fill: false }, Some(SharedFilter { filter, lock })));
        }
        let (filter, fill): (Arc<dyn Filter>, bool) = match self.in_process() {
            Some(_) => (Arc::new(InProcFilter::default()), true),
            // Others add products, too, and a filter of our own would deny them.
            None => (Arc::new(NoFilter), false),
        };
        Ok((Existence { filter, fill }, None))
    }

    /// Hands over what is open, with somebody who looks whether it is still there.
    pub(crate) fn finish(
        self,
        clock: Arc<dyn Clock>,
        topics: Vec<Name>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Open {
        let Self { health, open, .. } = self;
        let watch = Watch { health, clock, stop };
        for (role, database) in &open.databases {
            tasks.spawn(watch.clone().database(*role, database.clone()));
        }
        if let Some(cluster) = &open.redis {
            tasks.spawn(watch.clone().redis(cluster.clone()));
        }
        if let Some(bus) = &open.kafka {
            tasks.spawn(watch.bus(bus.clone(), topics));
        }
        open
    }
}

/// The same letters as both ports, if they are kept here.
type Letters = Option<(Arc<dyn DeadLetters>, Arc<dyn DeadLetterSink>)>;

impl Open {
    /// Waits until files are closed and groups are left.
    pub(crate) async fn close(self) {
        let Self { files, databases, in_process, kafka, redis } = self;
        if let Some(bus) = in_process {
            bus.close();
        }
        if let Some(bus) = kafka {
            bus.close().await;
        }
        drop((databases, redis));
        for file in files {
            file.close().await;
        }
    }
}

fn condition(role: ServiceRole) -> String {
    format!("database {role}")
}

/// Looks whether servers are there, for `/readyz`.
#[derive(Clone)]
struct Watch {
    health: Health,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

impl Watch {
    async fn database(self, role: ServiceRole, database: Pg) {
        let condition = condition(role);
        while self.rest().await {
            let state = database.ping().await.map_err(|error| format!("{}: {error}", database.address()));
            self.health.set(&condition, state);
        }
    }

    async fn bus(self, bus: KafkaBus, topics: Vec<Name>) {
        loop {
            let state = match bus.topics().await {
                Ok(there) => match topics.iter().find(|topic| !there.contains(*topic)) {
                    Some(topic) => Err(format!("topic {topic} does not exist: run `saga migrate`")),
                    None => Ok(()),
                },
                Err(error) => Err(error.to_string()),
            };
            self.health.set("bus", state);
            if !self.rest().await {
                return;
            }
        }
    }

    /// Only told: without it everything is answered from the databases.
    async fn redis(self, cluster: Cluster) {
        loop {
            self.health.note("cache", cluster.status());
            if !self.rest().await {
                return;
            }
        }
    }

    async fn rest(&self) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = self.clock.sleep(LOOK_EVERY) => true,
        }
    }
}

/// A filter that the product service's replicas share.
pub(crate) struct SharedFilter {
    filter: Arc<RedisFilter>,
    lock: RedisLock,
}

impl SharedFilter {
    /// Fills it whenever that is needed, one replica at a time.
    pub(crate) async fn keep_filled(self, products: product::Products, stop: CancellationToken) {
        let Self { filter, lock } = self;
        let clock = SystemClock;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = filter.needs_filling() => {}
            }
            if let Some(guard) = lock.acquire("fill", FILLED_WITHIN, Duration::ZERO).await {
                match products.fill_filter().await {
                    Ok(()) => tracing::info!(?filter, "the filter of products is filled"),
                    Err(error) => tracing::warn!(%error, "the filter of products could not be filled; trying again"),
                }
                drop(guard);
            }
            // Another one is at it, or this one has just been.
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// Everything may exist.
struct NoFilter;

#[async_trait]
impl Filter for NoFilter {
    async fn begin(&self, _: u64) {}
    async fn add(&self, _: &[u64]) {}
    async fn ready(&self) {}
    async fn may_contain_each(&self, ids: &[u64]) -> Vec<bool> {
        vec![true; ids.len()]
    }
}
