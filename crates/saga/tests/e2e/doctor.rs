//! `saga doctor` on installations of files that are well, and that are not.

use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Process, saga, stderr, stdout};

/// Its exit code and what is not well, as `subject: what`.
fn doctor(data: &Path, args: &[&str]) -> (Option<i32>, Vec<String>, Value) {
    let output = saga(data).arg("doctor").args(args).arg("--json").output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let ill = told["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] != "ok");
    let ill = ill.map(|finding| {
        assert!(finding["why"].is_string() && finding["fix"].is_string(), "{finding}");
        format!("{}: {}", finding["subject"].as_str().unwrap(), finding["what"].as_str().unwrap())
    });
    (output.status.code(), ill.collect(), told)
}

/// Three ports in a row of which nobody else knows.
fn free() -> u16 {
    (30_100..32_000).step_by(7).find(|base| (0..3).all(|n| TcpListener::bind(("127.0.0.1", base + n)).is_ok())).unwrap()
}

/// A machine that is short of disk or descriptors is not what these tests are about.
fn of_the_shop(ill: &[String]) -> Vec<&String> {
    ill.iter().filter(|what| !what.starts_with("disk") && !what.starts_with("descriptors")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_shop_is_well_before_its_first_start_while_it_runs_and_at_rest() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let listen = format!("127.0.0.1:{}", free());
    let args = ["--config", "/dev/null"];
    let look = |data: &Path| {
        let output = saga(data).env("SAGA_LISTEN", &listen).args(["doctor", "--json"]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{told}");
        let words = told["findings"].to_string();
        let wrong = told["findings"].as_array().unwrap().iter();
        let wrong: Vec<_> = wrong
            .filter(|f| f["level"] != "ok" && !["disk", "descriptors"].contains(&f["subject"].as_str().unwrap()))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        words
    };
    let before = look(&data);
    assert!(before.contains("the first start makes it") && before.contains("none runs here"), "{before}");
    assert!(!data.exists(), "it has made nothing");
    let mut process = Process::start_with(&data, &["--listen", &listen]).await;
    let running = look(&data);
    assert!(running.contains("runs and is ready") && running.contains("the shop that runs has it"), "{running}");
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    let resting = look(&data);
    assert!(resting.contains("is ours and up to date") && resting.contains("none is stuck"), "{resting}");
    let text = saga(&data).args(["doctor"]).args(args).output().unwrap();
    assert!(stdout(&text).contains("looked at"), "{}", stdout(&text));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_named_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    drop(Process::start(&data).await);
    let port = free();
    let listen = format!("127.0.0.1:{port}");
    let look = || {
        let output = saga(&data).env("SAGA_LISTEN", &listen).args(["doctor", "--json"]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ill = told["findings"].as_array().unwrap().iter().filter(|f| f["level"] != "ok").map(ToString::to_string);
        (output.status.code(), ill.collect::<Vec<String>>().join("\n"))
    };
    // It was killed, and has left its run.json.
    let (code, ill) = look();
    assert!(code == Some(1) && ill.contains("was killed"), "{ill}");
    // Ends in order: nothing stays in the logs of the files.
    let mut process = Process::start(&data).await;
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    assert_eq!(look().0, Some(0), "{}", look().1);

    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (code, ill) = look();
    assert!(code == Some(1) && ill.contains(&format!("process {}", std::process::id())), "{ill}");
    drop(taken);

    std::fs::rename(data.join("order.db"), data.join("kept.db")).unwrap();
    std::fs::write(data.join("order.db"), "my diary").unwrap();
    let (code, ill) = look();
    assert!(code == Some(1) && ill.contains("store order") && ill.contains("is not a SQLite database"), "{ill}");
    std::fs::copy(data.join("payment.db"), data.join("order.db")).unwrap();
    let (code, ill) = look();
    assert!(code == Some(1) && ill.contains("is the database of `payment`"), "{ill}");
    std::fs::rename(data.join("kept.db"), data.join("order.db")).unwrap();

    let (code, ill, _) = doctor(&data.join("lock"), &[]);
    assert!(code == Some(1) && ill.join("\n").contains("is not a folder"), "{ill:?}");

    let wrong = folder.path().join("wrong.toml");
    std::fs::write(&wrong, "[purchase]\nmax_in_fligth = 3\n").unwrap();
    let (code, ill, _) = doctor(&data, &["--config", wrong.to_str().unwrap()]);
    assert!(code == Some(1) && ill.len() == 1 && ill[0].contains("max_in_fligth"), "{ill:?}");
    std::fs::write(&wrong, "[bus]\nurl = \"amqp://x\"\n[failures]\nenabled = true\n").unwrap();
    let (code, ill, _) = doctor(&data, &["--config", wrong.to_str().unwrap()]);
    let ill = ill.join("\n");
    assert!(code == Some(1) && ill.contains("bus.url") && ill.contains("failures.enabled"), "{ill}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_not_there_are_named_each() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("saga.toml");
    let port = free();
    let text = format!(
        "[stores]\nurl = \"postgres://{{service}}@127.0.0.1:{port}/{{service}}\"\n[bus]\nurl = \"kafka://127.0.0.1:{port}\"\n\
         [cache]\nurl = \"redis+cluster://127.0.0.1:{port}\"\n[peers]\naccount = \"http://127.0.0.1:{port}\"\n\
         [console]\nadmin_url = \"http://127.0.0.1:{port}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let (code, ill, _) = doctor(folder.path(), &["--config", file.to_str().unwrap()]);
    let of_servers = of_the_shop(&ill);
    assert_eq!(code, Some(1));
    for subject in ["store account", "store orchestrator", "kafka", "redis", "peers.account", "console.admin_url"] {
        assert!(of_servers.iter().any(|what| what.starts_with(subject)), "{subject}: {ill:?}");
    }
}
