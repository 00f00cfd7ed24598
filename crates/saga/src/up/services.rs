//! The six services of the embedded profile, and how they meet: over the bus in process, and through ports.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use axum::{Extension, Router};
use chassis::auth::{Role, Verifier};
use chassis::health::Health;
use chassis::ids::IdGen;
use chassis::problem::Problem;
use futures_util::FutureExt as _;
use saga_adapters::inproc::{InProcBus, InProcFilter};
use saga_adapters::sqlite::dead_letters::{self, SqliteDeadLetters};
use saga_adapters::sqlite::saga_store::{self, SqliteSagaStore};
use saga_adapters::sqlite::{Db, Schema};
use saga_core::Name;
use saga_runtime::{
    Clock, Definitions, LoopContext, LoopOptions, Orchestrator, Participant, Stats, SystemClock, run_participant,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admin::{self, Accounts, AdminState};
use super::catalogue::InProcess;
use super::folder::Folder;
use crate::config::{Config, ConfigError};

/// The loops subscribe within milliseconds; a machine that swaps needs longer.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(30);

/// What every part needs.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) definitions: Arc<Definitions>,
    pub(super) closing: CancellationToken,
    pub(super) stop: CancellationToken,
    pub(super) failed: CancellationToken,
    pub(super) loops: TaskTracker,
    pub(super) health: Health,
    pub(super) token: blake3::Hash,
}

/// Everything that runs.
pub(super) struct Services {
    accounts: account::Accounts,
    routers: Option<Routers>,
    files: Vec<Db>,
    bus: InProcBus,
}

/// What each listener answers.
#[derive(Clone)]
pub(super) struct Routers {
    pub(super) public: Router,
    pub(super) internal: Router,
    pub(super) admin: Router,
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

/// Opens files and remembers them, so that a shutdown can wait for them.
struct Files<'a> {
    folder: &'a Folder,
    config: &'a Config,
    open: Vec<Db>,
}

impl Files<'_> {
    fn open(&mut self, schema: &Schema) -> anyhow::Result<Db> {
        let path = self.folder.file(&format!("{}.db", schema.name));
        let db = Db::open(&path, schema, &self.config.options())
            .context("a database file is refused; restore it, or move the data folder away to begin anew")?;
        self.open.push(db.clone());
        Ok(db)
    }
}

impl Services {
    /// Opens the files, builds the services, starts their loops.
    pub(super) async fn build(core: Core, folder: &Folder) -> anyhow::Result<Self> {
        let config = &core.config;
        let mut files = Files { folder, config, open: Vec::new() };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // One process, one node.
        let ids = Arc::new(IdGen::new(0, Arc::clone(&clock)));
        let verifier = Verifier::new(&config.account.issuer, &config.account.audience, Arc::clone(&clock));

        let letters = Arc::new(SqliteDeadLetters::new(files.open(&dead_letters::SCHEMA)?));
        let topics = core.definitions.all().iter().flat_map(|definition| definition.topics()).collect::<Vec<_>>();
        let bus = InProcBus::new(topics, config.bus.queue, letters.clone());
        let context = LoopContext {
            bus: Arc::new(bus.clone()),
            clock: Arc::clone(&clock),
            stop: core.stop.clone(),
            stats: Arc::new(Stats::default()),
            options: LoopOptions::default(),
        };

        let store = Arc::new(account::SqliteStore::new(files.open(&account::SCHEMA)?));
        let account =
            account::build(config.account.clone(), store, Arc::clone(&ids), Arc::clone(&clock), verifier.clone())
                .await?;
        let store = Arc::new(product::SqliteStore::new(files.open(&product::SCHEMA)?));
        let filter = Arc::new(InProcFilter::default());
        let product =
            product::build(config.product.clone(), store, filter, Arc::clone(&ids), Arc::clone(&clock)).await?;
        let catalogue = Arc::new(InProcess(product.products.clone()));
        let store = Arc::new(order::SqliteStore::new(files.open(&order::SCHEMA)?));
        let order = order::build(store, catalogue.clone(), Arc::clone(&clock));
        let store = Arc::new(payment::SqliteStore::new(files.open(&payment::SCHEMA)?));
        let gateway = Arc::new(payment::Sandbox::new(config.payment.sandbox.clone(), Arc::clone(&clock)));
        let payment = payment::build(store, gateway, Arc::clone(&clock));

        let store = Arc::new(SqliteSagaStore::new(files.open(&saga_store::SCHEMA)?));
        let definitions = Arc::clone(&core.definitions);
        let orchestrator = orchestrator::build(&config.orchestrator, context.clone(), store, letters, definitions);
        core.drive(orchestrator.orchestrator);
        let participants = [product.participant, order.participant, payment.participant];
        for participant in participants.iter().cloned() {
            core.loops.spawn(run_participant(context.clone(), participant));
        }
        subscribed(&bus, &participants).await?;

        let deps = purchase::Deps {
            store: Arc::new(purchase::SqliteStore::new(files.open(&purchase::SCHEMA)?)),
            catalogue,
            bus: Arc::new(bus.clone()),
            clock,
            ids,
            course: course(&core.definitions)?,
            tasks: core.loops.clone(),
            stop: core.closing.clone(),
        };
        let purchase = purchase::build(&config.purchase, deps).await?;

        let api = account.router.merge(product.router).merge(order.router).merge(payment.router).merge(purchase.router);
        let public = Router::new().nest("/api/v1", api).merge(account.well_known).merge(core.health.router());
        let state = AdminState {
            token: core.token,
            verifier: verifier.clone(),
            data: config.data.clone(),
            accounts: Arc::new(Registrar(account.accounts.clone())),
            checking: Arc::default(),
        };
        let admin = admin::router(orchestrator.admin, state).merge(core.health.router());
        let internal = internal(config, &account.accounts, &product.products).await?;
        let routers = Routers { public: public.layer(Extension(verifier)), internal, admin };
        Ok(Self { accounts: account.accounts, routers: Some(routers), files: files.open, bus })
    }

