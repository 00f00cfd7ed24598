//! Where the shop of these tests lives: in this process, on files.

use saga::config::Config;
use saga::up::Shop;

/// A shop that is running.
pub struct Home(Shop);

impl Home {
    /// Whether customers' listener answers `/readyz`.
    pub const SHOWS_HEALTH: bool = true;

    /// What settings need to be this shop's, before its first start.
    pub async fn prepare(_: &mut Config) {}

    pub async fn open(config: &Config) -> Self {
        Self(Shop::start(config.clone()).await.unwrap())
    }

    pub async fn stop(self) {
        self.0.stop().await;
    }

    pub fn public(&self) -> String {
        format!("http://{}", self.0.public_addr)
    }

    pub fn internal(&self) -> String {
        format!("http://{}", self.0.internal_addr)
    }

    /// Of the process of one service.
    pub fn internal_of(&self, _: &str) -> String {
        self.internal()
    }

    /// The orchestrator's admin listener.
    pub fn admin(&self) -> String {
        format!("http://{}", self.0.admin_addr)
    }

    /// The account service's.
    pub fn accounts_admin(&self) -> String {
        self.admin()
    }

    pub fn token(&self) -> &str {
        &self.0.admin_token
    }
}
