//! `saga check`: whether the books of all databases balance.
//!
//! Reads every file beside a running shop or of one at rest, opened for reading only, each at one moment: the
//! orchestrator's first. Files are read side by side in the order of ids, so memory does not grow with them.
//! What it promises and cannot: nothing is repaired.

pub mod facts;
pub mod merge;
mod read;
pub mod report;
pub mod rules;

use std::path::Path;

use anyhow::anyhow;

use merge::Merge;
use report::Report;
use rules::Wanted;

/// Checks the books in a data folder.
///
/// # Errors
/// When a file cannot be read at all; what is wrong inside is in the report.
pub fn check(data: &Path, wanted: Wanted) -> anyhow::Result<Report> {
    let books = read::Books::open(data)?;
    let mut report = Report::default();
    let mut younger = Vec::new();
    let (feeds, stock) = books.feeds();
    for dossier in Merge::new(feeds) {
        let dossier = dossier.map_err(|error| anyhow!(error))?;
        if rules::judge(&dossier, wanted, &mut report) {
            younger.push(dossier);
        }
    }
    stock.iter().for_each(|stock| rules::judge_stock(&stock, &mut report));
    // Begun after the orchestrator was read? Then it has a saga by now.
    if !younger.is_empty() {
        let sagas = read::Sagas::open(data)?;
        for dossier in &younger {
            if sagas.has(dossier.id)? {
                report.in_flight += 1;
            } else {
                rules::judge_orphan(dossier, &mut report);
            }
        }
    }
    rules::conclude(wanted, &mut report);
    Ok(report)
}
