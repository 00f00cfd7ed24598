//! A backup that is taken from a shop under load is started as if the power had failed, and everything in it ends as it should.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Process, run, stderr, stdout};
use crate::town::{Person, cart, created, eventually, product};

fn json_of(data: &Path, args: &[&str]) -> Value {
    let output = run(data, &[args, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", stderr(&output)))
}

/// Buys without end: what succeeds, what is declined, and what is cancelled on the way.
async fn shopping(who: Person, cup: u64, dear: u64, over: Arc<AtomicBool>) {
    let mut n = 0_u64;
    while !over.load(Ordering::Relaxed) {
        n += 1;
        let lines = [(if n.is_multiple_of(4) { dear } else { cup }, 1)];
        let mut connection = saga::remote::Connection::new(&who.endpoint);
        let body = cart(&lines).to_string();
        let Ok(answer) = connection.send(Method::POST, "/api/v1/purchases", who.bearer().as_ref(), body.into()).await
        else {
            return;
        };
        let id = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default()["id"].as_u64();
        if let Some(id) = id.filter(|_| n.is_multiple_of(3)) {
            let path = format!("/api/v1/purchases/{id}/cancel");
            let body = json!({ "reason": "changed my mind" }).to_string();
            drop(connection.send(Method::POST, &path, who.bearer().as_ref(), body.into()).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_moment_and_heals_like_a_crash() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let process = Process::start(&data).await;
    let admin = process.nobody().register("admin@example.com").await;
    let category =
        created(&admin.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "Tea" })).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 100_000)).await);
    let dear = created(&admin.post("/api/v1/products", &product(category, 13, 100_000)).await);
    let over = Arc::new(AtomicBool::new(false));
    let shoppers: Vec<_> =
        (0..12).map(|_| tokio::spawn(shopping(admin.clone(), cup, dear, Arc::clone(&over)))).collect();

    let mut backups = Vec::new();
    for n in 0..3 {
        let before = json_of(&data, &["check"])["completed"].as_u64().unwrap();
        eventually("more is bought", || async {
            (json_of(&data, &["check"])["completed"].as_u64().unwrap() >= before + 20).then_some(())
        })
        .await;
        let to = folder.path().join(format!("backup{n}"));
        let told = json_of(&data, &["backup", to.to_str().unwrap()]);
        assert_eq!(told["files"].as_array().unwrap().len(), 7, "{told}");
        backups.push(to);
    }
    over.store(true, Ordering::Relaxed);
    for shopper in shoppers {
        shopper.await.unwrap();
    }
    drop(process);

    let mut on_their_way = 0;
    for backup in &backups {
        // As it was copied: nothing is wrong, though not everything has ended.
        let report = json_of(backup, &["check"]);
        assert_eq!(report["violations"], 0, "{report}");
        on_their_way += report["in_flight"].as_u64().unwrap();
        let restored = Process::start(backup).await;
        let settled = eventually("all ends", || async {
            let report = json_of(backup, &["check", "--settled"]);
            let only = |v: &Value| v["invariant"] == 5;
            assert!(report["found"].as_array().unwrap().iter().all(only), "{report}");
            (report["violations"] == 0).then_some(report)
        })
        .await;
        assert!(settled["completed"].as_u64() >= Some(20) && settled["compensated"].as_u64() > Some(0), "{settled}");
        let again = restored.nobody().login("admin@example.com").await;
        assert_eq!(again.get("/api/v1/purchases").await.status, StatusCode::OK);
        // The tokens of before are good: the keys came along.
        let before = Person { endpoint: restored.nobody().endpoint, ..admin.clone() };
        assert_eq!(before.get("/api/v1/purchases").await.status, StatusCode::OK);
    }
    assert!(on_their_way > 0, "the backups were taken while nothing was on its way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_needs_a_shop_and_a_new_folder() {
    let folder = TempDir::new().unwrap();
    let (data, to) = (folder.path().join("data"), folder.path().join("to"));
    let nothing = run(&data, &["backup", to.to_str().unwrap()]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(stderr(&nothing).contains("account.db"), "{}", stderr(&nothing));
    drop(Process::start(&data).await);
    // At rest as well.
    let made = run(&data, &["backup", to.to_str().unwrap()]);
    assert!(made.status.success() && stdout(&made).contains("orchestrator.db"), "{}", stderr(&made));
    let again = run(&data, &["backup", to.to_str().unwrap()]);
    assert!(again.status.code() == Some(1) && stderr(&again).contains("not empty"), "{}", stderr(&again));
}
