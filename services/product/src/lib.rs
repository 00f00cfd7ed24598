//! The product service: the catalogue, and the stock that sagas take and give back.

pub mod app;
pub mod audit;
pub mod domain;
pub mod grpc;
pub mod http;
pub mod participant;
pub mod stats;
pub mod store;

use std::sync::Arc;

use chassis::ids::IdGen;
use saga_runtime::{Clock, Participant, ReadThrough, StoreError};
use serde::{Deserialize, Serialize};

pub use app::{Existence, Products};
pub use store::postgres::{PG_SCHEMA, PgStore};
pub use store::sqlite::{SCHEMA, SqliteStore};

/// Settings of the product service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The currency of products that name none (ISO 4217).
    pub currency: String,
    /// Products kept in memory.
    pub cached_products: usize,
    /// How old what is shown may be, in ms.
    pub cache_ms: u64,
    /// Ids for which the existence filter is laid out; it grows when there are more.
    pub filter_capacity: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { currency: "VND".into(), cached_products: 10_000, cache_ms: 1_000, filter_capacity: 100_000 }
    }
}

/// What the service is made of.
pub struct Service {
    /// Routes below `/api/v1`.
    pub router: axum::Router,
    /// Its side of the saga.
    pub participant: Arc<dyn Participant>,
    /// The use cases.
    pub products: Products,
}

/// Builds the service.
///
/// # Errors
/// When the store cannot be read.
pub async fn build(
    config: Config,
    store: Arc<dyn store::Store>,
    existence: Existence,
    cache: ReadThrough,
    ids: Arc<IdGen>,
    clock: Arc<dyn Clock>,
) -> Result<Service, StoreError> {
    let products = Products::open(config, Arc::clone(&store), existence, cache, ids, Arc::clone(&clock)).await?;
    let participant = Arc::new(participant::ProductParticipant::new(store, clock));
    Ok(Service { router: http::router(products.clone()), participant, products })
}
