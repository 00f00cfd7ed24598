//! Goods for an empty shop, so that there is something to buy: one that is declined and one that is nearly sold out among
//! them. They go through the public API, with the administrator's own token.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::{List, Product};
use crate::Shop;
use crate::form::Form;
use crate::page::{self, Refusal, SHOP};
use crate::session::Session;

/// Name, brand, description, price in minor units, stock.
const GOODS: [(&str, &str, &str, i64, i64); 8] = [
    ("Cup", "Plain", "Holds 300 ml of tea.", 1_390, 1_000),
    ("Pot", "Plain", "Makes a litre of tea.", 3_780, 500),
    ("Kettle", "Whistler", "Says when the water boils.", 12_500, 120),
    ("Tray", "Oak & Daughters", "Carries six cups without a spill.", 8_900, 60),
    ("Tea, 100 g", "Mountain Garden", "First flush, picked by hand.", 2_450, 800),
    ("Sieve", "Plain", "Keeps the leaves out of the cup.", 690, 300),
    (
        "Spoon",
        "Thirteen",
        "Its price ends in 13: the sandbox gateway declines it, and the purchase is taken back.",
        313,
        100,
    ),
    ("Old teapot", "Attic finds", "Only two are left: buy three, and the stock says no.", 45_000, 2),
];

/// Puts goods on the shelves, if there is nothing on them.
pub(super) async fn add(State(shop): State<Shop>, session: Session, _: Form) -> Result<Response, Refusal> {
    let there = session.fetch::<List<Product>>(&*shop.api, "/api/v1/products?limit=1").await?;
    if there.items.is_empty() {
        let category = json!({ "name": "Kitchen", "description": "For tea" });
        let category = session.post(&*shop.api, "/api/v1/categories", &category).await?;
        for (name, brand, description, price, inventory) in GOODS {
            let product: Value = json!({
                "category_id": category["id"], "name": name, "brand_name": brand, "description": description,
                "price": price, "inventory": inventory,
            });
            session.post(&*shop.api, "/api/v1/products", &product).await?;
        }
    }
    Ok(page::see(&format!("{SHOP}?done=samples")))
}
