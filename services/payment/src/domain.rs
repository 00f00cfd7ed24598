//! Payments and their rules. Pure.

use chassis::money::is_currency;
use contracts::purchase::PurchaseInput;
use saga_core::Millis;
use saga_core::protocol::Outcome;
use serde::{Deserialize, Serialize};

/// The most that can be charged at once, in minor units: what every JSON client can hold (2^53 − 1).
pub const MAX_AMOUNT: i64 = (1 << 53) - 1;

/// How a payment stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = PaymentStatus)]
pub enum Status {
    /// The money is ours.
    Captured,
    /// The gateway said no; nothing was charged.
    Declined,
    /// It was charged and given back.
    Voided,
}

impl Status {
    /// `CAPTURED`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Captured => "CAPTURED",
            Status::Declined => "DECLINED",
            Status::Voided => "VOIDED",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn from_text(text: &str) -> Option<Self> {
        [Status::Captured, Status::Declined, Status::Voided].into_iter().find(|s| s.as_str() == text)
    }
}

/// A payment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Payment {
    /// The purchase's id.
    pub id: u64,
    /// Whose.
    pub customer_id: u64,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// How it stands.
    pub status: Status,
    /// The gateway's own number.
    pub reference: Option<String>,
    /// In ms since the epoch.
    pub created_at: Millis,
}

/// What is to be charged for a saga, or the refusal.
///
/// # Errors
/// The refusal, as the step's outcome.
pub fn due(saga_id: u64, input: &PurchaseInput) -> Result<(), Outcome> {
    let refuse = |detail: &str| Err(Outcome::refused("invalid_payment", detail));
    if input.purchase_id != saga_id {
        return refuse("the purchase's id is not the saga's");
    }
    if !(0..=MAX_AMOUNT).contains(&input.amount) {
        return refuse("the amount is out of range");
    }
    if !is_currency(&input.currency_code) {
        return refuse("the currency is not one");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_amount_or_currency_is_refused() {
        let input = |amount, currency: &str| PurchaseInput {
            purchase_id: 1,
            customer_id: 2,
            items: vec![],
            currency_code: currency.into(),
            amount,
        };
        assert!(due(1, &input(24_460, "VND")).is_ok());
        for (id, amount, currency) in
            [(1, -1, "VND"), (1, MAX_AMOUNT + 1, "VND"), (1, 1, "VNDX"), (1, 1, "₫"), (2, 1, "VND")]
        {
            assert!(matches!(due(id, &input(amount, currency)), Err(Outcome::Refused(_))));
        }
    }
}
