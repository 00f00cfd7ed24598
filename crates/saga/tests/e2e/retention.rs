//! What is not kept for ever is removed by the shop itself, and nothing else is.

use std::path::Path;

use saga_adapters::sqlite::rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::asyncapi;
use crate::binary::{Process, run, saga};
use crate::operators::bury;
use crate::town::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn d17_dead_letters_that_are_too_old_are_removed_and_younger_ones_stay() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let mut process = Process::start(data).await;
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let day = 86_400_000;
    // More than one step removes, and one that has a day left.
    bury(data, "reply", std::iter::repeat_n(now - 8 * day, 450).chain([now - 6 * day]));
    let mut command = saga(data);
    command.args(["--listen", "127.0.0.1:0"]).env("SAGA_RETENTION__DEAD_LETTER_DAYS", "7");
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let _process = Process::of(child, data).await;
    let count = || {
        let listed: Value = serde_json::from_slice(&run(data, &["dlq", "list", "--json"]).stdout).unwrap();
        listed["items"][0]["count"].as_u64().unwrap()
    };
    eventually("the old ones are gone", || async { (count() == 1).then_some(()) }).await;
    assert_eq!(count(), 1);
}

/// Rows that stand in the files of the services, by table.
fn rows(data: &Path) -> Vec<(&'static str, i64)> {
    let tables = [
        ("orchestrator", "saga"),
        ("orchestrator", "history"),
        ("product", "barrier"),
        ("order", "barrier"),
        ("payment", "barrier"),
    ];
    let count = |(file, table): (&'static str, &str)| {
        let file_of = Connection::open(data.join(format!("{file}.db"))).unwrap();
        (file, file_of.query_row(&format!("select count(*) from {table}"), [], |row| row.get(0)).unwrap())
    };
    tables.map(count).to_vec()
}

async fn start(data: &Path, settings: &[(&str, &str)]) -> Process {
    let mut command = saga(data);
    command.args(["--listen", "127.0.0.1:0"]).envs(settings.iter().copied());
    Process::of(command.stdout(std::process::Stdio::piped()).spawn().unwrap(), data).await
}

fn buy(process: &Process, data: &Path) {
    let load = ["load", "--url", &process.run.public, "--clients", "2", "--count", "40", "--mix", "ok=1,declined=1"];
    let loaded = run(data, &load);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
}

/// The purchase service promises, and the orchestrator tells every participant, in the words of docs/asyncapi.yaml.
async fn all_are_told_as_documented(data: &Path, at_least: u64) {
    let documented = asyncapi::messages();
    let forgets: Vec<_> = documented.iter().filter(|message| message.name.ends_with(".forget")).collect();
    assert_eq!(forgets.len(), 8, "one a topic that leads to somebody's rows");
    for forget in forgets {
        let said = eventually(&format!("{} is said", forget.name), || async {
            let shown = run(data, &["topics", "messages", &forget.address, "--json"]);
            let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
            let mut items = shown["items"].as_array().unwrap().iter();
            items.find(|record| record["headers"]["ce_type"] == "saga.forget.v1").cloned()
        })
        .await;
        let payload = said["payload"].as_str().unwrap();
        assert_eq!(said["encoding"], "text", "{said}");
        let found = forget.differences(said["headers"].as_object().unwrap(), payload.as_bytes());
        assert!(found.is_empty(), "{}: {found:?}", forget.name);
        assert!(said["key"].as_str().unwrap().parse::<u64>().unwrap() >= at_least, "{said}");
        assert_eq!(said["key"], said["headers"]["saga_id"], "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d17_sagas_that_ended_long_ago_are_removed_and_what_they_led_to_stays() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let mut process = start(data, &[]).await;
    buy(&process, data);
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    let before = rows(data);
    assert!(before.iter().all(|(_, rows)| *rows >= 20), "{before:?}");
    let purchases = Connection::open(data.join("purchase.db")).unwrap();
    let (low, high): (u64, u64) =
        purchases.query_row("select min(id), max(id) from purchase", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    // All but the youngest ended two days ago.
    purchases.execute("update purchase set ended_at = ended_at - 172800000 where id < ?1", [high]).unwrap();
    drop(purchases);

    let settings = [("SAGA_RETENTION__SAGA_DAYS", "1"), ("SAGA_RETENTION__SWEEP_SECONDS", "1")];
    let process = start(data, &settings).await;
    // From here on the topics keep what is said.
    assert!(run(data, &["topics", "messages", "purchase"]).status.success());
    // Each service removes its own, one sooner than another.
    let left = eventually("they are gone", || async {
        let left = rows(data);
        (left[0].1 == 1 && left[4].1 <= 2 && left.iter().all(|(_, rows)| *rows < 12)).then_some(left)
    })
    .await;
    assert!(left.iter().all(|(_, rows)| (1..12).contains(rows)), "the youngest is kept: {left:?}");
    let shown = run(data, &["sagas", "show", &low.to_string()]);
    let told = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(!shown.status.success() && told.contains("has ended and was removed"), "{told}");
    assert!(run(data, &["sagas", "show", &high.to_string()]).status.success());
    let never = run(data, &["sagas", "show", &(high + 1).to_string()]);
    assert!(String::from_utf8_lossy(&never.stderr).contains("there is no saga"), "above the watermark nothing is gone");
    all_are_told_as_documented(data, low).await;
    buy(&process, data);
    let checked = run(data, &["check", "--settled"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert_eq!(rows(data)[0].1, 41, "nothing comes back");
}
