//! A whole shop as it is run in production: each service in processes of its own, PostgreSQL, Kafka, and HAProxy with
//! the generated configuration before them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use edge::{Layout, Replicas, Table};
use saga::config::Config;
use saga::remote::Admin;
use saga::up::roles::{ALL, ServiceRole};
use tempfile::TempDir;

use crate::binary::binary;
use crate::servers::{Servers, Session};
use crate::town::{PATIENCE, Person, eventually};

/// Operators' token.
pub const TOKEN: &str = "the operators' token";

/// Ports of one city: the edge's three, then three a process.
const PORTS: u16 = 110;
/// Replicas of a service, at most.
const MOST: usize = 5;
/// Processes of the pages that the edge looks for. Tests of them start them.
pub const PAGES: usize = 2;

/// A request that each service answers, though not with what one wants.
const PROBES: [&str; 5] =
    ["/.well-known/jwks.json", "/api/v1/products/1", "/api/v1/orders/1", "/api/v1/payments/1", "/api/v1/purchases/1"];

/// The processes of a shop. Killed when dropped.
pub struct City {
    pub config: Config,
    servers: Servers,
    folder: TempDir,
    replicas: usize,
    /// What else stands in the environment of every process.
    environment: Vec<(&'static str, String)>,
    processes: BTreeMap<(ServiceRole, usize), Child>,
    proxy: Option<Child>,
}

/// Free ports below those that the system hands out.
fn ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let base = 23_000 + (NEXT.fetch_add(1, Ordering::Relaxed) % 60) * PORTS;
        if (base..base + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
}

impl City {
    /// Databases, topics and ports of a new shop.
    pub fn prepare(servers: &Servers, config: &mut Config) {
        static COUNT: AtomicU16 = AtomicU16::new(1);
        let shop = format!("shop{}", COUNT.fetch_add(1, Ordering::Relaxed));
        for role in ALL {
            servers.sql("postgres", &format!("create database {shop}_{role} owner \"{role}\""));
        }
        config.stores.url = servers.store(&shop);
        config.stores.connections = 3;
        config.bus.url = servers.brokers();
        config.cache.url = servers.nodes();
        config.bus.prefix = format!("{shop}-");
        config.bus.partitions = 2;
        config.listen.set_port(ports());
    }

    /// Starts so many processes of each service. When this answers, the edge reaches all of them.
    pub async fn open(servers: &Servers, config: &Config, replicas: usize) -> Self {
        Self::open_in(servers, config, replicas, Vec::new()).await
    }

    /// The same with more in the environment of every process.
    pub async fn open_in(
        servers: &Servers,
        config: &Config,
        replicas: usize,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        assert!((1..=MOST).contains(&replicas));
        let folder = TempDir::new().unwrap();
        let (servers, processes) = (servers.clone(), BTreeMap::new());
        let config = config.clone();
        let mut city = Self { config, servers, folder, replicas, environment, processes, proxy: None };
        city.write_settings();
        let migrated = city.saga().arg("migrate").stdout(Stdio::null()).status().unwrap();
        assert!(migrated.success(), "saga migrate");
        for role in ALL {
            for replica in 0..replicas {
                city.start(role, replica);
            }
        }
        city.start_edge();
        city.ready().await;
        city
    }

    /// Gives the processes that start from now on the settings in `config`.
    pub fn write_settings(&self) {
        self.file("saga.toml", &toml::to_string(&self.config).unwrap());
    }

    /// The binary with this shop's settings.
    pub fn saga(&self) -> Command {
        self.command(binary())
    }

    fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.arg("--config").arg(self.folder.path().join("saga.toml"));
        command.env("SAGA_ADMIN_TOKEN", TOKEN).stdin(Stdio::null());
        command
    }

    fn base(&self) -> u16 {
        self.config.listen.port()
    }

    /// The first port of a process: HTTP; then gRPC, then operators.
    fn port(&self, role: ServiceRole, replica: usize) -> u16 {
        self.base() + 3 + 3 * u16::try_from(node(role, replica)).unwrap()
    }

    pub fn start(&mut self, role: ServiceRole, replica: usize) {
        let command = self.serve(role, replica, binary());
        self.spawn(role, replica, command);
    }

