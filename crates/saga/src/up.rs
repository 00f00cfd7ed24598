//! `saga up`: every service, every adapter and every listener of the embedded profile, connected in one process.
//!
//! ```text
//!   settings ─► folder held ─► listeners bound ─► files opened ─► services built ─► loops ─► ready
//!   stop ─► not ready ─► no new connections, streams end ─► open requests end ─► loops end ─► files closed ─► folder free
//! ```
//!
//! Promised: nothing is global, two shops run in one process; a stop at any point loses nothing, like a kill.

mod accounts;
mod admin;
pub(crate) mod backends;
mod catalogue;
pub mod documents;
mod failures;
pub mod folder;
mod late;
mod listeners;
mod pages;
mod peers;
pub(crate) mod places;
mod retention;
pub mod roles;
mod services;
mod walkthrough;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chassis::health::Health;
use chassis::http::HttpLimits;
use saga_runtime::{Clock as _, SystemClock};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::output::Output;
use crate::config::Config;
use crate::remote::RunFile;
use crate::telemetry::Telemetry;
use folder::Folder;
use late::Late;
use listeners::Listeners;
use roles::ServiceRole;
use services::Services;

pub(crate) use accounts::create as create_account;
pub(crate) use services::definitions;

/// After the listeners have drained, loops and files get this long: a unit of work takes milliseconds.
const LOOPS_END_WITHIN: Duration = Duration::from_secs(10);

/// A whole shop that is running.
pub struct Shop {
    /// Where customers connect.
    pub public_addr: SocketAddr,
    /// Where the services' gRPC listens.
    pub internal_addr: SocketAddr,
    /// Where operators connect.
    pub admin_addr: SocketAddr,
    /// For the admin listener; in the run file, too.
    pub admin_token: String,
    /// The data folder.
    pub data: PathBuf,
    /// Whether nobody has an account yet.
    pub empty: bool,
    /// How long a stop goes on as before.
    unready: Duration,
    health: Health,
    /// Ends listeners and streams.
    closing: CancellationToken,
    /// Ends the loops.
    stop: CancellationToken,
    /// Cancelled when a part that all depends on has ended by itself.
    failed: CancellationToken,
    listeners: TaskTracker,
    loops: TaskTracker,
    services: Services,
    folder: Option<Folder>,
    telemetry: Telemetry,
}

impl Shop {
    /// Starts a whole shop. When this answers it takes purchases.
    ///
    /// # Errors
    /// Whatever stands in the way, in words that say what to do.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        Self::serve(config, roles::ALL.into()).await
    }

    /// Starts some roles of a shop.
    ///
    /// # Errors
    /// Whatever stands in the way, in words that say what to do.
    pub async fn serve(config: Config, roles: BTreeSet<ServiceRole>) -> anyhow::Result<Self> {
        let definitions = services::definitions(&config)?;
        let folder = if places::needs_folder(&config, &roles)? { Some(Folder::hold(&config.data)?) } else { None };
        let listeners = Listeners::bind(&config).await?;
        let (closing, stop, failed) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (loops, serving) = (TaskTracker::new(), TaskTracker::new());
        let health = Health::default();
        let token = match crate::config::admin_token() {
            // Nobody could read the run file, so operators must know the token beforehand.
            Some(token) if folder.is_none() => hard_to_guess(token)?,
            _ => token()?,
        };
        let telemetry = Telemetry::start(&config, &name_of(&roles))?;
        let core = services::Core {
            config: config.clone(),
            roles,
            definitions,
            closing: closing.clone(),
            stop: stop.clone(),
            failed: failed.clone(),
            loops: loops.clone(),
            health: health.clone(),
            token: blake3::hash(token.as_bytes()),
            tracer: telemetry.tracer(),
            spans: telemetry.spans(),
        };
        let limits = HttpLimits { drain: Duration::from_secs(config.drain_s), ..HttpLimits::default() };
        health.set("shop", Err("it is starting".to_owned()));
        // Whoever asks while servers are waited for is told what is missing.
        let [public_addr, internal_addr, admin_addr] =
            [&listeners.public, &listeners.internal, &listeners.admin].map(TcpListener::local_addr);
        let (public_addr, internal_addr, admin_addr) = (public_addr?, internal_addr?, admin_addr?);
        // A start that fails takes them along.
        let unfinished = closing.clone().drop_guard();
        let late = Late::new(&health);
        for (listener, router) in
            [listeners.public, listeners.internal, listeners.admin].into_iter().zip(late.routers())
        {
            serving.spawn(chassis::http::serve(listener, router, limits, closing.clone()));
        }
        let mut services = Services::build(core, folder.as_ref()).await?;
        let empty = services.is_empty().await?;
        let http = |address: SocketAddr| format!("http://{address}");
        late.open(services.routers()?);
        // Whoever reads the run file finds a shop that takes requests.
        if let Some(folder) = &folder {
            folder.announce(&RunFile {
                pid: std::process::id(),
                public: http(public_addr),
                internal: http(internal_addr),
                admin: http(admin_addr),
                token: token.clone(),
            })?;
        }
        unfinished.disarm();
        health.set("shop", Ok(()));
        Ok(Self {
            public_addr,
            internal_addr,
            admin_addr,
            admin_token: token,
            data: config.data,
            empty,
            unready: Duration::from_millis(config.unready_ms),
            health,
            closing,
            stop,
            failed,
            listeners: serving,
            loops,
            services,
            folder,
            telemetry,
        })
    }

    /// Returns when a part that all depends on has ended by itself; it is in the log.
    pub async fn failure(&self) {
        self.failed.cancelled().await;
    }

    /// Stops: not ready, no new connections, open requests end, loops end, files are closed.
    pub async fn stop(self) {
        self.health.set("shop", Err("it is stopping".to_owned()));
        SystemClock.sleep(self.unready).await;
        self.closing.cancel();
        self.listeners.close();
        self.listeners.wait().await;
        self.stop.cancel();
        self.loops.close();
        if tokio::time::timeout(LOOPS_END_WITHIN, self.loops.wait()).await.is_err() {
            tracing::warn!("some loops did not end; what they held is taken up at the next start");
        }
        if tokio::time::timeout(LOOPS_END_WITHIN, self.services.close()).await.is_err() {
            tracing::warn!("some files are still being written; that is finished before the process ends");
        }
        self.telemetry.close().await;
        if let Some(folder) = &self.folder {
            folder.withdraw();
        }
    }
}

