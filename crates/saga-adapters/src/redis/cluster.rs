//! The connection to a cluster, kept by a watchdog; every operation is bounded in time and number.
//!
//! ```text
//!  ask ── breaker of the key's part ── a free permit? ── a connection? ── the server, at most `timeout`
//!              │ open                     │ no              │ no             │ late, or an error
//!              └──────────────────────────┴──── unknown ────┴────────────────┘  … and the watchdog looks
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::breaker::Breaker;
use super::script::Answer;
use super::slot::slot;

/// Neighbouring slots share a breaker: a part is mostly of one master, and a hung one must not open the others' ways.
const PARTS: usize = 16;

/// Slots of a part.
const PART: u16 = 1024;

/// In a row, from one part of the cluster: redis-rs asks a hung master again and again, and never leaves it.
const TIMEOUTS_TO_REBUILD: u32 = 2;

/// In a row: a server that fails over says so for a moment, and redis-rs finds the new one by itself.
const ERRORS_TO_REBUILD: u32 = 10;

/// Connecting is: greeting all nodes at a time (one may hang), asking one for the slots, greeting those not known yet.
const STEPS_TO_CONNECT: u32 = 5;

/// How a cluster is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// What one operation may take.
    pub timeout: Duration,
    /// What connecting to one node may take; all together, some times that.
    pub connect_timeout: Duration,
    /// Operations at a time; more are not waited for.
    pub concurrent: usize,
    /// Failures in a row (in one part of the cluster) that open its breaker.
    pub failures: u32,
    /// How long the breaker stays open before a probe.
    pub open_for: Duration,
    /// Between attempts to connect: twice as long each time, from the first to the second.
    pub backoff: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(150),
            connect_timeout: Duration::from_millis(500),
            concurrent: 128,
            failures: 5,
            open_for: Duration::from_millis(500),
            backoff: (Duration::from_millis(100), Duration::from_secs(2)),
        }
    }
}

/// An address that is no Redis address.
#[derive(Debug, thiserror::Error)]
#[error("not the address of a Redis node: {0}")]
pub struct BadAddress(#[source] RedisError);

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Values found.
    pub hits: AtomicU64,
    /// Values not found.
    pub misses: AtomicU64,
    /// Operations that ended with an error.
    pub failures: AtomicU64,
    /// Operations that it did not answer in time.
    pub timeouts: AtomicU64,
    /// Operations that were not sent: breaker open, too many at a time, or no connection.
    pub refused: AtomicU64,
    /// Connections made after the first.
    pub rebuilds: AtomicU64,
}

/// A Redis cluster, there or not. Clones share the connection; the last one dropped closes it.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    _watchdog: Arc<AbortOnDrop>,
}

struct Shared {
    client: ClusterClient,
    options: Options,
    runtime: Handle,
    connection: RwLock<Option<ClusterConnection>>,
    permits: Semaphore,
    breakers: [Breaker; PARTS],
    started: Instant,
    suspicion: Suspicion,
    suspected: Notify,
    trouble: Mutex<Option<String>>,
    filter: Mutex<Option<String>>,
    stats: Stats,
}

/// What speaks for a broken connection.
#[derive(Default)]
struct Suspicion {
    timeouts: AtomicU32,
    errors: AtomicU32,
    /// Where the last failure was: only an answer from there clears it.
    part: AtomicU8,
    raised: AtomicBool,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cluster").field(&self.status()).finish()
    }
}

