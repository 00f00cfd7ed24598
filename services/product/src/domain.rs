//! Products, stock, and the rules for taking it. Pure.

use contracts::purchase::{PurchaseInput, PurchaseItem};
use saga_core::protocol::Refusal;
use serde::{Deserialize, Serialize};

/// A category.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Category {
    /// Its id.
    pub id: u64,
    /// Not empty.
    pub name: String,
    /// For people.
    pub description: String,
}

/// A product.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Product {
    /// Its id.
    pub id: u64,
    /// Its category.
    pub category_id: u64,
    /// Not empty.
    pub name: String,
    /// For people.
    pub brand_name: String,
    /// For people.
    pub description: String,
    /// In minor units.
    pub price: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// What can be bought.
    pub inventory: i64,
    /// Counts changes.
    pub version: u64,
}

/// A product's stock row, locked for a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stock {
    /// In minor units.
    pub price: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// What can be bought.
    pub inventory: i64,
    /// What purchases hold.
    pub taken: i64,
}

/// Changes of a product by an admin; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct ProductChange {
    /// Another category.
    pub category_id: Option<u64>,
    /// Another name.
    pub name: Option<String>,
    /// Another brand.
    pub brand_name: Option<String>,
    /// Another description.
    pub description: Option<String>,
    /// Another price, in minor units.
    pub price: Option<i64>,
    /// More (or fewer) in stock, and why.
    pub inventory: Option<(i64, String)>,
}

/// A row of the ledger of a saga.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Which product.
    pub product_id: u64,
    /// How many.
    pub quantity: i64,
}

/// Whether a purchase can take its stock now: every line or none. `stock` answers a product's locked row.
///
/// # Errors
/// The refusal: what of which product.
pub fn reserve<'s>(
    input: &PurchaseInput,
    mut stock: impl FnMut(u64) -> Option<&'s Stock>,
) -> Result<Vec<Taken>, Refusal> {
    if input.items.is_empty() {
        return Err(Refusal::new("invalid_purchase", "a purchase needs at least one line"));
    }
    if !input.items.windows(2).all(|pair| pair[0].product_id < pair[1].product_id) {
        return Err(Refusal::new("invalid_purchase", "the lines must be merged and sorted by product"));
    }
    let mut taken = Vec::with_capacity(input.items.len());
    for PurchaseItem { product_id, quantity, unit_price } in &input.items {
        let row = stock(*product_id)
            .ok_or_else(|| Refusal::new("product_not_found", format!("there is no product {product_id}")))?;
        if *quantity < 1 {
            return Err(Refusal::new(
                "invalid_purchase",
                format!("the quantity of product {product_id} is not lawful"),
            ));
        }
        if row.price != *unit_price || row.currency_code != input.currency_code {
            let (price, currency) = (row.price, &row.currency_code);
            let detail = format!("product {product_id} costs {price} {currency} now, not {unit_price}");
            return Err(Refusal::new("price_changed", detail));
        }
        if row.inventory < *quantity {
            let detail = format!("{quantity} of product {product_id} were wanted, {} are there", row.inventory);
            return Err(Refusal::new("insufficient_stock", detail));
        }
        taken.push(Taken { product_id: *product_id, quantity: *quantity });
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn input(items: &[(u64, i64, i64)]) -> PurchaseInput {
        let items =
            items.iter().map(|&(product_id, quantity, unit_price)| PurchaseItem { product_id, quantity, unit_price });
        PurchaseInput { purchase_id: 1, customer_id: 2, items: items.collect(), currency_code: "VND".into(), amount: 0 }
    }

    fn code(input: &PurchaseInput) -> String {
        let stock = Stock { price: 10, currency_code: "VND".into(), inventory: 3, taken: 0 };
        match reserve(input, |id| (id < 9).then_some(&stock)) {
            Ok(taken) => format!("{}", taken.len()),
            Err(refusal) => refusal.code,
        }
    }

    #[test]
    fn stock_is_taken_wholly_or_refused_with_the_reason() {
        assert_eq!(code(&input(&[(1, 3, 10), (2, 1, 10)])), "2");
        assert_eq!(code(&input(&[(1, 1, 10), (2, 4, 10)])), "insufficient_stock");
        assert_eq!(code(&input(&[(1, 1, 11)])), "price_changed");
        assert_eq!(code(&PurchaseInput { currency_code: "EUR".into(), ..input(&[(1, 1, 10)]) }), "price_changed");
        assert_eq!(code(&input(&[(9, 1, 10)])), "product_not_found");
        for items in [&[][..], &[(1, 0, 10)], &[(1, -1, 10)], &[(1, 1, 10), (1, 1, 10)], &[(2, 1, 10), (1, 1, 10)]] {
            assert_eq!(code(&input(items)), "invalid_purchase", "{items:?}");
        }
    }

    #[test]
    fn g13_the_last_item_can_be_bought() {
        assert_eq!(code(&input(&[(1, 3, 10)])), "1");
    }
}
