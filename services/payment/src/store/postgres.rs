//! The store on PostgreSQL.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use contracts::purchase::{PaymentOutput, PurchaseInput};
use saga_adapters::postgres::participant::{self, Effects, transact};
use saga_adapters::postgres::watermark::{self, PgWatermarks};
use saga_adapters::postgres::{Columns as _, Pg, PgError, Query, Row, Schema, Snapshot, big, bigs};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Millis};
use saga_runtime::barrier::UNDONE_BEFORE_DO;
use saga_runtime::wire::outcome_to_json;
use saga_runtime::{StoreError, Watermarks};

use super::Store;
use crate::domain::{Payment, Status, due};
use crate::gateway::Charged;

/// The service's database.
pub const PG_SCHEMA: Schema = Schema {
    name: "payment",
    migrations: &[
        ("V1__init", include_str!("../../migrations/postgres/V1__init.sql")),
        ("V2__watermark", include_str!("../../migrations/postgres/V2__watermark.sql")),
    ],
};

const COLUMNS: &str = "select id, customer_id, amount, currency_code, status, reference, created_at from payment";
const INSERT: &str =
    "insert into payment (id, customer_id, amount, currency_code, status, reference, created_at, updated_at)
    select u.*, $7::bigint, $7::bigint
    from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[]) as u";
const VOID: &str =
    "update payment set status = 'VOIDED', updated_at = $2::bigint where id = any($1) and status = 'CAPTURED'";
// Waits for a do that is about to commit its own row.
const BLOCK: &str = "insert into barrier (saga_id, definition, step, op, outcome, at)
    select u.id, u.definition, u.step, 'do', $4::text, $5::bigint
    from unnest($1::bigint[], $2::text[], $3::text[]) as u (id, definition, step)
    where u.id > coalesce((select up_to from watermark as w where w.definition = u.definition), -1)
    on conflict do nothing";
const STATUSES: &str = "select id, status from payment where id = any($1)";

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

    async fn settled(&self, batch: Vec<Command>) -> Result<Vec<bool>, StoreError> {
        Ok(participant::settled(&self.pg, &batch).await?)
    }

    async fn charge(
        &self,
        batch: Vec<Command>,
        charged: HashMap<u64, Charged>,
        now: Millis,
    ) -> Result<Vec<Reply>, StoreError> {
        Ok(transact(&self.pg, &batch, Charges { charged, now, new: Vec::new() }, now).await?)
    }

    async fn block(&self, batch: Vec<Command>, now: Millis) -> Result<Vec<bool>, StoreError> {
        Ok(block(&self.pg, &batch, now).await?)
    }

    async fn void(&self, batch: Vec<Command>, now: Millis) -> Result<Vec<Reply>, StoreError> {
        Ok(transact(&self.pg, &batch, Voids { now, ids: BTreeSet::new() }, now).await?)
    }

    async fn find(&self, id: u64, customer_id: u64) -> Result<Option<Payment>, StoreError> {
        let query = Query::new(format!("{COLUMNS} where id = $1 and customer_id = $2")).big(id).big(customer_id);
        Ok(self.pg.read(query).await?.first().map(payment).transpose()?)
    }

    async fn list(&self, customer_id: u64, before: Option<u64>, limit: u32) -> Result<Vec<Payment>, StoreError> {
        let sql = format!("{COLUMNS} where customer_id = $1 and id < $2 order by id desc limit $3");
        let before = before.map_or(i64::MAX, big);
        let query = Query::new(sql).big(customer_id).bind(before).bind(i64::from(limit));
        Ok(self.pg.read(query).await?.iter().map(payment).collect::<Result<_, _>>()?)
    }
}

async fn block(pg: &Pg, batch: &[Command], now: Millis) -> Result<Vec<bool>, PgError> {
    // Sorted, so that two replicas with the same commands wait for each other in one direction only.
    let keys = batch.iter().map(|c| (c.saga.id, c.saga.definition.as_str(), c.step.as_str()));
    let keys: BTreeSet<(u64, &str, &str)> = keys.collect();
    let names = |of: fn(&(u64, &str, &str)) -> String| keys.iter().map(of).collect::<Vec<_>>();
    let blocked = Outcome::refused(UNDONE_BEFORE_DO, "the step was undone before it ran");
    let ids = bigs(keys.iter().map(|(id, ..)| *id));
    let insert = Query::new(BLOCK)
        .bind(ids.clone())
        .bind(names(|(_, definition, _)| (*definition).to_owned()))
        .bind(names(|(.., step)| (*step).to_owned()))
        .bind(outcome_to_json(&blocked))
        .big(now);
    let mut answers = pg.all(vec![insert, Query::new(STATUSES).bind(ids), watermark::query()]).await?;
    let marks = watermark::read(&answers.pop().unwrap_or_default())?;
    let rows = answers.pop().unwrap_or_default();
    let mut standing = HashMap::with_capacity(rows.len());
    for row in &rows {
        standing.insert(row.big(0)?, status(row.col(1)?)?);
    }
    // No row: the do never ran, or ran and crashed between charge and commit; giving back nothing is harmless.
    let charged = |command: &Command| {
        !marks.covers(&command.saga) && standing.get(&command.saga.id).is_none_or(|s| *s == Status::Captured)
    };
    Ok(batch.iter().map(charged).collect())
}

