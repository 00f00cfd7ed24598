//! A gateway that moves no money, for development, teaching and tests.
//!
//! It answers by rules that a person can trigger, computed from the charge alone: so it is idempotent without a memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use saga_runtime::Clock;
use serde::{Deserialize, Serialize};

use super::{Charge, Charged, Gateway};

/// Settings of the sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// An amount (in minor units) whose decimal digits end in one of these is declined.
    pub decline_endings: Vec<String>,
    /// Amounts above this are declined; 0: no limit.
    pub decline_above: i64,
    /// The share of charges that is declined, 0 to 1.
    pub decline_rate: f64,
    /// The share of attempts that ends in "try again", 0 to 1.
    pub retry_rate: f64,
    /// The share of attempts whose outcome stays unknown, 0 to 1.
    pub unknown_rate: f64,
    /// How long every answer takes, in ms.
    pub latency_ms: u64,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            decline_endings: vec!["13".into()],
            decline_above: 0,
            decline_rate: 0.0,
            retry_rate: 0.0,
            unknown_rate: 0.0,
            latency_ms: 0,
        }
    }
}

impl SandboxConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn check(&self) -> Result<(), String> {
        for (key, rate) in
            [("decline_rate", self.decline_rate), ("retry_rate", self.retry_rate), ("unknown_rate", self.unknown_rate)]
        {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("payment.sandbox.{key}: {rate} is not between 0 and 1"));
            }
        }
        if self.decline_above < 0 {
            return Err(format!("payment.sandbox.decline_above: {} is negative", self.decline_above));
        }
        match self.decline_endings.iter().find(|e| e.is_empty() || !e.bytes().all(|b| b.is_ascii_digit())) {
            Some(ending) => Err(format!("payment.sandbox.decline_endings: {ending:?} is not digits")),
            None => Ok(()),
        }
    }
}

/// The sandbox.
pub struct Sandbox {
    config: SandboxConfig,
    clock: Arc<dyn Clock>,
}

impl Sandbox {
    /// With these rules.
    pub fn new(config: SandboxConfig, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock }
    }

    fn answer(&self, charge: &Charge) -> Charged {
        let SandboxConfig { decline_endings, decline_above, decline_rate, retry_rate, unknown_rate, .. } = &self.config;
        let attempt = format!("{} {}", charge.key, charge.attempt);
        if chance("retry", &attempt) < *retry_rate {
            return Charged::Retry("the sandbox asks to try again".into());
        }
        if chance("unknown", &attempt) < *unknown_rate {
            return Charged::Unknown("the sandbox does not say".into());
        }
        let amount = charge.amount.to_string();
        if let Some(ending) = decline_endings.iter().find(|ending| amount.ends_with(ending.as_str())) {
            return Charged::Declined(format!("the sandbox declines amounts that end in {ending}"));
        }
        if *decline_above > 0 && charge.amount > *decline_above {
            return Charged::Declined(format!("the sandbox declines amounts above {decline_above}"));
        }
        if chance("decline", &charge.key) < *decline_rate {
            return Charged::Declined("the sandbox declined by chance".into());
        }
        Charged::Approved(format!("sandbox-{}", charge.key))
    }
}

/// A number in [0, 1) that depends on nothing but its arguments.
pub(super) fn chance(what: &str, key: &str) -> f64 {
    let hash = blake3::hash(format!("{what} {key}").as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    f64::from(u32::from_le_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

#[async_trait]
impl Gateway for Sandbox {
    async fn charge(&self, charge: Charge) -> Charged {
        self.clock.sleep(Duration::from_millis(self.config.latency_ms)).await;
        self.answer(&charge)
    }

    async fn void(&self, _: &str) -> Result<(), String> {
        self.clock.sleep(Duration::from_millis(self.config.latency_ms)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use saga_runtime::SystemClock;

    use super::*;

    fn ask(config: SandboxConfig, amount: i64) -> Charged {
        let charge = Charge { key: "7".into(), amount, currency_code: "VND".into(), attempt: 1 };
        Sandbox::new(config, Arc::new(SystemClock)).answer(&charge)
    }

    #[test]
    fn the_sandbox_declines_by_ending_limit_and_rate_and_approves_the_rest() {
        let config = SandboxConfig::default();
        assert!(matches!(ask(config.clone(), 24_460), Charged::Approved(_)));
        assert!(matches!(ask(config.clone(), 1_013), Charged::Declined(_)));
        assert!(matches!(ask(SandboxConfig { decline_above: 10, ..config.clone() }, 11), Charged::Declined(_)));
        assert!(matches!(ask(SandboxConfig { decline_rate: 1.0, ..config.clone() }, 1), Charged::Declined(_)));
        assert!(matches!(ask(SandboxConfig { retry_rate: 1.0, ..config.clone() }, 1), Charged::Retry(_)));
        assert!(matches!(ask(SandboxConfig { unknown_rate: 1.0, ..config }, 1), Charged::Unknown(_)));
    }

    #[test]
    fn a_rate_out_of_range_is_refused_by_name() {
        let error = SandboxConfig { decline_rate: 1.5, ..SandboxConfig::default() }.check().err();
        assert!(error.is_some_and(|e| e.contains("decline_rate")));
    }
}
