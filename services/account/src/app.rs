//! What customers do with their account.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chassis::auth::{AuthError, Claims, Identity, Role, Verifier};
use chassis::ids::IdGen;
use chassis::problem::{Code, Problem};
use saga_core::Millis;
use saga_runtime::{Clock, Loaded, ReadThrough, StoreError};

use crate::Config;
use crate::domain::{Delivery, NewAccount, Personal, Refresh, normalize_email};
use crate::keys::{self, Keys};
use crate::limiter::Failures;
use crate::passwords::Passwords;
use crate::stats::Stats;
use crate::store::{NewSession, Refreshed, Store};

/// An access token and the refresh token that gets the next one.
#[derive(Clone, Debug)]
pub struct TokenPair {
    /// A JWT.
    pub access_token: String,
    /// Opaque; spent by its first use.
    pub refresh_token: String,
}

/// What registering needs.
#[derive(Clone)]
pub struct Registration {
    /// In clear; hashed here and forgotten.
    pub password: String,
    /// Who.
    pub personal: Personal,
    /// Where to.
    pub delivery: Delivery,
}

/// How long a customer's details may be shown as they were, should nobody hear of a change.
const CUSTOMER_TTL: Duration = Duration::from_secs(30);

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    store: Arc<dyn Store>,
    ids: Arc<IdGen>,
    clock: Arc<dyn Clock>,
    keys: Arc<ArcSwap<Keys>>,
    verifier: Verifier,
    passwords: Passwords,
    /// Held by who gives somebody a role.
    appointing: Arc<tokio::sync::Mutex<()>>,
    failures: Failures,
    config: Arc<Config>,
    personal: ReadThrough,
    delivery: ReadThrough,
    stats: Arc<Stats>,
}

