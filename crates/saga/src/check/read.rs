//! From files to feeds: each file is read by a thread of its own, in the order of ids, at one moment.
//!
//! The moments matter. The orchestrator's is the first: whatever a saga that had ended by then led to was committed
//! before, so the other files, read later, have it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use anyhow::Context as _;
use contracts::purchase::PurchaseItem;
use saga_adapters::sqlite::rusqlite::{Connection, OptionalExtension as _};
use saga_adapters::sqlite::{Schema, SqlError, open_read_only, saga_store};
use saga_core::Op;
use saga_core::protocol::Outcome;
use saga_runtime::wire;

use super::facts::{Effect, Line, Money, Order, Payment, Purchase, Stock};
use super::merge::{Fact, Feed};

/// Rows that travel together, and how many such lots may wait: bounds memory per file.
const LOT: usize = 256;
const LOTS: usize = 8;

/// What every participant's file has; see `saga_adapters::sqlite::participant`.
const BARRIER: &str =
    "select saga_id, definition, step, op, outcome from barrier order by saga_id, definition, step, op";

/// All files, each at its moment.
pub(super) struct Books {
    orchestrator: Connection,
    purchase: Connection,
    product: Connection,
    order: Connection,
    payment: Connection,
    /// The participants' once more: the barrier is read beside the service's own tables.
    barriers: Vec<Connection>,
}

impl Books {
    /// Opens every file. The orchestrator's moment comes first.
    pub(super) fn open(data: &Path) -> anyhow::Result<Self> {
        let moment = |schema: &Schema| at_one_moment(&path_of(data, schema), schema);
        let orchestrator = moment(&saga_store::SCHEMA)?;
        let participants = [&product::SCHEMA, &order::SCHEMA, &payment::SCHEMA];
        Ok(Self {
            orchestrator,
            purchase: moment(&purchase::SCHEMA)?,
            product: moment(&product::SCHEMA)?,
            order: moment(&order::SCHEMA)?,
            payment: moment(&payment::SCHEMA)?,
            barriers: participants.into_iter().map(moment).collect::<Result<_, _>>()?,
        })
    }

    /// Starts to read. Every product's sums arrive beside, before its file's last row.
    pub(super) fn feeds(self) -> (Vec<Feed>, Receiver<Stock>) {
        let (sums, stock) = channel();
        let movements = feed(self.product, move |conn, each| {
            // Nobody listens any more? Then the check has ended early.
            let mut products = |row| _ = sums.send(stock_of(row));
            let mut movement = |row: product::audit::Movement| {
                let taken = if row.is_take { row.quantity } else { -row.quantity };
                if row.definition == contracts::purchase::DEFINITION {
                    each(row.saga_id, Fact::Entry { product_id: row.product_id, taken });
                }
            };
            product::audit::read(conn, &mut products, &mut movement)
        });
        let sagas = feed(self.orchestrator, |conn, each| {
            saga_store::audit(conn, &mut |saga| each(saga.key.id, Fact::Saga(Box::new(saga))))
        });
        let purchases = feed(self.purchase, |conn, each| {
            purchase::audit::read(conn, &mut |row| each(row.id, Fact::Purchase(purchase_of(row))))
        });
        let orders = feed(self.order, |conn, each| {
            order::audit::read(conn, &mut |row| each(row.id, Fact::Order(order_of(row))))
        });
        let payments = feed(self.payment, |conn, each| {
            payment::audit::read(conn, &mut |row| each(row.id, Fact::Payment(payment_of(row))))
        });
        let mut feeds = vec![sagas, purchases, movements, orders, payments];
        feeds.extend(self.barriers.into_iter().map(|conn| feed(conn, effects)));
        (feeds, stock)
    }
}

/// What a participant remembers of the commands that it answered for good.
fn effects(conn: &Connection, each: &mut dyn FnMut(u64, Fact)) -> Result<(), SqlError> {
    let mut statement = conn.prepare(BARRIER)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let outcome = wire::outcome_from_json(row.get_ref(4)?.as_bytes().map_err(SqlError::fault)?)?;
        let op = match row.get_ref(3)?.as_str().map_err(SqlError::fault)? {
            "do" => Op::Do,
            _ => Op::Undo,
        };
        let done = matches!(outcome, Outcome::Done(_));
        each(row.get(0)?, Fact::Effect(Effect { definition: row.get(1)?, step: row.get(2)?, op, done }));
    }
    Ok(())
}

fn path_of(data: &Path, schema: &Schema) -> PathBuf {
    data.join(format!("{}.db", schema.name))
}

