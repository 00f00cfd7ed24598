//! What a purchase is: its lines and price, its states, and what a result event does to it. No async, no I/O.
//!
//! Promised: an order that [`priced`](Cart::priced) let through has 1 to 100 lines with 1 to 1,000,000 pieces each, one
//! currency, and a sum that every JSON client can hold.

use std::collections::BTreeMap;

use contracts::purchase::{PurchaseInput, PurchaseItem};
use saga_core::protocol::ResultStatus;
use thiserror::Error;

/// The most lines in a request.
pub const MAX_LINES: usize = 100;
/// The most pieces of one product.
pub const MAX_QUANTITY: i64 = 1_000_000;
/// The largest number that a client whose numbers are doubles can hold (RFC 8259 §6): ids and sums.
pub const MAX_SAFE: u64 = (1 << 53) - 1;
/// The same for money in minor units.
pub const MAX_AMOUNT: i64 = (1 << 53) - 1;

/// Where a purchase stands, as its customer sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, utoipa::ToSchema)]
#[schema(as = PurchaseStatus, rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Accepted, and on disk.
    Pending,
    /// On its way.
    Running,
    /// Being taken back.
    Compensating,
    /// Could not be taken back; a human was told.
    CompensationStuck,
    /// All of it. Terminal.
    Completed,
    /// None of it. Terminal.
    Compensated,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Compensating, Self::CompensationStuck, Self::Completed, Self::Compensated];

    /// `PENDING`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Compensating => "COMPENSATING",
            Self::CompensationStuck => "COMPENSATION_STUCK",
            Self::Completed => "COMPLETED",
            Self::Compensated => "COMPENSATED",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether nothing more happens.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Completed | Self::Compensated => true,
            Self::Pending | Self::Running | Self::Compensating | Self::CompensationStuck => false,
        }
    }

    /// Where a purchase stands after a result event. Nothing leads out of a terminal state.
    #[must_use]
    pub fn after(self, event: ResultStatus, terminal: bool) -> Self {
        if self.is_terminal() {
            return self;
        }
        match (event, terminal) {
            (ResultStatus::Success, true) => Self::Completed,
            (_, true) => Self::Compensated,
            // A parallel branch may still report while another one has begun the way back.
            (ResultStatus::Execute | ResultStatus::Success, false) => match self {
                Self::Pending | Self::Running => Self::Running,
                back => back,
            },
            (ResultStatus::Failed | ResultStatus::Rollback, false) => Self::Compensating,
            (ResultStatus::RollbackFailed, false) => Self::CompensationStuck,
        }
    }
}

/// What somebody wants to buy: duplicates merged, sorted by product.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cart {
    /// Product → pieces, and the first request line that named it.
    lines: BTreeMap<u64, (i64, usize)>,
    currency_code: String,
}

/// What the catalogue says about a product now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quote {
    /// Which product.
    pub product_id: u64,
    /// Of one, in minor units.
    pub price: i64,
    /// ISO 4217.
    pub currency_code: String,
}

/// Why a cart is not a purchase. Each becomes a problem of the same name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CartError {
    /// Values that no purchase has: for each a JSON pointer into the request, and what is wrong.
    #[error("the purchase is not valid")]
    Invalid(Vec<(String, String)>),
    /// Not a currency, or not the products'.
    #[error("{0}")]
    UnsupportedCurrency(String),
    /// The sum cannot be held.
    #[error("the amount is larger than {MAX_AMOUNT}")]
    AmountOutOfRange,
}

