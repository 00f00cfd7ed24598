//! Lists of sagas and how many there are: conditions and their values. All of the text is ours, all of the values are
//! bound.
//!
//! A page is put together from streams that each stand in an index in the page's order: what is in flight (few among
//! millions, sorted), and for each definition and state what has ended. So it costs the same however many sagas there
//! are and however rare what is asked for.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use saga_core::{Millis, Name, SagaKey, Status};
use saga_runtime::store::{Awaited, InFlight, ListPlace, SagaCount, SagaFilter, SagaRow};

use super::{COLUMNS, SqlError, row};

/// Every definition of which something has ended, one look into the index each.
const DEFINITIONS: &str = include_str!("sql/definitions.sql");
const COUNT_IN_FLIGHT: &str = "select definition, status, count(*), min(started_at)
    from saga indexed by saga_open where open = 1 group by definition, status order by definition, status";
const COUNT_AWAITED: &str = "select definition, awaiting, count(*), min(updated_at)
    from saga indexed by saga_open where open = 1 and awaiting <> '' and status in ('RUNNING', 'COMPENSATING') group by definition, awaiting
    order by definition, awaiting";
const COUNT_STARTED: &str = "select definition, status, count(*) from saga indexed by saga_open
    where open = 1 and started_at >= ?1 group by definition, status order by definition, status";
const COUNT_STARTED_ENDED: &str = "select count(*) from saga indexed by saga_ended
    where open = 0 and definition = ?1 and status = ?2 and started_at >= ?3";
const COUNT_ENDED: &str = "select definition, status, count(*) from saga indexed by saga_ended where open = 0
    group by definition, status order by definition, status";
const ORDER: &str = "started_at desc, id desc, definition desc";

/// Ascending, those of a partition that have not ended.
pub(super) fn in_flight(
    conn: &Connection,
    partition: u32,
    after: Option<&SagaKey>,
    limit: u32,
) -> Result<Vec<SagaRow>, SqlError> {
    // The index is named, not left to the planner: it cannot know that the open ones are few.
    let mut query = Query::over(" indexed by saga_open where open = 1");
    query.also("partition = ?", [partition.into()]);
    if let Some(key) = after {
        query.also("(id, definition) > (?, ?)", [integer(key.id), text(&key.definition)]);
    }
    query.rows(conn, "id, definition", limit)
}

/// A page, those that started last first.
pub(super) fn list(conn: &Connection, filter: &SagaFilter) -> Result<Vec<SagaRow>, SqlError> {
    let wanted = filter.wanted();
    if !filter.ids.is_empty() {
        let mut query = Query::over(" where true");
        query.either("id", filter.ids.iter().map(|id| integer(*id)));
        query.conditions(filter, &wanted);
        return query.rows(conn, ORDER, filter.limit);
    }
    let (ended, open): (Vec<Status>, Vec<Status>) = wanted.into_iter().partition(|status| status.is_terminal());
    let mut rows = Vec::new();
    if !open.is_empty() {
        let mut query = Query::over(" indexed by saga_open where open = 1");
        query.conditions(filter, &open);
        rows.extend(query.rows(conn, ORDER, filter.limit)?);
    }
    if !ended.is_empty() {
        for definition in definitions(conn, filter)? {
            for status in &ended {
                let mut query = Query::over(" indexed by saga_ended where open = 0");
                query.also("definition = ?", [text(&definition)]);
                query.conditions(filter, &[*status]);
                rows.extend(query.rows(conn, ORDER, filter.limit)?);
            }
        }
    }
    rows.sort_by(|a: &SagaRow, b| {
        (b.started_at, &b.key.id, &b.key.definition).cmp(&(a.started_at, &a.key.id, &a.key.definition))
    });
    rows.truncate(filter.limit as usize);
    Ok(rows)
}

/// Those of which something that ended may be wanted.
fn definitions(conn: &Connection, filter: &SagaFilter) -> Result<Vec<Name>, SqlError> {
    if let Some(definition) = &filter.definition {
        return Ok(vec![definition.clone()]);
    }
    let mut statement = conn.prepare_cached(DEFINITIONS)?;
    let names = statement.query_map([], |row| Ok(Name::new(row.get::<_, String>(0)?)))?;
    Ok(names.collect::<Result<_, _>>()?)
}

pub(super) fn count_in_flight(conn: &Connection) -> Result<Vec<InFlight>, SqlError> {
    let in_flight = |row: &rusqlite::Row<'_>| {
        let SagaCount { definition, status, count } = count(row)?;
        Ok(InFlight { definition, status, count, oldest_at: row.get(3)? })
    };
    conn.prepare_cached(COUNT_IN_FLIGHT)?.query_and_then([], in_flight)?.collect()
}

