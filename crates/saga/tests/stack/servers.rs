//! PostgreSQL, Kafka and Redis for the tests of this binary: `deploy/stack` in a folder of its own, started at the first
//! call and wiped when this process ends, however it ends.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/stack");

/// The servers' ports begin at one of these; Redis also takes its own ten thousand higher.
const PORTS: std::ops::Range<u16> = 200..220;

/// Where so many ports are free that no other stack is there, also not one that is just being taken down.
fn free() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut bases = PORTS.map(|hundred| hundred * 100);
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

/// The running servers.
pub struct Servers {
    port: u16,
    folder: String,
    _watch: Child,
}

impl Servers {
    /// Starts them, once.
    pub fn get() -> &'static Self {
        static SERVERS: OnceLock<Option<Servers>> = OnceLock::new();
        let servers = SERVERS.get_or_init(|| {
            let port = free();
            let mut watch = Command::new("bash")
                .args(["-c", WATCH, "bash", SCRIPT])
                .env("STACK_PORT", port.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut folder = String::new();
            BufReader::new(watch.stdout.take().unwrap()).read_line(&mut folder).unwrap();
            let folder = folder.trim().to_owned();
            (!folder.is_empty()).then_some(Self { port, folder, _watch: watch })
        });
        servers.as_ref().expect("the stack starts; what it said stands above")
    }

    /// `deploy/stack VERB …` on these servers.
    pub fn stack(&self, args: &[&str]) {
        let mut command = Command::new(SCRIPT);
        command.args(args).env("STACK_DIR", &self.folder).env("STACK_PORT", self.port.to_string());
        // What it starts outlives it and would keep a pipe open.
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "deploy/stack {args:?}");
    }

    /// The database of a service in a shop.
    pub fn store(&self, shop: &str) -> String {
        format!("postgres://{{service}}@127.0.0.1:{}/{shop}_{{service}}", self.port)
    }

    pub fn brokers(&self) -> String {
        format!("kafka://127.0.0.1:{}", self.port + 1)
    }

    /// Runs a statement as the owner of the server.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let psql = Command::new("psql")
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "stack"])
            .args(["-d", database, "-c", statement])
            .output()
            .unwrap();
        assert!(psql.status.success(), "{statement}: {}", String::from_utf8_lossy(&psql.stderr));
        String::from_utf8(psql.stdout).unwrap().trim().to_owned()
    }
}
