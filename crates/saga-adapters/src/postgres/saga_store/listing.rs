//! Pages of sagas and how many there are: conditions and their values. All of the text is ours, all of the values are
//! bound.
//!
//! A page is put together from streams that each stand in an index in the page's order: what is in flight (few among
//! millions, sorted), and for each definition and state what has ended. So it costs the same however many sagas there
//! are and however rare what is asked for.

use saga_core::{Millis, Name, SagaKey, Status};
use saga_runtime::store::{SagaCount, SagaFilter};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::{Columns as _, PgError, big, bigs};
use super::{COLUMNS, Query};

pub(super) const COUNT_IN_FLIGHT: &str = "select definition, status, count(*), min(started_at)
    from saga where open group by definition, status order by definition, status";
pub(super) const COUNT_AWAITED: &str = "select definition, awaiting, count(*), min(updated_at)
    from saga where open and awaiting <> '' and status in ('RUNNING', 'COMPENSATING') group by definition, awaiting order by definition, awaiting";
pub(super) const COUNT_ENDED: &str = "select definition, status, count(*)
    from saga where not open group by definition, status order by definition, status";
/// Every definition of which something has ended, one look into the index each.
const DEFINITIONS: &str = "known (name) as (
        (select definition from saga where not open order by definition limit 1)
        union all
        select (select definition from saga where not open and definition > known.name order by definition limit 1)
        from known where known.name is not null
    )";
const ORDER: &str = " order by started_at desc, id desc, definition desc";

/// Ascending, those that have not ended.
pub(super) fn in_flight(partition: i32, after: Option<SagaKey>, limit: u32) -> Query<'static> {
    let mut page = Page::new();
    let partition = page.value(partition);
    page.sql = format!("{COLUMNS} where open and partition = {partition}");
    if let Some(key) = after {
        let (id, definition) = (page.value(big(key.id)), page.value(key.definition.as_str().to_owned()));
        page.also(&format!("(id, definition) > ({id}, {definition})"));
    }
    let limit = page.value(i64::from(limit));
    page.done(&format!(" order by id, definition limit {limit}"))
}

/// A page, those that started last first.
pub(super) fn list(filter: &SagaFilter) -> Query<'static> {
    let mut page = Page::new();
    let wanted = filter.wanted();
    let limit = page.value(i64::from(filter.limit));
    let conditions = page.conditions(filter);
    if !filter.ids.is_empty() {
        let statuses = page.value(names(&wanted));
        let ids = page.value(bigs(filter.ids.iter().copied()));
        page.sql = format!("{COLUMNS} where id = any({ids}) and status = any({statuses}){conditions}");
        return page.done(&format!("{ORDER} limit {limit}"));
    }
    let (ended, open): (Vec<Status>, Vec<Status>) = wanted.into_iter().partition(|status| status.is_terminal());
    let mut streams = Vec::new();
    if !open.is_empty() {
        let statuses = page.value(names(&open));
        streams.push(format!("({COLUMNS} where open and status = any({statuses}){conditions}{ORDER} limit {limit})"));
    }
    let mut with = String::new();
    if !ended.is_empty() {
        let statuses = page.value(names(&ended));
        let definitions = if let Some(definition) = &filter.definition {
            let name = page.value(vec![definition.as_str().to_owned()]);
            format!("unnest({name}::text[])")
        } else {
            with = format!("with recursive {DEFINITIONS} ");
            "known".to_owned()
        };
        let stream = format!(
            "{COLUMNS} where not open and definition = k.name and status = u.name{conditions}{ORDER} limit {limit}"
        );
        streams.push(format!(
            "(select s.* from {definitions} as k (name) cross join unnest({statuses}::text[]) as u (name) \
             cross join lateral ({stream}) as s{ORDER} limit {limit})"
        ));
    }
    page.sql = format!("{with}select * from ({}) as page", streams.join(" union all "));
    page.done(&format!("{ORDER} limit {limit}"))
}

/// By definition and state, those that started at this moment or later.
pub(super) fn count_started(from: Millis) -> Query<'static> {
    let ended = names(&[Status::Completed, Status::Compensated]);
    let sql = format!(
        "with recursive {DEFINITIONS}
        select definition, status, count(*) from saga where open and started_at >= $1 group by definition, status
        union all
        select k.name, u.name, c.count from known as k cross join unnest($2::text[]) as u (name)
            cross join lateral (
                select count(*) from saga
                where not open and definition = k.name and status = u.name and started_at >= $1
            ) as c
            where c.count > 0"
    );
    Query::new(sql).big(from).bind(ended)
}

/// The first three columns of a count.
pub(super) fn count(row: &Row) -> Result<SagaCount, PgError> {
    let status: &str = row.col(1)?;
    let status = Status::from_text(status).ok_or_else(|| PgError::Fault(format!("a saga cannot be {status}")))?;
    Ok(SagaCount { definition: Name::new(row.col::<&str>(0)?), status, count: row.big(2)? })
}

fn names(statuses: &[Status]) -> Vec<String> {
    statuses.iter().map(|status| status.as_str().to_owned()).collect()
}

struct Page {
    sql: String,
    query: Query<'static>,
}

impl Page {
    fn new() -> Self {
        Self { sql: String::new(), query: Query::new("") }
    }

    /// Binds a value; its place.
    fn value(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        let query = std::mem::replace(&mut self.query, Query::new("")).bind(value);
        self.query = query;
        format!("${}", self.query.values.len())
    }

    fn also(&mut self, condition: &str) {
        self.sql.push_str(" and ");
        self.sql.push_str(condition);
    }

    /// What holds of every stream, as ` and …`.
    fn conditions(&mut self, filter: &SagaFilter) -> String {
        let SagaFilter { definition, step, updated_before, started_from, before, .. } = filter;
        let mut all = String::new();
        if let Some(definition) = definition {
            let name = self.value(definition.as_str().to_owned());
            all.push_str(&format!(" and definition = {name}"));
        }
        if let Some(step) = step {
            let awaited = self.value(vec![format!("{step}.do"), format!("{step}.undo")]);
            all.push_str(&format!(" and open and awaiting = any({awaited})"));
        }
        for (comparison, moment) in [
            ("updated_at <", *updated_before),
            ("started_at >=", *started_from),
            ("started_at <", filter.starts_before()),
        ] {
            if let Some(moment) = moment {
                let moment = self.value(big(moment));
                all.push_str(&format!(" and {comparison} {moment}"));
            }
        }
        if let Some((started_at, key)) = before {
            let place =
                [self.value(big(*started_at)), self.value(big(key.id)), self.value(key.definition.as_str().to_owned())];
            all.push_str(&format!(" and (started_at, id, definition) < ({})", place.join(", ")));
        }
        all
    }

    fn done(self, tail: &str) -> Query<'static> {
        let Self { mut sql, query } = self;
        sql.push_str(tail);
        Query { sql: sql.into(), ..query }
    }
}