    /// What the listeners answer; once.
    pub(super) fn routers(&mut self) -> anyhow::Result<Routers> {
        self.routers.take().context("the routers were handed out before")
    }

    /// Whether nobody has an account.
    pub(super) async fn is_empty(&self) -> anyhow::Result<bool> {
        Ok(self.accounts.is_empty().await?)
    }

    /// Lets go of everything and waits until the files are closed.
    pub(super) async fn close(self) {
        self.bus.close();
        let Self { accounts, routers, files, bus } = self;
        drop((accounts, routers, bus));
        for file in files {
            file.close().await;
        }
    }
}

impl Core {
    /// Runs the orchestrator; should it end by itself, so does the shop.
    fn drive(&self, orchestrator: Orchestrator) {
        let (failed, stop, health) = (self.failed.clone(), self.stop.clone(), self.health.clone());
        self.loops.spawn(async move {
            let ended = std::panic::AssertUnwindSafe(orchestrator.run()).catch_unwind().await;
            if stop.is_cancelled() {
                return;
            }
            let why = match ended {
                Ok(Ok(())) => "it ended".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it panicked".to_owned(),
            };
            tracing::error!(why, "the orchestrator has ended by itself: the shop stops");
            health.set("orchestrator", Err(why));
            failed.cancel();
        });
    }
}

/// The services' gRPC, its health (`grpc.health.v1`) and, where it is switched on, its reflection.
async fn internal(
    config: &Config,
    accounts: &account::Accounts,
    products: &product::Products,
) -> anyhow::Result<Router> {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in ["", "auth.AuthService", "product.ProductService"] {
        reporter.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let mut routes = tonic::service::Routes::new(account::grpc::service(accounts.clone()))
        .add_service(product::grpc::service(products.clone()))
        .add_service(health);
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

fn course(definitions: &Definitions) -> anyhow::Result<purchase::Course> {
    let newest = definitions.newest(&Name::new(contracts::purchase::DEFINITION));
    Ok(purchase::Course::of(newest.context("there is no definition called `purchase`")?))
}

/// Makes accounts with rights, for the admin listener.
struct Registrar(account::Accounts);

#[async_trait]
impl Accounts for Registrar {
    async fn create(&self, email: String, password: String, role: Role) -> Result<(), Problem> {
        self.0.create_admin(&email, password).await?;
        if role != Role::Admin {
            self.0.set_role(&email, role).await?;
        }
        Ok(())
    }
}

/// Makes an account with rights on the folder of a shop that does not run.
///
/// # Errors
/// When the folder is in use or the file is refused.
pub(crate) async fn create_account(config: &Config, email: &str, password: String, role: Role) -> anyhow::Result<()> {
    let folder = Folder::hold(&config.data)?;
    let mut files = Files { folder: &folder, config, open: Vec::new() };
    let db = files.open(&account::SCHEMA)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = Arc::new(IdGen::new(0, Arc::clone(&clock)));
    let verifier = Verifier::new(&config.account.issuer, &config.account.audience, Arc::clone(&clock));
    let store = Arc::new(account::SqliteStore::new(db));
    let service = account::build(config.account.clone(), store, ids, clock, verifier).await?;
    let created = Registrar(service.accounts).create(email.to_owned(), password, role).await;
    created.map_err(|problem| anyhow::anyhow!("{problem:?}"))
}
