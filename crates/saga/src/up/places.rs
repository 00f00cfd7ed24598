//! What the URLs of the configuration name: files or databases, the bus in process or brokers, caches here or in Redis.

use std::collections::BTreeSet;
use std::time::Duration;

use saga_adapters::kafka;
use saga_adapters::postgres;

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
pub(crate) fn of(config: &Config, role: ServiceRole) -> Result<Place, ConfigError> {
    let stores = &config.stores;
    let own = match role {
        ServiceRole::Account => &stores.account,
        ServiceRole::Product => &stores.product,
        ServiceRole::Order => &stores.order,
        ServiceRole::Payment => &stores.payment,
        ServiceRole::Purchase => &stores.purchase,
        ServiceRole::Orchestrator => &stores.orchestrator,
        // It has no rows: nobody asks.
        ServiceRole::Console => &None,
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
    servers(&config.cache.url, "redis+cluster", "cache.url")
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

/// How the database of a service is reached.
pub(crate) fn database(config: &Config, role: ServiceRole, url: &str) -> postgres::Options {
    let stores = &config.stores;
    postgres::Options {
        password: stores.password.as_ref().map(|password| password.expose().to_owned()),
        pool_size: stores.connections,
        application_name: format!("saga-{role}-{}", config.node),
        statement_timeout: Duration::from_millis(stores.statement_timeout_ms),
        connect_for: Some(Duration::from_secs(stores.connect_for_s)),
        migrate: stores.migrate,
        pace: Duration::from_millis(stores.pace_ms),
        ..postgres::Options::new(url)
    }
}

/// How long at most a loop lets its next unit fill: in process one comes right after the other.
///
/// # Errors
/// When the bus's URL is none.
pub(crate) fn pace(config: &Config) -> Result<Duration, ConfigError> {
    let in_process = brokers(config)?.is_none();
    Ok(if in_process { Duration::ZERO } else { Duration::from_millis(config.bus.pace_ms) })
}

/// How far apart looks at what may be removed are. What is on its way into a database when one begins must have arrived,
/// or be given up, before the next: PostgreSQL's limit is ten seconds for each of a transaction's few statements.
pub(crate) fn sweep(config: &Config) -> Result<Duration, ConfigError> {
    let seconds = config.retention.sweep_seconds;
    let mut in_files = true;
    for role in ALL.into_iter().filter(|role| role.is_service()) {
        in_files &= of(config, role)? == Place::File;
    }
    let least = if in_files { 1 } else { 60 };
    if seconds < least {
        let detail = format!("must be at least {least}: no transaction may live as long");
        return Err(ConfigError::Value { key: "retention.sweep_seconds".to_owned(), detail });
    }
    Ok(Duration::from_secs(seconds))
}

/// How the brokers are reached.
pub(crate) fn bus(config: &Config, brokers: &str, client: &str) -> kafka::Options {
    kafka::Options {
        prefix: config.bus.prefix.clone(),
        linger: Duration::from_millis(config.bus.linger_ms),
        session_timeout: Duration::from_millis(config.bus.session_timeout_ms),
        delivery_timeout: Duration::from_millis(config.bus.delivery_timeout_ms),
        ..kafka::Options::new(brokers, client)
    }
}

/// Whether something of this process is in the data folder, and whether the settings fit together at all.
///
/// # Errors
/// When they do not.
pub(crate) fn needs_folder(config: &Config, roles: &BTreeSet<ServiceRole>) -> Result<bool, ConfigError> {
    let services = || roles.iter().filter(|role| role.is_service());
    if services().count() == 0 {
        return Ok(false);
    }
    let in_process = brokers(config)?.is_none();
    if in_process && services().count() < ALL.len() {
        return Err(ConfigError::Value {
            key: "bus.url".to_owned(),
            detail: "some of the services run in other processes, so messages must go over Kafka: kafka://host:port"
                .to_owned(),
        });
    }
    nodes(config)?;
    let places = services().map(|role| of(config, *role)).collect::<Result<Vec<_>, _>>()?;
    Ok(in_process || places.contains(&Place::File))
}
