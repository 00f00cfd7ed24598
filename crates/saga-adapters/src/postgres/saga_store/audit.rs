//! Everything in the database, one saga after the other: what `saga check` replays.

use std::collections::BTreeMap;

use saga_core::{Name, SagaKey};

use super::super::{Columns as _, PgError, Query, Snapshot};
use crate::sqlite::saga_store::Audited;

/// Sagas a page: bounds the memory, however many there are.
const PAGE: i64 = 2_000;

/// The next keys, of rows and of histories, so that neither is missed without the other.
const KEYS: &str = "with keys as (
        (select id, definition from saga where (id, definition) > ($1, $2) order by id, definition limit $3)
        union
        (select distinct saga_id, definition from history where (saga_id, definition) > ($1, $2)
            order by saga_id, definition limit $3)
    )
    select id, definition from keys order by id, definition limit $3";
const ROWS: &str =
    "select s.id, s.definition, definition_version, version, status, awaiting, wake_at, started_at, updated_at
    from unnest($1::bigint[], $2::text[]) as k (id, definition)
    cross join lateral (select * from saga where id = k.id and definition = k.definition offset 0) as s";

/// Hands every saga of this moment to `each`, in the order of ids.
///
/// # Errors
/// When the database cannot be read.
pub async fn audit(at: &Snapshot, each: &mut (dyn FnMut(Audited) + Send)) -> Result<(), PgError> {
    let (mut id, mut definition) = (-1_i64, String::new());
    loop {
        let keys = at.read(Query::new(KEYS).bind(id).bind(definition.clone()).bind(PAGE)).await?;
        let Some(last) = keys.last() else { return Ok(()) };
        (id, definition) = (last.col(0)?, last.col(1)?);
        let key = |row: &super::Row| Ok(SagaKey { id: row.big(0)?, definition: Name::new(row.col::<&str>(1)?) });
        let keys: Vec<SagaKey> = keys.iter().map(key).collect::<Result<_, PgError>>()?;
        page(at, keys, each).await?;
    }
}

async fn page(at: &Snapshot, keys: Vec<SagaKey>, each: &mut (dyn FnMut(Audited) + Send)) -> Result<(), PgError> {
    let mut rows = BTreeMap::new();
    for row in at.read(super::by_keys(ROWS, &keys)).await? {
        let row = super::row(&row)?;
        rows.insert(row.key.clone(), row);
    }
    let mut histories: Vec<_> = keys.iter().map(|_| Ok(Vec::new())).collect();
    for row in at.read(super::by_keys(super::HISTORIES, &keys)).await? {
        let place = usize::try_from(row.big(0)?).unwrap_or_default().wrapping_sub(1);
        let Some(history) = histories.get_mut(place) else { continue };
        let known: Result<Vec<_>, String> = std::mem::replace(history, Ok(Vec::new()));
        let (version, events) = (row.big(1)?, row.col::<&str>(2)?);
        *history = known.and_then(|mut known| {
            known.push(super::parse(version, events, known.len())?);
            Ok(known)
        });
    }
    for (key, history) in keys.into_iter().zip(histories) {
        let row = rows.remove(&key);
        each(Audited { key, row, history });
    }
    Ok(())
}
