//! `saga check`: whether the books of all databases balance.
//!
//! Reads every file and database beside a running shop or of one at rest, for reading only, each at one moment: the
//! orchestrator's first. They are read side by side in the order of ids, so memory does not grow with them.
//! What it promises and cannot: nothing is repaired.

pub mod facts;
pub mod merge;
mod read;
pub mod report;
pub mod rules;

use anyhow::anyhow;

use merge::Merge;
use report::Report;
use rules::Wanted;

use crate::config::Config;

/// Checks the books, wherever the settings say that they are. Not to be called on a thread that drives futures.
///
/// # Errors
/// When a book cannot be read at all; what is wrong inside is in the report.
pub fn check(config: &Config, wanted: Wanted) -> anyhow::Result<Report> {
    check_with(config, wanted, |_| {})
}

/// The same; tells the id of each product that the books have.
///
/// # Errors
/// As above.
pub fn check_with(config: &Config, wanted: Wanted, mut product: impl FnMut(u64)) -> anyhow::Result<Report> {
    let shelf = read::Shelf::new(config)?;
    let books = shelf.books()?;
    let forgotten = books.marks(&shelf)?;
    let mut report = Report::default();
    let mut younger = Vec::new();
    let mut keys = rules::Keys::default();
    let (feeds, stock) = books.feeds();
    for dossier in Merge::new(feeds) {
        let mut dossier = dossier.map_err(|error| anyhow!(error))?;
        dossier.forgotten = Some(dossier.id) <= forgotten.sagas;
        dossier.answers_forgotten = Some(dossier.id) <= forgotten.answers;
        rules::judge_key(&mut keys, &dossier, &mut report);
        if rules::judge(&dossier, wanted, &mut report) {
            younger.push(dossier);
        }
    }
    for stock in stock {
        product(stock.product_id);
        rules::judge_stock(&stock, &mut report);
    }
    if forgotten.answers.is_some() {
        rules::judge_marks(forgotten.answers, shelf.sagas()?.mark()?, &mut report);
    }
    // Begun after the orchestrator was read? Then it has a saga by now.
    if !younger.is_empty() {
        let sagas = shelf.sagas()?;
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
