//! PostgreSQL, Kafka and Redis for the tests of this binary: `deploy/stack` in a folder of its own, wiped when this
//! process ends, however it ends. Most tests share one; those that stop servers have their own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/stack");

/// The servers' ports begin at one of these; Redis also takes its own ten thousand higher.
const PORTS: std::ops::Range<u16> = 200..220;

/// Kafka also listens two above its port, and tells who comes there that it is at this one: where a test has its way.
const WAY: u16 = 4;

/// Where so many ports are free that no other stack is there, also not one that is just being taken down.
fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut bases = PORTS.map(|_| (PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % 20) * 100);
    let base = bases.find(|base| (0..20).all(|n| is_free(base + n) && is_free(base + 10_000 + n)));
    base.expect("a place for the servers' ports")
}

/// Waits for the end of our pipe, then takes everything down.
const WATCH: &str = r#"
dir=$(mktemp -d /tmp/saga-stack.XXXXXX) || exit 1
export STACK_DIR=$dir
trap '' INT TERM HUP
"$1" up >&2 || { "$1" wipe; exit 1; }
echo "$dir"
cat >/dev/null
"$1" wipe
"#;

/// The running servers. Cheap to clone; the last one takes them down.
#[derive(Clone)]
pub struct Servers(Arc<Inner>);

struct Inner {
    port: u16,
    folder: String,
    watch: Child,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        drop(self.watch.wait());
    }
}

impl Servers {
    /// Those that all tests share, which nobody stops.
    pub fn shared() -> &'static Self {
        static SERVERS: OnceLock<Option<Servers>> = OnceLock::new();
        SERVERS.get_or_init(Self::try_start).as_ref().expect("the stack starts; what it said stands above")
    }

    /// Servers of one's own.
    pub fn start() -> Self {
        Self::try_start().expect("the stack starts; what it said stands above")
    }

    fn try_start() -> Option<Self> {
        let port = free();
        let mut watch = Command::new("bash")
            .args(["-c", WATCH, "bash", SCRIPT])
            .env("STACK_PORT", port.to_string())
            .env("STACK_KAFKA_WAY", (port + WAY).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut folder = String::new();
        BufReader::new(watch.stdout.take().unwrap()).read_line(&mut folder).unwrap();
        let folder = folder.trim().to_owned();
        (!folder.is_empty()).then(|| Self(Arc::new(Inner { port, folder, watch })))
    }

    /// `deploy/stack VERB …` on these servers.
    pub fn stack(&self, args: &[&str]) {
        let mut command = Command::new(SCRIPT);
        command.args(args).env("STACK_DIR", &self.0.folder).env("STACK_PORT", self.0.port.to_string());
        command.env("STACK_KAFKA_WAY", (self.0.port + WAY).to_string());
        // What it starts outlives it and would keep a pipe open.
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "deploy/stack {args:?}");
    }

    /// Where PostgreSQL listens.
    pub fn postgres(&self) -> String {
        format!("127.0.0.1:{}", self.0.port)
    }

    /// The database of a service in a shop.
    pub fn store(&self, shop: &str) -> String {
        format!("postgres://{{service}}@127.0.0.1:{}/{shop}_{{service}}", self.0.port)
    }

    pub fn nodes(&self) -> String {
        let nodes: Vec<String> = (0..6).map(|n| format!("127.0.0.1:{}", self.0.port + 10 + n)).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// Forgets everything in every node of Redis.
    pub fn flush(&self) {
        for n in 0..6 {
            let port = (self.0.port + 10 + n).to_string();
            // A replica refuses; its master does it for it.
            drop(Command::new("redis-cli").args(["-p", &port, "flushall"]).output());
        }
    }

    /// Where a test may put a way to Kafka, and where that leads.
    pub fn kafka_way(&self) -> (String, String) {
        (format!("127.0.0.1:{}", self.0.port + WAY), format!("127.0.0.1:{}", self.0.port + 3))
    }

    pub fn brokers(&self) -> String {
        format!("kafka://127.0.0.1:{}", self.0.port + 1)
    }

    /// Runs a statement as the owner of the server.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let psql = Command::new("psql")
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &self.0.port.to_string(), "-U", "stack"])
            .args(["-d", database, "-c", statement])
            .output()
            .unwrap();
        assert!(psql.status.success(), "{statement}: {}", String::from_utf8_lossy(&psql.stderr));
        String::from_utf8(psql.stdout).unwrap().trim().to_owned()
    }

    /// A session that has run a statement and keeps its transaction open until it is dropped.
    pub fn holding(&self, database: &str, statement: &str) -> Session {
        let mut psql = Command::new("psql")
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &self.0.port.to_string(), "-U", "stack"])
            .args(["-d", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(psql.stdin.as_mut().unwrap(), "begin; {statement}; select 'held';").unwrap();
        let mut line = String::new();
        BufReader::new(psql.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "held", "{statement}");
        Session(psql)
    }
}

/// A session of somebody else's.
pub struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}
