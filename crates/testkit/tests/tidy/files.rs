//! Sizes and heads of source files.

use crate::tree::{expect_none, is_test, paths, read, with_extension};

/// Longer than this and a reader no longer has the file in mind: split it by command or use case.
const SOURCE_LINES: usize = 500;
/// Tests are lists of cases; they may be longer.
const TEST_LINES: usize = 800;
/// Files that are longer for a reason that is named here.
const LONGER: &[(&str, usize, &str)] = &[];

#[test]
fn files_stay_short_enough_to_read() {
    let mut findings = Vec::new();
    for path in with_extension("rs") {
        let lines = read(&path).lines().count();
        let usual = if is_test(&path) { TEST_LINES } else { SOURCE_LINES };
        let limit = LONGER.iter().find(|(p, ..)| *p == path).map_or(usual, |(_, limit, _)| *limit);
        if lines > limit {
            findings.push(format!("{path} has {lines} lines, more than {limit}: split it by command or use case"));
        }
    }
    expect_none("file length", &findings);
}

#[test]
fn every_module_opens_with_what_it_is_for() {
    let without = |path: &String| !read(path).trim_start().starts_with("//!");
    let sources = with_extension("rs").into_iter().filter(|p| p.contains("/src/") && !is_test(p));
    let findings: Vec<_> = sources.filter(without).collect();
    expect_none("open the file with `//!`: what it is for, what it promises, what it does not do", &findings);
}

#[test]
fn no_module_is_a_drawer_for_everything() {
    let drawers = ["util", "utils", "helper", "helpers", "misc", "common"];
    let stem = |path: &str| path.rsplit('/').next().unwrap().trim_end_matches(".rs").to_owned();
    let in_drawer = |path: &String| path.ends_with(".rs") && drawers.contains(&stem(path).as_str());
    let findings: Vec<_> = paths().into_iter().filter(in_drawer).collect();
    expect_none("name the file after what is in it", &findings);
}

#[test]
fn every_allowed_or_expected_lint_says_why() {
    // `allow_attributes_without_reason` sees attributes that are compiled; this sees the others too.
    let mut findings = Vec::new();
    for path in with_extension("rs") {
        let text = read(&path);
        for (at, _) in text.match_indices("[allow(").chain(text.match_indices("[expect(")) {
            let attribute = &text[at..text[at..].find(")]").map_or(text.len(), |end| at + end)];
            let commented = text[..at].lines().last().is_some_and(|line| line.contains("//"));
            if !attribute.contains("reason") && !commented && !path.contains("/tests/tidy/") {
                findings.push(format!("{path}:{}", text[..at].lines().count()));
            }
        }
    }
    expect_none("add `reason = \"…\"`", &findings);
}
