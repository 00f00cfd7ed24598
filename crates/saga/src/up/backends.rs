//! Which adapter stands behind which port: chosen by the URLs of the configuration, one place for all roles.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use chassis::health::Health;
use saga_adapters::inproc::{InProcBus, InProcFilter};
use saga_adapters::sqlite::dead_letters::{self, SqliteDeadLetters};
use saga_adapters::sqlite::saga_store::{self, SqliteSagaStore};
use saga_adapters::sqlite::{Db, Schema};
use saga_core::Name;
use saga_runtime::cache::Filter;
use saga_runtime::dead_letters::DeadLetters;
use saga_runtime::store::SagaStore;
use saga_runtime::{Bus, Definitions};

use super::folder::Folder;
use super::roles::{ALL, ServiceRole};
use crate::config::{Config, ConfigError, IN_PROCESS};

/// Where a service's rows are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A file in the data folder.
    File,
    /// A PostgreSQL database.
    Postgres(String),
}

/// Where the rows of a service are.
///
/// # Errors
/// When its URL is neither.
pub(crate) fn place(config: &Config, role: ServiceRole) -> Result<Place, ConfigError> {
    let stores = &config.stores;
    let own = match role {
        ServiceRole::Account => &stores.account,
        ServiceRole::Product => &stores.product,
        ServiceRole::Order => &stores.order,
        ServiceRole::Payment => &stores.payment,
        ServiceRole::Purchase => &stores.purchase,
        ServiceRole::Orchestrator => &stores.orchestrator,
    };
    let (key, url) = match own {
        Some(url) => (format!("stores.{role}"), url),
        None => ("stores.url".to_owned(), &stores.url),
    };
    let url = url.replace("{service}", role.as_str());
    match url.split_once("://") {
        None if url == "sqlite" => Ok(Place::File),
        Some(("postgres" | "postgresql", _)) => Ok(Place::Postgres(url)),
        _ => Err(ConfigError::Value {
            key,
            detail: "must be `sqlite` (a file in the data folder) or postgres://user:password@host/database".to_owned(),
        }),
    }
}

/// The brokers, if messages go over Kafka.
///
/// # Errors
/// When the URL is neither.
pub(crate) fn brokers(config: &Config) -> Result<Option<String>, ConfigError> {
    servers(&config.bus.url, "kafka", "bus.url")
}

/// Some nodes, if caches are in Redis.
///
/// # Errors
/// When the URL is neither.
pub(crate) fn nodes(config: &Config) -> Result<Option<String>, ConfigError> {
    servers(&config.cache.url, "redis", "cache.url")
}

fn servers(url: &str, scheme: &str, key: &str) -> Result<Option<String>, ConfigError> {
    match url.split_once("://") {
        None if url == IN_PROCESS => Ok(None),
        Some((given, rest)) if given == scheme && !rest.is_empty() => Ok(Some(rest.trim_end_matches('/').to_owned())),
        _ => Err(ConfigError::Value {
            key: key.to_owned(),
            detail: format!("must be `{IN_PROCESS}` or {scheme}://host:port,host:port"),
        }),
    }
}

/// Whether something of this process is in the data folder, and whether the settings fit together at all.
///
/// # Errors
/// When they do not.
pub(super) fn needs_folder(config: &Config, roles: &BTreeSet<ServiceRole>) -> Result<bool, ConfigError> {
    let in_process = brokers(config)?.is_none();
    if in_process && roles.len() < ALL.len() {
        return Err(ConfigError::Value {
            key: "bus.url".to_owned(),
            detail: "some of the services run in other processes, so messages must go over Kafka: kafka://host:port"
                .to_owned(),
        });
    }
    nodes(config)?;
    let places = roles.iter().map(|role| place(config, *role)).collect::<Result<Vec<_>, _>>()?;
    Ok(in_process || places.contains(&Place::File))
}

/// Opens what the roles of this process need, and remembers it for the shutdown.
pub(super) struct Backends<'a> {
    pub(super) config: &'a Config,
    pub(super) folder: Option<&'a Folder>,
    pub(super) health: Health,
    pub(super) files: Vec<Db>,
    pub(super) in_process: Option<InProcBus>,
}

/// The bus, and where its dead letters are.
pub(super) struct Messages {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) letters: Arc<dyn DeadLetters>,
}

impl<'a> Backends<'a> {
    pub(super) fn new(config: &'a Config, folder: Option<&'a Folder>, health: Health) -> Self {
        Self { config, folder, health, files: Vec::new(), in_process: None }
    }

    fn file(&mut self, schema: &Schema) -> anyhow::Result<Db> {
        let folder = self.folder.context("a file is needed, and there is no data folder")?;
        let path = folder.file(&format!("{}.db", schema.name));
        let db = Db::open(&path, schema, &self.config.options())
            .context("a database file is refused; restore it, or move the data folder away to begin anew")?;
        self.files.push(db.clone());
        Ok(db)
    }

    pub(super) async fn messages(&mut self, definitions: &Definitions) -> anyhow::Result<Messages> {
        let topics: Vec<Name> = definitions.all().iter().flat_map(|definition| definition.topics()).collect();
        let letters = Arc::new(SqliteDeadLetters::new(self.file(&dead_letters::SCHEMA)?));
        let bus = InProcBus::new(topics, self.config.bus.queue, letters.clone());
        self.in_process = Some(bus.clone());
        Ok(Messages { bus: Arc::new(bus), letters })
    }

    pub(super) async fn account(&mut self) -> anyhow::Result<Arc<dyn account::store::Store>> {
        Ok(Arc::new(account::SqliteStore::new(self.file(&account::SCHEMA)?)))
    }

    pub(super) async fn product(&mut self) -> anyhow::Result<Arc<dyn product::store::Store>> {
        Ok(Arc::new(product::SqliteStore::new(self.file(&product::SCHEMA)?)))
    }

    pub(super) async fn order(&mut self) -> anyhow::Result<Arc<dyn order::store::Store>> {
        Ok(Arc::new(order::SqliteStore::new(self.file(&order::SCHEMA)?)))
    }

    pub(super) async fn payment(&mut self) -> anyhow::Result<Arc<dyn payment::store::Store>> {
        Ok(Arc::new(payment::SqliteStore::new(self.file(&payment::SCHEMA)?)))
    }

    pub(super) async fn purchase(&mut self) -> anyhow::Result<Arc<dyn purchase::store::Store>> {
        Ok(Arc::new(purchase::SqliteStore::new(self.file(&purchase::SCHEMA)?)))
    }

    pub(super) async fn orchestrator(&mut self) -> anyhow::Result<Arc<dyn SagaStore>> {
        Ok(Arc::new(SqliteSagaStore::new(self.file(&saga_store::SCHEMA)?)))
    }

    pub(super) fn filter(&self) -> Arc<dyn Filter> {
        Arc::new(InProcFilter::default())
    }
}
