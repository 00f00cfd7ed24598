//! The real binary as people run it: what it says when it starts, when it cannot, and when it stops.

mod process;

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use saga::remote::RunFile;
use tempfile::TempDir;

pub use process::{Process, binary, run, saga, stderr, stdout};

use crate::town::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_says_where_it_is_and_a_signal_ends_it_with_zero() {
    for signal in ["TERM", "INT"] {
        let data = TempDir::new().unwrap();
        let mut process = Process::start(data.path()).await;
        let ready = run(data.path(), &["healthcheck"]);
        assert!(ready.status.success(), "{}", stderr(&ready));
        process.signal(signal);
        let (code, said) = process.end();
        assert_eq!(code, Some(0));
        assert!(said.contains(&process.run.public) && said.contains("curl"), "{said}");
        assert!(said.contains("first one that registers becomes the administrator"), "{said}");
        assert!(RunFile::read(data.path()).unwrap().is_none(), "the announcement is taken back");
        let gone = run(data.path(), &["healthcheck"]);
        assert_eq!(gone.status.code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_a_term_under_load_drains_and_what_was_accepted_exists() {
    let data = TempDir::new().unwrap();
    let port = testkit::port::unused();
    let listen = format!("127.0.0.1:{port}");
    let args = ["--listen", &listen, "--internal-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut process = Process::start_with(data.path(), &args).await;
    let load = saga(data.path())
        .args(["load", "--json", "--url", &process.run.public, "--clients", "8", "--duration", "4s", "--no-check"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the load has begun", || async {
        let answer = run(data.path(), &["sagas", "list", "--json", "--limit", "20"]);
        (stdout(&answer).matches("\"id\"").count() >= 20).then_some(())
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    let _again = Process::start_with(data.path(), &args).await;
    let report = load.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&report["lost"], &report["unexpected"]), (&0.into(), &0.into()), "{report}");
    let server_errors = report["error_kinds"].as_object().into_iter().flatten().find(|(kind, _)| kind.starts_with('5'));
    assert!(server_errors.is_none(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_what_to_do() {
    let data = TempDir::new().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let output = run(data.path(), &["up", "--listen", &address]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains(&address) && message.contains("taken") && message.contains("--listen"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_is_named_with_its_holder() {
    let data = TempDir::new().unwrap();
    let first = Process::start(data.path()).await;
    let second = run(data.path(), &["--listen", "127.0.0.1:0"]);
    let message = stderr(&second);
    assert_eq!(second.status.code(), Some(1));
    assert!(message.contains(&first.run.pid.to_string()) && message.contains("--data"), "{message}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let output = run(Path::new("/dev/null/data"), &["--listen", "127.0.0.1:0"]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("/dev/null/data") && message.contains("--data"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_foreign_files_are_refused_by_name_and_left_alone() {
    let data = TempDir::new().unwrap();
    // Ended in good order, so that everything is in the files and nothing in their logs.
    let mut process = Process::start(data.path()).await;
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    let refused = |name: &str, bytes: &[u8]| {
        let path = data.path().join(name);
        let kept = std::fs::read(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let output = run(data.path(), &["--listen", "127.0.0.1:0"]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(name), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the file was changed");
        std::fs::write(&path, kept).unwrap();
        message
    };
    assert!(refused("order.db", b"this is a letter to my aunt, not a database").contains("not a SQLite database"));
    // Another service's file in its place.
    for name in ["payment.db-wal", "payment.db-shm", "order.db-wal", "order.db-shm"] {
        drop(std::fs::remove_file(data.path().join(name)));
    }
    let foreign = std::fs::read(data.path().join("payment.db")).unwrap();
    let message = refused("order.db", &foreign);
    assert!(message.contains("payment"), "{message}");
    let damaged = {
        let mut bytes = std::fs::read(data.path().join("product.db")).unwrap();
        let middle = bytes.len() / 2;
        bytes.truncate(middle);
        bytes
    };
    if !damaged.is_empty() {
        drop(std::fs::remove_file(data.path().join("product.db-wal")));
        drop(std::fs::remove_file(data.path().join("product.db-shm")));
        refused("product.db", &damaged);
    }
}

#[test]
fn the_documents_can_be_had_without_a_shop() {
    let data = TempDir::new().unwrap();
    for (args, path) in [(&["openapi"][..], "/api/v1/purchases"), (&["openapi", "--admin"], "/admin/sagas")] {
        let document: serde_json::Value = serde_json::from_slice(&run(data.path(), args).stdout).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1") && document["paths"][path].is_object());
    }
}

#[test]
fn every_verb_has_help_and_completions_are_printed() {
    let data = TempDir::new().unwrap();
    let verbs: [&[&str]; 14] = [
        &[],
        &["up"],
        &["sagas", "list"],
        &["sagas", "bulk"],
        &["sagas", "counts"],
        &["audit"],
        &["topics", "messages"],
        &["participants"],
        &["dlq", "redrive"],
        &["check"],
        &["load"],
        &["config", "print"],
        &["admin", "create"],
        &["healthcheck"],
    ];
    for verb in verbs {
        let output = run(data.path(), &[verb, &["--help"]].concat());
        assert!(output.status.success() && stdout(&output).contains("Usage"), "{verb:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&run(data.path(), &["completions", shell])).contains("sagas"), "{shell}");
        // As into `head`, which has seen enough.
        let mut cut_off = saga(data.path())
            .args(["completions", shell])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(cut_off.stdout.take());
        let ended = cut_off.wait_with_output().unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{shell}: {}", stderr(&ended));
    }
    assert_eq!(run(data.path(), &["--listen", "127.0.0.1:1", "sagas", "list"]).status.code(), Some(2));
    assert_eq!(run(data.path(), &["sags"]).status.code(), Some(2));
}

#[test]
fn every_verb_has_a_manual_page() {
    let data = TempDir::new().unwrap();
    let first = stdout(&run(data.path(), &["man"]));
    assert!(first.starts_with(".ie") || first.contains(".TH saga 1"), "{first}");
    let folder = data.path().join("man");
    let written = run(data.path(), &["man", "--out", folder.to_str().unwrap()]);
    assert!(written.status.success(), "{}", stderr(&written));
    for (page, word) in [
        ("saga.1", "saga engine"),
        ("saga-up.1", "listen"),
        ("saga-sagas-bulk.1", "expect"),
        ("saga-sagas-retry.1", "reason"),
        ("saga-dlq-purge.1", "letters"),
        ("saga-topics-messages.1", "partition"),
        ("saga-admin-create.1", "viewer"),
    ] {
        let text = std::fs::read_to_string(folder.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH SYNOPSIS") && text.contains(word), "{page}: {text}");
    }
}
