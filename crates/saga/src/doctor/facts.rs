//! What was seen. Plain values: judging needs no installation.

use crate::config::Config;

/// Everything that was looked at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What is in force.
    pub config: Config,
    /// What does not fit together in it.
    pub misfit: Option<String>,
    /// This machine's time, in ms since the epoch.
    pub now: u64,
    /// How long the operators' token from the environment is.
    pub token_length: Option<usize>,
    /// The data folder, where something is kept in files.
    pub folder: Option<Folder>,
    /// Files that a process may have open.
    pub descriptors: Option<u64>,
    /// The shop of this folder or this address, if one runs.
    pub shop: Option<Shop>,
    /// What it listens on.
    pub ports: Vec<Port>,
    /// Each service's rows.
    pub stores: Vec<Store>,
    /// The brokers, where messages go over Kafka.
    pub brokers: Option<Result<Brokers, String>>,
    /// The nodes that the settings name, where caches are in Redis.
    pub nodes: Vec<Node>,
    /// Other processes that this one needs.
    pub peers: Vec<Peer>,
    /// Where traces go.
    pub traces: Traces,
}

/// The data folder.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Folder {
    /// Where.
    pub path: String,
    /// Whether there is anything of that name.
    pub exists: bool,
    /// Why it cannot be used, if it cannot.
    pub unusable: Option<String>,
    /// Permissions, as in `chmod`.
    pub mode: u32,
    /// Room for others, in bytes.
    pub free: Option<u64>,
    /// Permissions of the file with the local token, if there is one.
    pub run_file_mode: Option<u32>,
}

/// A shop that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shop {
    /// Its admin listener.
    pub admin: String,
    /// The ports that are its own.
    pub ports: Vec<u16>,
    /// What `/readyz?verbose` says: ready or not, line by line; or why nobody answers.
    pub ready: Result<(bool, Vec<String>), String>,
    /// Whether operators are let in, or why not.
    pub operators: Result<(), String>,
}

/// An address that a shop listens on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// What for.
    pub what: &'static str,
    /// Where.
    pub address: String,
    /// Its number.
    pub number: u16,
    /// Why it cannot be had.
    pub taken: Option<String>,
    /// By whom, as far as it is known.
    pub holder: Option<String>,
}

/// Where a service's rows are, and how they are.
#[derive(Clone, PartialEq, Debug)]
pub struct Store {
    /// The service.
    pub service: &'static str,
    /// A file, or an address without its password.
    pub place: String,
    /// What it said.
    pub state: StoreState,
    /// Sagas that wait for a human; of the orchestrator's.
    pub stuck: Option<u64>,
    /// Records that could not be handled; where they are kept.
    pub letters: Option<u64>,
    /// When the newest saga was changed, in ms since the epoch; of the orchestrator's.
    pub newest: Option<u64>,
    /// Accounts; of the account service's.
    pub accounts: Option<u64>,
}

/// How a store is.
#[derive(Clone, PartialEq, Debug)]
pub enum StoreState {
    /// A file that the first start will make.
    Missing,
    /// A file of ours, up to date.
    File,
    /// Refused, or not reached; whether waiting could help.
    Refused {
        /// Why.
        why: String,
        /// Whether nobody answered.
        unreachable: bool,
        /// Whether only migrations are missing.
        older: bool,
    },
    /// A database of ours, up to date.
    Server(Server),
}

/// A PostgreSQL server, as one of our databases sees it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Server {
    /// How long a question took, in ms.
    pub latency_ms: f64,
    /// Settings by name.
    pub fsync: bool,
    /// `on`, `off`, `local`, ….
    pub synchronous_commit: String,
    /// Whether pages are whole after a crash.
    pub full_page_writes: bool,
    /// Sessions for users like ours.
    pub sessions_allowed: u64,
    /// How far its clock is ahead of ours, in ms.
    pub ahead_ms: i64,
    /// Our processes by the names that they give themselves, with their sessions in this database.
    pub sessions: Vec<(String, u64)>,
}

/// The brokers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Brokers {
    /// How long a question took, in ms.
    pub latency_ms: f64,
    /// Topics that the definitions need, with their partitions; `None`: missing.
    pub topics: Vec<(String, Option<u32>)>,
    /// Members of each group by the names that they give themselves.
    pub groups: Vec<(String, Vec<String>)>,
    /// Records that wait, by group.
    pub waiting: Vec<(String, u64)>,
}

/// A Redis node.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Where.
    pub address: String,
    /// What it says of the cluster, or why it does not.
    pub state: Result<Cluster, String>,
}

/// The cluster as a node sees it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Cluster {
    /// How long a question took, in ms.
    pub latency_ms: f64,
    /// Whether it serves.
    pub is_ok: bool,
    /// Of 16,384.
    pub slots_ok: u64,
    /// Nodes that it knows.
    pub nodes: u64,
}

/// Another process.
#[derive(Clone, PartialEq, Debug)]
pub struct Peer {
    /// The setting that names it.
    pub key: &'static str,
    /// Where.
    pub url: String,
    /// How long its answer took, in ms, or why there is none.
    pub state: Result<f64, String>,
}

/// Where traces go.
#[derive(Clone, PartialEq, Debug)]
pub enum Traces {
    /// Nowhere.
    Off,
    /// What the variables say cannot be followed, and why.
    Wrong(String),
    /// To this collector; how long a connection took, in ms, or why there is none.
    To(String, Result<f64, String>),
}
