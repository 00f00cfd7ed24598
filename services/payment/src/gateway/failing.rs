//! A gateway that declines or is slow on purpose, for teaching and for tests: around the real one, and only where failures
//! are enabled.
//!
//! Whether a charge is declined depends on its key and the rate alone, so the same charge is answered alike as long as the rate
//! stays. Should an earlier attempt have charged it at another rate, that is given back before *declined* is said.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use saga_runtime::Clock;
use tokio::sync::watch;

use super::sandbox::chance;
use super::{Charge, Charged, Gateway};

/// What is to go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GatewayFailures {
    /// The share of charges that is declined, 0 to 1.
    pub decline_rate: f64,
    /// How much longer every answer takes.
    pub latency: Duration,
}

/// Sets what goes wrong. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GatewaySwitch(Arc<watch::Sender<GatewayFailures>>);

impl Default for GatewaySwitch {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(GatewayFailures::default())))
    }
}

impl GatewaySwitch {
    /// What goes wrong now.
    pub fn get(&self) -> GatewayFailures {
        *self.0.borrow()
    }

    /// What goes wrong from the next call on.
    pub fn set(&self, failures: GatewayFailures) {
        self.0.send_replace(failures);
    }
}

/// Fails as it is told.
pub struct FailingGateway {
    inner: Arc<dyn Gateway>,
    switch: GatewaySwitch,
    clock: Arc<dyn Clock>,
}

impl FailingGateway {
    /// Around a gateway.
    pub fn new(inner: Arc<dyn Gateway>, switch: GatewaySwitch, clock: Arc<dyn Clock>) -> Self {
        Self { inner, switch, clock }
    }

    async fn slowly(&self) -> GatewayFailures {
        let failures = self.switch.get();
        if !failures.latency.is_zero() {
            self.clock.sleep(failures.latency).await;
        }
        failures
    }
}

#[async_trait]
impl Gateway for FailingGateway {
    async fn charge(&self, charge: Charge) -> Charged {
        let failures = self.slowly().await;
        if chance("on purpose", &charge.key) >= failures.decline_rate {
            return self.inner.charge(charge).await;
        }
        match self.inner.void(&charge.key).await {
            Ok(()) => Charged::Declined("a failure on purpose: declined".into()),
            Err(detail) => Charged::Unknown(detail),
        }
    }

    async fn void(&self, key: &str) -> Result<(), String> {
        self.slowly().await;
        self.inner.void(key).await
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use saga_runtime::SystemClock;

    use super::*;

    /// Remembers what it was asked.
    #[derive(Default)]
    struct Asked(Mutex<Vec<String>>);

    #[async_trait]
    impl Gateway for Asked {
        async fn charge(&self, charge: Charge) -> Charged {
            self.0.lock().push(format!("charge {}", charge.key));
            Charged::Approved("1".into())
        }

        async fn void(&self, key: &str) -> Result<(), String> {
            self.0.lock().push(format!("void {key}"));
            Ok(())
        }
    }

    fn charge(key: u32) -> Charge {
        Charge { key: key.to_string(), amount: 10, currency_code: "VND".into(), attempt: 1 }
    }

    #[tokio::test]
    async fn a_decline_charges_nothing_and_gives_back_what_an_attempt_before_it_charged() {
        let (asked, switch) = (Arc::new(Asked::default()), GatewaySwitch::default());
        let gateway = FailingGateway::new(asked.clone(), switch.clone(), Arc::new(SystemClock));
        assert!(matches!(gateway.charge(charge(7)).await, Charged::Approved(_)));
        switch.set(GatewayFailures { decline_rate: 1.0, ..GatewayFailures::default() });
        assert!(matches!(gateway.charge(charge(7)).await, Charged::Declined(_)));
        assert_eq!(*asked.0.lock(), ["charge 7", "void 7"]);
    }

    #[tokio::test]
    async fn the_same_charge_is_declined_each_time_and_others_are_not() {
        let switch = GatewaySwitch::default();
        let gateway = FailingGateway::new(Arc::new(Asked::default()), switch.clone(), Arc::new(SystemClock));
        switch.set(GatewayFailures { decline_rate: 0.5, ..GatewayFailures::default() });
        let mut declined = 0;
        for key in 0..200 {
            let first = gateway.charge(charge(key)).await;
            assert_eq!(first, gateway.charge(charge(key)).await, "{key}");
            declined += u32::from(matches!(first, Charged::Declined(_)));
        }
        assert!((60..140).contains(&declined), "{declined} of 200 at a rate of a half");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_gateway_answers_later() {
        let switch = GatewaySwitch::default();
        let gateway = FailingGateway::new(Arc::new(Asked::default()), switch.clone(), Arc::new(SystemClock));
        switch.set(GatewayFailures { latency: Duration::from_secs(30), ..GatewayFailures::default() });
        let slow = tokio::time::timeout(Duration::from_secs(29), gateway.charge(charge(1))).await;
        assert!(slow.is_err(), "{slow:?}");
    }
}
