//! `kill -9` of the real binary in the middle of a load, again and again, and the books afterwards (P-15, P-21, S-10);
//! a full disk (D-08).

use std::process::Stdio;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Process, run, saga, stdout};
use crate::town::{BodyJson as _, Town, cart, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn p21_kill_9_in_mid_load_loses_and_doubles_nothing() {
    let data = TempDir::new().unwrap();
    let listen = format!("127.0.0.1:{}", testkit::port::unused());
    let args = ["--listen", &listen, "--internal-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut process = Process::start_with(data.path(), &args).await;
    let load = saga(data.path())
        .args(["load", "--json", "--url", &process.run.public, "--clients", "16", "--duration", "9s"])
        .args(["--mix", "ok=80,stock=10,declined=10", "--settle", "60s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = 0;
    for round in 1..=3_u32 {
        // Not before something new has been bought: a kill of an idle shop proves nothing.
        seen = eventually("purchases come in", || async {
            let newest = newest(&stdout(&run(data.path(), &["sagas", "list", "--json", "--limit", "1"])));
            (newest > seen).then_some(newest)
        })
        .await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        process.kill();
        process = Process::start_with(data.path(), &args).await;
        assert!(round < 4);
    }
    let report = load.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&report["lost"], &report["unexpected"]), (&0.into(), &0.into()), "{report}");
    assert!(report["errors"].as_u64() > Some(0), "the kills were felt: {report}");
    // Posts that got no answer may have been accepted; they end, too.
    eventually("the books balance and nothing is on its way", || async {
        let args = ["check", "--json", "--settled", "--expect-completed", "50", "--expect-compensated", "5"];
        let output = run(data.path(), &args);
        let check: Value = serde_json::from_slice(&output.stdout).unwrap();
        let broken = check["found"].as_array().unwrap().iter().find(|v| v["invariant"] != 5);
        assert!(broken.is_none(), "{check}");
        (output.status.code() == Some(0)).then_some(())
    })
    .await;
    // At rest as well: the files say the same to a shop that is not there.
    process.kill();
    let output = run(data.path(), &["check", "--settled"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

fn newest(listing: &str) -> u64 {
    let listing: Value = serde_json::from_str(listing).unwrap_or_default();
    listing["items"][0]["id"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_finds_what_was_tampered_with() {
    // A check that cannot fail is a defect: each file is changed by hand, and each change is found.
    use saga_adapters::sqlite::rusqlite::Connection;
    let data = TempDir::new().unwrap();
    let mut process = Process::start(data.path()).await;
    let load = ["load", "--url", &process.run.public, "--clients", "2", "--count", "40", "--mix", "ok=1,declined=1"];
    assert!(run(data.path(), &load).status.success());
    process.kill();
    let check = || {
        let output = run(data.path(), &["check", "--json", "--settled"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(check()["violations"], 0, "{}", check());
    let cases = [
        ("order.db", "update orders set status = 'PENDING' where id = (select max(id) from orders)", vec![2, 3]),
        ("order.db", "delete from orders where id = (select min(id) from orders where status = 'CONFIRMED')", vec![2]),
        (
            "payment.db",
            "delete from payment where id = (select min(id) from payment where status = 'CAPTURED')",
            vec![2, 10],
        ),
        ("product.db", "delete from barrier where saga_id = (select min(saga_id) from barrier)", vec![6]),
        ("purchase.db", "delete from purchase where id = (select min(id) from purchase)", vec![4]),
        ("orchestrator.db", "delete from history where saga_id = (select min(saga_id) from history)", vec![7]),
        ("orchestrator.db", "update saga set version = version + 1 where id = (select max(id) from saga)", vec![7]),
    ];
    for (file, sql, expected) in cases {
        let path = data.path().join(file);
        let kept = std::fs::read(&path).unwrap();
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
        let kept = std::fs::read(&path).unwrap_or(kept);
        assert!(conn.execute(sql, []).unwrap() > 0, "{sql}");
        drop(conn);
        let report = check();
        let found: Vec<i64> =
            report["found"].as_array().unwrap().iter().map(|v| v["invariant"].as_i64().unwrap()).collect();
        assert!(!found.is_empty() && found.iter().all(|i| expected.contains(i)), "{sql}: {report}");
        for suffix in ["-wal", "-shm"] {
            drop(std::fs::remove_file(data.path().join(format!("{file}{suffix}"))));
        }
        std::fs::write(&path, kept).unwrap();
    }
    assert_eq!(check()["violations"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn d08_a_full_disk_refuses_purchases_harms_nothing_and_goes_on_when_there_is_room() {
    let mut town = Town::open_with(|config| {
        config.sqlite.max_pages = Some(160);
        config.purchase.max_in_flight = 100_000;
    })
    .await;
    let cup = town.product(10, 1_000_000).await;
    let mut bought = Vec::new();
    let refused = loop {
        let answers = futures_util::future::join_all(
            (0..50).map(|_| async { town.admin.post("/api/v1/purchases", &cart(&[(cup, 1)])).await }),
        );
        let answers = answers.await;
        bought.extend(answers.iter().filter_map(|answer| answer.body_json()["id"].as_u64()));
        if let Some(refused) = answers.into_iter().find(|answer| answer.status != StatusCode::ACCEPTED) {
            break refused;
        }
        assert!(bought.len() < 50_000, "the disk does not get full");
    };
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "dependency_unavailable"));
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    assert!(bought.len() > 20, "some fitted: {}", bought.len());
    // What is there can still be read.
    let first = town.admin.get(&format!("/api/v1/purchases/{}", bought[0])).await;
    assert_eq!(first.status, StatusCode::OK);

    town.reopen_with(|config| config.sqlite.max_pages = None).await;
    for id in &bought {
        assert_eq!(town.admin.ended(*id).await["status"], "COMPLETED", "{id}");
    }
    let report = town.books(bought.len() as u64, 0).await;
    assert_eq!(report.purchases, bought.len() as u64, "what was refused left nothing");
}
