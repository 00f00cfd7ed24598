//! The scripts that the containers run, on real servers of this machine.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod files;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use files::root;

const PATIENCE: Duration = Duration::from_secs(20);
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";
const SERVICES: [&str; 6] = ["account", "product", "order", "payment", "purchase", "orchestrator"];

/// A server of ours, ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Both kinds of server clean up after themselves on this one.
        drop(Command::new("kill").args(["-INT", &self.0.id().to_string()]).status());
        let end = Instant::now() + PATIENCE;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > end {
                drop(self.0.kill());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn done(what: &mut Command) -> String {
    let output: Output = what.output().unwrap_or_else(|error| panic!("{what:?}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what:?}: {text}");
    text
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn secrets(dir: &Path) {
    done(Command::new(root().join("deploy/secrets.sh")).arg(dir));
}

#[test]
fn secrets_are_made_once_and_differ() {
    let dir = tempfile::tempdir().unwrap();
    secrets(dir.path());
    let all = || {
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let mut texts: Vec<String> = SERVICES.iter().map(|name| read(&format!("secrets/{name}_url"))).collect();
        texts.extend([read("secrets/postgres_password"), read(".env")]);
        texts
    };
    let first = all();
    for (text, name) in first.iter().zip(SERVICES) {
        let password = text.trim().strip_prefix(&format!("postgres://{name}:")).unwrap();
        let password = password.strip_suffix(&format!("@postgres:5432/{name}")).unwrap();
        assert_eq!(password.len(), 48);
        assert_eq!(first.iter().filter(|other| other.contains(password)).count(), 1, "{name}'s is its own");
    }
    let token = first[7].lines().find_map(|line| line.strip_prefix("SAGA_ADMIN_TOKEN=")).unwrap();
    assert_eq!(token.len(), 48);
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("secrets"), mode("secrets/order_url"), mode(".env")), (0o700, 0o444, 0o600));
    secrets(dir.path());
    assert_eq!(all(), first, "run again, it changes nothing");
}

/// PostgreSQL refuses to run as root: then it runs as the distribution's own user.
fn as_postgres(program: &str) -> Command {
    let root = done(Command::new("id").arg("-u")).trim() == "0";
    let mut command = Command::new(if root { "setpriv" } else { program });
    if root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", program]);
    }
    command.current_dir("/");
    command
}

#[test]
fn each_role_enters_its_own_database_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    secrets(dir.path());
    let data = dir.path().join("data");
    let initdb =
        ["-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "-E", "UTF8", "--no-locale", "-N"];
    done(as_postgres(&format!("{POSTGRES}/initdb")).args(initdb).arg("-D").arg(&data));
    let port = testkit::port::unused().to_string();
    let mut server = as_postgres(&format!("{POSTGRES}/postgres"));
    server.arg("-D").arg(&data).args(["-p", &port, "-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-k"]);
    let server = server.arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _server = Server(server);
    let psql = |url: &str, sql: &str| {
        let output = Command::new("psql").args(["-qAtX", url, "-c", sql]).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        if output.status.success() { Ok(text[0].clone()) } else { Err(text[1].clone()) }
    };
    let superuser = format!("postgres:///postgres?host={}&port={port}&user=postgres", dir.path().display());
    wait_for("PostgreSQL answers", || psql(&superuser, "select 1").is_ok());
    let mut init = Command::new(root().join("deploy/postgres/init.sh"));
    init.env("SECRETS_DIR", dir.path().join("secrets")).env("PGHOST", dir.path()).env("PGPORT", &port);
    let log = done(&mut init);
    for name in SERVICES {
        let url = std::fs::read_to_string(dir.path().join(format!("secrets/{name}_url"))).unwrap();
        let url = url.trim().replace("@postgres:5432", &format!("@127.0.0.1:{port}"));
        let (_, password) = url.split_once(&format!("//{name}:")).unwrap();
        assert!(!log.contains(password.split('@').next().unwrap()), "the password is in the output");
        assert_eq!(psql(&url, "create table t (n int); select current_user").as_deref(), Ok(name));
        let wrong = url.replace(&format!("//{name}:"), &format!("//{name}:x"));
        assert!(psql(&wrong, "select 1").unwrap_err().contains("password authentication failed"));
        for other in SERVICES.iter().filter(|other| **other != name).chain(&["postgres"]) {
            let others = format!("{}/{other}", url.rsplit_once('/').unwrap().0);
            let error = psql(&others, "select 1").unwrap_err();
            assert!(error.contains("permission denied for database"), "{name} in {other}: {error}");
        }
    }
}

#[test]
fn six_nodes_become_a_cluster_and_stay_one() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<u16> = (0..6).map(|_| redis_port()).collect();
    let options = "--cluster-enabled yes --bind 127.0.0.1 --save  --appendonly no --cluster-node-timeout 2000";
    let _servers: Vec<Server> = ports
        .iter()
        .map(|port| {
            let home = dir.path().join(port.to_string());
            std::fs::create_dir(&home).unwrap();
            let mut server = Command::new("redis-server");
            server.args(options.split(' ')).args(["--port", &port.to_string(), "--dir"]).arg(home);
            Server(server.stdout(Stdio::null()).spawn().unwrap())
        })
        .collect();
    let ask = |port: u16, words: &[&str]| {
        let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_for("six servers answer", || ports.iter().all(|port| ask(*port, &["ping"]).contains("PONG")));
    let addresses: Vec<String> = ports.iter().map(|port| format!("localhost:{port}")).collect();
    let cluster = || done(Command::new(root().join("deploy/redis/cluster.sh")).args(&addresses));
    assert!(cluster().ends_with("cluster: ok\n"));
    let nodes = || ask(ports[0], &["cluster", "nodes"]);
    wait_for("each of three masters has a replica", || {
        (nodes().matches("master").count(), nodes().matches("slave").count()) == (3, 3)
    });
    let ids = || nodes().lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect::<BTreeSet<_>>();
    let before = ids();
    assert!(cluster().ends_with("cluster: ok\n"), "run again, it changes nothing");
    wait_for("the nodes are the same six", || ids() == before);
    assert_eq!(before.len(), 6);
}

/// A free port whose companion, 10000 above, is one too.
fn redis_port() -> u16 {
    loop {
        let port = testkit::port::unused();
        if TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}