/// Opens a file for reading and holds on to this moment of it.
fn at_one_moment(path: &Path, schema: &Schema) -> anyhow::Result<Connection> {
    let conn = open_read_only(path, schema)?;
    conn.execute_batch("begin; select count(*) from schema_migrations;").with_context(|| path.display().to_string())?;
    Ok(conn)
}

fn purchase_of(row: purchase::audit::Row) -> Purchase {
    let line = |item: &PurchaseItem| Line {
        product_id: item.product_id,
        quantity: item.quantity,
        unit_price: item.unit_price,
    };
    Purchase {
        customer_id: row.customer_id,
        lines: row.input.items.iter().map(line).collect(),
        status: row.status,
        amount: row.amount,
        currency_code: row.currency_code,
        last_seq: row.last_seq,
        results: row.results,
        ended: row.ended_at.is_some(),
    }
}

fn stock_of(row: product::audit::ProductStock) -> Stock {
    Stock {
        product_id: row.product_id,
        available: row.inventory,
        taken: row.taken,
        stocked: row.stocked,
        ledger_stocked: row.ledger_stocked,
        ledger_taken: row.ledger_taken,
    }
}

fn order_of(row: order::audit::Order) -> Order {
    let line = |line: &order::audit::Line| Line {
        product_id: line.product_id,
        quantity: line.quantity,
        unit_price: line.unit_price,
    };
    Order {
        customer_id: row.customer_id,
        status: row.status.as_str().to_owned(),
        lines: row.lines.iter().map(line).collect(),
        amount: row.amount,
        currency_code: row.currency_code,
    }
}

fn payment_of(row: payment::audit::Payment) -> Payment {
    let money = match row.status {
        payment::audit::Status::Captured => Money::Captured,
        payment::audit::Status::Voided => Money::Refunded,
        payment::audit::Status::Declined => Money::None,
    };
    Payment { customer_id: row.customer_id, amount: row.amount, currency_code: row.currency_code, money }
}

type Lot = Result<Vec<(u64, Fact)>, String>;

/// A thread that reads, and the iterator over what it read.
fn feed<R>(conn: Connection, read: R) -> Feed
where
    R: FnOnce(&Connection, &mut dyn FnMut(u64, Fact)) -> Result<(), SqlError> + Send + 'static,
{
    let (sender, lots) = sync_channel(LOTS);
    std::thread::spawn(move || pump(&conn, read, &sender));
    Box::new(Rows { lots, current: Vec::new().into_iter(), over: false })
}

fn pump<R>(conn: &Connection, read: R, lots: &SyncSender<Lot>)
where
    R: FnOnce(&Connection, &mut dyn FnMut(u64, Fact)) -> Result<(), SqlError>,
{
    let mut lot = Vec::with_capacity(LOT);
    // When nobody listens any more the rest is read for nothing: rare, and harmless.
    let mut each = |id: u64, fact: Fact| {
        lot.push((id, fact));
        if lot.len() == LOT {
            drop(lots.send(Ok(std::mem::replace(&mut lot, Vec::with_capacity(LOT)))));
        }
    };
    let result = read(conn, &mut each);
    drop(lots.send(Ok(lot)));
    if let Err(error) = result {
        let file = conn.path().map_or_else(PathBuf::new, PathBuf::from);
        drop(lots.send(Err(format!("{}: {error}", file.display()))));
    }
}

struct Rows {
    lots: Receiver<Lot>,
    current: std::vec::IntoIter<(u64, Fact)>,
    over: bool,
}

impl Iterator for Rows {
    type Item = Result<(u64, Fact), String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.current.next() {
                return Some(Ok(row));
            }
            if self.over {
                return None;
            }
            match self.lots.recv() {
                Ok(Ok(lot)) => self.current = lot.into_iter(),
                Ok(Err(error)) => {
                    self.over = true;
                    return Some(Err(error));
                }
                Err(_) => self.over = true,
            }
        }
    }
}

/// The orchestrator's file once more, later.
pub(super) struct Sagas(Connection);

impl Sagas {
    pub(super) fn open(data: &Path) -> anyhow::Result<Self> {
        Ok(Self(at_one_moment(&path_of(data, &saga_store::SCHEMA), &saga_store::SCHEMA)?))
    }

    /// Whether there is a purchase saga of this id.
    pub(super) fn has(&self, id: u64) -> anyhow::Result<bool> {
        let sql = "select 1 from saga where id = ?1 and definition = 'purchase'";
        Ok(self.0.prepare_cached(sql)?.query_row([id], |_| Ok(())).optional()?.is_some())
    }
}
