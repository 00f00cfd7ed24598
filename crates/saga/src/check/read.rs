//! From books to feeds: each file or database is read by a thread of its own, in the order of ids, at one moment.
//!
//! The moments matter. The orchestrator's is the first: whatever a saga that had ended by then led to was committed
//! before, so the other books, read later, have it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use anyhow::Context as _;
use contracts::purchase::PurchaseItem;
use saga_adapters::postgres::saga_store as pg_sagas;
use saga_adapters::postgres::{Options, Pg, PgError, Query, Snapshot, participant, watermark as pg_watermark};
use saga_adapters::sqlite::rusqlite::{Connection, OptionalExtension as _};
use saga_adapters::sqlite::{Schema, SqlError, open_read_only, saga_store, watermark};
use saga_core::protocol::Outcome;
use saga_core::{Name, Op};
use saga_runtime::wire;
use tokio::runtime::{Handle, Runtime};

use super::facts::{Effect, Line, Money, Order, Payment, Purchase, Stock};
use super::merge::{Fact, Feed};
use crate::config::Config;
use crate::up::places::{self, Place};
use crate::up::roles::ServiceRole;

/// Rows that travel together, and how many such lots may wait: bounds memory per book.
const LOT: usize = 256;
const LOTS: usize = 8;

/// What every participant's file has; see `saga_adapters::sqlite::participant`.
const BARRIER: &str =
    "select saga_id, definition, step, op, outcome from barrier order by saga_id, definition, step, op";

/// A service's rows at one moment.
enum Book {
    /// In a file.
    File(Connection),
    /// In a database, with its address.
    Database(Snapshot, String),
}

/// Opens books.
pub(super) struct Shelf<'c> {
    config: &'c Config,
    /// Talks to the databases.
    runtime: Runtime,
}

impl<'c> Shelf<'c> {
    /// Not to be called on a thread that drives futures.
    pub(super) fn new(config: &'c Config) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { config, runtime })
    }

    /// A book at the moment of this call.
    fn open(&self, role: ServiceRole, file: &Schema, database: &Schema) -> anyhow::Result<Book> {
        match places::of(self.config, role)? {
            Place::File => Ok(Book::File(at_one_moment(&path_of(&self.config.data, file), file)?)),
            Place::Postgres(url) => {
                let options = places::database(self.config, role, &url);
                let options = Options { migrate: false, pool_size: 1, ..options };
                self.runtime.block_on(async {
                    let database = Pg::connect_once(&options, database).await?;
                    let moment = database.snapshot().await.with_context(|| database.address().to_owned())?;
                    Ok(Book::Database(moment, database.address().to_owned()))
                })
            }
        }
    }

    /// All books. The orchestrator's moment comes first.
    pub(super) fn books(&self) -> anyhow::Result<Books> {
        let Sagas(orchestrator, _) = self.sagas()?;
        let product = || self.open(ServiceRole::Product, &product::SCHEMA, &product::PG_SCHEMA);
        let order = || self.open(ServiceRole::Order, &order::SCHEMA, &order::PG_SCHEMA);
        let payment = || self.open(ServiceRole::Payment, &payment::SCHEMA, &payment::PG_SCHEMA);
        Ok(Books {
            orchestrator,
            purchase: self.open(ServiceRole::Purchase, &purchase::SCHEMA, &purchase::PG_SCHEMA)?,
            product: product()?,
            order: order()?,
            payment: payment()?,
            barriers: vec![product()?, order()?, payment()?],
            handle: self.runtime.handle().clone(),
        })
    }

    /// The orchestrator's book alone.
    pub(super) fn sagas(&self) -> anyhow::Result<Sagas<'_>> {
        Ok(Sagas(self.open(ServiceRole::Orchestrator, &saga_store::SCHEMA, &pg_sagas::SCHEMA)?, &self.runtime))
    }
}

/// Up to which purchase something is forgotten; see `saga_runtime::retention`.
pub(super) struct Forgotten {
    /// By the orchestrator.
    pub(super) sagas: Option<u64>,
    /// By any participant.
    pub(super) answers: Option<u64>,
}

/// All books, each at its moment.
pub(super) struct Books {
    orchestrator: Book,
    purchase: Book,
    product: Book,
    order: Book,
    payment: Book,
    /// The participants' once more: the barrier is read beside the service's own tables.
    barriers: Vec<Book>,
    handle: Handle,
}

impl Books {
    /// What is forgotten at the books' moments.
    pub(super) fn marks(&self, shelf: &Shelf<'_>) -> anyhow::Result<Forgotten> {
        let sagas = mark(&self.orchestrator, &shelf.runtime)?;
        let answers = self.barriers.iter().map(|book| mark(book, &shelf.runtime));
        let answers = answers.collect::<Result<Vec<_>, _>>()?.into_iter().max().flatten();
        Ok(Forgotten { sagas, answers })
    }

