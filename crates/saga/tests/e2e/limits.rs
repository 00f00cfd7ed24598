//! What a shop costs and bears: many idle streams, too few file descriptors.

use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::binary::{Process, binary, saga};
use crate::town::{PATIENCE, Person, created, product};

/// Streams that are open at once.
const STREAMS: usize = 1_000;
/// What they may cost together, in KiB.
const COST: u64 = 24 * 1_024;

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
