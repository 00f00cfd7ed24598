//! Pages of sagas: conditions and their values. All of the text is ours, all of the values are bound.

use saga_core::{SagaKey, Status};
use saga_runtime::store::SagaFilter;

use super::{COLUMNS, Query};

/// Ascending, those that have not ended.
pub(super) fn in_flight(partition: i32, after: Option<SagaKey>, limit: u32) -> Query<'static> {
    let mut page = Page::new(true);
    page.also("partition = $", partition);
    if let Some(key) = after {
        page.beyond('>', key);
    }
    page.ordered("id, definition", limit)
}

/// Newest first.
pub(super) fn list(filter: SagaFilter) -> Query<'static> {
    let SagaFilter { statuses, definition, step, updated_before, id, before, limit } = filter;
    // No terminal state is asked for: few among millions, and the partial index has them in order.
    let mut page = Page::new(!statuses.is_empty() && statuses.iter().all(|s| !s.is_terminal()));
    if !statuses.is_empty() {
        page.also("status = any($)", statuses.iter().map(|s| Status::as_str(*s).to_owned()).collect::<Vec<_>>());
    }
    if let Some(id) = id {
        page.also("id = $", super::super::big(id));
    }
    if let Some(definition) = definition {
        page.also("definition = $", definition.as_str().to_owned());
    }
    if let Some(step) = step {
        page.also("awaiting = any($)", vec![format!("{step}.do"), format!("{step}.undo")]);
    }
    if let Some(moment) = updated_before {
        page.also("updated_at < $", super::super::big(moment));
    }
    if let Some(key) = before {
        page.beyond('<', key);
    }
    page.ordered("id desc, definition desc", limit)
}

struct Page {
    sql: String,
    query: Query<'static>,
}

impl Page {
    fn new(open: bool) -> Self {
        let sql = format!("{COLUMNS} where {}", if open { "open" } else { "true" });
        Self { sql, query: Query::new("") }
    }

    /// `$` in the condition stands for the value.
    fn also(&mut self, condition: &str, value: impl tokio_postgres::types::ToSql + Sync + Send + 'static) {
        let query = std::mem::replace(&mut self.query, Query::new("")).bind(value);
        self.query = query;
        self.sql.push_str(" and ");
        self.sql.push_str(&condition.replace('$', &format!("${}", self.query.values.len())));
    }

    fn beyond(&mut self, comparison: char, key: SagaKey) {
        let at = self.query.values.len();
        let query = std::mem::replace(&mut self.query, Query::new("")).big(key.id);
        self.query = query.bind(key.definition.as_str().to_owned());
        self.sql.push_str(&format!(" and (id, definition) {comparison} (${}, ${})", at + 1, at + 2));
    }

    fn ordered(self, order: &str, limit: u32) -> Query<'static> {
        let Self { mut sql, query } = self;
        let query = query.bind(i64::from(limit));
        sql.push_str(&format!(" order by {order} limit ${}", query.values.len()));
        Query { sql: sql.into(), ..query }
    }
}
