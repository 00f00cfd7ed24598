//! A real Redis cluster for tests: six nodes on free loopback ports in a folder of their own, killed and hung by id.
//!
//! A guardian (a shell that waits for this process's end of a pipe) ends the nodes however the test process ends, so
//! one cluster can serve all tests of a binary. It knows its nodes by their folder: no process of others is touched.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "for tests: what cannot be started fails them")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::conformance::{until, within};
use crate::port;

/// Three masters with a replica each.
pub const NODES: usize = 6;

/// After this long without an answer a node counts as failing; an election takes about a second more.
pub const NODE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Names a module that the nodes load, if it is set: with RedisBloom (`redisbloom.so`) they have `CF.*`.
pub const MODULE: &str = "SAGA_REDIS_MODULE";

/// Longer than a living node takes, also on a busy machine.
const ANSWER: Duration = Duration::from_secs(2);

/// Ends what has a node's folder as its working folder, when its standard input ends.
const GUARDIAN: &str = r#"cat >/dev/null
for pid in $(cat "$0"/*/pids 2>/dev/null); do
  case "$(readlink "/proc/$pid/cwd")" in "$0"/*) kill -KILL "$pid" ;; esac
done
rm -rf "$0""#;

/// The cluster.
#[derive(Debug)]
pub struct RedisCluster {
    folder: PathBuf,
    ports: Vec<(u16, u16)>,
    nodes: Mutex<Vec<Option<Child>>>,
    guardian: Mutex<Child>,
}

impl RedisCluster {
    /// Six nodes, started, joined and answering.
    pub async fn start() -> Self {
        let cluster = Self::plan();
        cluster.create().await;
        cluster
    }

    /// Ports and a folder, and nothing there yet.
    pub fn plan() -> Self {
        let folder = fresh_folder();
        let guardian = Command::new("sh").arg("-c").arg(GUARDIAN).arg(&folder).stdin(Stdio::piped()).spawn().unwrap();
        let ports = (0..NODES).map(|_| (port::unused(), port::unused())).collect();
        let nodes = (0..NODES).map(|_| None).collect();
        Self { folder, ports, nodes: Mutex::new(nodes), guardian: Mutex::new(guardian) }
    }

    /// Starts the nodes of [`plan`](Self::plan) and joins them to a cluster.
    pub async fn create(&self) {
        for node in 0..NODES {
            self.start_node(node).await;
        }
        for node in 0..NODES {
            self.ask(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", node + 1)).await.unwrap();
        }
        for (master, slots) in ["0 5460", "5461 10922", "10923 16383"].iter().enumerate() {
            self.ask(master, &format!("CLUSTER ADDSLOTSRANGE {slots}")).await.unwrap();
        }
        for (port, bus) in &self.ports[1..] {
            self.ask(0, &format!("CLUSTER MEET 127.0.0.1 {port} {bus}")).await.unwrap();
        }
        for replica in NODES / 2..NODES {
            let master = self.ask(replica - NODES / 2, "CLUSTER MYID").await.unwrap();
            // It must have heard of it first.
            let replicate = format!("CLUSTER REPLICATE {master}");
            until("a replica", || async { self.ask(replica, &replicate).await.is_some() }).await;
        }
        self.healthy().await;
    }

    /// The nodes' addresses, as URLs.
    pub fn urls(&self) -> Vec<String> {
        self.ports.iter().map(|(port, _)| format!("redis://127.0.0.1:{port}")).collect()
    }

    /// From now on the nodes tell clients that they listen elsewhere (`host:port` of each), where a test has its ways to
    /// them. Returns when all of them know it of all.
    pub async fn announce(&self, addresses: &[String]) {
        for (node, address) in addresses.iter().enumerate() {
            let port = address.rsplit(':').next().unwrap();
            self.ask(node, &format!("CONFIG SET cluster-announce-port {port}")).await.unwrap();
        }
        until("the nodes to have heard it", || async {
            for node in 0..NODES {
                let nodes = self.ask(node, "CLUSTER NODES").await.unwrap_or_default();
                if !addresses.iter().all(|address| nodes.contains(&format!("{address}@"))) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Waits until every node is there, every slot has a master, and every master a replica that is in step.
    pub async fn healthy(&self) {
        until("a healthy cluster", || async {
            for node in 0..NODES {
                let info = self.ask(node, "CLUSTER INFO").await.unwrap_or_default();
                let nodes = self.ask(node, "CLUSTER NODES").await.unwrap_or_default();
                let replication = self.ask(node, "INFO replication").await.unwrap_or_default();
                let in_step = replication.contains("master_link_status:up") || replication.contains("state=online");
                let masters = nodes.lines().filter(|line| line.contains("master") && !line.contains("fail")).count();
                if !info.contains("cluster_state:ok") || nodes.contains("fail") || masters != NODES / 2 || !in_step {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// The node that is now the master of a key, as the living ones see it.
    pub async fn master_of(&self, key: &str) -> usize {
        for node in 0..NODES {
            let Some(slot) = self.ask(node, &format!("CLUSTER KEYSLOT {key}")).await else { continue };
            let slot: u16 = slot.parse().unwrap();
            let nodes = self.ask(node, "CLUSTER NODES").await.unwrap();
            let line = nodes.lines().find(|line| owns(line, slot)).expect("a master of the slot");
            let address = line.split(' ').nth(1).unwrap().split('@').next().unwrap();
            let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
            return self.ports.iter().position(|(known, _)| *known == port).unwrap();
        }
        panic!("no node answers");
    }

    /// Waits until a key has another master than `old`.
    pub async fn master_other_than(&self, key: &str, old: usize) -> usize {
        until("another master", || async { self.master_of(key).await != old }).await;
        self.master_of(key).await
    }

    /// A master that is not this one; after a failover it may be any node.
    pub async fn another_master(&self, than: usize) -> usize {
        for node in (0..NODES).filter(|node| *node != than) {
            if self.ask(node, "INFO replication").await.is_some_and(|info| info.contains("role:master")) {
                return node;
            }
        }
        panic!("there is one master only");
    }

    /// Moves a key's slot to another master as `redis-cli --cluster reshard` does; between the steps, when half of its
    /// keys are here and half are there, `meanwhile` is awaited.
    pub async fn move_slot(&self, key: &str, to: usize, meanwhile: impl Future<Output = ()>) {
        let from = self.master_of(key).await;
        assert_ne!(from, to, "it is there already");
        let slot = self.ask(from, &format!("CLUSTER KEYSLOT {key}")).await.unwrap();
        let ids = [self.ask(from, "CLUSTER MYID").await.unwrap(), self.ask(to, "CLUSTER MYID").await.unwrap()];
        self.ask(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[0])).await.unwrap();
        self.ask(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[1])).await.unwrap();
        let count: usize = self.ask(from, &format!("CLUSTER COUNTKEYSINSLOT {slot}")).await.unwrap().parse().unwrap();
        self.migrate(from, to, &slot, count.div_ceil(2)).await;
        meanwhile.await;
        // What is new since then is made there; what is left is here.
        while self.migrate(from, to, &slot, 100).await > 0 {}
        for node in [to, from] {
            self.ask(node, &format!("CLUSTER SETSLOT {slot} NODE {}", ids[1])).await.unwrap();
        }
        until("every node to know", || async {
            for node in 0..NODES {
                let nodes = self.ask(node, "CLUSTER NODES").await.unwrap_or_default();
                let Some(line) = nodes.lines().find(|line| owns(line, slot.parse().unwrap())) else { return false };
                if !line.starts_with(&ids[1]) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Moves so many keys of a slot, if there are; how many.
    async fn migrate(&self, from: usize, to: usize, slot: &str, count: usize) -> usize {
        let keys = self.ask(from, &format!("CLUSTER GETKEYSINSLOT {slot} {count}")).await.unwrap();
        let keys: Vec<&str> = keys.lines().collect();
        if !keys.is_empty() {
            let port = self.ports[to].0;
            let migrate = format!("MIGRATE 127.0.0.1 {port} \"\" 0 2000 KEYS {}", keys.join(" "));
            assert!(self.ask(from, &migrate).await.is_some(), "{migrate}");
        }
        keys.len()
    }

    /// A replica takes its master's slots at once, and asks nobody.
    pub async fn take_over(&self, master: usize) {
        let of = format!("master_port:{}\r", self.ports[master].0);
        for node in 0..NODES {
            if self.ask(node, "INFO replication").await.is_some_and(|info| info.contains(&of)) {
                self.ask(node, "CLUSTER FAILOVER TAKEOVER").await.unwrap();
                return;
            }
        }
        panic!("the master has no replica");
    }

    /// Ends a node at once.
    pub fn kill(&self, node: usize) {
        if let Some(mut child) = self.nodes.lock()[node].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Hangs a node: it keeps its connections and answers nothing.
    pub fn hang(&self, node: usize) {
        self.signal(node, "-STOP");
    }

    /// Lets a hung node go on.
    pub fn resume(&self, node: usize) {
        self.signal(node, "-CONT");
    }

    fn signal(&self, node: usize, signal: &str) {
        let id = self.nodes.lock()[node].as_ref().expect("the node runs").id();
        assert!(Command::new("kill").arg(signal).arg(id.to_string()).status().unwrap().success());
    }

    /// Starts a node that is not running (again); it remembers its cluster, and nothing else.
    pub async fn start_node(&self, node: usize) {
        let folder = self.folder.join(node.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        if self.nodes.lock()[node].is_none() {
            let child = spawn(&folder, self.ports[node]);
            let mut pids = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("pids")).unwrap();
            writeln!(pids, "{}", child.id()).unwrap();
            self.nodes.lock()[node] = Some(child);
        }
        until("a node", || async { self.ask(node, "PING").await.is_some() }).await;
    }

    /// One inline command to one node: its answer's text, or nothing if it fails or refuses.
    pub async fn ask(&self, node: usize, command: &str) -> Option<String> {
        let asked = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.ports[node].0)).await.ok()?;
            stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let body = answer.strip_suffix("+OK\r\n")?;
            match body.chars().next()? {
                '+' | ':' => Some(body[1..].trim_end().to_owned()),
                '$' => Some(body.split_once("\r\n")?.1.trim_end().to_owned()),
                // Its items, one a line.
                '*' => Some(body.lines().skip(1).filter(|line| !line.starts_with('$')).collect::<Vec<_>>().join("\n")),
                _ => None,
            }
        };
        tokio::time::timeout(ANSWER, asked).await.ok().flatten()
    }

    /// Every node is there again, in whichever role, and in step.
    pub async fn repair(&self) {
        for node in 0..NODES {
            if self.nodes.lock()[node].is_some() {
                self.resume(node);
            }
            within("a node's start", self.start_node(node)).await;
        }
        self.healthy().await;
    }
}

impl Drop for RedisCluster {
    fn drop(&mut self) {
        for node in 0..NODES {
            self.kill(node);
        }
        let mut guardian = self.guardian.lock();
        drop(guardian.stdin.take());
        drop(guardian.wait());
    }
}

fn spawn(folder: &Path, (port, bus): (u16, u16)) -> Child {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--cluster-port", &bus.to_string(), "--bind", "127.0.0.1"]);
    command.arg("--dir").arg(folder).args(["--daemonize", "no", "--save", "", "--appendonly", "no"]);
    command.args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
    command.args(["--cluster-node-timeout", &NODE_TIMEOUT.as_millis().to_string()]);
    // As in production: a shard that is gone does not take the others with it. No waiting for a second replica either.
    command.args(["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"]);
    if let Some(module) = std::env::var_os(MODULE) {
        command.arg("--loadmodule").arg(module);
    }
    command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn().expect("redis-server is installed")
}

/// Whether a line of `CLUSTER NODES` is of the master of a slot.
fn owns(line: &str, slot: u16) -> bool {
    line.contains("master")
        && line.split(' ').skip(8).any(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if (from..=to).contains(&slot))
        })
}

fn fresh_folder() -> PathBuf {
    for number in 0..u32::MAX {
        let folder = std::env::temp_dir().join(format!("saga-redis-{}-{number}", std::process::id()));
        if std::fs::create_dir(&folder).is_ok() {
            return folder.canonicalize().unwrap();
        }
    }
    panic!("no folder to be had");
}
