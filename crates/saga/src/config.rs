//! Every setting of the binary. `config.default.toml` is their documentation, compiled in and tested to be the defaults.

mod layers;
mod secret;
mod trace_url;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use layers::ConfigError;
pub use secret::Secret;
pub use trace_url::TraceUrl;

use crate::args::{Common, UpArgs};

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("config.default.toml");

/// The adapters that need no server.
pub const IN_PROCESS: &str = "inproc";

/// All settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder with the databases.
    pub data: PathBuf,
    /// Where customers connect.
    pub listen: SocketAddr,
    /// Where the services' gRPC listens; nothing: the port after `listen`, this machine only.
    pub internal_listen: Option<SocketAddr>,
    /// Whether the services' gRPC tells what it offers (`grpc.reflection.v1`): for development.
    pub internal_reflection: bool,
    /// Where operators connect; nothing: the second port after `listen`, this machine only.
    pub admin_listen: Option<SocketAddr>,
    /// How long a shutdown goes on as before, but not ready, so that an edge sends it nothing new, in ms.
    pub unready_ms: u64,
    /// How long a shutdown waits for open requests, in seconds.
    pub drain_s: u64,
    /// What is logged.
    pub log: Log,
    /// This process among its replicas, 0 to 31: a part of every id it makes.
    pub node: u16,
    /// Threads that do the work; 0: as many as the machine has cores.
    pub threads: usize,
    /// Where rows are kept.
    pub stores: Stores,
    /// The files, where rows are kept in files.
    pub sqlite: Sqlite,
    /// What carries the messages.
    pub bus: Bus,
    /// Cache, filter and locks.
    pub cache: Cache,
    /// Where the other services are, if not in this process.
    pub peers: Peers,
    /// The pages.
    pub console: Console,
    /// See [`account::Config`].
    pub account: account::Config,
    /// See [`product::Config`].
    pub product: product::Config,
    /// See [`payment::Config`].
    pub payment: payment::Config,
    /// See [`purchase::Config`].
    pub purchase: purchase::Config,
    /// See [`orchestrator::Config`].
    pub orchestrator: orchestrator::Config,
    /// What is not kept for ever.
    pub retention: Retention,
    /// Failures on purpose.
    pub failures: Failures,
}

/// What is not kept for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days that dead letters are kept; 0: for ever.
    pub dead_letter_days: u64,
    /// Days that sagas are kept once their purchase has ended; 0: for ever.
    pub saga_days: u64,
    /// Seconds between two looks at what may be removed.
    pub sweep_seconds: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { dead_letter_days: 0, saga_days: 0, sweep_seconds: 120 }
    }
}

/// Failures on purpose, for teaching and for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Failures {
    /// Whether operators can make participants and the gateway fail.
    pub enabled: bool,
    /// Admin addresses of other processes that run participants, `http://host:port`: the orchestrator's process switches them, too.
    pub elsewhere: Vec<String>,
}

/// What is logged, to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Which events: a level, or levels by module.
    pub filter: String,
    /// How.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How the files are opened; see `saga_adapters::sqlite::Options`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sqlite {
    /// Reader threads per file.
    pub readers: usize,
    /// Writes in one transaction.
    pub max_batch: usize,
    /// The log is copied back into the file at this many pages of 4 KiB.
    pub checkpoint_pages: u32,
    /// No file may grow over this many pages; nothing: no limit but the disk's.
    pub max_pages: Option<u32>,
}

