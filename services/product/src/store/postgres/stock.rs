//! Taking stock and giving it back, a batch at a time: the products' rows are locked once, in the order of ids, decided
//! on in memory in the batch's order, and written once.

use std::collections::{BTreeSet, HashMap};

use contracts::purchase::PurchaseInput;
use saga_adapters::postgres::participant::Effects;
use saga_adapters::postgres::{Columns as _, PgError, Query, Row, bigs};
use saga_core::protocol::{Command, Outcome};
use saga_core::{Millis, Name, Op, SagaKey};

use crate::domain::{Stock, Taken, reserve};

const SET: &str = "update product as p
    set inventory = u.inventory, taken = u.taken, version = version + 1, updated_at = $4::bigint
    from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as u (id, inventory, taken)
    cross join lateral (select ctid as at from product where id = u.id offset 0) as found
    where p.ctid = found.at";
const MOVE: &str = "insert into stock_movement (saga_id, definition, product_id, kind, quantity, at)
    select u.*, $6::bigint
    from unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bigint[]) as u";

/// What a batch does to the stock.
pub(super) struct Stocks {
    now: Millis,
    /// The products that exist.
    stock: HashMap<u64, Stock>,
    changed: BTreeSet<u64>,
    /// What the ledger says, and what this batch adds to it.
    taken: HashMap<SagaKey, Vec<Taken>>,
    movements: Vec<(SagaKey, u64, &'static str, i64)>,
}

impl Stocks {
    pub(super) fn new(now: Millis) -> Self {
        let (stock, taken) = (HashMap::new(), HashMap::new());
        Self { now, stock, changed: BTreeSet::new(), taken, movements: Vec::new() }
    }

    fn shift(&mut self, id: u64, taken: i64) -> Result<(), PgError> {
        let row = self.stock.get_mut(&id);
        let row = row.ok_or_else(|| PgError::fault(format!("stock of product {id} was taken, but it is not there")))?;
        row.inventory -= taken;
        row.taken += taken;
        self.changed.insert(id);
        Ok(())
    }

    fn take(&mut self, command: &Command) -> Result<Outcome, PgError> {
        let input: PurchaseInput = match command.input.parse() {
            Ok(input) => input,
            Err(error) => {
                return Ok(Outcome::refused("invalid_purchase", format!("the input is not a purchase: {error}")));
            }
        };
        let taken = match reserve(&input, |id| self.stock.get(&id)) {
            Ok(taken) => taken,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        for Taken { product_id, quantity } in &taken {
            self.shift(*product_id, *quantity)?;
            self.movements.push((command.saga.clone(), *product_id, "take", *quantity));
        }
        self.taken.insert(command.saga.clone(), taken);
        Ok(Outcome::done())
    }

    /// Puts back exactly what the ledger says was taken.
    fn give_back(&mut self, command: &Command) -> Result<Outcome, PgError> {
        for Taken { product_id, quantity } in self.taken.remove(&command.saga).unwrap_or_default() {
            self.shift(product_id, -quantity)?;
            self.movements.push((command.saga.clone(), product_id, "return", quantity));
        }
        Ok(Outcome::done())
    }
}

impl Effects for Stocks {
    fn load(&mut self, batch: &[Command]) -> Vec<Query<'static>> {
        // Of an undo too: its do may be in the same batch, and not in the ledger yet.
        let inputs = batch.iter().filter_map(|command| command.input.parse::<PurchaseInput>().ok());
        let wanted: BTreeSet<u64> = inputs.flat_map(|input| input.items).map(|item| item.product_id).collect();
        // Each once: a duplicate in the batch must not show its ledger twice.
        let undos = batch.iter().filter(|command| command.op == Op::Undo).map(|command| &command.saga);
        let undos: BTreeSet<&SagaKey> = undos.collect();
        let of_undos = |query: Query<'static>| {
            let definitions: Vec<String> = undos.iter().map(|saga| saga.definition.as_str().to_owned()).collect();
            query.bind(bigs(undos.iter().map(|saga| saga.id))).bind(definitions)
        };
        let lock = Query::new(include_str!("../../../sql/postgres/lock.sql")).bind(bigs(wanted));
        let taken = Query::new(include_str!("../../../sql/postgres/taken.sql"));
        vec![of_undos(lock), of_undos(taken)]
    }

    fn loaded(&mut self, rows: Vec<Vec<Row>>) -> Result<(), PgError> {
        let [stock, taken] = rows.as_slice() else { return Err(PgError::fault("two questions have two answers")) };
        for row in stock {
            let (price, currency_code) = (row.col(1)?, row.col(2)?);
            let stock = Stock { price, currency_code, inventory: row.col(3)?, taken: row.col(4)? };
            self.stock.insert(row.big(0)?, stock);
        }
        for row in taken {
            let saga = SagaKey { id: row.big(0)?, definition: Name::new(row.col::<&str>(1)?) };
            let taken = Taken { product_id: row.big(2)?, quantity: row.col(3)? };
            self.taken.entry(saga).or_default().push(taken);
        }
        Ok(())
    }

    fn effect(&mut self, command: &Command) -> Result<Outcome, PgError> {
        match command.op {
            Op::Do => self.take(command),
            Op::Undo => self.give_back(command),
        }
    }

    fn store(self) -> Result<Vec<Query<'static>>, PgError> {
        if self.movements.is_empty() {
            return Ok(Vec::new());
        }
        let rows = || self.changed.iter().filter_map(|id| Some((*id, self.stock.get(id)?)));
        let set = Query::new(SET)
            .bind(bigs(rows().map(|(id, _)| id)))
            .bind(rows().map(|(_, stock)| stock.inventory).collect::<Vec<i64>>())
            .bind(rows().map(|(_, stock)| stock.taken).collect::<Vec<i64>>())
            .big(self.now);
        let moves = self.movements.iter();
        let moved = Query::new(MOVE)
            .bind(bigs(moves.clone().map(|(saga, ..)| saga.id)))
            .bind(moves.clone().map(|(saga, ..)| saga.definition.as_str().to_owned()).collect::<Vec<_>>())
            .bind(bigs(moves.clone().map(|(_, product, ..)| *product)))
            .bind(moves.clone().map(|(_, _, kind, _)| (*kind).to_owned()).collect::<Vec<_>>())
            .bind(moves.map(|(.., quantity)| *quantity).collect::<Vec<i64>>())
            .big(self.now);
        Ok(vec![set, moved])
    }
}