/// The effects of dos: the rows that say what the gateway answered.
struct Charges {
    charged: HashMap<u64, Charged>,
    now: Millis,
    new: Vec<Payment>,
}

impl Charges {
    fn note(&mut self, id: u64, input: PurchaseInput, status: Status, reference: Option<String>) {
        let PurchaseInput { customer_id, amount, currency_code, .. } = input;
        self.new.push(Payment { id, customer_id, amount, currency_code, status, reference, created_at: self.now });
    }
}

impl Effects for Charges {
    fn load(&mut self, _: &[Command]) -> Vec<Query<'static>> {
        Vec::new()
    }

    fn loaded(&mut self, _: Vec<Vec<Row>>) -> Result<(), PgError> {
        Ok(())
    }

    fn effect(&mut self, command: &Command) -> Result<Outcome, PgError> {
        let id = command.saga.id;
        let input: PurchaseInput = match command.input.parse() {
            Ok(input) => input,
            Err(error) => {
                return Ok(Outcome::refused("invalid_payment", format!("the input is not a purchase: {error}")));
            }
        };
        if let Err(refused) = due(id, &input) {
            return Ok(refused);
        }
        match self.charged.get(&id) {
            Some(Charged::Approved(reference)) => {
                let reference = reference.clone();
                let (amount, currency_code) = (input.amount, input.currency_code.clone());
                self.note(id, input, Status::Captured, Some(reference));
                Ok(Outcome::Done(Json::of(&PaymentOutput { payment_id: id, amount, currency_code })?))
            }
            Some(Charged::Declined(detail)) => {
                let refused = Outcome::refused("payment_declined", detail.as_str());
                self.note(id, input, Status::Declined, None);
                Ok(refused)
            }
            Some(Charged::Retry(detail)) => Ok(Outcome::Retry(detail.clone())),
            Some(Charged::Unknown(detail)) => Ok(Outcome::Unknown(detail.clone())),
            None => Ok(Outcome::Retry("the gateway was not asked".into())),
        }
    }

    fn store(self) -> Result<Vec<Query<'static>>, PgError> {
        let Self { now, new, .. } = self;
        if new.is_empty() {
            return Ok(Vec::new());
        }
        if new.iter().any(|payment| i64::try_from(payment.customer_id).is_err()) {
            return Err(PgError::fault("no customer can have that id"));
        }
        let query = Query::new(INSERT)
            .bind(bigs(new.iter().map(|p| p.id)))
            .bind(bigs(new.iter().map(|p| p.customer_id)))
            .bind(new.iter().map(|p| p.amount).collect::<Vec<i64>>())
            .bind(new.iter().map(|p| p.currency_code.clone()).collect::<Vec<_>>())
            .bind(new.iter().map(|p| p.status.as_str().to_owned()).collect::<Vec<_>>())
            .bind(new.into_iter().map(|p| p.reference).collect::<Vec<Option<String>>>())
            .big(now);
        Ok(vec![query])
    }
}

/// The effects of undos, after the gateway has given back.
struct Voids {
    now: Millis,
    ids: BTreeSet<u64>,
}

impl Effects for Voids {
    fn load(&mut self, _: &[Command]) -> Vec<Query<'static>> {
        Vec::new()
    }

    fn loaded(&mut self, _: Vec<Vec<Row>>) -> Result<(), PgError> {
        Ok(())
    }

    fn effect(&mut self, command: &Command) -> Result<Outcome, PgError> {
        self.ids.insert(command.saga.id);
        Ok(Outcome::done())
    }

    fn store(self) -> Result<Vec<Query<'static>>, PgError> {
        if self.ids.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Query::new(VOID).bind(bigs(self.ids)).big(self.now)])
    }
}

fn status(text: &str) -> Result<Status, PgError> {
    Status::from_text(text).ok_or_else(|| PgError::fault(format!("a payment cannot be {text}")))
}

/// A row of [`COLUMNS`].
fn payment(row: &Row) -> Result<Payment, PgError> {
    Ok(Payment {
        id: row.big(0)?,
        customer_id: row.big(1)?,
        amount: row.col(2)?,
        currency_code: row.col(3)?,
        status: status(row.col(4)?)?,
        reference: row.col(5)?,
        created_at: row.big(6)?,
    })
}

/// Every payment, by id: for [`crate::audit`].
pub(crate) async fn each(at: &Snapshot, f: &mut (dyn FnMut(Payment) + Send)) -> Result<(), PgError> {
    let sql = format!("{COLUMNS} order by id");
    at.each(&sql, &mut |row| payment(row).map(&mut *f)).await
}
