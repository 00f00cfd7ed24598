//! Payloads of the purchase saga.
//!
//! Unknown fields are ignored on reading, so that a newer writer does not stop an older reader.
//! The order's id and the payment's id **are** the purchase's id, which is the saga's id.

use serde::{Deserialize, Serialize};

/// The purchase saga's definition: its name.
pub const DEFINITION: &str = "purchase";

/// The saga's input: what is bought, at the price that was quoted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PurchaseInput {
    /// The saga's id.
    pub purchase_id: u64,
    /// Who buys.
    pub customer_id: u64,
    /// Duplicates already merged, sorted by product id: that is the order in which rows are locked.
    pub items: Vec<PurchaseItem>,
    /// ISO 4217.
    pub currency_code: String,
    /// The sum of all lines in minor units, at most 2^53 − 1.
    pub amount: i64,
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PurchaseItem {
    /// What.
    pub product_id: u64,
    /// How many, 1 to 1,000,000.
    pub quantity: i64,
    /// The quoted price of one in minor units.
    pub unit_price: i64,
}

/// What `create-payment` tells when it is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PaymentOutput {
    /// The purchase's id.
    pub payment_id: u64,
    /// Charged, in minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency_code: String,
}

impl PurchaseInput {
    /// The sum of the lines in minor units; `None` when it does not fit.
    pub fn total(&self) -> Option<i64> {
        self.items.iter().try_fold(0_i64, |sum, item| sum.checked_add(item.quantity.checked_mul(item.unit_price)?))
    }
}
