//! Reads of products that needed no database, and those that did.

use chassis::metrics::{Page, Source};
use saga_runtime::stats::Counter;

/// Counted since the start of the process.
#[derive(Debug, Default)]
pub struct Stats {
    /// Products found in this process's memory.
    pub hits: Counter,
    /// Products that were not.
    pub misses: Counter,
    /// Products that may exist, by the filter: the database was asked.
    pub maybe: Counter,
    /// Products that certainly do not exist, by the filter: nobody was asked.
    pub absent: Counter,
}

impl Stats {
    /// Passes the filter's answer on.
    pub(crate) fn filtered(&self, may_exist: bool) -> bool {
        if may_exist { &self.maybe } else { &self.absent }.inc();
        may_exist
    }
}

impl Source for Stats {
    fn collect(&self, page: &mut Page) {
        let results = [("hit", &self.hits), ("miss", &self.misses)];
        page.counters("product_memory_reads", "Products looked for in this process's memory.", "result", &results);
        let results = [("maybe", &self.maybe), ("absent", &self.absent)];
        page.counters("filter_checks", "Products looked for in the existence filter.", "result", &results);
    }
}
