//! The store on SQLite.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use contracts::purchase::{PaymentOutput, PurchaseInput};
use saga_adapters::sqlite::rusqlite::{Connection, OptionalExtension as _, Row};
use saga_adapters::sqlite::watermark::{self, SqliteWatermarks};
use saga_adapters::sqlite::{Db, Durability, Schema, SqlError, participant};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Millis};
use saga_runtime::barrier::UNDONE_BEFORE_DO;
use saga_runtime::wire::outcome_to_json;
use saga_runtime::{StoreError, Watermarks};

use super::Store;
use crate::domain::{Payment, Status, due};
use crate::gateway::Charged;

/// The service's file.
pub const SCHEMA: Schema = Schema {
    name: "payment",
    migrations: &[
        ("V1__init", include_str!("../../migrations/V1__init.sql")),
        ("V2__watermark", include_str!("../../migrations/V2__watermark.sql")),
    ],
};

const COLUMNS: &str = "select id, customer_id, amount, currency_code, status, reference, created_at from payment";
const BLOCK: &str = "insert into barrier (saga_id, definition, step, op, outcome, at) values (?1, ?2, ?3, 'do', ?4, ?5)
    on conflict do nothing";

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

    async fn settled(&self, batch: Vec<Command>) -> Result<Vec<bool>, StoreError> {
        self.db.read(move |conn| participant::settled(conn, &batch)).await
    }

    async fn charge(
        &self,
        batch: Vec<Command>,
        charged: HashMap<u64, Charged>,
        now: Millis,
    ) -> Result<Vec<Reply>, StoreError> {
        let work = move |conn: &Connection| {
            let effect = |conn: &Connection, command: &Command| capture(conn, command, &charged, now);
            participant::transact(conn, &batch, effect, now)
        };
        self.db.write(Durability::Durable, work).await
    }

    async fn block(&self, batch: Vec<Command>, now: Millis) -> Result<Vec<bool>, StoreError> {
        self.db
            .write(Durability::Durable, move |conn| batch.iter().map(|command| block(conn, command, now)).collect())
            .await
    }

    async fn void(&self, batch: Vec<Command>, now: Millis) -> Result<Vec<Reply>, StoreError> {
        let effect = move |conn: &Connection, command: &Command| {
            let sql = "update payment set status = 'VOIDED', updated_at = ?2 where id = ?1 and status = 'CAPTURED'";
            conn.prepare_cached(sql)?.execute((command.saga.id, now))?;
            Ok(Outcome::done())
        };
        let work = move |conn: &Connection| participant::transact(conn, &batch, effect, now);
        self.db.write(Durability::Durable, work).await
    }

    async fn find(&self, id: u64, customer_id: u64) -> Result<Option<Payment>, StoreError> {
        self.db
            .read(move |conn| {
                let mut find = conn.prepare_cached(&format!("{COLUMNS} where id = ?1 and customer_id = ?2"))?;
                find.query_and_then((id, customer_id), payment)?.next().transpose()
            })
            .await
    }

    async fn list(&self, customer_id: u64, before: Option<u64>, limit: u32) -> Result<Vec<Payment>, StoreError> {
        let before = before.map_or(i64::MAX, |id| i64::try_from(id).unwrap_or(i64::MAX));
        self.db
            .read(move |conn| {
                let sql = format!("{COLUMNS} where customer_id = ?1 and id < ?2 order by id desc limit ?3");
                let mut find = conn.prepare_cached(&sql)?;
                find.query_and_then((customer_id, before, limit), payment)?.collect()
            })
            .await
    }
}

/// The effect of a do: the row that says what the gateway answered.
fn capture(
    conn: &Connection,
    command: &Command,
    charged: &HashMap<u64, Charged>,
    now: Millis,
) -> Result<Outcome, SqlError> {
    let id = command.saga.id;
    let input: PurchaseInput = match command.input.parse() {
        Ok(input) => input,
        Err(error) => return Ok(Outcome::refused("invalid_payment", format!("the input is not a purchase: {error}"))),
    };
    if let Err(refused) = due(id, &input) {
        return Ok(refused);
    }
    match charged.get(&id) {
        Some(Charged::Approved(reference)) => {
            insert(conn, id, &input, Status::Captured, Some(reference), now)?;
            let PurchaseInput { amount, currency_code, .. } = input;
            Ok(Outcome::Done(Json::of(&PaymentOutput { payment_id: id, amount, currency_code })?))
        }
        Some(Charged::Declined(detail)) => {
            insert(conn, id, &input, Status::Declined, None, now)?;
            Ok(Outcome::refused("payment_declined", detail.as_str()))
        }
        Some(Charged::Retry(detail)) => Ok(Outcome::Retry(detail.clone())),
        Some(Charged::Unknown(detail)) => Ok(Outcome::Unknown(detail.clone())),
        None => Ok(Outcome::Retry("the gateway was not asked".into())),
    }
}

fn insert(
    conn: &Connection,
    id: u64,
    input: &PurchaseInput,
    status: Status,
    reference: Option<&String>,
    now: Millis,
) -> Result<(), SqlError> {
    let sql = "insert into payment (id, customer_id, amount, currency_code, status, reference, created_at, updated_at)
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)";
    let PurchaseInput { customer_id, amount, currency_code, .. } = input;
    let values = (id, customer_id, amount, currency_code, status.as_str(), reference, now);
    conn.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

fn block(conn: &Connection, command: &Command, now: Millis) -> Result<bool, SqlError> {
    let blocked = Outcome::refused(UNDONE_BEFORE_DO, "the step was undone before it ran");
    let (saga, step) = (&command.saga, command.step.as_str());
    let values = (saga.id, saga.definition.as_str(), step, outcome_to_json(&blocked), now);
    if watermark::marks(conn)?.covers(saga) {
        return Ok(false);
    }
    conn.prepare_cached(BLOCK)?.execute(values)?;
    // No row: the do never ran, or ran and crashed between charge and commit; giving back nothing is harmless.
    let status: Option<String> = conn
        .prepare_cached("select status from payment where id = ?1")?
        .query_row([saga.id], |row| row.get(0))
        .optional()?;
    Ok(status.is_none_or(|status| status == Status::Captured.as_str()))
}

/// A row of [`COLUMNS`].
fn payment(row: &Row<'_>) -> Result<Payment, SqlError> {
    let status: String = row.get(4)?;
    Ok(Payment {
        id: row.get(0)?,
        customer_id: row.get(1)?,
        amount: row.get(2)?,
        currency_code: row.get(3)?,
        status: Status::from_text(&status).ok_or_else(|| SqlError::fault(format!("a payment cannot be {status}")))?,
        reference: row.get(5)?,
        created_at: row.get(6)?,
    })
}

/// Every payment, by id: for [`crate::audit`].
pub(crate) fn each(conn: &Connection, f: &mut dyn FnMut(Payment)) -> Result<(), SqlError> {
    let mut all = conn.prepare(&format!("{COLUMNS} order by id"))?;
    for row in all.query_and_then([], payment)? {
        f(row?);
    }
    Ok(())
}