impl Cart {
    /// Checks and merges request lines of (product id, quantity).
    ///
    /// # Errors
    /// [`CartError::Invalid`] with everything that is wrong.
    pub fn new(lines: &[(u64, i64)], currency_code: &str) -> Result<Self, CartError> {
        let mut wrong = Vec::new();
        if lines.is_empty() || lines.len() > MAX_LINES {
            let detail = format!("must have 1 to {MAX_LINES} lines, not {}", lines.len());
            wrong.push(("#/order_items".to_owned(), detail));
        }
        let mut merged: BTreeMap<u64, (i64, usize)> = BTreeMap::new();
        for (at, &(product_id, quantity)) in lines.iter().enumerate().take(MAX_LINES) {
            if product_id == 0 || product_id > MAX_SAFE {
                wrong.push(of_line(at, "product_id", format!("must be between 1 and {MAX_SAFE}")));
            }
            if !(1..=MAX_QUANTITY).contains(&quantity) {
                wrong.push(of_line(at, "quantity", format!("must be between 1 and {MAX_QUANTITY}")));
                continue;
            }
            let (sum, _) = merged.entry(product_id).or_insert((0, at));
            *sum += quantity; // at most 100 × 1,000,000
            if *sum > MAX_QUANTITY {
                let detail = format!("together the lines of this product are more than {MAX_QUANTITY}");
                wrong.push(of_line(at, "quantity", detail));
            }
        }
        if currency_code.len() != 3 || !currency_code.bytes().all(|b| b.is_ascii_uppercase()) {
            let detail = "must be an ISO 4217 code: three capital letters".to_owned();
            wrong.push(("#/payment/currency_code".to_owned(), detail));
        }
        if !wrong.is_empty() {
            return Err(CartError::Invalid(wrong));
        }
        Ok(Self { lines: merged, currency_code: currency_code.to_owned() })
    }

    /// The products, ascending.
    pub fn products(&self) -> Vec<u64> {
        self.lines.keys().copied().collect()
    }

    /// What makes two requests the same for an idempotency key: products, quantities and currency; not the
    /// order of the lines, nor white space.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.currency_code.as_bytes());
        for (product, (quantity, _)) in &self.lines {
            hasher.update(&product.to_le_bytes());
            hasher.update(&quantity.to_le_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        short
    }

    /// The saga's input at the prices quoted.
    ///
    /// # Errors
    /// A product that is not in `quotes`, one that is sold in another currency, a sum that is too large.
    pub fn priced(&self, purchase_id: u64, customer_id: u64, quotes: &[Quote]) -> Result<PurchaseInput, CartError> {
        let mut items = Vec::with_capacity(self.lines.len());
        for (&product_id, &(quantity, at)) in &self.lines {
            let quote = quotes.iter().find(|quote| quote.product_id == product_id).ok_or_else(|| {
                let detail = format!("there is no product {product_id}");
                CartError::Invalid(vec![of_line(at, "product_id", detail)])
            })?;
            if quote.currency_code != self.currency_code {
                let (sold, wanted) = (&quote.currency_code, &self.currency_code);
                return Err(CartError::UnsupportedCurrency(format!(
                    "product {product_id} is sold in {sold}, not in {wanted}"
                )));
            }
            items.push(PurchaseItem { product_id, quantity, unit_price: quote.price });
        }
        let currency_code = self.currency_code.clone();
        let mut input = PurchaseInput { purchase_id, customer_id, items, currency_code, amount: 0 };
        let amount = input.total().filter(|sum| (0..=MAX_AMOUNT).contains(sum));
        input.amount = amount.ok_or(CartError::AmountOutOfRange)?;
        Ok(input)
    }
}

fn of_line(at: usize, field: &str, detail: String) -> (String, String) {
    (format!("#/order_items/{at}/{field}"), detail)
}

/// Reads an `Idempotency-Key` (IETF draft): a quoted string or a bare one, 1 to 255 visible ASCII characters.
/// `"k"` and `k` are the same key.
pub fn idempotency_key(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?.trim();
    let inner = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    let lawful = inner.bytes().all(|b| matches!(b, 0x20..=0x7e) && b != b'"' && b != b'\\');
    (lawful && (1..=255).contains(&inner.len())).then_some(inner)
}

#[cfg(test)]
mod tests;
