//! Every product's stock beside its ledgers' sums, then every movement by saga: for [`crate::audit`].

use saga_adapters::postgres::{Columns as _, PgError, Row, Snapshot};

use crate::audit::{Movement, ProductStock};

const PRODUCTS: &str = include_str!("../../../sql/postgres/stock.sql");
const MOVEMENTS: &str = "select saga_id, definition, product_id, kind = 'take', quantity from stock_movement
    order by saga_id, definition, product_id, kind desc";

pub(crate) async fn each(
    at: &Snapshot,
    products: &mut (dyn FnMut(ProductStock) + Send),
    movements: &mut (dyn FnMut(Movement) + Send),
) -> Result<(), PgError> {
    let mut product = |row: &Row| {
        products(ProductStock {
            product_id: row.big(0)?,
            inventory: row.col(1)?,
            taken: row.col(2)?,
            stocked: row.col(3)?,
            ledger_stocked: row.col(4)?,
            ledger_taken: row.col(5)?,
        });
        Ok(())
    };
    at.each(PRODUCTS, &mut product).await?;
    let mut movement = |row: &Row| {
        movements(Movement {
            saga_id: row.big(0)?,
            definition: row.col(1)?,
            product_id: row.big(2)?,
            is_take: row.col(3)?,
            quantity: row.col(4)?,
        });
        Ok(())
    };
    at.each(MOVEMENTS, &mut movement).await
}
