//! Documents stay short, their links lead somewhere, and no file names a machine.

use std::path::{Component, Path, PathBuf};

use crate::tree::{expect_none, paths, read, root, with_extension};

/// What a reader is asked to read, at most.
const LENGTHS: &[(&str, usize)] =
    &[("README.md", 230), ("ARCHITECTURE.md", 300), ("CONTRIBUTING.md", 300), ("docs/glossary.md", 200)];

#[test]
fn documents_keep_to_their_length() {
    let mut findings = Vec::new();
    for (path, limit) in LENGTHS {
        let lines = read(path).lines().count();
        if lines > *limit {
            findings.push(format!("{path} has {lines} lines, more than {limit}"));
        }
    }
    expect_none("say it shorter", &findings);
}

/// Targets of `[text](target)` and `src="target"`, without those inside code.
fn links(markdown: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for opening in ["](", "src=\"", "href=\""] {
            for (at, _) in prose.match_indices(opening) {
                let rest = &prose[at + opening.len()..];
                links.extend(rest.split([')', '"', ' ']).next().map(str::to_owned));
            }
        }
    }
    links
}

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[test]
fn every_link_leads_somewhere() {
    let mut findings = Vec::new();
    for path in with_extension("md") {
        let folder = Path::new(&path).parent().unwrap();
        for link in links(&read(&path)) {
            if link.contains("://") || link.starts_with("mailto:") || link.is_empty() {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { PathBuf::from(&path) } else { normal(&folder.join(file)) };
            if !root().join(&target).exists() {
                findings.push(format!("{path} links to {link}, which is not there"));
            } else if !anchor.is_empty() && target.extension().is_some_and(|e| e == "md") {
                let text = read(target.to_str().unwrap());
                if !headings(&text).contains(&anchor.to_owned()) {
                    findings.push(format!("{path} links to {link}, and there is no such heading"));
                }
            }
        }
    }
    expect_none("dead links", &findings);
}

/// Anchors of a page's headings, as the usual renderers make them.
fn headings(markdown: &str) -> Vec<String> {
    let titles =
        markdown.lines().filter(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#').trim().to_lowercase());
    let keep = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    titles.map(|title| title.chars().filter(keep).map(|c| if c == ' ' { '-' } else { c }).collect()).collect()
}

#[test]
fn no_file_names_a_machine() {
    // In pieces, so that this file does not find itself.
    let words = [
        concat!("/", "work/"),
        concat!("/", "root/"),
        concat!("/", "farm/"),
        concat!("/", "home/"),
        concat!("/", "Users/"),
        concat!("arti", "factory"),
    ];
    let text = ["rs", "md", "toml", "yaml", "yml", "sql", "proto", "json", "svg", "html", "sh", "css", "js"];
    let mut findings = Vec::new();
    for path in paths() {
        let known = path.rsplit_once('.').is_some_and(|(_, extension)| text.contains(&extension));
        if !known && path != "test" && path != ".ci/run" {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                findings.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    expect_none("a path or host of one machine", &findings);
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let page = read("docs/guarantees.md");
    let mut findings = Vec::new();
    let rows = page.lines().filter(|l| l.starts_with("| ") && !l.ends_with("| Proven by |"));
    for row in rows {
        // [`test`](../file)
        let named: Vec<_> = row.split("[`").skip(1).filter_map(|rest| rest.split_once("`](../")).collect();
        if named.is_empty() {
            findings.push(format!("no test: {row}"));
        }
        for (test, rest) in named {
            let file = rest.split(')').next().unwrap();
            if !root().join(file).exists() || !read(file).contains(&format!("fn {test}(")) {
                findings.push(format!("{file} has no test {test}"));
            }
        }
    }
    assert!(page.matches("](../").count() > 20, "the page lists guarantees");
    expect_none("a guarantee without its test is a hope", &findings);
}

#[test]
fn every_defect_of_the_original_has_a_regression_test() {
    let mut names = String::new();
    for path in with_extension("rs") {
        for line in read(&path).lines().filter(|line| line.contains("fn ") && line.contains("g")) {
            names.push_str(line);
            names.push('\n');
        }
    }
    let tested = |defect: &String| names.contains(&format!("fn {defect}_")) || names.contains(&format!("_{defect}_"));
    let findings: Vec<String> = (1..=26).map(|number| format!("g{number:02}")).filter(|d| !tested(d)).collect();
    expect_none("name a test after each of the 26", &findings);
}
