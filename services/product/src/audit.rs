//! What `saga check` reads: stock beside its ledger, and what each saga took.

use saga_adapters::postgres::{PgError, Snapshot};
use saga_adapters::sqlite::SqlError;
use saga_adapters::sqlite::rusqlite::Connection;

/// A product's stock, and the sums of its ledgers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProductStock {
    /// Which product.
    pub product_id: u64,
    /// What can be bought.
    pub inventory: i64,
    /// What purchases hold.
    pub taken: i64,
    /// What was ever put in.
    pub stocked: i64,
    /// The same, by the ledger of adjustments.
    pub ledger_stocked: i64,
    /// What purchases hold, by the ledger of movements.
    pub ledger_taken: i64,
}

/// A row of the ledger of movements.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Movement {
    /// Which saga's id.
    pub saga_id: u64,
    /// Which definition.
    pub definition: String,
    /// Which product.
    pub product_id: u64,
    /// Taken, or given back.
    pub is_take: bool,
    /// How many.
    pub quantity: i64,
}

/// Hands every product to `products` (by id), then every movement to `movements` (by saga).
///
/// # Errors
/// When the file cannot be read.
pub fn read(
    conn: &Connection,
    products: &mut dyn FnMut(ProductStock),
    movements: &mut dyn FnMut(Movement),
) -> Result<(), SqlError> {
    crate::store::sqlite::each(conn, products, movements)
}

/// The same on PostgreSQL, at one moment.
///
/// # Errors
/// When the database cannot be read.
pub async fn read_pg(
    at: &Snapshot,
    products: &mut (dyn FnMut(ProductStock) + Send),
    movements: &mut (dyn FnMut(Movement) + Send),
) -> Result<(), PgError> {
    crate::store::postgres::each(at, products, movements).await
}