impl Cluster {
    /// A cluster by some of its nodes' URLs (`redis://[user:password@]host:port`). Returns at once; whether and when
    /// the nodes are there is the watchdog's business. To be called on a Tokio runtime.
    ///
    /// # Errors
    /// For an address that cannot be read.
    pub fn connect<S: Into<String>>(nodes: impl IntoIterator<Item = S>, options: Options) -> Result<Self, BadAddress> {
        let nodes: Vec<String> = nodes.into_iter().map(Into::into).collect();
        let client = ClusterClient::builder(nodes)
            .connection_timeout(options.connect_timeout)
            .response_timeout(options.timeout.max(Duration::from_millis(500)))
            // One for a redirection, one for the node behind it; what takes longer is not waited for anyway.
            .retries(2)
            .min_retry_wait(1)
            .max_retry_wait(20)
            .build()
            .map_err(BadAddress)?;
        let shared = Arc::new(Shared {
            client,
            runtime: Handle::current(),
            connection: RwLock::new(None),
            permits: Semaphore::new(options.concurrent.clamp(1, Semaphore::MAX_PERMITS)),
            breakers: Default::default(),
            started: super::now(),
            suspicion: Suspicion::default(),
            suspected: Notify::new(),
            trouble: Mutex::new(None),
            filter: Mutex::new(None),
            stats: Stats::default(),
            options,
        });
        let watchdog = shared.runtime.spawn(watch(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, _watchdog: Arc::new(AbortOnDrop(watchdog)) })
    }

    /// In words, for people: connected or not, and which filter is in use. Never a reason not to be ready.
    pub fn status(&self) -> String {
        let trouble = self.shared.trouble.lock().clone();
        let open = self.open_breakers();
        let mut status = match (self.shared.connection.read().is_some(), trouble) {
            (true, None) => "connected".to_owned(),
            (true, Some(trouble)) => format!("connected, and about to be again: {trouble}"),
            (false, None) => "not connected yet".to_owned(),
            (false, Some(trouble)) => format!("not connected: {trouble}"),
        };
        if open > 0 {
            status.push_str(&format!("; {open} of {PARTS} parts do not answer"));
        }
        if let Some(filter) = self.shared.filter.lock().as_ref() {
            status.push_str("; filter: ");
            status.push_str(filter);
        }
        status
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.shared.connection.read().is_some()
    }

    /// Parts of the cluster that do not answer.
    pub fn open_breakers(&self) -> usize {
        let limit = self.shared.options.failures;
        self.shared.breakers.iter().filter(|breaker| breaker.is_open(limit)).count()
    }

    /// Which filter is in use, if one is.
    pub fn filter(&self) -> Option<String> {
        self.shared.filter.lock().clone()
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// What the status says of the filter; logged when it changes.
    pub(super) fn note_filter(&self, kind: &str) {
        let mut filter = self.shared.filter.lock();
        if filter.as_deref() != Some(kind) {
            tracing::info!(kind, "filter in use");
            *filter = Some(kind.to_owned());
        }
    }

    /// Runs something that nobody waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.shared.runtime.spawn(task).abort_handle()
    }

    /// A command about `key`; `None` if the answer is not known.
    pub(super) async fn call<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Option<T> {
        match self.ask(key, command).await {
            Answer::Of(value) => Some(value),
            Answer::NoScript | Answer::Unknown => None,
        }
    }

    /// A command about `key`, at most `timeout` long.
    pub(super) async fn ask<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Answer<T> {
        let shared = &*self.shared;
        let part = slot(key) / PART;
        let Some((_permit, mut connection)) = shared.admit(part) else {
            shared.stats.refused.fetch_add(1, Relaxed);
            return Answer::Unknown;
        };
        match timeout(shared.options.timeout, command.query_async(&mut connection)).await {
            Ok(Ok(value)) => {
                shared.succeeded(part);
                Answer::Of(value)
            }
            Ok(Err(error)) if answered(&error) => {
                shared.succeeded(part);
                if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) {
                    return Answer::NoScript;
                }
                shared.stats.failures.fetch_add(1, Relaxed);
                tracing::warn!(%error, "redis refused a command");
                Answer::Unknown
            }
            Ok(Err(error)) if !error.is_timeout() => {
                shared.failed(part, &error);
                Answer::Unknown
            }
            Ok(Err(_)) | Err(_) => {
                shared.timed_out(part);
                Answer::Unknown
            }
        }
    }
}

impl Shared {
    fn admit(&self, part: u16) -> Option<(tokio::sync::SemaphorePermit<'_>, ClusterConnection)> {
        let connection = self.connection.read().clone()?;
        let permit = self.permits.try_acquire().ok()?;
        // Last: whom it admits is its probe.
        let admitted = self.breaker(part)?.admits(self.millis(), self.options.failures, self.open_for());
        admitted.then_some((permit, connection))
    }

