//! The order service: what was ordered, at which price, and how it stands.

pub mod app;
pub mod audit;
pub mod domain;
pub mod http;
pub mod participant;
pub mod stats;
pub mod store;

use std::sync::Arc;

use saga_runtime::{Clock, Participant, ReadThrough};
use serde::{Deserialize, Serialize};

pub use app::{Catalogue, CatalogueError, Orders, ProductDetails};
pub use store::postgres::{PG_SCHEMA, PgStore};
pub use store::sqlite::{SCHEMA, SqliteStore};

/// Settings of the order service: there are none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

/// What the service is made of.
pub struct Service {
    /// Routes below `/api/v1`.
    pub router: axum::Router,
    /// Its side of the saga.
    pub participant: Arc<dyn Participant>,
    /// The use cases.
    pub orders: Orders,
    /// What was counted.
    pub stats: Arc<stats::Stats>,
}

/// Builds the service.
pub fn build(
    store: Arc<dyn store::Store>,
    catalogue: Arc<dyn Catalogue>,
    cache: ReadThrough,
    clock: Arc<dyn Clock>,
) -> Service {
    let orders = Orders::new(Arc::clone(&store), catalogue, cache);
    let stats = Arc::new(stats::Stats::default());
    let participant = Arc::new(participant::OrderParticipant::new(store, clock, Arc::clone(&stats)));
    Service { router: http::router(orders.clone()), participant, orders, stats }
}
