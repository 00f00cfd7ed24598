//! The repository as the tidy tests see it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// Runs a tool in the root and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let output = output.unwrap_or_else(|e| panic!("{program} cannot be started: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{program} {}` failed: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// Every file that is committed or would be, relative to the root, sorted.
pub(crate) fn paths() -> BTreeSet<String> {
    let listed = run("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let files = listed.split('\0').filter(|p| !p.is_empty() && root().join(p).is_file()).map(str::to_owned);
    let files: BTreeSet<String> = files.collect();
    assert!(files.contains("Cargo.toml"), "the tidy tests need a git checkout");
    files
}

/// The paths that end in `.extension`.
pub(crate) fn with_extension(extension: &str) -> Vec<String> {
    let suffix = format!(".{extension}");
    paths().into_iter().filter(|p| p.ends_with(&suffix)).collect()
}

/// A file's text.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Whether a Rust file is test code: under `tests/`, `benches/` or `examples/`, or a `tests.rs` module.
pub(crate) fn is_test(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    parts.iter().any(|part| matches!(*part, "tests" | "benches" | "examples")) || path.ends_with("tests.rs")
}

/// Fails with all findings at once, so that one run shows everything that is to be mended.
pub(crate) fn expect_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