/// Where each service keeps its rows: `sqlite`, or `postgres://…`; `{service}` in it is the service's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stores {
    /// For every service that has none of its own below.
    pub url: String,
    /// Of this service alone.
    pub account: Option<String>,
    /// Of this service alone.
    pub product: Option<String>,
    /// Of this service alone.
    pub order: Option<String>,
    /// Of this service alone.
    pub payment: Option<String>,
    /// Of this service alone.
    pub purchase: Option<String>,
    /// Of this service alone.
    pub orchestrator: Option<String>,
    /// For every database, instead of one in its URL.
    pub password: Option<Secret>,
    /// Connections per service and process.
    pub connections: usize,
    /// A statement that takes longer is ended, in ms.
    pub statement_timeout_ms: u64,
    /// On PostgreSQL: how long the next commit of new purchases may fill, in ms; as the bus's. Over Kafka the next question
    /// for their prices, too.
    pub pace_ms: u64,
    /// How long a start waits for a server that is not there yet, in seconds.
    pub connect_for_s: u64,
    /// Whether a start applies missing migrations, or complains about them.
    pub migrate: bool,
}

/// What carries the messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bus {
    /// `inproc`, or `kafka://host:port,…`.
    pub url: String,
    /// In process: records that may wait in one queue; what finds it full is dropped and sent again later.
    pub queue: usize,
    /// What the names of topics and groups begin with: several shops can share a cluster.
    pub prefix: String,
    /// How long records wait for company on their way to a broker, in ms, where a loop sends many.
    pub linger_ms: u64,
    /// On Kafka: how long a loop lets the next batch fill, in ms: see [`saga_runtime::pace`].
    pub pace_ms: u64,
    /// Partitions of the topics that `saga migrate` makes: the most replicas that share the work.
    pub partitions: u32,
    /// Copies of each record that `saga migrate` asks for.
    pub replication: u16,
    /// How long records stay on the topics that `saga migrate` makes, in hours.
    pub retention_hours: u64,
    /// The same of dead-letter topics; from there letters are brought to the orchestrator's database.
    pub dead_letter_hours: u64,
    /// A member of a group that is silent for longer loses its partitions to others, in ms.
    pub session_timeout_ms: u64,
    /// A record that no broker has taken for so long is given up, in ms.
    pub delivery_timeout_ms: u64,
}

/// Cache, filter and locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// `inproc`, or `redis+cluster://host:port,…`: some nodes of a cluster.
    pub url: String,
}

/// Where the other services are. Nothing: in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peers {
    /// The account service's internal listener, `http://host:port`: for its keys.
    pub account: Option<String>,
    /// The product service's internal listener, `http://host:port`: for quotes and details.
    pub product: Option<String>,
}

/// The pages: of a process that does not run all services itself, and what they link to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// Where the shop's public API is, `http://host:port`: the edge's internal address, or a process that runs all services.
    pub shop_url: Option<String>,
    /// The orchestrator's admin address, `http://host:port`.
    pub admin_url: Option<String>,
    /// Where people look at traces; nothing: a trace's id is text.
    pub trace_url: TraceUrl,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            internal_listen: None,
            internal_reflection: false,
            admin_listen: None,
            unready_ms: 0,
            drain_s: 10,
            log: Log::default(),
            node: 0,
            threads: 0,
            stores: Stores::default(),
            sqlite: Sqlite::default(),
            bus: Bus::default(),
            cache: Cache::default(),
            peers: Peers::default(),
            console: Console::default(),
            account: account::Config::default(),
            product: product::Config::default(),
            payment: payment::Config::default(),
            purchase: purchase::Config::default(),
            orchestrator: orchestrator::Config::default(),
            retention: Retention::default(),
            failures: Failures::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Default for Sqlite {
    fn default() -> Self {
        let options = saga_adapters::sqlite::Options::default();
        Self {
            readers: options.readers,
            max_batch: options.max_batch,
            checkpoint_pages: options.checkpoint_pages,
            max_pages: options.max_pages,
        }
    }
}

