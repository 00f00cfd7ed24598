//! What the databases say about one id, side by side. Plain values: the rules need no database.

use std::collections::BTreeMap;

use saga_adapters::sqlite::saga_store::Audited;
use saga_core::Op;
use saga_core::protocol::ResultEvent;

/// A line of a purchase or an order: product, pieces, price of one in minor units.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Line {
    /// Which product.
    pub product_id: u64,
    /// How many.
    pub quantity: i64,
    /// Of one, in minor units.
    pub unit_price: i64,
}

/// The purchase service's row.
#[derive(Clone, PartialEq, Debug)]
pub struct Purchase {
    /// Whose.
    pub customer_id: u64,
    /// As its customer sees it.
    pub status: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// What is bought, by product.
    pub lines: Vec<Line>,
    /// The number of the last event.
    pub last_seq: u32,
    /// The events.
    pub results: Vec<ResultEvent>,
    /// Whether the row says that it has ended.
    pub ended: bool,
    /// The key that it was asked for with, as long as that is remembered.
    pub idempotency_key: Option<String>,
}

/// The order service's row.
#[derive(Clone, PartialEq, Debug)]
pub struct Order {
    /// Whose.
    pub customer_id: u64,
    /// `PENDING`, `CONFIRMED`, `CANCELLED`.
    pub status: String,
    /// What was bought, by product.
    pub lines: Vec<Line>,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency_code: String,
}

/// The payment service's row.
#[derive(Clone, PartialEq, Debug)]
pub struct Payment {
    /// Whose.
    pub customer_id: u64,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// What became of the money.
    pub money: Money,
}

/// What became of the money.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Money {
    /// It was taken.
    Captured,
    /// It was taken and given back.
    Refunded,
    /// It was never taken.
    None,
}

/// What a participant remembers of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    /// The saga's definition.
    pub definition: String,
    /// Which step.
    pub step: String,
    /// Do or undo.
    pub op: Op,
    /// Whether it was done (or refused).
    pub done: bool,
}

/// Everything about one id.
#[derive(Debug, Default)]
pub struct Dossier {
    /// The saga's id.
    pub id: u64,
    /// The purchase saga.
    pub saga: Option<Audited>,
    /// Sagas of other definitions with the same id.
    pub others: Vec<Audited>,
    /// The purchase.
    pub purchase: Option<Purchase>,
    /// The order.
    pub order: Option<Order>,
    /// The payment.
    pub payment: Option<Payment>,
    /// Taken and not put back, by product.
    pub stock: BTreeMap<u64, i64>,
    /// Ledger entries, by product: taken, put back.
    pub entries: BTreeMap<u64, (u32, u32)>,
    /// What the participants remember.
    pub effects: Vec<Effect>,
    /// The orchestrator has forgotten it, or may: it must have ended.
    pub forgotten: bool,
    /// Participants may have forgotten their answers.
    pub answers_forgotten: bool,
}

/// The product service's sums for one product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stock {
    /// Which product.
    pub product_id: u64,
    /// On the shelf.
    pub available: i64,
    /// Taken by sagas and not put back.
    pub taken: i64,
    /// Ever put in: at first, and by hand since.
    pub stocked: i64,
    /// The same, as the ledger of changes by hand adds up.
    pub ledger_stocked: i64,
    /// What sagas took and did not put back, as the ledger of movements adds up.
    pub ledger_taken: i64,
}
