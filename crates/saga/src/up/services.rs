//! The services of a process, all six or some, and how they meet: over the bus, and through ports.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::{Extension, Router};
use chassis::auth::Verifier;
use chassis::health::Health;
use chassis::ids::IdGen;
use chassis::metrics::HttpMetrics;
use futures_util::FutureExt as _;
use saga_adapters::inproc::InProcBus;
use saga_core::Name;
use saga_runtime::dead_letters::{self, DeadLetters};
use saga_runtime::trace::Tracer;
use saga_runtime::{Clock, Definitions, LoopContext, LoopOptions, Participant, Stats, SystemClock, run_participant};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accounts::Registrar;
use super::admin::{self, Accounts, AdminState};
use super::backends::{Backends, Messages, Open, Sagas};
use super::catalogue::{Catalogue, InProcess};
use super::documents;
use super::failures::{Board, Elsewhere};
use super::folder::Folder;
use super::pages;
use super::peers::{Keys, RemoteCatalogue};
use super::places;
use super::roles::ServiceRole;
use crate::config::{Config, ConfigError};
use crate::metrics::process::Process;
use crate::metrics::{Engine, Metrics, Polled};
use crate::telemetry::Spans;

/// The loops subscribe within milliseconds; a machine that swaps needs longer.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(30);

/// What every part needs.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) roles: BTreeSet<ServiceRole>,
    pub(super) definitions: Arc<Definitions>,
    pub(super) closing: CancellationToken,
    pub(super) stop: CancellationToken,
    pub(super) failed: CancellationToken,
    pub(super) loops: TaskTracker,
    pub(super) health: Health,
    pub(super) token: blake3::Hash,
    pub(super) tracer: Tracer,
    pub(super) spans: Arc<Spans>,
}

/// Everything that runs.
pub(super) struct Services {
    accounts: Option<account::Accounts>,
    routers: Option<Routers>,
    open: Open,
}

/// What each listener answers.
#[derive(Clone)]
pub(super) struct Routers {
    pub(super) public: Router,
    pub(super) internal: Router,
    pub(super) admin: Router,
    /// Of the three, in this order.
    pub(super) requests: [HttpMetrics; 3],
}

/// The definition files in force; with them whatever else only shows when settings are seen together.
pub(crate) fn definitions(config: &Config) -> Result<Arc<Definitions>, ConfigError> {
    let wrong = |detail: String| ConfigError::Value { key: "orchestrator.definitions".to_owned(), detail };
    let loaded = orchestrator::load_definitions(&config.orchestrator.definitions);
    let definitions = loaded.map_err(|error| wrong(error.to_string()))?;
    if definitions.newest(&Name::new(contracts::purchase::DEFINITION)).is_none() {
        return Err(wrong("none of them is called `purchase`".to_owned()));
    }
    config.payment.sandbox.check().map_err(|detail| ConfigError::Value { key: "payment".to_owned(), detail })?;
    Ok(Arc::new(definitions))
}

/// What all roles of a process share.
struct Shared {
    clock: Arc<dyn Clock>,
    ids: Arc<IdGen>,
    verifier: Verifier,
    context: LoopContext,
    letters: Option<Arc<dyn DeadLetters>>,
}

/// What the roles put together.
#[derive(Default)]
struct Parts {
    api: Router,
    well_known: Router,
    participants: Vec<Arc<dyn Participant>>,
    accounts: Option<account::Accounts>,
    products: Option<product::Products>,
    admin: Option<Router>,
    board: Option<Board>,
    metrics: Metrics,
}

