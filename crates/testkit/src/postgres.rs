//! A real PostgreSQL for the tests of one binary: started at the first call, a database a test, gone with the process.
//!
//! The server is the child of a small shell that waits for the end of our pipe: however this process ends (also by a
//! panic or a kill), the server is stopped and its folder removed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where Debian puts version 15.
const BIN: &str = "/usr/lib/postgresql/15/bin";

/// One server on a socket in a folder of its own; `$1` is the programs' folder.
const SCRIPT: &str = r#"
bin=$1
as=
[ "$(id -u)" = 0 ] && as='setpriv --reuid postgres --regid postgres --clear-groups'
cd /
dir=$(mktemp -d /tmp/saga-pg.XXXXXX) || exit 1
[ -z "$as" ] || chown postgres "$dir"
trap 'rm -rf "$dir"' EXIT
trap '' INT TERM HUP
$as "$bin/initdb" -D "$dir/data" -U test --auth=trust --encoding=UTF8 --no-locale --no-sync >"$dir.log" 2>&1 \
  || { cat "$dir.log" >&2; exit 1; }
$as "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off -c full_page_writes=off \
  -c max_connections=120 -c shared_buffers=32MB -c log_min_messages=fatal >>"$dir.log" 2>&1 3<&- &
server=$!
tries=0
until "$bin/pg_isready" -q -h "$dir" -U test -d postgres; do
  tries=$((tries + 1))
  { [ $tries -lt 300 ] && kill -0 $server 2>/dev/null; } || { cat "$dir.log" >&2; break; }
  sleep 0.1
done
rm -f "$dir.log"
echo "$dir"
cat >/dev/null
kill -QUIT $server 2>/dev/null
wait $server
"#;

struct Server {
    folder: String,
    /// Holds the pipe.
    _watch: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

fn start() -> Server {
    let missing = !std::path::Path::new(BIN).join("postgres").exists();
    assert!(!missing, "PostgreSQL 15 is not installed ({BIN}): apt-get install postgresql-15, or ./test tools");
    let mut watch = Command::new("sh")
        .args(["-c", SCRIPT, "sh", BIN])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut folder = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut folder).unwrap();
    let folder = folder.trim().to_owned();
    assert!(!folder.is_empty(), "the test's PostgreSQL did not start; what it said stands above");
    Server { folder, _watch: watch }
}

/// A new, empty database; its address.
///
/// # Panics
/// When PostgreSQL is not installed or does not start.
pub fn database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    sql("postgres", &format!("create database {name}"));
    address("test", &name)
}

/// The address of a database for a user.
///
/// # Panics
/// As [`database`].
pub fn address(user: &str, database: &str) -> String {
    format!("postgres://{user}@{}/{database}", server().folder.replace('/', "%2F"))
}

/// Runs statements as the server's owner; answers what they answer.
///
/// # Panics
/// When they fail.
pub fn sql(database: &str, statements: &str) -> String {
    let psql = Command::new(format!("{BIN}/psql"))
        .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-U", "test", "-h", &server().folder, "-d", database])
        .args(["-c", statements])
        .output()
        .unwrap();
    assert!(psql.status.success(), "{statements}: {}", String::from_utf8_lossy(&psql.stderr));
    String::from_utf8(psql.stdout).unwrap().trim().to_owned()
}

/// A database's name, of its address.
///
/// # Panics
/// When it is not an address of [`database`].
pub fn name_of(address: &str) -> &str {
    address.rsplit_once('/').unwrap().1
}