/// A token that nobody tries out by accident: 128 bits as hexadecimal digits have twice as many characters.
const SHORTEST_TOKEN: usize = 16;

fn hard_to_guess(token: String) -> anyhow::Result<String> {
    anyhow::ensure!(
        token.len() >= SHORTEST_TOKEN,
        "SAGA_ADMIN_TOKEN: too short: whoever guesses it runs the shop. At least {SHORTEST_TOKEN} characters, \
         as from `openssl rand -hex 32`"
    );
    Ok(token)
}

/// 256 random bits as text: lasts as long as the process.
#[expect(clippy::disallowed_methods, reason = "a secret")]
fn token() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Runs some or all roles of a shop until a signal, or until it fails.
///
/// # Errors
/// When it cannot start, or a part ended by itself.
pub fn run(config: Config, roles: BTreeSet<ServiceRole>, output: &Output) -> anyhow::Result<()> {
    let _logging = crate::log::install(&config.log)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.threads > 0 {
        builder.worker_threads(config.threads);
    }
    let runtime = builder.enable_all().build()?;
    let result = runtime.block_on(until_signal(config, roles, output));
    // Whatever still runs (a listing that nobody waits for) ends with the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn until_signal(config: Config, roles: BTreeSet<ServiceRole>, output: &Output) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let first_is_admin = config.account.first_account_is_admin;
    let whole = roles.len() == roles::ALL.len();
    let names = roles.iter().map(ServiceRole::to_string).collect::<Vec<_>>().join(", ");
    let shop = Shop::serve(config, roles).await?;
    if whole {
        output.text(&walkthrough::text(&shop, first_is_admin));
    } else {
        output.text(&format!(
            "{names}: HTTP on {}, gRPC on {}, operators on {}",
            shop.public_addr, shop.internal_addr, shop.admin_addr
        ));
    }
    let failed = tokio::select! {
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
        () = shop.failure() => true,
    };
    // Not a message of its own: nobody may be reading, and a stop must not wait for them.
    tracing::info!("stopping: open requests are finished first (again to stop at once)");
    tokio::select! {
        () = shop.stop() => {}
        _ = interrupt.recv() => tracing::warn!("stopped at once; what was on its way goes on at the next start"),
        _ = terminate.recv() => tracing::warn!("stopped at once; what was on its way goes on at the next start"),
    }
    anyhow::ensure!(!failed, "a part of the shop ended by itself; the reason is in the log");
    Ok(())
}

/// What a process calls itself in traces: by its service, if it is only one.
fn name_of(roles: &BTreeSet<ServiceRole>) -> String {
    match roles.iter().next() {
        Some(role) if roles.len() == 1 => format!("saga-{role}"),
        _ => "saga".to_owned(),
    }
}
