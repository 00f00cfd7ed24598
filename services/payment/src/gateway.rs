//! The payment gateway port.

pub mod failing;
pub mod sandbox;

use async_trait::async_trait;

pub use failing::{FailingGateway, GatewayFailures, GatewaySwitch};
pub use sandbox::{Sandbox, SandboxConfig};

/// What to charge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charge {
    /// Names the charge: however often it is asked for, it happens once.
    pub key: String,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// How often it has been asked for, from 1.
    pub attempt: u32,
}

/// What the gateway said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Charged {
    /// The money is ours; the gateway's own number.
    Approved(String),
    /// No, and why, for people.
    Declined(String),
    /// Nothing happened; ask again.
    Retry(String),
    /// It may have happened; ask again with the same key.
    Unknown(String),
}

/// Moves money. Implementations are idempotent by key: the same key gets the same final answer.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Charges.
    async fn charge(&self, charge: Charge) -> Charged;

    /// Gives back what was charged under `key`, if anything was.
    ///
    /// # Errors
    /// It is not known to be given back: call again.
    async fn void(&self, key: &str) -> Result<(), String>;
}
