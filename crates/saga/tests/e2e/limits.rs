//! What a shop costs and bears: many idle streams, too few file descriptors.

use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::binary::{Process, binary, saga};
use crate::console::visitor::Visitor;
use crate::metrics::page::scrape;
use crate::town::{BodyJson as _, PATIENCE, Person, created, product};

/// Streams that are open at once.
const STREAMS: usize = 1_000;
/// What they may cost together, in KiB.
const COST: u64 = 20 * 1_024;

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A connection on which an event stream has begun.
async fn stream(reader: &Person, address: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /api/v1/purchases/events HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {}\r\n\r\n",
        reader.token
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut begun = String::new();
    while !begun.contains("retry: 1000") {
        let mut bytes = [0; 1_024];
        let count = tokio::time::timeout(PATIENCE, connection.read(&mut bytes)).await.unwrap().unwrap();
        assert!(count > 0, "{begun}");
        begun.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    assert!(begun.starts_with("HTTP/1.1 200"), "{begun}");
    connection
}

/// Something to buy; whoever registers first sells it.
async fn cup(seller: &Person) -> u64 {
    let category = serde_json::json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&seller.post("/api/v1/categories", &category).await);
    created(&seller.post("/api/v1/products", &product(category, 10, 100)).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a52_a_thousand_idle_streams_cost_little_and_disturb_nobody() {
    let data = TempDir::new().unwrap();
    let mut command = saga(data.path());
    command.args(["--listen", "127.0.0.1:0"]).env("SAGA_PURCHASE__STREAMS_PER_CUSTOMER", (2 * STREAMS).to_string());
    let process = Process::of(command.stdout(Stdio::piped()).spawn().unwrap(), data.path()).await;
    let mary = process.nobody().register("mary@example.com").await;
    let cup = cup(&mary).await;
    let address = process.run.public.trim_start_matches("http://").to_owned();
    // What is made once, by the first of all streams and purchases, is not theirs.
    let first = stream(&mary, &address).await;
    mary.ended(mary.buy(&[(cup, 1)]).await).await;
    let before = resident(process.run.pid);
    let mut streams = vec![first];
    while streams.len() < STREAMS {
        streams.push(stream(&mary, &address).await);
    }
    let cost = resident(process.run.pid).saturating_sub(before);
    assert!(cost < COST, "{STREAMS} streams cost {cost} KiB");
    // Each is told of each purchase, and a purchase takes as long as without them.
    let bought = mary.buy(&[(cup, 1)]).await;
    assert_eq!(mary.ended(bought).await["status"], "COMPLETED");
    for connection in &mut streams {
        let (mut told, id) = (String::new(), bought.to_string());
        while !(told.contains("purchase.success") && told.contains(&id)) {
            let mut bytes = [0; 8 * 1_024];
            let count = tokio::time::timeout(PATIENCE, connection.read(&mut bytes)).await.unwrap().unwrap();
            assert!(count > 0, "{told}");
            told.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
}

/// Purchases before anybody watches: their events, all at once, are more than the kernel keeps for a connection.
const BEFORE: usize = 2_400;
/// Purchases while nobody reads, again and again until there were more batches of events than a stream may lag behind.
const MEANWHILE: usize = 600;
/// What readers who do not read may cost a process, in KiB.
const UNREAD: u64 = 24 * 1_024;

/// Buys so many from eight hands, and waits until the last ones have ended.
async fn bought(mary: &Person, cup: u64, count: usize) -> Duration {
    let since = std::time::Instant::now();
    let mut hands = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mary = mary.clone();
        hands.spawn(async move {
            let mut connection = saga::remote::Connection::new(&mary.endpoint);
            let body = bytes::Bytes::from(crate::town::cart(&[(cup, 1)]).to_string());
            let mut last = 0;
            for _ in 0..count / 8 {
                let path = "/api/v1/purchases";
                let answer = connection.send(hyper::Method::POST, path, mary.bearer().as_ref(), body.clone()).await;
                let answer = answer.unwrap();
                assert_eq!(answer.status, hyper::StatusCode::ACCEPTED);
                last = answer.body_json()["id"].as_u64().unwrap();
            }
            assert_eq!(mary.ended(last).await["status"], "COMPLETED");
        });
    }
    hands.join_all().await;
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a51_readers_who_do_not_read_slow_nobody_down_and_cost_a_bounded_amount() {
    let data = TempDir::new().unwrap();
    let process = Process::of(
        saga(data.path()).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap(),
        data.path(),
    )
    .await;
    let mary = process.nobody().register("mary@example.com").await;
    let kitchen = serde_json::json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&mary.post("/api/v1/categories", &kitchen).await);
    let cup = created(&mary.post("/api/v1/products", &product(category, 10, 100_000)).await);
    let mut operator = Visitor::at(&process.run.admin);
    operator.log_in("/console", "mary@example.com").await;
    let alone = bought(&mary, cup, BEFORE).await;
    let before = resident(process.run.pid);

    // Opened and not read any further: all events so far, and then the new ones; the shop at a glance; one purchase's page.
    let [public, admin] = [&process.run.public, &process.run.admin].map(|url| url.replace("http://", ""));
    let token = format!("authorization: Bearer {}", mary.token);
    let cookies: Vec<String> = operator.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let cookie = format!("cookie: {}", cookies.join("; "));
    let mut unread = Vec::new();
    for _ in 0..5 {
        let all = format!("{token}\r\nlast-event-id: 0");
        unread.push(opened(&public, "/api/v1/purchases/events", &all).await);
        unread.push(opened(&admin, "/console/overview/events", &cookie).await);
    }
    assert_eq!(scrape(&process.run.admin).await.of("saga_streams_open"), 5.0);
    assert_eq!(scrape(&process.run.admin).await.of("saga_overview_streams"), 5.0);
    let watched = bought(&mary, cup, MEANWHILE).await;
    let [alone, watched] =
        [(alone, BEFORE), (watched, MEANWHILE)].map(|(took, count)| took.as_secs_f64() / count as f64);
    assert!(watched < 2.0 * alone + 0.002, "{watched} s a purchase, and {alone} s before");
    // On a quick machine many purchases are in one batch: it goes on until each has lagged behind by too many.
    let mut rounds = 1;
    while scrape(&process.run.admin).await.of("saga_waiters") > 0.0 {
        assert!(rounds < 20, "something is still kept for who does not read");
        bought(&mary, cup, MEANWHILE).await;
        rounds += 1;
    }
    let cost = resident(process.run.pid).saturating_sub(before);
    assert!(cost < UNREAD, "10 readers and {rounds} times {MEANWHILE} purchases cost {cost} KiB");
    // Whoever begins to read gets what was on its way, then the end; and begins again where it was.
    let first = unread.swap_remove(0);
    let said = rest(first).await;
    let (last, _) = said.rsplit_once("\n\n").unwrap();
    let last = last.rsplit_once("id: ").unwrap().1.lines().next().unwrap();
    let mut again = opened(&public, "/api/v1/purchases/events", &format!("{token}\r\nlast-event-id: {last}")).await;
    let mut more = [0; 64];
    let count = tokio::time::timeout(PATIENCE, again.read(&mut more)).await.unwrap().unwrap();
    assert!(count > 0, "it resumes after {last}");
}

/// An answer that has begun with 200.
async fn opened(address: &str, path: &str, header: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{header}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    tokio::time::timeout(PATIENCE, connection.read_exact(&mut begun)).await.unwrap().unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    connection
}

/// What a stream still says, to its end; the connection may have been cut by now.
async fn rest(mut connection: TcpStream) -> String {
    let (mut said, mut bytes) = (Vec::new(), vec![0; 64 * 1_024]);
    while !said.ends_with(b"\r\n0\r\n\r\n") {
        match tokio::time::timeout(PATIENCE, connection.read(&mut bytes)).await.expect("the stream ends") {
            Ok(count @ 1..) => said.extend_from_slice(&bytes[..count]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_with_256_file_descriptors_a_flood_of_connections_is_survived() {
    let data = TempDir::new().unwrap();
    let mut command = std::process::Command::new("sh");
    let few = "ulimit -n 256 && exec \"$0\" --listen 127.0.0.1:0";
    command.args(["-c", few]).arg(binary()).env("SAGA_DATA", data.path()).env("SAGA_LOG__FILTER", "error");
    command.env("SAGA_ACCOUNT__PASSWORD_MEMORY_KIB", "64").stdin(Stdio::null()).stdout(Stdio::piped());
    let process = Process::of(command.spawn().unwrap(), data.path()).await;
    let mary = process.nobody().register("mary@example.com").await;
    let cup = cup(&mary).await;
    let address = process.run.public.trim_start_matches("http://").to_owned();
    let under_way = mary.buy(&[(cup, 1)]).await;
    let mut flood = Vec::new();
    for _ in 0..400 {
        // The kernel takes what the process cannot.
        if let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(&address)).await
        {
            flood.push(connection);
        }
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.run.pid)).unwrap().count();
    assert!(flood.len() > 256 && open > 200, "{} connections, {open} descriptors", flood.len());
    drop(flood);
    assert_eq!(mary.ended(under_way).await["status"], "COMPLETED");
    let bought = mary.buy(&[(cup, 1)]).await;
    assert_eq!(mary.ended(bought).await["status"], "COMPLETED");
    let check = saga(data.path()).args(["check", "--settled"]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}