    /// Starts a process that dies when it comes to a place in its code (see `saga_runtime::crash`).
    pub fn start_to_die(&mut self, role: ServiceRole, replica: usize, place: &str) {
        let mut command = self.serve(role, replica, env!("CARGO_BIN_EXE_saga").into());
        command.env("SAGA_CRASH_AT", format!("{role}.{place}"));
        self.spawn(role, replica, command);
    }

    /// Waits until a process has died by itself. `false`: it did not.
    pub async fn dies(&mut self, role: ServiceRole, replica: usize, within: Duration) -> bool {
        let limit = Instant::now() + within;
        let child = self.processes.get_mut(&(role, replica)).unwrap();
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.processes.remove(&(role, replica));
        true
    }

    fn serve(&self, role: ServiceRole, replica: usize, program: PathBuf) -> Command {
        let log = File::options().create(true).append(true).open(self.log_path(role, replica)).unwrap();
        let internal = self.internal();
        let mut command = self.command(program);
        command
            .args(["serve", role.as_str(), "--listen", &format!("127.0.0.1:{}", self.port(role, replica))])
            .env("SAGA_NODE", node(role, replica).to_string())
            .env("SAGA_PEERS__ACCOUNT", &internal)
            .env("SAGA_PEERS__PRODUCT", &internal)
            .env("SAGA_CONSOLE__SHOP_URL", &internal)
            .env("SAGA_CONSOLE__ADMIN_URL", self.admin("orchestrator", 0))
            .env("SAGA_FAILURES__ELSEWHERE", self.participants())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    fn spawn(&mut self, role: ServiceRole, replica: usize, mut command: Command) {
        self.processes.insert((role, replica), command.spawn().unwrap());
    }

    fn start_edge(&mut self) {
        let routes = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/routes.yaml");
        let mut table = Table::parse(&std::fs::read_to_string(routes).unwrap()).unwrap();
        table.limits.client = None;
        table.timeouts.check_ms = 200;
        let mut replicas = Replicas::default();
        let pages = (0..PAGES).map(|replica| (ServiceRole::Console, replica));
        let services = ALL.into_iter().flat_map(|role| (0..self.replicas).map(move |replica| (role, replica)));
        for (role, replica) in services.chain(pages) {
            let port = self.port(role, replica);
            replicas.add(&format!("{role}=127.0.0.1:{port}/127.0.0.1:{}", port + 1)).unwrap();
        }
        let [web, internal, dashboard] = [0, 1, 2].map(|n| format!("127.0.0.1:{}", self.base() + n));
        let files = edge::generate(&table, &Layout { web, internal, dashboard, replicas }).unwrap();
        let path = self.folder.path().join("haproxy.cfg");
        std::fs::write(&path, &files.iter().find(|file| file.name == "haproxy.cfg").unwrap().text).unwrap();
        let log = File::create(self.folder.path().join("haproxy.log")).unwrap();
        let mut proxy = Command::new("/usr/sbin/haproxy");
        proxy.args(["-db", "-f"]).arg(&path).stdin(Stdio::null());
        self.proxy = Some(proxy.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Waits until every process is ready and the edge knows it.
    pub async fn ready(&mut self) {
        let shop = Person::at(&self.public());
        let all: Vec<(ServiceRole, usize)> = self.processes.keys().copied().collect();
        for (role, replica) in all {
            self.process_ready(role, replica).await;
        }
        for path in PROBES {
            eventually(&format!("the edge reaches {path}"), || async {
                (shop.try_get(path).await?.status.as_u16() != 503).then_some(())
            })
            .await;
        }
    }

    /// Waits until one process is ready.
    pub async fn process_ready(&mut self, role: ServiceRole, replica: usize) {
        let place = Person::at(&self.address(role, replica));
        let limit = Instant::now() + PATIENCE;
        loop {
            if place.try_get("/readyz").await.is_some_and(|answer| answer.status.is_success()) {
                return;
            }
            let ended = self.processes.get_mut(&(role, replica)).unwrap().try_wait().unwrap();
            let log = || self.log(role, replica);
            assert!(ended.is_none(), "{role} {replica} has ended: {}", log());
            if Instant::now() > limit {
                let report = place.try_get("/readyz?verbose").await.map(|answer| answer.body);
                panic!("{role} {replica} is not ready: {report:?} {}", log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A file of this shop's.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Asks a service's database.
    pub fn sql(&self, service: &str, statement: &str) -> String {
        let shop = self.config.bus.prefix.trim_end_matches('-');
        self.servers.sql(&format!("{shop}_{service}"), statement)
    }

    /// Somebody else's session in a service's database: see [`Servers::holding`].
    pub fn holding(&self, service: &str, statement: &str) -> Session {
        let shop = self.config.bus.prefix.trim_end_matches('-');
        self.servers.holding(&format!("{shop}_{service}"), statement)
    }

    fn log_path(&self, role: ServiceRole, replica: usize) -> PathBuf {
        self.folder.path().join(format!("{role}-{replica}.log"))
    }

    /// What a process has said.
    pub fn log(&self, role: ServiceRole, replica: usize) -> String {
        std::fs::read_to_string(self.log_path(role, replica)).unwrap_or_default()
    }

    pub fn signal(&self, role: ServiceRole, replica: usize, name: &str) {
        let pid = self.processes[&(role, replica)].id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), pid]).status().unwrap().success());
    }

    /// `kill -9`, and the end of it.
    pub fn kill(&mut self, role: ServiceRole, replica: usize) {
        if let Some(mut child) = self.processes.remove(&(role, replica)) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks a process to stop, and waits; its exit code.
    pub fn term(&mut self, role: ServiceRole, replica: usize) -> Option<i32> {
        self.signal(role, replica, "TERM");
        let child = self.processes.remove(&(role, replica)).unwrap();
        end(child, &format!("{role} {replica}"))
    }

    /// Every process of the shop at once.
    pub fn kill_all(&mut self) {
        let all: Vec<_> = self.processes.keys().copied().collect();
        for child in self.processes.values_mut() {
            child.kill().unwrap();
        }
        for (role, replica) in all {
            self.kill(role, replica);
        }
    }

    /// An orderly end of everything, the edge last.
    pub fn stop(&mut self) {
        for (role, replica) in self.processes.keys() {
            self.signal(*role, *replica, "TERM");
        }
        for ((role, replica), child) in std::mem::take(&mut self.processes) {
            assert_eq!(end(child, &format!("{role} {replica}")), Some(0), "{role} {replica}");
        }
        if let Some(mut proxy) = self.proxy.take() {
            drop((proxy.kill(), proxy.wait()));
        }
    }

    pub fn public(&self) -> String {
        format!("http://127.0.0.1:{}", self.base())
    }

    pub fn internal(&self) -> String {
        format!("http://127.0.0.1:{}", self.base() + 1)
    }

    /// A process's HTTP.
    pub fn address(&self, role: ServiceRole, replica: usize) -> String {
        format!("http://127.0.0.1:{}", self.port(role, replica))
    }

    /// A process's gRPC.
    pub fn internal_of(&self, role: &str, replica: usize) -> String {
        format!("http://127.0.0.1:{}", self.port(role_of(role), replica) + 1)
    }

    /// A process's admin listener.
    pub fn admin(&self, role: &str, replica: usize) -> String {
        format!("http://127.0.0.1:{}", self.port(role_of(role), replica) + 2)
    }

    /// The admin listeners of all processes that run participants, as a setting.
    fn participants(&self) -> String {
        let of = |role| (0..self.replicas).map(move |replica| self.admin(role, replica));
        format!("{:?}", ["product", "order", "payment"].into_iter().flat_map(of).collect::<Vec<_>>())
    }

    pub fn operators(&self) -> Admin {
        Admin::new(&self.admin("orchestrator", 0), TOKEN).unwrap()
    }
}

impl Drop for City {
    fn drop(&mut self) {
        for child in self.processes.values_mut().chain(&mut self.proxy) {
            drop((child.kill(), child.wait()));
        }
    }
}

fn role_of(name: &str) -> ServiceRole {
    ALL.into_iter().chain([ServiceRole::Console]).find(|one| one.as_str() == name).unwrap()
}

/// Unlike every other process's.
fn node(role: ServiceRole, replica: usize) -> usize {
    ALL.iter().position(|one| *one == role).unwrap_or(ALL.len()) * MOST + replica
}

fn end(mut child: Child, what: &str) -> Option<i32> {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > limit {
            drop((child.kill(), child.wait()));
            panic!("{what} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
