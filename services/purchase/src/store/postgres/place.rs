//! Writing purchases, a group at a time. Writing the same group again finds what the first time left, so a session that
//! was lost in the middle of a commit does not lose, or double, what it was about.

use std::collections::HashMap;

use saga_adapters::postgres::{Columns as _, Pg, PgError, Query, Row, bigs};
use saga_runtime::StoreError;

use super::super::{Keyed, NewPurchase, Placed};
use crate::results;

const PLACE: &str = include_str!("../../../sql/postgres/place.sql");
const PLACED: &str = include_str!("../../../sql/postgres/placed.sql");

pub(super) async fn place(pg: &Pg, batch: &[NewPurchase]) -> Result<Vec<Placed>, StoreError> {
    let first = once(pg, batch).await;
    // Nothing was begun, and those behind this group have waited as long.
    let is_busy = matches!(first, Err(PgError::Busy));
    match first.map_err(StoreError::from) {
        Err(StoreError::Transient(detail)) if !is_busy => {
            tracing::warn!(detail, count = batch.len(), "purchases may not have been written; trying again");
            Ok(once(pg, batch).await?)
        }
        result => result,
    }
}

async fn once(pg: &Pg, batch: &[NewPurchase]) -> Result<Vec<Placed>, PgError> {
    if let Some(new) =
        batch.iter().find(|new| i64::try_from(new.id).is_err() || i64::try_from(new.customer_id).is_err())
    {
        return Err(PgError::Fault(format!("no purchase can have the id {} of {}", new.id, new.customer_id)));
    }
    let rows = pg.run(insert(batch)).await?;
    let mut placed: HashMap<u64, Placed> = HashMap::with_capacity(batch.len());
    for row in &rows {
        placed.insert(row.big(0)?, Placed::New);
    }
    if placed.len() < batch.len() {
        let others: Vec<&NewPurchase> = batch.iter().filter(|new| !placed.contains_key(&new.id)).collect();
        for row in pg.run(find(&others)).await? {
            let (id, found) = before(&row)?;
            placed.insert(id, found);
        }
    }
    let answer = |new: &NewPurchase| placed.get(&new.id).copied();
    let answers: Option<Vec<Placed>> = batch.iter().map(answer).collect();
    answers.ok_or_else(|| PgError::fault("a purchase was neither written nor found"))
}

fn before(row: &Row) -> Result<(u64, Placed), PgError> {
    let id = row.big(0)?;
    if row.col(1)? {
        return Ok((id, Placed::New));
    }
    match row.opt_big(2)? {
        Some(keyed) => Ok((id, Placed::Before(Keyed { id: keyed, fingerprint: row.bytes(3)? }))),
        // The key was forgotten in this moment; or it is not the key, and nothing heals that.
        None => Err(PgError::Fault(format!("the id {id} is another purchase's"))),
    }
}

fn insert(batch: &[NewPurchase]) -> Query<'_> {
    let fingerprint = |new: &NewPurchase| new.key.as_ref().map(|_| new.fingerprint.to_vec());
    Query::new(PLACE)
        .bind(bigs(batch.iter().map(|new| new.id)))
        .bind(bigs(batch.iter().map(|new| new.customer_id)))
        .bind(batch.iter().map(|new| new.amount).collect::<Vec<i64>>())
        .bind(batch.iter().map(|new| new.currency_code.as_str()).collect::<Vec<_>>())
        .bind(batch.iter().map(|new| new.input.as_str()).collect::<Vec<_>>())
        .bind(bigs(batch.iter().map(|new| new.now)))
        .bind(batch.iter().map(|new| new.key.as_deref()).collect::<Vec<_>>())
        .bind(batch.iter().map(fingerprint).collect::<Vec<Option<Vec<u8>>>>())
        .bind(results::empty())
}

fn find<'n>(others: &[&'n NewPurchase]) -> Query<'n> {
    Query::new(PLACED)
        .bind(bigs(others.iter().map(|new| new.id)))
        .bind(bigs(others.iter().map(|new| new.customer_id)))
        .bind(others.iter().map(|new| new.input.as_str()).collect::<Vec<_>>())
        .bind(others.iter().map(|new| new.key.as_deref()).collect::<Vec<_>>())
}
