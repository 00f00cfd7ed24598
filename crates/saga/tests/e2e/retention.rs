//! What is not kept for ever is removed by the shop itself, and nothing else is.

use saga_adapters::sqlite::rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Process, run, saga};
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
    let file = Connection::open(data.join(format!("{}.db", saga_adapters::sqlite::dead_letters::SCHEMA.name))).unwrap();
    // More than one step removes, and one that has a day left.
    for at in std::iter::repeat_n(now - 8 * day, 450).chain([now - 6 * day]) {
        let letter = "insert into dead_letter (topic, partition, position, at, attempts, reason, key, headers, payload)
            values ('reply', 0, 1, ?1, 5, 'odd', x'37', '[]', x'00')";
        file.execute(letter, [at]).unwrap();
    }
    drop(file);
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
