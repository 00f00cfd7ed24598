//! Reaching a server, with patience where that helps and a clear refusal where it does not.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime, Timeouts};
use thiserror::Error;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};

use super::Schema;
use super::error::{describe, may_heal};
use super::options::{GRACE, Options};
use super::pool::{Inner, Pg};
use super::schema;

/// The oldest server that is tested.
const OLDEST: i32 = 150_000;

/// Between two attempts, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Plans are those of large tables from the first row on: a plan that was made while a table was small is kept until the
/// next `analyze`, and every statement here has its index. Without these settings a batch's look-ups in a young database
/// become one scan of the table, which then grows. (Sets of updates find their rows by a look-up each, then by `ctid`,
/// for the same reason.) Nothing here is worth a compiler or parallel workers.
const PLANS: &str = "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_material=off -c enable_hashjoin=off \
                     -c enable_mergejoin=off -c enable_memoize=off -c jit=off -c max_parallel_workers_per_gather=0";

/// A database that is refused, or that cannot be reached.
#[derive(Debug, Error)]
#[error("{address}: {reason}")]
pub struct ConnectError {
    /// Which one, without its password.
    pub address: String,
    /// Why.
    pub reason: ConnectReason,
}

/// Why a database is refused.
#[derive(Debug, Error)]
pub enum ConnectReason {
    /// Not an address.
    #[error("is not the address of a PostgreSQL database: {0}")]
    Address(String),
    /// Nobody there, or not yet: waiting may help.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Wrong user, password or database, or no right to it.
    #[error("does not let us in: {0}")]
    Denied(String),
    /// Too old.
    #[error("is PostgreSQL {0}; 15 or newer is needed")]
    Old(String),
    /// Text is stored in another encoding than UTF-8.
    #[error("stores text as {0}; UTF8 is needed")]
    Encoding(String),
    /// More sessions are wanted than there can ever be.
    #[error(
        "allows {allowed} sessions ({limit}), and a pool of {wanted} is configured: lower pool_size or raise the limit"
    )]
    PoolTooLarge {
        /// By the configuration.
        wanted: usize,
        /// By the server.
        allowed: usize,
        /// Which of its limits.
        limit: &'static str,
    },
    /// A database of another program.
    #[error("is the database of another program (it has tables, and none of ours: `{0}`)")]
    Foreign(String),
    /// A database of another service of ours.
    #[error("is the database of `{found}`, not of `{expected}`")]
    OtherService {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: &'static str,
    },
    /// Written by a newer version of this program.
    #[error("was written by a newer version (migration `{found}`; this one knows {known})")]
    Newer {
        /// A migration that is not known here.
        found: String,
        /// How many are.
        known: usize,
    },
    /// Not what the migration of that name does today.
    #[error("migration `{0}` is not the one that was applied to this database")]
    Edited(String),
    /// Migrations are missing, and the options do not let us apply them.
    #[error("has {found} of {known} migrations: run `saga migrate`")]
    Older {
        /// How many were applied.
        found: usize,
        /// How many there are.
        known: usize,
    },
    /// A migration that does not run.
    #[error("migration `{name}` failed: {detail}")]
    Migration {
        /// Which one.
        name: &'static str,
        /// What the server said.
        detail: String,
    },
}

impl From<tokio_postgres::Error> for ConnectReason {
    fn from(error: tokio_postgres::Error) -> Self {
        let detail = describe(&error);
        match error.code() {
            // A replica that has no such database or user yet is set up by people, not by waiting.
            Some(state) if !may_heal(state) => Self::Denied(detail),
            None if detail.contains("password") || detail.contains("authentication") || detail.contains("TLS") => {
                Self::Denied(detail)
            }
            _ => Self::Unreachable(detail),
        }
    }
}

