//! The store on PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use contracts::purchase::PurchaseInput;
use saga_adapters::postgres::participant::{Effects, transact};
use saga_adapters::postgres::watermark::PgWatermarks;
use saga_adapters::postgres::{Columns as _, Pg, PgError, Query, Row, Schema, Snapshot, big, bigs};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Millis, Op};
use saga_runtime::{StoreError, Watermarks};

use super::{Steps, Store};
use crate::domain::{Order, Status, confirm, place};

/// The service's database.
pub const PG_SCHEMA: Schema = Schema {
    name: "order",
    migrations: &[
        ("V1__init", include_str!("../../migrations/postgres/V1__init.sql")),
        ("V2__watermark", include_str!("../../migrations/postgres/V2__watermark.sql")),
    ],
};

const COLUMNS: &str = "select id, customer_id, status, currency_code, amount, lines::text, created_at from orders";
const LOCK: &str = "select id, status from orders where id = any($1) order by id for no key update";
const INSERT: &str =
    "insert into orders (id, customer_id, status, currency_code, amount, lines, created_at, updated_at)
    select id, customer_id, status, currency_code, amount, lines::json, $7::bigint, $7::bigint
    from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::text[])
        as u (id, customer_id, status, currency_code, amount, lines)";
const UPDATE: &str = "update orders as o set status = u.status, updated_at = $3::bigint
    from unnest($1::bigint[], $2::text[]) as u (id, status)
    cross join lateral (select ctid as at from orders where id = u.id offset 0) as found where o.ctid = found.at";

/// The store, over the database of [`PG_SCHEMA`].
#[derive(Clone, Debug)]
pub struct PgStore {
    pg: Pg,
}

impl PgStore {
    /// Over a database connected with [`PG_SCHEMA`].
    pub fn new(pg: Pg) -> Self {
        Self { pg }
    }
}

#[async_trait]
impl Store for PgStore {
    fn watermarks(&self) -> Arc<dyn Watermarks> {
        Arc::new(PgWatermarks::of_barrier(self.pg.clone()))
    }

    async fn handle(&self, batch: Vec<Command>, steps: Steps, now: Millis) -> Result<Vec<Reply>, StoreError> {
        let orders = Orders { steps, now, stored: BTreeMap::new(), new: BTreeMap::new(), changed: BTreeSet::new() };
        Ok(transact(&self.pg, &batch, orders, now).await?)
    }

    async fn find(&self, id: u64, customer_id: u64) -> Result<Option<Order>, StoreError> {
        let query = Query::new(format!("{COLUMNS} where id = $1 and customer_id = $2")).big(id).big(customer_id);
        Ok(self.pg.read(query).await?.first().map(order).transpose()?)
    }

    async fn list(&self, customer_id: u64, before: Option<u64>, limit: u32) -> Result<Vec<Order>, StoreError> {
        let sql = format!("{COLUMNS} where customer_id = $1 and id < $2 order by id desc limit $3");
        let before = before.map_or(i64::MAX, big);
        let query = Query::new(sql).big(customer_id).bind(before).bind(i64::from(limit));
        Ok(self.pg.read(query).await?.iter().map(order).collect::<Result<_, _>>()?)
    }
}

/// What a batch does to the orders.
struct Orders {
    steps: Steps,
    now: Millis,
    /// How those stand that are in the database.
    stored: BTreeMap<u64, Status>,
    new: BTreeMap<u64, Order>,
    changed: BTreeSet<u64>,
}

impl Orders {
    fn status(&self, id: u64) -> Option<Status> {
        self.new.get(&id).map(|order| order.status).or_else(|| self.stored.get(&id).copied())
    }

    /// Does nothing where there is no order.
    fn set(&mut self, id: u64, status: Status) {
        if let Some(order) = self.new.get_mut(&id) {
            order.status = status;
        } else if let Some(stored) = self.stored.get_mut(&id) {
            *stored = status;
            self.changed.insert(id);
        }
    }