    fn breaker(&self, part: u16) -> Option<&Breaker> {
        self.breakers.get(usize::from(part))
    }

    fn millis(&self) -> u64 {
        u64::try_from((super::now() - self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn open_for(&self) -> u64 {
        u64::try_from(self.options.open_for.as_millis()).unwrap_or(u64::MAX)
    }

    fn succeeded(&self, part: u16) {
        if let Some(breaker) = self.breaker(part) {
            breaker.succeeded();
        }
        if u16::from(self.suspicion.part.load(Relaxed)) == part {
            self.suspicion.timeouts.store(0, Relaxed);
            self.suspicion.errors.store(0, Relaxed);
        }
    }

    fn timed_out(&self, part: u16) {
        self.stats.timeouts.fetch_add(1, Relaxed);
        self.trip(part);
        if self.suspicion.timeouts.fetch_add(1, Relaxed) + 1 >= TIMEOUTS_TO_REBUILD {
            self.raise("it does not answer in time");
        }
    }

    fn failed(&self, part: u16, error: &RedisError) {
        self.stats.failures.fetch_add(1, Relaxed);
        self.trip(part);
        tracing::debug!(%error, "redis is not reached");
        if self.suspicion.errors.fetch_add(1, Relaxed) + 1 >= ERRORS_TO_REBUILD {
            self.raise(&error.to_string());
        }
    }

    fn trip(&self, part: u16) {
        self.suspicion.part.store(u8::try_from(part).unwrap_or_default(), Relaxed);
        if let Some(breaker) = self.breaker(part) {
            breaker.failed(self.millis(), self.options.failures, self.open_for());
        }
    }

    fn raise(&self, why: &str) {
        if !self.suspicion.raised.swap(true, Relaxed) {
            *self.trouble.lock() = Some(why.to_owned());
            self.suspected.notify_one();
        }
    }

    fn install(&self, connection: ClusterConnection) {
        *self.connection.write() = Some(connection);
        *self.trouble.lock() = None;
        self.suspicion.timeouts.store(0, Relaxed);
        self.suspicion.errors.store(0, Relaxed);
        self.suspicion.raised.store(false, Relaxed);
        // Whoever was behind the old one: the new one is to be asked.
        self.breakers.iter().for_each(Breaker::succeeded);
    }
}

/// Errors by which the part's master says that it is well, and something else is not.
fn answered(error: &RedisError) -> bool {
    use ServerErrorKind::{CrossSlot, ExecAbort, NoPerm, NoScript, ResponseError};
    matches!(
        error.kind(),
        ErrorKind::Server(ResponseError | ExecAbort | CrossSlot | NoPerm | NoScript)
            | ErrorKind::Extension
            | ErrorKind::UnexpectedReturnType
            | ErrorKind::Parse
    )
}

/// Connects, waits for a suspicion, and again. The old connection serves until there is a new one: two thirds of the
/// keys are on masters that are well.
async fn watch(shared: Arc<Shared>) {
    let (shortest, longest) = shared.options.backoff;
    let mut backoff = shortest;
    let mut connections = 0_u64;
    loop {
        match timeout(shared.options.connect_timeout * STEPS_TO_CONNECT, shared.client.get_async_connection()).await {
            Ok(Ok(connection)) => {
                if connections > 0 {
                    shared.stats.rebuilds.fetch_add(1, Relaxed);
                }
                connections += 1;
                tracing::info!(connections, "connected to the redis cluster");
                let since = super::now();
                shared.install(connection);
                shared.suspected.notified().await;
                if super::now() - since > longest {
                    backoff = shortest;
                }
                tracing::warn!(why = shared.trouble.lock().as_deref(), "the redis cluster is connected to again");
            }
            Ok(Err(error)) => *shared.trouble.lock() = Some(error.to_string()),
            Err(_) => *shared.trouble.lock() = Some("connecting takes too long".to_owned()),
        }
        super::sleep(backoff).await;
        backoff = (backoff * 2).min(longest);
    }
}
