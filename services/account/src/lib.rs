//! The account service: customers, their sessions, and the tokens that every other service verifies by itself.

pub mod app;
pub mod domain;
pub mod grpc;
pub mod http;
pub mod keys;
pub mod stats;
pub mod store;

mod limiter;
mod passwords;

use std::sync::Arc;

use chassis::auth::Verifier;
use chassis::ids::IdGen;
use saga_runtime::{Clock, ReadThrough, StoreError};
use serde::{Deserialize, Serialize};

pub use app::Accounts;
pub use store::postgres::{PG_SCHEMA, PgStore};
pub use store::sqlite::{SCHEMA, SqliteStore};

/// Settings of the account service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who issues the tokens.
    pub issuer: String,
    /// For whom.
    pub audience: String,
    /// How long an access token is valid.
    pub access_token_minutes: u64,
    /// How long a session can be refreshed.
    pub session_hours: u64,
    /// A refresh token that is used twice within this time is refused, but does not revoke its session.
    pub refresh_grace_seconds: u64,
    /// The first account of an empty installation becomes its admin.
    pub first_account_is_admin: bool,
    /// Cost of a password hash: memory.
    pub password_memory_kib: u32,
    /// Cost of a password hash: passes over it.
    pub password_passes: u32,
    /// Hashes computed at once; each takes its memory.
    pub password_hashes_at_once: usize,
    /// Requests that may wait for one.
    pub password_hashes_waiting: usize,
    /// Failed log-ins of an account in a minute before it has to wait.
    pub failures_per_account: u32,
    /// Failed log-ins from an address in a minute before it has to wait.
    pub failures_per_address: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuer: "saga-shop".into(),
            audience: "saga-shop".into(),
            access_token_minutes: 15,
            session_hours: 30 * 24,
            refresh_grace_seconds: 10,
            first_account_is_admin: true,
            // OWASP's recommendation for argon2id (Password Storage Cheat Sheet, 2025): 19 MiB, 2 passes.
            password_memory_kib: 19_456,
            password_passes: 2,
            password_hashes_at_once: 2,
            password_hashes_waiting: 200,
            failures_per_account: 10,
            failures_per_address: 100,
        }
    }
}

/// What the service is made of.
pub struct Service {
    /// Routes below `/api/v1`.
    pub router: axum::Router,
    /// Routes at the root.
    pub well_known: axum::Router,
    /// The use cases.
    pub accounts: Accounts,
}

/// Builds the service; from here on `verifier` accepts its tokens.
///
/// # Errors
/// When the store cannot be used.
pub async fn build(
    config: Config,
    store: Arc<dyn store::Store>,
    cache: &ReadThrough,
    ids: Arc<IdGen>,
    clock: Arc<dyn Clock>,
    verifier: Verifier,
) -> Result<Service, StoreError> {
    let accounts = Accounts::open(config, store, cache, ids, clock, verifier).await?;
    let (router, well_known) = (http::router(accounts.clone()), http::well_known(accounts.clone()));
    Ok(Service { router, well_known, accounts })
}
