//! Settings that are wrong are refused before anything starts, with key and source (O-01); what is right is shown.

use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::binary::{run, saga, stderr, stdout};

fn up(data: &Path, variables: &[(&str, &str)], args: &[&str]) -> Output {
    saga(data).envs(variables.iter().copied()).args(["--listen", "127.0.0.1:0"]).args(args).output().unwrap()
}

/// It did not start, said all of these, and left nothing behind.
fn refused(output: &Output, data: &Path, words: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message}");
    }
    assert!(!data.join("order.db").exists(), "nothing was begun");
}

#[test]
fn o01_wrong_settings_are_refused_by_key_and_source() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let file = data.join("saga.toml");
    let path = file.to_str().unwrap();
    for (text, words) in [
        ("lisen = \"127.0.0.1:1\"", &["saga.toml", "lisen"][..]),
        ("[purchase]\nmax_in_flight = \"many\"", &["saga.toml", "max_in_flight"]),
        ("[purchase]\nmax_in_flight = -1", &["saga.toml", "max_in_flight"]),
        ("[payment.sandbox]\ndecline_rate = 2.5", &["decline_rate"]),
        ("[console]\ntrace_url = \"http://127.0.0.1:16686/trace/\"", &["saga.toml", "trace_url", "{trace_id}"]),
        ("[console]\ntrace_url = \"javascript:{trace_id}\"", &["saga.toml", "trace_url", "http"]),
        ("this is no TOML", &["saga.toml"]),
    ] {
        std::fs::write(&file, text).unwrap();
        refused(&up(data, &[], &["--config", path]), data, words);
        let checked = run(data, &["config", "check", "--config", path]);
        assert_eq!(checked.status.code(), Some(2), "`config check` says the same of {text:?}: {}", stderr(&checked));
    }
    refused(&up(data, &[("SAGA_LISEN", "x")], &[]), data, &["SAGA_LISEN"]);
    refused(&up(data, &[("SAGA_PURCHASE__MAX_IN_FLIGHT", "x")], &[]), data, &["SAGA_PURCHASE__MAX_IN_FLIGHT"]);
    refused(&up(data, &[], &["--config", "/nowhere/saga.toml"]), data, &["/nowhere/saga.toml"]);
}

#[test]
fn a_definition_that_breaks_a_rule_is_refused_by_file_step_and_reason() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let file = data.join("broken.yaml");
    let good = include_str!("../../../../services/orchestrator/definitions/purchase.yaml");
    let variable = format!("[{:?}]", file.to_str().unwrap());
    for (from, to, words) in [
        ("kind: retriable", "kind: compensatable", &["broken.yaml", "confirm-order"][..]),
        ("kind: compensatable\n    do: create-order", "kind: pivot\n    do: create-order", &["broken.yaml", "pivot"]),
        ("saga: purchase", "saga: Purchase!", &["broken.yaml", "Purchase!"]),
        ("do: create-order", "does: create-order", &["broken.yaml", "does"]),
    ] {
        assert!(good.contains(from), "{from}");
        std::fs::write(&file, good.replacen(from, to, 1)).unwrap();
        let output = up(data, &[("SAGA_ORCHESTRATOR__DEFINITIONS", &variable)], &[]);
        refused(&output, data, words);
    }
}

#[test]
fn what_is_printed_is_what_is_in_force_and_can_be_read_again() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let file = data.join("saga.toml");
    std::fs::write(&file, "drain_s = 3\n[purchase]\nmax_in_flight = 7\nmax_streams = 5").unwrap();
    let print = |config: &str| {
        let mut command = saga(data);
        command.env("SAGA_PURCHASE__MAX_IN_FLIGHT", "8").args(["config", "print", "--config", config]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let printed = print(file.to_str().unwrap());
    // The environment wins over the file, the file over the defaults.
    for line in ["drain_s = 3", "max_in_flight = 8", "max_streams = 5", "max_waiting_requests = 2000"] {
        assert!(printed.lines().any(|said| said == line), "{line:?} is not in {printed}");
    }
    let again = data.join("again.toml");
    std::fs::write(&again, &printed).unwrap();
    assert_eq!(print(again.to_str().unwrap()), printed);
    let checked = run(data, &["config", "check"]);
    assert!(checked.status.success() && stdout(&checked).contains("create-payment (pivot)"), "{}", stdout(&checked));
}