impl Default for Stores {
    fn default() -> Self {
        Self {
            url: "sqlite".to_owned(),
            account: None,
            product: None,
            order: None,
            payment: None,
            purchase: None,
            orchestrator: None,
            password: None,
            connections: 8,
            statement_timeout_ms: 10_000,
            pace_ms: 10,
            connect_for_s: 60,
            migrate: true,
        }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            url: IN_PROCESS.to_owned(),
            queue: 8_192,
            prefix: String::new(),
            linger_ms: 1,
            pace_ms: 25,
            partitions: 2,
            replication: 1,
            retention_hours: 24,
            dead_letter_hours: 24 * 30,
            session_timeout_ms: 6_000,
            delivery_timeout_ms: 30_000,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { url: IN_PROCESS.to_owned() }
    }
}

impl Config {
    /// Defaults ← file ← environment ← command line.
    ///
    /// # Errors
    /// The first setting that is not one, by key and source.
    pub fn load(common: &Common, up: &UpArgs) -> Result<Self, ConfigError> {
        let file = common.config.clone().or_else(|| layers::variable("SAGA_CONFIG").map(PathBuf::from));
        let mut config: Self = layers::layered(file.as_deref(), layers::environment())?;
        if let Some(data) = &common.data {
            config.data.clone_from(data);
        }
        config.listen = up.listen.unwrap_or(config.listen);
        config.internal_listen = up.internal_listen.or(config.internal_listen);
        config.admin_listen = up.admin_listen.or(config.admin_listen);
        Ok(config)
    }

    /// How a file is opened.
    pub fn options(&self) -> saga_adapters::sqlite::Options {
        saga_adapters::sqlite::Options {
            readers: self.sqlite.readers,
            max_batch: self.sqlite.max_batch,
            checkpoint_pages: self.sqlite.checkpoint_pages,
            max_pages: self.sqlite.max_pages,
            ..saga_adapters::sqlite::Options::default()
        }
    }

    /// The settings as JSON.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn value(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&secret::without_passwords(&serde_json::to_string(self)?))?)
    }

    /// The settings as a file.
    ///
    /// # Errors
    /// When one cannot be written as TOML.
    pub fn print(&self) -> anyhow::Result<String> {
        Ok(secret::without_passwords(&toml::to_string_pretty(self)?))
    }
}

/// The admin API's address from the environment.
pub(crate) fn admin_url() -> Option<String> {
    layers::variable("SAGA_ADMIN_URL")
}

/// A variable of the environment that is no setting of ours.
pub(crate) fn variable(name: &str) -> Option<String> {
    layers::variable(name)
}

/// Variables of the environment that begin like this and say something.
pub(crate) fn variables(prefix: &str) -> Vec<String> {
    layers::names(prefix)
}

/// The admin API's token from the environment.
pub(crate) fn admin_token() -> Option<String> {
    layers::variable("SAGA_ADMIN_TOKEN")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use toml::{Table, Value};

    use super::*;

    #[test]
    fn the_commented_default_file_is_the_defaults() {
        assert_eq!(toml::from_str::<Config>(DEFAULTS).unwrap(), Config::default());
    }

    #[test]
    fn the_commented_default_file_shows_every_key() {
        // A key that has no default is shown as a comment.
        let shown = DEFAULTS.lines().map(|line| line.trim_start_matches(['#', ' ']));
        let shown: Vec<&str> = shown.filter_map(|line| line.split_once(" = ").map(|(key, _)| key)).collect();
        let all = Table::try_from(Config::default()).unwrap();
        fn keys(table: &Table, found: &mut Vec<String>) {
            for (key, value) in table {
                match value {
                    Value::Table(below) => keys(below, found),
                    _ => found.push(key.clone()),
                }
            }
        }
        let without_default = [
            "internal_listen",
            "admin_listen",
            "max_pages",
            "password",
            "account",
            "orchestrator",
            "shop_url",
            "admin_url",
        ];
        let mut found: Vec<String> = without_default.map(str::to_owned).into();
        keys(&all, &mut found);
        for key in found {
            assert!(shown.contains(&key.as_str()), "config.default.toml does not show `{key}`");
        }
    }
}
