//! Orders and their rules. Pure.

use chassis::money::is_currency;
use contracts::purchase::PurchaseInput;
use saga_core::Millis;
use saga_core::protocol::Outcome;
use serde::{Deserialize, Serialize};

/// The most that an order can come to, in minor units: what every JSON client can hold (2^53 − 1).
pub const MAX_AMOUNT: i64 = (1 << 53) - 1;

/// How an order stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = OrderStatus)]
pub enum Status {
    /// Ordered, not yet paid.
    Pending,
    /// Paid.
    Confirmed,
    /// Taken back; stays as a tombstone.
    Cancelled,
}

impl Status {
    /// `PENDING`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "PENDING",
            Status::Confirmed => "CONFIRMED",
            Status::Cancelled => "CANCELLED",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn from_text(text: &str) -> Option<Self> {
        [Status::Pending, Status::Confirmed, Status::Cancelled].into_iter().find(|s| s.as_str() == text)
    }
}

/// A line of an order: product, quantity, and the price at which it was bought, in minor units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// Which product.
    pub product_id: u64,
    /// How many, at least 1.
    pub quantity: i64,
    /// Of one, in minor units.
    pub unit_price: i64,
}

/// Lines stand in a row as `[[product_id, quantity, unit_price], …]`.
impl Serialize for Line {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.product_id, self.quantity, self.unit_price).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (product_id, quantity, unit_price) = Deserialize::deserialize(deserializer)?;
        Ok(Self { product_id, quantity, unit_price })
    }
}

/// An order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The purchase's id.
    pub id: u64,
    /// Whose.
    pub customer_id: u64,
    /// How it stands.
    pub status: Status,
    /// ISO 4217.
    pub currency_code: String,
    /// In minor units.
    pub amount: i64,
    /// Never empty.
    pub lines: Vec<Line>,
    /// In ms since the epoch.
    pub created_at: Millis,
}

/// Makes the order that a purchase asks for, or says why it cannot be one.
///
/// # Errors
/// The refusal, as the step's outcome.
pub fn place(id: u64, input: &PurchaseInput, now: Millis) -> Result<Order, Outcome> {
    let refuse = |detail: &str| Outcome::refused("invalid_order", detail);
    if input.purchase_id != id {
        return Err(refuse("the purchase's id is not the saga's"));
    }
    if input.items.is_empty() {
        return Err(refuse("an order needs at least one line"));
    }
    let mut amount = 0_i64;
    let mut lines = Vec::with_capacity(input.items.len());
    for item in &input.items {
        let line = Line { product_id: item.product_id, quantity: item.quantity, unit_price: item.unit_price };
        if line.quantity < 1 || line.unit_price < 0 {
            return Err(refuse("a line needs a quantity of at least 1 and a price that is not negative"));
        }
        let sum = line.quantity.checked_mul(line.unit_price).and_then(|price| amount.checked_add(price));
        amount = sum.ok_or_else(|| refuse("the amount is out of range"))?;
        lines.push(line);
    }
    if amount > MAX_AMOUNT {
        return Err(refuse("the amount is out of range"));
    }
    if !is_currency(&input.currency_code) {
        return Err(refuse("the currency is not one"));
    }
    if amount != input.amount {
        return Err(refuse("the lines do not add up to the amount"));
    }
    let currency_code = input.currency_code.clone();
    Ok(Order {
        id,
        customer_id: input.customer_id,
        status: Status::Pending,
        currency_code,
        amount,
        lines,
        created_at: now,
    })
}

/// What confirming means to an order in this state; `None`: there is no such order.
pub fn confirm(status: Option<Status>) -> (Option<Status>, Outcome) {
    match status {
        Some(Status::Pending) => (Some(Status::Confirmed), Outcome::done()),
        Some(Status::Confirmed) => (None, Outcome::done()),
        Some(Status::Cancelled) => (None, Outcome::refused("order_cancelled", "the order was cancelled before")),
        None => (None, Outcome::refused("order_not_found", "there is no such order")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use contracts::purchase::PurchaseItem;

    use super::*;

    fn input(items: &[(u64, i64, i64)], amount: i64) -> PurchaseInput {
        let items =
            items.iter().map(|&(product_id, quantity, unit_price)| PurchaseItem { product_id, quantity, unit_price });
        PurchaseInput { purchase_id: 1, customer_id: 2, items: items.collect(), currency_code: "VND".into(), amount }
    }

    #[test]
    fn an_order_keeps_the_price_snapshot() {
        let order = place(1, &input(&[(5, 4, 1390), (6, 5, 3780)], 24_460), 9).unwrap();
        assert_eq!((order.amount, order.lines.len(), order.status), (24_460, 2, Status::Pending));
        assert_eq!(serde_json::to_string(&order.lines).unwrap(), "[[5,4,1390],[6,5,3780]]");
    }

    #[test]
    fn g23_g14_g12_an_impossible_order_is_refused_and_never_panics() {
        for (items, amount) in [
            (vec![], 0),
            (vec![(5, 0, 10)], 0),
            (vec![(5, -1, 10)], -10),
            (vec![(5, 1, -10)], -10),
            (vec![(5, i64::MAX, 2)], -2),
            (vec![(5, 1, 10)], 11),
        ] {
            assert!(matches!(place(1, &input(&items, amount), 9), Err(Outcome::Refused(_))), "{items:?}");
        }
        assert!(place(7, &input(&[(5, 1, 10)], 10), 9).is_err());
    }

    #[test]
    fn a_confirmed_order_stays_confirmed_and_a_cancelled_one_cancelled() {
        assert_eq!(confirm(Some(Status::Pending)).0, Some(Status::Confirmed));
        assert_eq!(confirm(Some(Status::Confirmed)), (None, Outcome::done()));
        assert!(matches!(confirm(Some(Status::Cancelled)), (None, Outcome::Refused(_))));
        assert!(matches!(confirm(None), (None, Outcome::Refused(_))));
    }
}
