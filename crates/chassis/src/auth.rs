//! Who is asking: access tokens (`EdDSA` JWTs, RFC 8037) verified locally with the account service's public keys.
//!
//! Promised: only `EdDSA`, only known key ids, only our issuer and audience, only before `exp` by the service's own
//! clock. A verified token is remembered by its hash until it expires, because a signature check costs as much as the
//! rest of a request. What is not here: issuing tokens (the account service's), sessions, passwords.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use saga_core::Millis;
use saga_runtime::Clock;
use saga_runtime::stats::Counter;
use serde::{Deserialize, Serialize};

use crate::metrics::{Page, Source};
use crate::problem::{Code, Problem};

/// Verified tokens that are remembered: a few megabytes at most.
const REMEMBERED: usize = 20_000;
/// Longer than any token of ours; what is longer is not looked at.
const LONGEST_TOKEN: usize = 2_048;

/// What somebody may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Buys.
    Customer,
    /// Looks at sagas.
    Viewer,
    /// Also steers them.
    Operator,
    /// Also changes the catalogue and roles.
    Admin,
}

impl Role {
    /// Every role, each with the rights of those before it.
    pub const ALL: [Self; 4] = [Role::Customer, Role::Viewer, Role::Operator, Role::Admin];

    /// `customer`, `viewer`, `operator`, `admin`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Customer => "customer",
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// The claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The customer's id in decimal (RFC 7519: a string).
    pub sub: String,
    /// What they may do.
    pub role: Role,
    /// The session, for logout.
    pub sid: u64,
    /// Our issuer.
    pub iss: String,
    /// Our audience.
    pub aud: String,
    /// Issued, in seconds since the epoch.
    pub iat: u64,
    /// Valid until, in seconds since the epoch.
    pub exp: u64,
}

/// Who is asking, verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The customer's id.
    pub customer_id: u64,
    /// What they may do.
    pub role: Role,
    /// Their session.
    pub session: u64,
    /// Until when, in ms since the epoch.
    pub expires_at: Millis,
}

/// An identity with the admin role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdminIdentity(pub Identity);

/// Why a token is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// There is none, or it is not one of ours.
    #[error("send a valid access token as `Authorization: Bearer …`; log in to get one")]
    Invalid,
    /// It was valid once.
    #[error("the access token has expired; get a new pair with the refresh token")]
    Expired,
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let code = match error {
            AuthError::Invalid => Code::Unauthenticated,
            AuthError::Expired => Code::TokenExpired,
        };
        Problem::new(code, error.to_string())
    }
}

/// Verifies access tokens. Cheap to clone; starts without keys and trusts nobody until [`set_keys`](Self::set_keys).
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    keys: ArcSwap<HashMap<String, DecodingKey>>,
    rules: Validation,
    verified: quick_cache::sync::Cache<[u8; 32], Identity>,
    clock: Arc<dyn Clock>,
    accepted: Counter,
    invalid: Counter,
    expired: Counter,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.0.keys.load().keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier for one issuer and audience.
    pub fn new(issuer: &str, audience: &str, clock: Arc<dyn Clock>) -> Self {
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[issuer]);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Expiry is checked by the clock port, also for remembered tokens.
        rules.validate_exp = false;
        let verified = quick_cache::sync::Cache::new(REMEMBERED);
        let [accepted, invalid, expired] = Default::default();
        Self(Arc::new(Inner { keys: ArcSwap::default(), rules, verified, clock, accepted, invalid, expired }))
    }

    /// Trusts exactly these keys from now on; keys of other kinds are passed over. Remembered tokens are forgotten.
    pub fn set_keys(&self, keys: &JwkSet) {
        let trusted = keys.keys.iter().filter_map(|jwk| {
            let kid = jwk.common.key_id.clone()?;
            let key = DecodingKey::from_jwk(jwk).ok()?;
            (key.family() == jsonwebtoken::AlgorithmFamily::Ed).then_some((kid, key))
        });
        self.0.keys.store(Arc::new(trusted.collect()));
        self.0.verified.clear();
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// [`AuthError`]; never why in detail, a forger has no use of ours.
    pub fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        let verified = self.look(token);
        match verified {
            Ok(_) => &self.0.accepted,
            Err(AuthError::Invalid) => &self.0.invalid,
            Err(AuthError::Expired) => &self.0.expired,
        }
        .inc();
        verified
    }

    fn look(&self, token: &str) -> Result<Identity, AuthError> {
        if token.len() > LONGEST_TOKEN {
            return Err(AuthError::Invalid);
        }
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        let identity = match self.0.verified.get(&hash) {
            Some(identity) => identity,
            None => {
                let identity = self.check(token)?;
                self.0.verified.insert(hash, identity);
                identity
            }
        };
        if identity.expires_at <= self.0.clock.now() {
            self.0.verified.remove(&hash);
            return Err(AuthError::Expired);
        }
        Ok(identity)
    }

    fn check(&self, token: &str) -> Result<Identity, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid)?;
        let keys = self.0.keys.load();
        let key = header.kid.and_then(|kid| keys.get(&kid)).ok_or(AuthError::Invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.0.rules).map_err(|_| AuthError::Invalid)?.claims;
        let customer_id = claims.sub.parse().map_err(|_| AuthError::Invalid)?;
        let expires_at = claims.exp.saturating_mul(1_000);
        Ok(Identity { customer_id, role: claims.role, session: claims.sid, expires_at })
    }

    /// Verifies the `Authorization` header of a request.
    ///
    /// # Errors
    /// [`AuthError`] for every shape but `Bearer <token>`.
    pub fn verify_header(&self, parts: &Parts) -> Result<Identity, AuthError> {
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(AuthError::Invalid) };
        let text = value.to_str().map_err(|_| AuthError::Invalid)?;
        let (scheme, token) = text.split_once(' ').ok_or(AuthError::Invalid)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Invalid);
        }
        self.verify(token.trim_matches(' '))
    }
}

impl Source for Verifier {
    fn collect(&self, page: &mut Page) {
        let Inner { accepted, invalid, expired, .. } = &*self.0;
        let results = [("accepted", accepted), ("invalid", invalid), ("expired", expired)];
        page.counters("auth_tokens", "Access tokens that were looked at.", "result", &results);
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(verifier) = parts.extensions.get::<Verifier>().cloned() else {
            tracing::error!("a route that needs an identity was mounted without a verifier");
            return Err(AuthError::Invalid.into());
        };
        Ok(verifier.verify_header(parts)?)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AdminIdentity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let identity = Identity::from_request_parts(parts, state).await?;
        if identity.role != Role::Admin {
            return Err(Problem::new(Code::Forbidden, "this needs the admin role"));
        }
        Ok(AdminIdentity(identity))
    }
}
