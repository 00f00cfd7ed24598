//! Somebody else's service that moves money: idempotent by key, outside every transaction, and not always answering.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Sim;

/// What the gateway said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charged {
    /// The money is ours.
    Approved,
    /// No.
    Declined,
    /// Nothing happened.
    Retry,
    /// It may have happened.
    Unknown,
}

/// The gateway.
#[derive(Debug)]
pub struct SimGateway {
    sim: Arc<Sim>,
    /// Approved or not, and whether the money is still ours.
    charges: Mutex<BTreeMap<String, (bool, bool)>>,
}

impl SimGateway {
    /// Nothing charged yet.
    pub fn new(sim: Arc<Sim>) -> Self {
        Self { sim, charges: Mutex::new(BTreeMap::new()) }
    }

    /// Charges once per key, however often it is asked.
    pub async fn charge(&self, key: &str) -> Charged {
        self.sim.work().await;
        let weather = self.sim.weather();
        if self.sim.chance(weather.retry) {
            return Charged::Retry;
        }
        let approved = {
            let mut charges = self.charges.lock();
            let decided = charges.get(key).copied();
            let (approved, _) = decided.unwrap_or_else(|| {
                let approved = !self.sim.chance(weather.refuse);
                charges.insert(key.to_owned(), (approved, approved));
                (approved, approved)
            });
            approved
        };
        self.sim.note(|| format!("gateway: {key} charged: {approved}"));
        self.sim.work().await;
        if self.sim.chance(weather.unknown) {
            self.sim.count("gateway did not answer");
            return Charged::Unknown;
        }
        if approved { Charged::Approved } else { Charged::Declined }
    }

    /// Gives back what was charged, if anything was.
    ///
    /// # Errors
    /// It may or may not be given back.
    pub async fn void(&self, key: &str) -> Result<(), String> {
        self.sim.work().await;
        let weather = self.sim.weather();
        if self.sim.chance(weather.retry) {
            return Err("the gateway is busy".into());
        }
        if let Some((_, ours)) = self.charges.lock().get_mut(key) {
            *ours = false;
        }
        self.sim.note(|| format!("gateway: {key} voided"));
        self.sim.work().await;
        if self.sim.chance(weather.unknown) {
            return Err("the gateway did not answer".into());
        }
        Ok(())
    }

    /// Whether the money is ours.
    pub fn holds(&self, key: &str) -> bool {
        self.charges.lock().get(key).is_some_and(|(_, ours)| *ours)
    }
}
