//! A real Kafka broker for the tests of one binary: started at the first call, gone with the process.
//!
//! The broker is the child of a small shell that waits for the end of our pipe: however this process ends (also by a
//! panic or a kill), the broker is stopped and its folder removed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use saga_core::Name;

use crate::port;

/// Where `deploy/stack install` puts the broker.
const JARS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kafka-jars");

/// One broker that is its own controller, in a folder of its own: `$1` jars, `$2` port, `$3` the controller's port.
const SCRIPT: &str = r#"
jars=$1 port=$2 controller=$3
dir=$(mktemp -d /tmp/saga-kafka.XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT
trap '' INT TERM HUP
cat >"$dir/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/logs
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
EOF
java="java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp $jars/*"
set -f
$java kafka.tools.StorageTool format -t 4L6g3nShT-eMCtK--X86sw -c "$dir/server.properties" >"$dir/log" 2>&1 \
  || { cat "$dir/log" >&2; exit 1; }
$java kafka.Kafka "$dir/server.properties" >"$dir/log" 2>&1 3<&- &
broker=$!
tries=0
until grep -q 'Kafka Server started' "$dir/log" || (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  tries=$((tries + 1))
  { [ $tries -lt 600 ] && kill -0 $broker 2>/dev/null; } || { cat "$dir/log" >&2; exit 1; }
  sleep 0.1
done
echo "$port"
cat >/dev/null
kill -KILL $broker 2>/dev/null
wait $broker 2>/dev/null
"#;

struct Broker {
    address: String,
    /// Holds the pipe.
    _watch: Child,
}

/// The broker's address, `host:port`.
///
/// # Panics
/// When Kafka is not installed or does not start.
pub fn broker() -> &'static str {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    &BROKER.get_or_init(start).address
}

/// Names of topics that no other test of this binary uses. They are not made.
pub fn names<const N: usize>() -> [Name; N] {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    std::array::from_fn(|_| Name::new(format!("topic-{}", COUNT.fetch_add(1, Ordering::Relaxed))))
}

fn start() -> Broker {
    let missing = !Path::new(JARS).is_dir();
    assert!(!missing, "Kafka is not installed ({JARS}): run deploy/stack install, or ./test tools");
    let numbers = [port::unused(), port::unused()].map(|port| port.to_string());
    let mut watch = Command::new("bash")
        .args(["-c", SCRIPT, "bash", JARS, &numbers[0], &numbers[1]])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut port).unwrap();
    assert!(!port.trim().is_empty(), "the test's Kafka did not start; what it said stands above");
    Broker { address: format!("127.0.0.1:{}", port.trim()), _watch: watch }
}
