//! Where the shop of these tests lives: in six processes on the real stack, behind a real edge.

use saga::config::Config;

use crate::city::{City, TOKEN};
use crate::servers::Servers;

/// A shop that is running.
pub struct Home(City);

impl Home {
    /// Whether customers' listener answers `/readyz`.
    pub const SHOWS_HEALTH: bool = false;

    /// What settings need to be this shop's, before its first start: databases, topics and ports of its own.
    pub async fn prepare(config: &mut Config) {
        City::prepare(Servers::shared(), config);
    }

    pub async fn open(config: &Config) -> Self {
        Self(City::open(Servers::shared(), config, 1).await)
    }

    pub async fn stop(mut self) {
        self.0.stop();
    }

    pub fn public(&self) -> String {
        self.0.public()
    }

    pub fn internal(&self) -> String {
        self.0.internal()
    }

    /// Of the process of one service.
    pub fn internal_of(&self, service: &str) -> String {
        self.0.internal_of(service, 0)
    }

    /// The orchestrator's admin listener.
    pub fn admin(&self) -> String {
        self.0.admin("orchestrator", 0)
    }

    /// The account service's.
    pub fn accounts_admin(&self) -> String {
        self.0.admin("account", 0)
    }

    pub fn token(&self) -> &str {
        TOKEN
    }
}
