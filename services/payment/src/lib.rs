//! The payment service: charges through a gateway, exactly once, and gives back what must not be kept.

pub mod app;
pub mod audit;
pub mod domain;
pub mod gateway;
pub mod http;
pub mod participant;
pub mod stats;
pub mod store;

use std::sync::Arc;

use saga_runtime::{Clock, Participant, ReadThrough};
use serde::{Deserialize, Serialize};

pub use app::Payments;
pub use gateway::{FailingGateway, Gateway, GatewayFailures, GatewaySwitch, Sandbox, SandboxConfig};
pub use store::postgres::{PG_SCHEMA, PgStore};
pub use store::sqlite::{SCHEMA, SqliteStore};

/// Settings of the payment service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The gateway: a sandbox that moves no money.
    pub sandbox: SandboxConfig,
}

/// What the service is made of.
pub struct Service {
    /// Routes below `/api/v1`.
    pub router: axum::Router,
    /// Its side of the saga.
    pub participant: Arc<dyn Participant>,
    /// The use cases.
    pub payments: Payments,
    /// What was counted.
    pub stats: Arc<stats::Stats>,
}

/// Builds the service.
pub fn build(
    store: Arc<dyn store::Store>,
    gateway: Arc<dyn Gateway>,
    cache: ReadThrough,
    clock: Arc<dyn Clock>,
) -> Service {
    let payments = Payments::new(Arc::clone(&store), cache);
    let stats = Arc::new(stats::Stats::default());
    let participant = Arc::new(participant::PaymentParticipant::new(store, gateway, clock, Arc::clone(&stats)));
    Service { router: http::router(payments.clone()), participant, payments, stats }
}