impl Accounts {
    /// Loads the signing keys (making the first one) and hands their public halves to `verifier`.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn open(
        config: Config,
        store: Arc<dyn Store>,
        cache: &ReadThrough,
        ids: Arc<IdGen>,
        clock: Arc<dyn Clock>,
        verifier: Verifier,
    ) -> Result<Self, StoreError> {
        store.add_key(keys::generate()?, true, clock.now()).await?;
        let keys = Keys::load(&store.keys().await?)?;
        verifier.set_keys(keys.public());
        let stats: Arc<Stats> = Arc::default();
        let passwords = Passwords::new(&config, Arc::clone(&stats));
        let failures = Failures::new(Arc::clone(&clock));
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        let (personal, delivery) = (cache.of("personal", CUSTOMER_TTL), cache.of("delivery", CUSTOMER_TTL));
        let config = Arc::new(config);
        let appointing = Arc::default();
        Ok(Self {
            store,
            ids,
            clock,
            keys,
            verifier,
            passwords,
            appointing,
            failures,
            config,
            personal,
            delivery,
            stats,
        })
    }

    /// What was counted.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// The public keys, as a JWK set.
    pub fn jwks(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// Makes a new signing key; tokens of the old ones stay valid.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn rotate_key(&self) -> Result<(), StoreError> {
        self.store.add_key(keys::generate()?, false, self.clock.now()).await?;
        let keys = Keys::load(&self.store.keys().await?)?;
        self.verifier.set_keys(keys.public());
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Registers a customer and logs them in. The very first one becomes admin, where the installation wants that.
    ///
    /// A taken address has to be refused, since success hands out tokens at once; it costs the same time and is
    /// counted like a failed log-in, so that trying addresses out is as slow as guessing passwords.
    ///
    /// # Errors
    /// `conflict`, `rate_limited`, `overloaded`.
    pub async fn register(&self, new: Registration, from: Option<IpAddr>) -> Result<TokenPair, Problem> {
        let address = address_key(from);
        self.check(&[(&address, self.config.failures_per_address)])
            .inspect_err(|_| self.stats.register_limited.inc())?;
        let password = self.passwords.hash(new.password).await?;
        let customer_id = self.ids.next();
        let email = normalize_email(&new.personal.email);
        let personal = Personal { email, ..new.personal };
        let account = NewAccount { customer_id, personal, delivery: new.delivery, password, role: None };
        let created = self.store.create(account, self.config.first_account_is_admin, self.clock.now()).await?;
        let Some(role) = created else {
            self.failures.count(&address);
            self.stats.register_taken.inc();
            return Err(Problem::new(
                Code::Conflict,
                "no account could be created with these details; log in instead?",
            ));
        };
        self.stats.registered.inc();
        if role == Role::Admin {
            tracing::warn!(customer_id, "the first account of this installation is its admin");
        }
        self.log_in(customer_id, role).await
    }

    /// Gives somebody a role: makes the account, or changes one that is there, whose password then stays. `false`: that one had
    /// the role already, nothing was changed. One at a time in a process, so that of two alike only one changes something.
    ///
    /// # Errors
    /// `overloaded`; and when the store cannot be used.
    pub async fn appoint(&self, email: &str, password: String, role: Role) -> Result<bool, Problem> {
        let email = normalize_email(email);
        let _one = self.appointing.lock().await;
        if let Some(found) = self.store.credentials(email.clone()).await? {
            return Ok(found.role != role && self.store.set_role(email, role).await?);
        }
        let password = self.passwords.hash(password).await?;
        let personal = Personal { first_name: "Admin".into(), last_name: String::new(), email: email.clone() };
        let delivery = Delivery { address: String::new(), phone_number: String::new() };
        let customer_id = self.ids.next();
        let account = NewAccount { customer_id, personal, delivery, password, role: Some(role) };
        if self.store.create(account, false, self.clock.now()).await?.is_some() {
            return Ok(true);
        }
        // Somebody has registered with the address meanwhile; accounts are never removed.
        let found = self.store.credentials(email.clone()).await?;
        Ok(found.is_none_or(|found| found.role != role) && self.store.set_role(email, role).await?)
    }

    /// Whether nobody has registered yet.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        self.store.is_empty().await
    }

    /// Logs in. A wrong password and an unknown address are answered alike, in words and in time.
    ///
    /// # Errors
    /// `unauthenticated`, `rate_limited`, `overloaded`.
    pub async fn login(&self, email: &str, password: String, from: Option<IpAddr>) -> Result<TokenPair, Problem> {
        let email = normalize_email(email);
        let (account, address) = (format!("account {email}"), address_key(from));
        self.check(&[(&account, self.config.failures_per_account), (&address, self.config.failures_per_address)])
            .inspect_err(|_| self.stats.login_limited.inc())?;
        let found = self.store.credentials(email).await?;
        let matches = self.passwords.verify(password, found.as_ref().map(|c| &c.password)).await?;
        match found.filter(|_| matches) {
            Some(credentials) => {
                self.failures.forget(&account);
                self.stats.login_accepted.inc();
                self.log_in(credentials.customer_id, credentials.role).await
            }
            None => {
                self.failures.count(&account);
                self.stats.login_wrong.inc();
                self.failures.count(&address);
                Err(Problem::new(Code::Unauthenticated, "the e-mail address or the password is wrong"))
            }
        }
    }

    fn check(&self, keys: &[(&str, u32)]) -> Result<(), Problem> {
        match keys.iter().filter_map(|(key, limit)| self.failures.wait(key, *limit)).max() {
            None => Ok(()),
            Some(seconds) => {
                Err(Problem::new(Code::RateLimited, "too many failed attempts; wait a little").retry_after(seconds))
            }
        }
    }

    async fn log_in(&self, customer_id: u64, role: Role) -> Result<TokenPair, Problem> {
        let now = self.clock.now();
        let (refresh_token, token) = self.new_token()?;
        let id = self.ids.next();
        let expires_at = now + self.config.session_hours * 3_600_000;
        self.store.open_session(NewSession { id, customer_id, token, now, expires_at }).await?;
        Ok(TokenPair { access_token: self.access_token(customer_id, role, id, now)?, refresh_token })
    }

    fn access_token(&self, customer_id: u64, role: Role, session: u64, now: Millis) -> Result<String, StoreError> {
        let iat = now / 1_000;
        self.keys.load().sign(&Claims {
            sub: customer_id.to_string(),
            role,
            sid: session,
            iss: self.config.issuer.clone(),
            aud: self.config.audience.clone(),
            iat,
            exp: iat + self.config.access_token_minutes * 60,
        })
    }

    /// 256 random bits as text, and their hash.
    #[expect(clippy::disallowed_methods, reason = "a secret")]
    fn new_token(&self) -> Result<(String, [u8; 32]), StoreError> {
        use base64::Engine as _;
        let mut random = [0_u8; 32];
        getrandom::fill(&mut random).map_err(|e| StoreError::Transient(e.to_string()))?;
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random);
        let hash = *blake3::hash(text.as_bytes()).as_bytes();
        Ok((text, hash))
    }

    /// A new pair for a refresh token, which is spent by this. Reuse of a spent one revokes the whole family.
    ///
    /// # Errors
    /// `unauthenticated`, whatever was wrong with it.
    pub async fn refresh(&self, refresh_token: &str) -> Result<TokenPair, Problem> {
        let now = self.clock.now();
        let hash = *blake3::hash(refresh_token.as_bytes()).as_bytes();
        let (next_text, next) = self.new_token()?;
        match self.store.refresh(hash, next, now, self.config.refresh_grace_seconds * 1_000).await? {
            Refreshed::Rotated { customer_id, role, session } => {
                self.stats.refreshed.inc();
                let access_token = self.access_token(customer_id, role, session, now)?;
                Ok(TokenPair { access_token, refresh_token: next_text })
            }
            refused => {
                self.stats.refresh_refused.inc();
                if refused == Refreshed::Refused(Refresh::RevokeFamily) {
                    tracing::warn!("a spent refresh token was used again: its session is revoked");
                }
                Err(Problem::new(Code::Unauthenticated, "the refresh token is not valid; log in again"))
            }
        }
    }

    /// Revokes the session. Access tokens live on until they expire: they are verified without asking.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn logout(&self, identity: Identity) -> Result<(), Problem> {
        self.store.revoke_session(identity.session, identity.customer_id, self.clock.now()).await?;
        Ok(())
    }

    /// Who stands behind an access token.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn authenticate(&self, access_token: &str) -> Result<Identity, AuthError> {
        self.verifier.verify(access_token)
    }

    /// The customer's name.
    ///
    /// # Errors
    /// `not_found` for a token of an account that is gone.
    pub async fn personal(&self, identity: Identity) -> Result<Personal, Problem> {
        // These rows have no version; the moment before the read stands for it.
        let version = self.clock.now();
        let find = async || {
            let found = self.store.personal(identity.customer_id).await?;
            Ok::<_, Problem>(found.map(|value| Loaded { value, version, keep: true }))
        };
        self.personal.get(identity.customer_id, find).await?.ok_or_else(gone)
    }

    /// Changes it.
    ///
    /// # Errors
    /// `conflict` for an address that is taken.
    pub async fn set_personal(&self, identity: Identity, personal: Personal) -> Result<Personal, Problem> {
        let personal = Personal { email: normalize_email(&personal.email), ..personal };
        match self.store.set_personal(identity.customer_id, personal.clone()).await? {
            true => {
                self.personal.changed(identity.customer_id, self.clock.now() + 1).await;
                Ok(personal)
            }
            false => Err(Problem::new(Code::Conflict, "these details could not be stored; is the address another's?")),
        }
    }

    /// Where the customer's things are sent.
    ///
    /// # Errors
    /// `not_found` for a token of an account that is gone.
    pub async fn delivery(&self, identity: Identity) -> Result<Delivery, Problem> {
        let version = self.clock.now();
        let find = async || {
            let found = self.store.delivery(identity.customer_id).await?;
            Ok::<_, Problem>(found.map(|value| Loaded { value, version, keep: true }))
        };
        self.delivery.get(identity.customer_id, find).await?.ok_or_else(gone)
    }

    /// Changes it.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn set_delivery(&self, identity: Identity, delivery: Delivery) -> Result<Delivery, Problem> {
        self.store.set_delivery(identity.customer_id, delivery.clone()).await?;
        self.delivery.changed(identity.customer_id, self.clock.now() + 1).await;
        Ok(delivery)
    }
}

fn gone() -> Problem {
    Problem::new(Code::NotFound, "there is no such account any more")
}

fn address_key(from: Option<IpAddr>) -> String {
    from.map_or_else(|| "address unknown".to_owned(), |ip| format!("address {ip}"))
}
