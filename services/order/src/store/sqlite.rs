//! The store on SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use contracts::purchase::PurchaseInput;
use saga_adapters::sqlite::rusqlite::{Connection, OptionalExtension as _, Row};
use saga_adapters::sqlite::watermark::SqliteWatermarks;
use saga_adapters::sqlite::{Db, Durability, Schema, SqlError, participant};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Millis, Op};
use saga_runtime::{StoreError, Watermarks};

use super::{Steps, Store};
use crate::domain::{Order, Status, confirm, place};

/// The service's file.
pub const SCHEMA: Schema = Schema {
    name: "order",
    migrations: &[
        ("V1__init", include_str!("../../migrations/V1__init.sql")),
        ("V2__watermark", include_str!("../../migrations/V2__watermark.sql")),
    ],
};

const COLUMNS: &str = "select id, customer_id, status, currency_code, amount, lines, created_at from orders";

/// The store, over the file of [`SCHEMA`].
#[derive(Clone, Debug)]
pub struct SqliteStore {
    db: Db,
}

impl SqliteStore {
    /// Over a file opened with [`SCHEMA`].
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn watermarks(&self) -> Arc<dyn Watermarks> {
        Arc::new(SqliteWatermarks::of_barrier(self.db.clone()))
    }

    async fn handle(&self, batch: Vec<Command>, steps: Steps, now: Millis) -> Result<Vec<Reply>, StoreError> {
        let work = move |conn: &Connection| {
            participant::transact(conn, &batch, |conn, command| effect(conn, command, steps, now), now)
        };
        self.db.write(Durability::Durable, work).await
    }

    async fn find(&self, id: u64, customer_id: u64) -> Result<Option<Order>, StoreError> {
        self.db
            .read(move |conn| {
                let mut find = conn.prepare_cached(&format!("{COLUMNS} where id = ?1 and customer_id = ?2"))?;
                find.query_and_then((id, customer_id), order)?.next().transpose()
            })
            .await
    }

    async fn list(&self, customer_id: u64, before: Option<u64>, limit: u32) -> Result<Vec<Order>, StoreError> {
        let before = before.map_or(i64::MAX, |id| i64::try_from(id).unwrap_or(i64::MAX));
        self.db
            .read(move |conn| {
                let sql = format!("{COLUMNS} where customer_id = ?1 and id < ?2 order by id desc limit ?3");
                let mut find = conn.prepare_cached(&sql)?;
                find.query_and_then((customer_id, before, limit), order)?.collect()
            })
            .await
    }
}

fn effect(conn: &Connection, command: &Command, steps: Steps, now: Millis) -> Result<Outcome, SqlError> {
    let id = command.saga.id;
    match (command.step.as_str(), command.op) {
        (step, Op::Do) if step == steps.create => match command.input.parse::<PurchaseInput>() {
            Err(error) => Ok(Outcome::refused("invalid_order", format!("the input is not a purchase: {error}"))),
            Ok(input) => match place(id, &input, now) {
                Err(refused) => Ok(refused),
                Ok(order) => insert(conn, &order).map(|()| Outcome::done()),
            },
        },
        (step, Op::Undo) if step == steps.create => {
            set_status(conn, id, Status::Cancelled, now)?;
            Ok(Outcome::done())
        }
        (step, Op::Do) if step == steps.confirm => {
            let (next, outcome) = confirm(status(conn, id)?);
            if let Some(next) = next {
                set_status(conn, id, next, now)?;
            }
            Ok(outcome)
        }
        (step, op) => Err(SqlError::fault(format!("the order service has no {step}.{op}"))),
    }
}

fn insert(conn: &Connection, order: &Order) -> Result<(), SqlError> {
    let sql = "insert into orders (id, customer_id, status, currency_code, amount, lines, created_at, updated_at)
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)";
    let Order { id, customer_id, status, currency_code, amount, lines, created_at } = order;
    let lines = serde_json::to_string(lines)?;
    let values = (id, customer_id, status.as_str(), currency_code, amount, lines, created_at);
    conn.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

fn status(conn: &Connection, id: u64) -> Result<Option<Status>, SqlError> {
    let text: Option<String> =
        conn.prepare_cached("select status from orders where id = ?1")?.query_row([id], |row| row.get(0)).optional()?;
    text.map(|text| parse(&text)).transpose()
}

fn set_status(conn: &Connection, id: u64, status: Status, now: Millis) -> Result<(), SqlError> {
    let sql = "update orders set status = ?2, updated_at = ?3 where id = ?1";
    conn.prepare_cached(sql)?.execute((id, status.as_str(), now))?;
    Ok(())
}

fn parse(status: &str) -> Result<Status, SqlError> {
    Status::from_text(status).ok_or_else(|| SqlError::fault(format!("an order cannot be {status}")))
}

/// A row of [`COLUMNS`].
pub(crate) fn order(row: &Row<'_>) -> Result<Order, SqlError> {
    Ok(Order {
        id: row.get(0)?,
        customer_id: row.get(1)?,
        status: parse(&row.get::<_, String>(2)?)?,
        currency_code: row.get(3)?,
        amount: row.get(4)?,
        lines: serde_json::from_str(&row.get::<_, String>(5)?)?,
        created_at: row.get(6)?,
    })
}

/// Every order, by id: for [`crate::audit`].
pub(crate) fn each(conn: &Connection, f: &mut dyn FnMut(Order)) -> Result<(), SqlError> {
    let mut all = conn.prepare(&format!("{COLUMNS} order by id"))?;
    for row in all.query_and_then([], order)? {
        f(row?);
    }
    Ok(())
}
