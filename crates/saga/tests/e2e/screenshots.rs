//! The pictures of the documents: their script still gets through the real shop and makes each of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::binary::binary;

/// A page that is empty, or says only that it is not there, is smaller.
const SMALLEST: usize = 20_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Width and height of a PNG: in its first chunk (RFC 2083 §4.1.1).
fn size(picture: &[u8]) -> [u32; 2] {
    assert_eq!((&picture[..8], &picture[12..16]), (&b"\x89PNG\r\n\x1a\n"[..], &b"IHDR"[..]));
    [16, 20].map(|at| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap()))
}

/// The names of the pictures that a document shows.
fn shown(document: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(document).unwrap();
    let pictures = text.split("screenshots/").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned());
    pictures.filter(|name| name.ends_with(".png")).collect()
}

#[test]
fn the_script_takes_every_picture_that_is_kept_and_shown() {
    let kept: BTreeSet<String> = std::fs::read_dir(root().join("docs/screenshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".png"))
        .collect();
    let documents = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let named: BTreeSet<String> = documents.chain([root().join("README.md")]).flat_map(|path| shown(&path)).collect();
    assert!(named.len() >= 4, "{named:?}");
    assert!(named.is_subset(&kept), "shown, and not there: {:?}", named.difference(&kept));

    let into = TempDir::new().unwrap();
    let mut take = Command::new(root().join("docs/screenshots/take"));
    take.arg("--into").arg(into.path()).arg(binary()).stdin(Stdio::null());
    let output = take.output().unwrap();
    let said = || String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}", said());
    for name in kept {
        let taken = std::fs::read(into.path().join(&name)).unwrap_or_else(|_| panic!("{name}: {}", said()));
        let old = std::fs::read(root().join("docs/screenshots").join(&name)).unwrap();
        assert_eq!(size(&taken), size(&old), "{name}");
        assert!(taken.len() > SMALLEST, "{name} has {} bytes", taken.len());
    }
}
