//! The README's walkthrough, run as it is written. CONTRIBUTING.md says what its blocks promise.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::binary::{Process, binary};

/// An `sh` block and the `text` block that shows its output.
struct Block {
    commands: String,
    shown: Vec<String>,
}

fn blocks(readme: &str) -> Vec<Block> {
    let begin = readme.find("<!-- walkthrough:begin -->").expect("the walkthrough begins");
    let end = readme.find("<!-- walkthrough:end -->").expect("the walkthrough ends");
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<(String, Vec<String>)> = None;
    for line in readme[begin..end].lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((kind.to_owned(), Vec::new())),
            (Some((_, lines)), None) => lines.push(line.to_owned()),
            (Some((kind, lines)), Some(_)) => {
                match kind.as_str() {
                    "sh" => blocks.push(Block { commands: lines.join("\n"), shown: Vec::new() }),
                    "text" => blocks.last_mut().expect("output after commands").shown = std::mem::take(lines),
                    other => panic!("a block of kind {other:?} in the walkthrough"),
                }
                open = None;
            }
            (None, None) => {}
        }
    }
    blocks
}

/// A line without what differs from run to run: the time since the start, and long ids.
fn timeless(line: &str) -> String {
    let line = match line.trim_start().strip_prefix('+').and_then(|rest| rest.split_once("  ")) {
        Some((_, rest)) => rest,
        None => line,
    };
    let long = |word: &str| word.len() > 9 && word.bytes().all(|byte| byte.is_ascii_digit());
    let parts = line.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    parts
        .map(|part| if long(part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())) { "ID " } else { part })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_walkthrough_does_what_it_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let blocks = blocks(&std::fs::read_to_string(root.join("README.md")).unwrap());
    assert!(blocks.len() >= 6, "the walkthrough is there");
    let data = TempDir::new().unwrap();
    let process = Process::start(data.path()).await;
    let mut script = "set -euo pipefail\n".to_owned();
    for block in &blocks {
        let commands = block.commands.replace("http://127.0.0.1:8000", &process.run.public);
        let commands = commands.replace("./target/release/saga", binary().to_str().unwrap());
        script.push_str(&commands);
        script.push_str("\necho '@@@'\n");
    }
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(data.path())
        .env("SAGA_DATA", data.path())
        .output()
        .expect("bash runs");
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complaints}");
    for (block, said) in blocks.iter().zip(said.split("@@@\n")) {
        let mut lines = said.lines();
        for line in &block.shown {
            assert!(
                lines.any(|said| timeless(said) == timeless(line)),
                "{line:?} is not in the output (in this order) of\n{}\n\n{said}",
                block.commands
            );
        }
    }
}