    fn create(&mut self, command: &Command) -> Result<Outcome, PgError> {
        let id = command.saga.id;
        let input = match command.input.parse::<PurchaseInput>() {
            Ok(input) => input,
            Err(error) => {
                return Ok(Outcome::refused("invalid_order", format!("the input is not a purchase: {error}")));
            }
        };
        match place(id, &input, self.now) {
            Err(refused) => Ok(refused),
            Ok(_) if self.status(id).is_some() => Err(PgError::Fault(format!("there is an order {id} already"))),
            Ok(order) => {
                self.new.insert(id, order);
                Ok(Outcome::done())
            }
        }
    }
}

impl Effects for Orders {
    fn load(&mut self, batch: &[Command]) -> Vec<Query<'static>> {
        let ids: BTreeSet<u64> = batch.iter().map(|command| command.saga.id).collect();
        vec![Query::new(LOCK).bind(bigs(ids))]
    }

    fn loaded(&mut self, rows: Vec<Vec<Row>>) -> Result<(), PgError> {
        for row in rows.iter().flatten() {
            self.stored.insert(row.big(0)?, status(row.col(1)?)?);
        }
        Ok(())
    }

    fn effect(&mut self, command: &Command) -> Result<Outcome, PgError> {
        let id = command.saga.id;
        match (command.step.as_str(), command.op) {
            (step, Op::Do) if step == self.steps.create => self.create(command),
            (step, Op::Undo) if step == self.steps.create => {
                self.set(id, Status::Cancelled);
                Ok(Outcome::done())
            }
            (step, Op::Do) if step == self.steps.confirm => {
                let (next, outcome) = confirm(self.status(id));
                if let Some(next) = next {
                    self.set(id, next);
                }
                Ok(outcome)
            }
            (step, op) => Err(PgError::fault(format!("the order service has no {step}.{op}"))),
        }
    }

    fn store(self) -> Result<Vec<Query<'static>>, PgError> {
        let mut queries = Vec::with_capacity(2);
        if !self.new.is_empty() {
            queries.push(insert(self.new.values(), self.now)?);
        }
        if !self.changed.is_empty() {
            let rows = || self.stored.iter().filter(|(id, _)| self.changed.contains(id));
            let statuses: Vec<String> = rows().map(|(_, status)| status.as_str().to_owned()).collect();
            let ids = bigs(rows().map(|(id, _)| *id));
            queries.push(Query::new(UPDATE).bind(ids).bind(statuses).big(self.now));
        }
        Ok(queries)
    }
}

fn insert<'o>(orders: impl Iterator<Item = &'o Order> + Clone, now: Millis) -> Result<Query<'static>, PgError> {
    let orders = || orders.clone();
    let lines = orders().map(|order| serde_json::to_string(&order.lines)).collect::<Result<Vec<String>, _>>()?;
    if orders().any(|order| i64::try_from(order.customer_id).is_err()) {
        return Err(PgError::fault("no customer can have that id"));
    }
    Ok(Query::new(INSERT)
        .bind(bigs(orders().map(|order| order.id)))
        .bind(bigs(orders().map(|order| order.customer_id)))
        .bind(orders().map(|order| order.status.as_str().to_owned()).collect::<Vec<_>>())
        .bind(orders().map(|order| order.currency_code.clone()).collect::<Vec<_>>())
        .bind(orders().map(|order| order.amount).collect::<Vec<i64>>())
        .bind(lines)
        .big(now))
}

fn status(text: &str) -> Result<Status, PgError> {
    Status::from_text(text).ok_or_else(|| PgError::fault(format!("an order cannot be {text}")))
}

/// A row of [`COLUMNS`].
fn order(row: &Row) -> Result<Order, PgError> {
    Ok(Order {
        id: row.big(0)?,
        customer_id: row.big(1)?,
        status: status(row.col(2)?)?,
        currency_code: row.col(3)?,
        amount: row.col(4)?,
        lines: serde_json::from_str(row.col(5)?)?,
        created_at: row.big(6)?,
    })
}

/// Every order, by id: for [`crate::audit`].
pub(crate) async fn each(at: &Snapshot, f: &mut (dyn FnMut(Order) + Send)) -> Result<(), PgError> {
    let sql = format!("{COLUMNS} order by id");
    at.each(&sql, &mut |row| order(row).map(&mut *f)).await
}