impl Services {
    /// The pages alone: no rows, no messages.
    async fn pages(core: &Core) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let internal = internal(&core.config, None, None).await?;
        let mut metrics = Metrics::default();
        let requests = core.measure(&clock, &mut metrics)?;
        let (public, admin) = pages::mount(core, &clock, Router::new(), metrics.router())?;
        let routers = Some(Routers { public, internal, admin, requests });
        Ok(Self { accounts: None, routers, open: Open::default() })
    }

    /// Opens the stores, builds the roles, starts their loops.
    pub(super) async fn build(core: Core, folder: Option<&Folder>) -> anyhow::Result<Self> {
        if !core.roles.iter().any(|role| role.is_service()) {
            return Self::pages(&core).await;
        }
        let config = &core.config;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut backends = Backends::new(config, folder, core.health.clone());
        let Messages { bus, letters } = backends.messages(&core.definitions).await?;
        let (pace, sweep) = (places::pace(config)?, places::sweep(config)?);
        let options = LoopOptions { pace, sweep, ..LoopOptions::default() };
        let stats = Arc::new(Stats::of(&core.definitions));
        let shared = Shared {
            ids: Arc::new(IdGen::new(config.node, Arc::clone(&clock))),
            verifier: Verifier::new(&config.account.issuer, &config.account.audience, Arc::clone(&clock)),
            context: LoopContext {
                bus,
                clock: Arc::clone(&clock),
                stop: core.stop.clone(),
                stats,
                options,
                tracer: core.tracer.clone(),
            },
            clock,
            letters,
        };
        let board = Board::new(config.failures.enabled, &core.health);
        let mut parts = Parts { board: Some(board.clone()), ..Parts::default() };
        core.account(&mut backends, &shared, &mut parts).await?;
        core.product(&mut backends, &shared, &mut parts).await?;
        if core.has(ServiceRole::Order) {
            let catalogue = core.catalogue(&parts)?;
            let (store, cache) = (backends.order().await?, backends.read_through("order")?);
            let order = order::build(store, catalogue, cache, Arc::clone(&shared.clock));
            parts.metrics.add(order.stats);
            parts.api = parts.api.merge(order.router);
            parts.participants.push(order.participant);
        }
        if core.has(ServiceRole::Payment) {
            let gateway = payment::Sandbox::new(config.payment.sandbox.clone(), Arc::clone(&shared.clock));
            let gateway = board.gateway(Arc::new(gateway), &shared.clock);
            let (store, cache) = (backends.payment().await?, backends.read_through("payment")?);
            let payment = payment::build(store, gateway, cache, Arc::clone(&shared.clock));
            parts.metrics.add(payment.stats);
            parts.api = parts.api.merge(payment.router);
            parts.participants.push(payment.participant);
        }
        core.start(&mut backends, &shared, &mut parts).await?;
        core.purchase(&mut backends, &shared, &mut parts).await?;

        let public = Router::new().nest("/api/v1", parts.api).merge(parts.well_known.clone());
        let public = public.layer(Extension(shared.verifier.clone()));
        // Of the whole shop, whichever parts of it are here: behind an edge it is one.
        let public = public.merge(documents::router(&documents::public()?));
        let internal = internal(config, parts.accounts.as_ref(), parts.products.as_ref()).await?;
        let internal = internal.merge(parts.well_known);
        let accounts: Option<Arc<dyn Accounts>> =
            parts.accounts.clone().map(|accounts| Arc::new(Registrar(accounts)) as Arc<dyn Accounts>);
        let state = AdminState {
            token: core.token,
            verifier: shared.verifier.clone(),
            config: Arc::new(config.clone()),
            accounts,
            audit: backends.audit(),
            clock: Arc::clone(&shared.clock),
            checking: Arc::default(),
            board: parts.board.take(),
            elsewhere: Elsewhere::of(config, &core.roles)?,
        };
        let requests = core.measure(&shared.clock, &mut parts.metrics)?;
        core.measure_loops(&shared, &backends, &mut parts.metrics);
        let admin = admin::router(parts.admin, state).merge(documents::router(&documents::admin()?));
        let admin = admin.merge(parts.metrics.router()).merge(documents::runbooks::router());
        let [public, internal] =
            [public, internal].map(|router| chassis::trace::traced(router, &core.tracer, &shared.clock));
        let (public, admin) = pages::mount(&core, &shared.clock, public, admin)?;
        let routers = Routers { public, internal, admin, requests };
        let topics = core.definitions.all().iter().flat_map(|definition| definition.topics()).collect();
        let open = backends.finish(Arc::clone(&shared.clock), topics, &core.loops, core.closing.clone());
        Ok(Self { accounts: parts.accounts, routers: Some(routers), open })
    }

    /// What the listeners answer; once.
    pub(super) fn routers(&mut self) -> anyhow::Result<Routers> {
        self.routers.take().context("the routers were handed out before")
    }

    /// Whether nobody has an account.
    pub(super) async fn is_empty(&self) -> anyhow::Result<bool> {
        match &self.accounts {
            Some(accounts) => Ok(accounts.is_empty().await?),
            None => Ok(false),
        }
    }

    /// Lets go of everything and waits until the files are closed.
    pub(super) async fn close(self) {
        let Self { accounts, routers, open } = self;
        drop((accounts, routers));
        open.close().await;
    }
}

impl Core {
    /// What is counted wherever a process is; the services add their own.
    fn measure(&self, clock: &Arc<dyn Clock>, metrics: &mut Metrics) -> anyhow::Result<[HttpMetrics; 3]> {
        let profile = if places::brokers(&self.config)?.is_some() { "stack" } else { "embedded" };
        metrics.add(Arc::new(Process {
            roles: self.roles.clone(),
            profile,
            started_at: clock.now(),
            health: self.health.clone(),
            spans: Arc::clone(&self.spans),
        }));
        let requests = ["public", "internal", "admin"].map(|name| HttpMetrics::new(name, Arc::clone(clock)));
        for listener in &requests {
            metrics.add(Arc::new(listener.clone()));
        }
        Ok(requests)
    }