pub(super) fn count_awaited(conn: &Connection) -> Result<Vec<Awaited>, SqlError> {
    let awaited = |row: &rusqlite::Row<'_>| {
        let definition = Name::new(row.get::<_, String>(0)?);
        Ok(Awaited { definition, awaiting: row.get(1)?, count: row.get(2)?, oldest_at: row.get(3)? })
    };
    Ok(conn.prepare_cached(COUNT_AWAITED)?.query_map([], awaited)?.collect::<Result<_, _>>()?)
}

pub(super) fn count_started(conn: &Connection, from: Millis) -> Result<Vec<SagaCount>, SqlError> {
    let mut all: Vec<SagaCount> =
        conn.prepare_cached(COUNT_STARTED)?.query_and_then([from], count)?.collect::<Result<_, _>>()?;
    let mut ended = conn.prepare_cached(COUNT_STARTED_ENDED)?;
    for definition in definitions(conn, &SagaFilter::default())? {
        for status in Status::ALL.into_iter().filter(|status| status.is_terminal()) {
            let found = ended.query_row((definition.as_str(), status.as_str(), from), |row| row.get(0))?;
            if found > 0 {
                all.push(SagaCount { definition: definition.clone(), status, count: found });
            }
        }
    }
    Ok(all)
}

pub(super) fn count_ended(conn: &Connection) -> Result<Vec<SagaCount>, SqlError> {
    conn.prepare_cached(COUNT_ENDED)?.query_and_then([], count)?.collect()
}

fn count(row: &rusqlite::Row<'_>) -> Result<SagaCount, SqlError> {
    let status = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
    let status = Status::from_text(status).ok_or_else(|| SqlError::Fault(format!("a saga cannot be {status}")))?;
    Ok(SagaCount { definition: Name::new(row.get::<_, String>(0)?), status, count: row.get(2)? })
}

/// Conditions and their values.
struct Query {
    sql: String,
    values: Vec<Value>,
}

impl Query {
    /// Of these rows.
    fn over(source: &str) -> Self {
        Self { sql: format!("{COLUMNS}{source}"), values: Vec::new() }
    }

    fn also(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.sql.push_str(" and ");
        self.sql.push_str(condition);
        self.values.extend(values);
    }

    fn either(&mut self, column: &str, values: impl ExactSizeIterator<Item = Value>) {
        let marks = vec!["?"; values.len()].join(", ");
        self.also(&format!("{column} in ({marks})"), values);
    }

    fn conditions(&mut self, filter: &SagaFilter, statuses: &[Status]) {
        let SagaFilter { statuses: _, definition, step, updated_before, started_from, started_before: _, .. } = filter;
        match statuses {
            [status] => self.also("status = ?", [Value::from(status.as_str().to_owned())]),
            all if all.len() == Status::ALL.len() => {}
            some => self.either("status", some.iter().map(|status| Value::from(status.as_str().to_owned()))),
        }
        if let Some(definition) = definition {
            self.also("definition = ?", [text(definition)]);
        }
        if let Some(step) = step {
            self.also("open = 1 and (awaiting = ? || '.do' or awaiting = ? || '.undo')", [text(step), text(step)]);
        }
        if let Some(moment) = updated_before {
            self.also("updated_at < ?", [integer(*moment)]);
        }
        if let Some(moment) = started_from {
            self.also("started_at >= ?", [integer(*moment)]);
        }
        if let Some(moment) = filter.starts_before() {
            self.also("started_at < ?", [integer(moment)]);
        }
        if let Some(place) = &filter.before {
            self.below(place);
        }
    }

    fn below(&mut self, (started_at, key): &ListPlace) {
        let values = [integer(*started_at), integer(key.id), text(&key.definition)];
        self.also("(started_at, id, definition) < (?, ?, ?)", values);
    }

    fn rows(self, conn: &Connection, order: &str, limit: u32) -> Result<Vec<SagaRow>, SqlError> {
        let mut statement = conn.prepare_cached(&format!("{} order by {order} limit {limit}", self.sql))?;
        statement.query_and_then(params_from_iter(self.values), row)?.collect()
    }
}

/// Ids and moments fit SQLite's integers by far; one that does not is no row's.
fn integer(number: u64) -> Value {
    Value::from(i64::try_from(number).unwrap_or(i64::MAX))
}

fn text(name: &Name) -> Value {
    Value::from(name.as_str().to_owned())
}
