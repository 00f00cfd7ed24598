//! The account service's store port.

pub mod postgres;
pub mod sqlite;

use async_trait::async_trait;
use chassis::auth::Role;
use saga_core::Millis;
use saga_runtime::StoreError;

use crate::domain::{Credentials, Delivery, NewAccount, Personal, Refresh};

/// A session to be opened, with its first refresh token.
#[derive(Clone, Copy, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: u64,
    /// Whose.
    pub customer_id: u64,
    /// Of the refresh token.
    pub token: [u8; 32],
    /// In ms since the epoch.
    pub now: Millis,
    /// In ms since the epoch.
    pub expires_at: Millis,
}

/// What became of a refresh token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refreshed {
    /// The next one is stored.
    Rotated {
        /// Whose.
        customer_id: u64,
        /// What they may do now.
        role: Role,
        /// The family.
        session: u64,
    },
    /// See [`Refresh`].
    Refused(Refresh),
    /// There is no such token.
    Unknown,
}

/// A signing key.
#[derive(Clone)]
pub struct SigningKey {
    /// Its name.
    pub kid: String,
    /// The private key.
    pub pkcs8: Vec<u8>,
}

/// Never shown.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Rows of the account service. Every method is one transaction; `StoreError` as everywhere.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Creates an account; `None`: the address is taken. `first_is_admin` makes the very first account an admin.
    async fn create(&self, account: NewAccount, first_is_admin: bool, now: Millis) -> Result<Option<Role>, StoreError>;

    /// Looks an address up.
    async fn credentials(&self, email: String) -> Result<Option<Credentials>, StoreError>;

    /// Opens a session.
    async fn open_session(&self, session: NewSession) -> Result<(), StoreError>;

    /// Spends `token` and stores `next`, or says why not; a reuse revokes the family.
    async fn refresh(
        &self,
        token: [u8; 32],
        next: [u8; 32],
        now: Millis,
        grace: Millis,
    ) -> Result<Refreshed, StoreError>;

    /// Revokes a customer's session; whether it was open.
    async fn revoke_session(&self, session: u64, customer_id: u64, now: Millis) -> Result<bool, StoreError>;

    /// A customer's name.
    async fn personal(&self, customer_id: u64) -> Result<Option<Personal>, StoreError>;

    /// Changes it; `Ok(false)`: the address is taken.
    async fn set_personal(&self, customer_id: u64, personal: Personal) -> Result<bool, StoreError>;

    /// Where a customer's things are sent.
    async fn delivery(&self, customer_id: u64) -> Result<Option<Delivery>, StoreError>;

    /// Changes it.
    async fn set_delivery(&self, customer_id: u64, delivery: Delivery) -> Result<(), StoreError>;

    /// Changes a role; whether there is such an account.
    async fn set_role(&self, email: String, role: Role) -> Result<bool, StoreError>;

    /// Whether there is no account at all.
    async fn is_empty(&self) -> Result<bool, StoreError>;

    /// The keys that are not retired, the newest first.
    async fn keys(&self) -> Result<Vec<SigningKey>, StoreError>;

    /// Adds a key, unless (`only_first`) there is one.
    async fn add_key(&self, key: SigningKey, only_first: bool, now: Millis) -> Result<(), StoreError>;
}