    /// What is counted wherever a service is.
    fn measure_loops(&self, shared: &Shared, backends: &Backends<'_>, metrics: &mut Metrics) {
        let stats = Arc::clone(&shared.context.stats);
        metrics.add(Arc::new(Engine { stats, drives: self.has(ServiceRole::Orchestrator) }));
        metrics.add(Arc::new(shared.verifier.clone()));
        metrics.add(Arc::new(backends.datastores()));
    }

    fn has(&self, role: ServiceRole) -> bool {
        self.roles.contains(&role)
    }

    async fn account(&self, backends: &mut Backends<'_>, shared: &Shared, parts: &mut Parts) -> anyhow::Result<()> {
        if !self.has(ServiceRole::Account) {
            let url =
                peer(self.config.peers.account.as_ref(), "peers.account", "who publishes the keys of the tokens")?;
            let keys = Keys {
                account: crate::remote::Endpoint::parse(url)?,
                verifier: shared.verifier.clone(),
                health: self.health.clone(),
                clock: Arc::clone(&shared.clock),
                stop: self.closing.clone(),
            };
            self.loops.spawn(keys.run());
            return Ok(());
        }
        let (ids, clock) = (Arc::clone(&shared.ids), Arc::clone(&shared.clock));
        let store = backends.account().await?;
        let account = account::build(
            self.config.account.clone(),
            store,
            &backends.read_through("customer")?,
            ids,
            clock,
            shared.verifier.clone(),
        )
        .await?;
        parts.api = std::mem::take(&mut parts.api).merge(account.router);
        parts.well_known = account.well_known;
        parts.metrics.add(account.accounts.stats());
        parts.accounts = Some(account.accounts);
        Ok(())
    }

    async fn product(&self, backends: &mut Backends<'_>, shared: &Shared, parts: &mut Parts) -> anyhow::Result<()> {
        if !self.has(ServiceRole::Product) {
            return Ok(());
        }
        let (ids, clock) = (Arc::clone(&shared.ids), Arc::clone(&shared.clock));
        let store = backends.product().await?;
        let config = self.config.product.clone();
        let cache = backends.quotes(Duration::from_millis(config.cache_ms / 2))?;
        let (existence, shared_filter) = backends.existence()?;
        let product = product::build(config, store, existence, cache, ids, clock).await?;
        if let Some(shared_filter) = shared_filter {
            self.loops.spawn(shared_filter.keep_filled(product.products.clone(), self.closing.clone()));
        }
        parts.api = std::mem::take(&mut parts.api).merge(product.router);
        parts.participants.push(product.participant);
        parts.metrics.add(product.products.stats());
        parts.products = Some(product.products);
        Ok(())
    }

    /// The product service: in this process, or where the settings say.
    fn catalogue(&self, parts: &Parts) -> anyhow::Result<Arc<dyn Catalogue>> {
        if let Some(products) = &parts.products {
            return Ok(Arc::new(InProcess(products.clone())));
        }
        let url = peer(self.config.peers.product.as_ref(), "peers.product", "who knows the products")?;
        Ok(Arc::new(RemoteCatalogue::new(url, self.tracer.clone(), Arc::new(SystemClock))?))
    }

    /// Starts the loops of the orchestrator and of the participants.
    async fn start(&self, backends: &mut Backends<'_>, shared: &Shared, parts: &mut Parts) -> anyhow::Result<()> {
        let context = &shared.context;
        if self.has(ServiceRole::Orchestrator) {
            let Sagas { store, letters, sink, audit } = backends.orchestrator(shared.letters.clone()).await?;
            let definitions = Arc::clone(&self.definitions);
            let (bus, clock) = (Arc::clone(&context.bus), Arc::clone(&context.clock));
            parts.metrics.poll(Polled::new(
                Arc::clone(&store),
                Arc::clone(&letters),
                bus,
                Arc::clone(&definitions),
                clock,
            ));
            if let Some(sink) = sink {
                let topics = definitions.all().iter().flat_map(|definition| definition.topics()).collect();
                self.loops.spawn(dead_letters::collect(context.clone(), sink, topics));
            }
            self.forget_letters(context, &letters);
            self.remove_sagas(context, &store);
            let stores = orchestrator::Stores { sagas: store, dead_letters: letters, audit };
            let about = orchestrator::About {
                version: env!("CARGO_PKG_VERSION"),
                profile: if backends.in_process().is_some() { "embedded" } else { "stack" },
                closing: self.closing.clone(),
            };
            let built = orchestrator::build(&self.config.orchestrator, context.clone(), stores, definitions, about);
            let run = built.orchestrator.run();
            self.watch("orchestrator".to_owned(), async move { run.await.map_err(|error| error.to_string()) });
            parts.metrics.add(Arc::new(built.sagas));
            parts.admin = Some(built.admin);
        }
        if let Some(board) = &mut parts.board {
            board.surround(&mut parts.participants, &self.definitions, &self.stop);
        }
        for participant in parts.participants.iter().cloned() {
            let (group, run) = (participant.group().to_owned(), run_participant(context.clone(), participant));
            self.watch(format!("participant {group}"), async move {
                run.await;
                Ok(())
            });
        }
        match backends.in_process() {
            Some(bus) => subscribed(bus, &parts.participants).await,
            None => Ok(()),
        }
    }

