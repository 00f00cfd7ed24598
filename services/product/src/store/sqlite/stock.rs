//! Taking stock and giving it back, a batch at a time: each product's row is read once, decided on in memory in the
//! batch's order, and written once.

use std::collections::HashMap;

use contracts::purchase::PurchaseInput;
use saga_adapters::sqlite::rusqlite::{Connection, OptionalExtension as _, Row};
use saga_adapters::sqlite::{SqlError, participant};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Millis, Op};

use crate::audit::{Movement, ProductStock};
use crate::domain::{Stock, Taken, reserve};

const LOAD: &str = "select price, currency_code, inventory, taken from product where id = ?1";
const STORE: &str =
    "update product set inventory = ?2, taken = ?3, version = version + 1, updated_at = ?4 where id = ?1";
const MOVE: &str = "insert into stock_movement (saga_id, definition, product_id, kind, quantity, at)
    values (?1, ?2, ?3, ?4, ?5, ?6)";
const TAKEN: &str = "select product_id, quantity from stock_movement
    where saga_id = ?1 and definition = ?2 and kind = 'take' order by product_id";

/// The stock rows of a batch.
#[derive(Default)]
struct Rows {
    /// `None`: there is no such product.
    loaded: HashMap<u64, Option<Stock>>,
    changed: Vec<u64>,
}

impl Rows {
    fn load(&mut self, conn: &Connection, id: u64) -> Result<(), SqlError> {
        if self.loaded.contains_key(&id) {
            return Ok(());
        }
        let stock = |row: &Row<'_>| {
            let (price, currency_code) = (row.get(0)?, row.get(1)?);
            Ok(Stock { price, currency_code, inventory: row.get(2)?, taken: row.get(3)? })
        };
        // An id that is no row's is not looked for; it is a refusal, not a fault.
        let row = match i64::try_from(id) {
            Ok(id) => conn.prepare_cached(LOAD)?.query_row([id], stock).optional()?,
            Err(_) => None,
        };
        self.loaded.insert(id, row);
        Ok(())
    }

    fn shift(&mut self, id: u64, taken: i64) -> Result<(), SqlError> {
        let row = self.loaded.get_mut(&id).and_then(Option::as_mut);
        let row =
            row.ok_or_else(|| SqlError::fault(format!("stock of product {id} was taken, but it is not there")))?;
        row.inventory -= taken;
        row.taken += taken;
        if !self.changed.contains(&id) {
            self.changed.push(id);
        }
        Ok(())
    }

    fn store(&mut self, conn: &Connection, now: Millis) -> Result<(), SqlError> {
        self.changed.sort_unstable();
        for id in &self.changed {
            if let Some(Some(Stock { inventory, taken, .. })) = self.loaded.get(id) {
                conn.prepare_cached(STORE)?.execute((id, inventory, taken, now))?;
            }
        }
        Ok(())
    }
}

pub(super) fn handle(conn: &Connection, batch: &[Command], now: Millis) -> Result<Vec<Reply>, SqlError> {
    let mut rows = Rows::default();
    let replies = participant::transact(
        conn,
        batch,
        |conn, command| match command.op {
            Op::Do => take(conn, &mut rows, command, now),
            Op::Undo => give_back(conn, &mut rows, command, now),
        },
        now,
    )?;
    rows.store(conn, now)?;
    Ok(replies)
}

fn take(conn: &Connection, rows: &mut Rows, command: &Command, now: Millis) -> Result<Outcome, SqlError> {
    let input: PurchaseInput = match command.input.parse() {
        Ok(input) => input,
        Err(error) => {
            return Ok(Outcome::refused("invalid_purchase", format!("the input is not a purchase: {error}")));
        }
    };
    for item in &input.items {
        rows.load(conn, item.product_id)?;
    }
    let taken = match reserve(&input, |id| rows.loaded.get(&id).and_then(Option::as_ref)) {
        Ok(taken) => taken,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    for Taken { product_id, quantity } in taken {
        rows.shift(product_id, quantity)?;
        record(conn, command, product_id, "take", quantity, now)?;
    }
    Ok(Outcome::done())
}

/// Puts back exactly what the ledger says was taken.
fn give_back(conn: &Connection, rows: &mut Rows, command: &Command, now: Millis) -> Result<Outcome, SqlError> {
    let of = (command.saga.id, command.saga.definition.as_str());
    let taken: Vec<Taken> = conn
        .prepare_cached(TAKEN)?
        .query_map(of, |row| Ok(Taken { product_id: row.get(0)?, quantity: row.get(1)? }))?
        .collect::<Result<_, _>>()?;
    for Taken { product_id, quantity } in taken {
        rows.load(conn, product_id)?;
        rows.shift(product_id, -quantity)?;
        record(conn, command, product_id, "return", quantity, now)?;
    }
    Ok(Outcome::done())
}

fn record(
    conn: &Connection,
    command: &Command,
    product_id: u64,
    kind: &str,
    quantity: i64,
    now: Millis,
) -> Result<(), SqlError> {
    let (id, definition) = (command.saga.id, command.saga.definition.as_str());
    conn.prepare_cached(MOVE)?.execute((id, definition, product_id, kind, quantity, now))?;
    Ok(())
}

/// Every product's stock beside its ledger's sums, then every movement by saga: for [`crate::audit`].
pub(crate) fn each(
    conn: &Connection,
    products: &mut dyn FnMut(ProductStock),
    movements: &mut dyn FnMut(Movement),
) -> Result<(), SqlError> {
    let sql = "select p.id, p.inventory, p.taken, p.stocked,
        (select coalesce(sum(delta), 0) from stock_adjustment a where a.product_id = p.id),
        coalesce(m.taken, 0)
        from product p left join
            (select product_id, sum(iif(kind = 'take', quantity, -quantity)) as taken from stock_movement group by product_id) m
            on m.product_id = p.id
        order by p.id";
    let mut all = conn.prepare(sql)?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        products(ProductStock {
            product_id: row.get(0)?,
            inventory: row.get(1)?,
            taken: row.get(2)?,
            stocked: row.get(3)?,
            ledger_stocked: row.get(4)?,
            ledger_taken: row.get(5)?,
        });
    }
    let sql = "select saga_id, definition, product_id, kind = 'take', quantity from stock_movement
        order by saga_id, definition, product_id, kind desc";
    let mut all = conn.prepare(sql)?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        movements(Movement {
            saga_id: row.get(0)?,
            definition: row.get(1)?,
            product_id: row.get(2)?,
            is_take: row.get(3)?,
            quantity: row.get(4)?,
        });
    }
    Ok(())
}
