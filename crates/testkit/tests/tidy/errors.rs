//! Every error code that a client can see has a page, and every page a code.

use std::collections::BTreeSet;

use crate::tree::{expect_none, is_test, paths, read, with_extension};

/// Where the HTTP codes stand, in the table `codes!`.
const PROBLEMS: &str = "crates/chassis/src/problem.rs";
/// What stands before a refusal's code. A code from a constant is found where the constant is defined.
const REFUSALS: &[&str] = &["Outcome::refused(\"", "Refusal::new(\"", "UNDONE_BEFORE_DO: &str = \""];

/// The `snake_case` literals in `text` that directly follow one of `openings`, test modules left out.
fn literals(text: &str, openings: &[&str]) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let mut found = BTreeSet::new();
    for opening in openings {
        found.extend(code.split(opening).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned));
    }
    found.retain(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    found
}

fn problems() -> BTreeSet<String> {
    let text = read(PROBLEMS);
    let table = text.split("\ncodes! {").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap();
    let codes = literals(table, &[" = \""]);
    assert!(codes.contains("validation_error"), "{PROBLEMS} has the table of codes");
    codes
}

fn refusals() -> BTreeSet<String> {
    let sources = with_extension("rs").into_iter().filter(|p| p.contains("/src/") && !is_test(p));
    let codes: BTreeSet<String> = sources.flat_map(|path| literals(&read(&path), REFUSALS)).collect();
    assert!(codes.contains("cancelled"), "the engine refuses by code");
    codes
}

fn pages() -> BTreeSet<String> {
    let names =
        paths().into_iter().filter_map(|p| Some(p.strip_prefix("docs/errors/")?.strip_suffix(".md")?.to_owned()));
    names.filter(|name| name != "README").collect()
}

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let (codes, pages) = (problems().union(&refusals()).cloned().collect::<BTreeSet<_>>(), pages());
    let missing = codes.difference(&pages).map(|code| format!("docs/errors/{code}.md is missing"));
    let stale =
        pages.difference(&codes).map(|page| format!("docs/errors/{page}.md describes a code that nothing answers"));
    expect_none("one page per code", &missing.chain(stale).collect::<Vec<_>>());
}

#[test]
fn every_error_page_says_what_to_do_and_is_in_the_list() {
    let list = read("docs/errors/README.md");
    let mut findings = Vec::new();
    for name in pages() {
        let page = read(&format!("docs/errors/{name}.md"));
        if !page.starts_with(&format!("# {name}\n")) || !page.contains("**What to do:**") {
            findings.push(format!("docs/errors/{name}.md needs the heading `# {name}` and a line **What to do:**"));
        }
        if !list.contains(&format!("({name}.md)")) {
            findings.push(format!("docs/errors/README.md does not list {name}"));
        }
    }
    expect_none("error pages", &findings);
}