    async fn purchase(&self, backends: &mut Backends<'_>, shared: &Shared, parts: &mut Parts) -> anyhow::Result<()> {
        if !self.has(ServiceRole::Purchase) {
            return Ok(());
        }
        let deps = purchase::Deps {
            store: backends.purchase().await?,
            catalogue: self.catalogue(parts)?,
            bus: Arc::clone(&shared.context.bus),
            clock: Arc::clone(&shared.clock),
            tracer: self.tracer.clone(),
            ids: Arc::clone(&shared.ids),
            course: course(&self.definitions)?,
            tasks: self.loops.clone(),
            stop: self.closing.clone(),
            pace: shared.context.options.pace,
            quotes: shared.context.options.pace.min(Duration::from_millis(self.config.stores.pace_ms)),
            hold: backends.in_process().is_none(),
            forget: self.forget(shared.context.options.sweep),
            replica: backends.in_process().is_none().then_some(self.config.node),
        };
        let purchase = purchase::build(&self.config.purchase, deps).await?;
        parts.metrics.add(Arc::new(purchase.purchases));
        parts.api = std::mem::take(&mut parts.api).merge(purchase.router);
        Ok(())
    }

    /// Runs a loop; should it end by itself, so does the shop.
    fn watch(&self, what: String, work: impl Future<Output = Result<(), String>> + Send + 'static) {
        let (failed, stop, health) = (self.failed.clone(), self.stop.clone(), self.health.clone());
        self.loops.spawn(async move {
            let ended = std::panic::AssertUnwindSafe(work).catch_unwind().await;
            if stop.is_cancelled() {
                return;
            }
            let why = match ended {
                Ok(Ok(())) => "it ended".to_owned(),
                Ok(Err(error)) => error,
                Err(_) => "it panicked".to_owned(),
            };
            tracing::error!(why, "{what} has ended by itself: the shop stops");
            health.set(&what, Err(why));
            failed.cancel();
        });
    }
}

/// The gRPC of the services that are here, its health (`grpc.health.v1`) and, where it is switched on, its reflection.
async fn internal(
    config: &Config,
    accounts: Option<&account::Accounts>,
    products: Option<&product::Products>,
) -> anyhow::Result<Router> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = tonic::service::Routes::new(health);
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    if let Some(accounts) = accounts {
        reporter.set_service_status("auth.AuthService", tonic_health::ServingStatus::Serving).await;
        routes = routes.add_service(account::grpc::service(accounts.clone()));
    }
    if let Some(products) = products {
        reporter.set_service_status("product.ProductService", tonic_health::ServingStatus::Serving).await;
        routes = routes.add_service(product::grpc::service(products.clone()));
    }
    if config.internal_reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(contracts::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        routes = routes.add_service(reflection);
    }
    Ok(routes.into_axum_router())
}

/// What is published before a group has subscribed is not for it, so starts wait for that.
#[expect(clippy::disallowed_methods, reason = "a start with a limit, before anything runs")]
async fn subscribed(bus: &InProcBus, participants: &[Arc<dyn Participant>]) -> anyhow::Result<()> {
    let limit = Instant::now() + SUBSCRIBED_WITHIN;
    let mut groups: Vec<&str> = participants.iter().map(|participant| participant.group()).collect();
    groups.push("orchestrator");
    loop {
        let queues = bus.queues();
        let Some(missing) = groups.iter().find(|group| !queues.iter().any(|queue| queue.group == **group)) else {
            return Ok(());
        };
        anyhow::ensure!(Instant::now() < limit, "the {missing} loop does not start");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn peer<'c>(url: Option<&'c String>, key: &str, what: &str) -> Result<&'c str, ConfigError> {
    url.map(String::as_str).ok_or_else(|| ConfigError::Value {
        key: key.to_owned(),
        detail: format!("this process does not know {what}: give the internal address, like http://127.0.0.1:8001"),
    })
}

fn course(definitions: &Definitions) -> anyhow::Result<purchase::Course> {
    let newest = definitions.newest(&Name::new(contracts::purchase::DEFINITION));
    Ok(purchase::Course::of(newest.context("there is no definition called `purchase`")?))
}