    /// Starts to read. Every product's sums arrive beside, before its book's last row.
    pub(super) fn feeds(self) -> (Vec<Feed>, Receiver<Stock>) {
        let (sums, stock) = channel();
        let also = sums.clone();
        let handle = &self.handle;
        // Nobody listens to the sums any more? Then the check has ended early.
        let movements = feed(
            handle,
            self.product,
            move |conn, each| {
                product::audit::read(conn, &mut |row| _ = sums.send(stock_of(row)), &mut |row| movement(row, each))
            },
            async move |at, each| {
                let mut products = |row| _ = also.send(stock_of(row));
                product::audit::read_pg(at, &mut products, &mut |row| movement(row, each)).await
            },
        );
        let sagas = feed(
            handle,
            self.orchestrator,
            |conn, each| saga_store::audit(conn, &mut |saga| each(saga.key.id, Fact::Saga(Box::new(saga)))),
            async |at, each| pg_sagas::audit(at, &mut |saga| each(saga.key.id, Fact::Saga(Box::new(saga)))).await,
        );
        let purchases = feed(
            handle,
            self.purchase,
            |conn, each| purchase::audit::read(conn, &mut |row| each(row.id, Fact::Purchase(purchase_of(row)))),
            async |at, each| {
                purchase::audit::read_pg(at, &mut |row| each(row.id, Fact::Purchase(purchase_of(row)))).await
            },
        );
        let orders = feed(
            handle,
            self.order,
            |conn, each| order::audit::read(conn, &mut |row| each(row.id, Fact::Order(order_of(row)))),
            async |at, each| order::audit::read_pg(at, &mut |row| each(row.id, Fact::Order(order_of(row)))).await,
        );
        let payments = feed(
            handle,
            self.payment,
            |conn, each| payment::audit::read(conn, &mut |row| each(row.id, Fact::Payment(payment_of(row)))),
            async |at, each| payment::audit::read_pg(at, &mut |row| each(row.id, Fact::Payment(payment_of(row)))).await,
        );
        let mut feeds = vec![sagas, purchases, movements, orders, payments];
        feeds.extend(self.barriers.into_iter().map(|book| {
            feed(handle, book, effects, async |at, each| {
                participant::audit(at, &mut |row| {
                    let definition = row.key.saga.definition.as_str().to_owned();
                    let done = matches!(row.outcome, Outcome::Done(_));
                    let effect = Effect { definition, step: row.key.step.as_str().to_owned(), op: row.key.op, done };
                    each(row.key.saga.id, Fact::Effect(effect));
                })
                .await
            })
        }));
        (feeds, stock)
    }
}

fn mark(book: &Book, runtime: &Runtime) -> anyhow::Result<Option<u64>> {
    let marks = match book {
        Book::File(conn) => watermark::marks(conn)?,
        Book::Database(at, address) => runtime.block_on(pg_watermark::audit(at)).with_context(|| address.clone())?,
    };
    Ok(marks.of(&Name::new(contracts::purchase::DEFINITION)))
}

fn movement(row: product::audit::Movement, each: &mut Each<'_>) {
    let taken = if row.is_take { row.quantity } else { -row.quantity };
    if row.definition == contracts::purchase::DEFINITION {
        each(row.saga_id, Fact::Entry { product_id: row.product_id, taken });
    }
}

/// What a participant remembers of the commands that it answered for good.
fn effects(conn: &Connection, each: &mut Each<'_>) -> Result<(), SqlError> {
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
        idempotency_key: row.idempotency_key,
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
type Each<'e> = dyn FnMut(u64, Fact) + Send + 'e;

/// A thread that reads, and the iterator over what it read.
fn feed<F, D>(handle: &Handle, book: Book, file: F, database: D) -> Feed
where
    F: FnOnce(&Connection, &mut Each<'_>) -> Result<(), SqlError> + Send + 'static,
    D: AsyncFnOnce(&Snapshot, &mut Each<'_>) -> Result<(), PgError> + Send + 'static,
{
    let (sender, lots) = sync_channel(LOTS);
    let handle = handle.clone();
    std::thread::spawn(move || match book {
        Book::File(conn) => {
            let place = conn.path().unwrap_or_default().to_owned();
            pump(&sender, |each| file(&conn, each).map_err(|error| format!("{place}: {error}")));
        }
        Book::Database(at, address) => {
            pump(&sender, |each| handle.block_on(database(&at, each)).map_err(|error| format!("{address}: {error}")))
        }
    });
    Box::new(Rows { lots, current: Vec::new().into_iter(), over: false })
}

fn pump(lots: &SyncSender<Lot>, read: impl FnOnce(&mut Each<'_>) -> Result<(), String>) {
    let mut lot = Vec::with_capacity(LOT);
    // When nobody listens any more the rest is read for nothing: rare, and harmless.
    let mut each = |id: u64, fact: Fact| {
        lot.push((id, fact));
        if lot.len() == LOT {
            drop(lots.send(Ok(std::mem::replace(&mut lot, Vec::with_capacity(LOT)))));
        }
    };
    let result = read(&mut each);
    drop(lots.send(Ok(lot)));
    if let Err(error) = result {
        drop(lots.send(Err(error)));
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

/// The orchestrator's book.
pub(super) struct Sagas<'r>(Book, &'r Runtime);

impl Sagas<'_> {
    /// Up to which purchase saga they are forgotten.
    pub(super) fn mark(&self) -> anyhow::Result<Option<u64>> {
        mark(&self.0, self.1)
    }

    /// Whether there is a purchase saga of this id.
    pub(super) fn has(&self, id: u64) -> anyhow::Result<bool> {
        match &self.0 {
            Book::File(conn) => {
                let sql = "select 1 from saga where id = ?1 and definition = 'purchase'";
                Ok(conn.prepare_cached(sql)?.query_row([id], |_| Ok(())).optional()?.is_some())
            }
            Book::Database(at, address) => {
                let query = Query::new("select from saga where id = $1 and definition = 'purchase'").big(id);
                let rows = self.1.block_on(at.read(query)).with_context(|| address.clone())?;
                Ok(!rows.is_empty())
            }
        }
    }
}