impl Pg {
    /// Reaches a database, waiting for it up to [`Options::connect_for`], checks whose it is and how many sessions it
    /// allows, and brings it up to date.
    ///
    /// # Errors
    /// What waiting does not help is refused at once, with the address and the reason.
    pub async fn connect(options: &Options, schema: &Schema) -> Result<Self, ConnectError> {
        let mut pause = FIRST_PAUSE;
        let patience = async {
            loop {
                match Self::connect_once(options, schema).await {
                    Err(error @ ConnectError { reason: ConnectReason::Unreachable(_), .. }) => {
                        tracing::warn!(%error, service = schema.name, "trying again in {pause:?}");
                        rest(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    result => return result,
                }
            }
        };
        match options.connect_for {
            None => patience.await,
            Some(limit) => match tokio::time::timeout(limit, patience).await {
                Ok(result) => result,
                // Once more for its error.
                Err(_) => Self::connect_once(options, schema).await,
            },
        }
    }

    /// One attempt, for those who wait in their own way: `Unreachable` may heal, the other reasons do not.
    ///
    /// # Errors
    /// The address and the reason.
    pub async fn connect_once(options: &Options, schema: &Schema) -> Result<Self, ConnectError> {
        let (config, address) = configure(options, schema.name)?;
        let refused = |reason| ConnectError { address: address.clone(), reason };
        let pool = pool(config.clone(), options).map_err(refused)?;
        check(&config, options, schema).await.map_err(refused)?;
        let limit = options.statement_timeout + GRACE;
        let stats = Arc::default();
        let Options { lazy_commits, pace, .. } = *options;
        Ok(Self::of(Inner { address, pool, limit, lazy_commits, pace, stats }))
    }
}

/// Whether everything fits, on a session of its own, which then migrates.
async fn check(config: &Config, options: &Options, schema: &Schema) -> Result<(), ConnectReason> {
    let attempt = config.connect(NoTls);
    let connected = tokio::time::timeout(options.connect_timeout, attempt).await;
    let (mut client, connection) =
        connected.map_err(|_| ConnectReason::Unreachable(format!("no answer for {:?}", options.connect_timeout)))??;
    let talk = async {
        fits(&client, options).await?;
        schema::bring_up_to_date(&mut client, schema, options.migrate).await?;
        // Ends the connection below.
        drop(client);
        Ok(())
    };
    let (result, _) = tokio::join!(talk, connection);
    result
}

/// Version, encoding, and the limits that bind this user in this database.
async fn fits(client: &Client, options: &Options) -> Result<(), ConnectReason> {
    let sql = "select current_setting('server_version'), current_setting('server_version_num')::int,
            current_setting('server_encoding'),
            current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
            (select rolconnlimit from pg_roles where rolname = current_user),
            (select datconnlimit from pg_database where datname = current_database()),
            (select count(*)::int from pg_stat_activity where backend_type = 'client backend')";
    let row = client.query_one(sql, &[]).await?;
    if row.try_get::<_, i32>(1)? < OLDEST {
        return Err(ConnectReason::Old(row.try_get(0)?));
    }
    let encoding: String = row.try_get(2)?;
    if encoding != "UTF8" {
        return Err(ConnectReason::Encoding(encoding));
    }
    let limits = ["max_connections", "the role's connection limit", "the database's connection limit"];
    for (column, limit) in (3..).zip(limits) {
        // A role or database without a limit says -1.
        let allowed = usize::try_from(row.try_get::<_, i32>(column)?).unwrap_or(usize::MAX);
        if options.pool_size > allowed {
            return Err(ConnectReason::PoolTooLarge { wanted: options.pool_size, allowed, limit });
        }
    }
    let (server, used): (i32, i32) = (row.try_get(3)?, row.try_get(6)?);
    let free = usize::try_from(server.saturating_sub(used)).unwrap_or(0);
    if free < options.pool_size {
        let wanted = options.pool_size;
        tracing::warn!(free, wanted, "others use so many sessions of this server that ours may not all fit");
    }
    Ok(())
}

fn configure(options: &Options, service: &str) -> Result<(Config, String), ConnectError> {
    let unknown = |reason: String| ConnectError {
        // The text itself may hold a password.
        address: format!("the {service} service's database"),
        reason: ConnectReason::Address(reason),
    };
    let mut config = Config::from_str(&options.url).map_err(|error| unknown(describe(&error)))?;
    if config.get_hosts().is_empty() || config.get_user().is_none() {
        return Err(unknown("it needs a host and a user, as in postgres://user@host/database".to_owned()));
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err(unknown("sslmode=require is not supported yet: use a private network or a local proxy".to_owned()));
    }
    let name =
        if options.application_name.is_empty() { format!("saga-{service}") } else { options.application_name.clone() };
    let settings = format!(
        "{} {PLANS} -c statement_timeout={} -c idle_in_transaction_session_timeout={}",
        config.get_options().unwrap_or_default(),
        options.statement_timeout.as_millis(),
        options.idle_in_transaction_timeout.as_millis(),
    );
    config.application_name(&name).options(settings.trim()).connect_timeout(options.connect_timeout);
    config.keepalives_idle(Duration::from_secs(15)).tcp_user_timeout(options.statement_timeout + GRACE);
    if let Some(password) = &options.password {
        config.password(password);
    }
    let address = address(&config);
    Ok((config, address))
}

fn address(config: &Config) -> String {
    let host = |(at, host): (usize, &Host)| {
        let port = config.get_ports().get(at).or(config.get_ports().first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => path.display().to_string(),
        }
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    let user = config.get_user().unwrap_or_default();
    format!("postgres://{user}@{}/{}", hosts.join(","), config.get_dbname().unwrap_or(user))
}

fn pool(config: Config, options: &Options) -> Result<Pool, ConnectReason> {
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let timeouts = Timeouts {
        wait: Some(options.acquire_timeout),
        create: Some(options.connect_timeout),
        recycle: Some(options.connect_timeout),
    };
    // The session that was used last is used next: its plans are warm, and idle ones stay idle.
    let builder = Pool::builder(manager).max_size(options.pool_size.max(1)).queue_mode(QueueMode::Lifo);
    let pool = builder.timeouts(timeouts).runtime(Runtime::Tokio1).build();
    pool.map_err(|error| ConnectReason::Address(error.to_string()))
}

async fn rest(pause: Duration) {
    #[expect(clippy::disallowed_methods, reason = "before there is a service there is no clock port; bounded above")]
    tokio::time::sleep(pause).await;
}
