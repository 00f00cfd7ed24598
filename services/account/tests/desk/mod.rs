//! The account service on a real file, with cheap password hashes and a clock that stands.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use account::{Accounts, Config, SCHEMA, SqliteStore};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request};
use chassis::auth::Verifier;
use chassis::ids::IdGen;
use http_body_util::BodyExt as _;
use saga_adapters::sqlite::{Db, Options};
use saga_core::Millis;
use saga_runtime::{Clock, ReadThrough};
use serde_json::{Value, json};
use tempfile::TempDir;

/// 2026 in ms since the epoch.
pub const NOW: Millis = 1_767_225_600_000;
pub const PASSWORD: &str = "correct horse";

pub struct HandClock(AtomicU64);

impl HandClock {
    pub fn advance_seconds(&self, by: u64) {
        self.0.fetch_add(by * 1_000, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// The service, and what outlives a restart of it.
pub struct Office {
    pub dir: TempDir,
    pub clock: Arc<HandClock>,
    pub config: Config,
    pub db: Db,
    pub router: Router,
    pub accounts: Accounts,
    pub verifier: Verifier,
}

/// The cheapest lawful hashes: the tests are not about their cost.
pub fn config() -> Config {
    Config { password_memory_kib: 8, password_passes: 1, ..Config::default() }
}

/// A response that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_else(|| panic!("{self:?}")))
    }

    pub fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }

    pub fn access(&self) -> String {
        self.body["access_token"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    pub fn refresh(&self) -> String {
        self.body["refresh_token"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

impl Office {
    pub async fn open() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: Config) -> Self {
        Self::at(tempfile::tempdir().unwrap(), Arc::new(HandClock(AtomicU64::new(NOW))), config).await
    }

    async fn at(dir: TempDir, clock: Arc<HandClock>, config: Config) -> Self {
        let db = Db::open(&dir.path().join("account.db"), &SCHEMA, &Options::default()).unwrap();
        let store = Arc::new(SqliteStore::new(db.clone()));
        let verifier = Verifier::new(&config.issuer, &config.audience, clock.clone());
        let ids = Arc::new(IdGen::new(1, clock.clone()));
        let service = account::build(config.clone(), store, &ReadThrough::none(), ids, clock.clone(), verifier.clone())
            .await
            .unwrap();
        let router = Router::new().nest("/api/v1", service.router).merge(service.well_known);
        let router = router.layer(axum::Extension(verifier.clone()));
        Self { dir, clock, config, db, router, accounts: service.accounts, verifier }
    }

    pub async fn restart(self) -> Self {
        let Self { dir, clock, config, db, router, accounts, .. } = self;
        drop((router, accounts));
        db.close().await;
        clock.advance_seconds(1);
        Self::at(dir, clock, config).await
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = chassis::http::oneshot(self.router.clone(), request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// From one address; the connection's, as the server tells it.
    pub async fn post_from(&self, address: &str, path: &str, body: Value) -> Answer {
        let request = Request::post(format!("/api/v1/account/auth{path}")).header("content-type", "application/json");
        let mut request = request.body(Body::from(body.to_string())).unwrap();
        let peer: SocketAddr = format!("{address}:1234").parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        self.send(request).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_from("192.0.2.1", path, body).await
    }

    pub async fn register(&self, email: &str) -> Answer {
        self.post("/register", registration(email)).await
    }

    pub async fn login(&self, email: &str, password: &str) -> Answer {
        self.post("/login", json!({ "email": email, "password": password })).await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.post("/refresh", json!({ "refresh_token": token })).await
    }

    /// As a customer.
    pub async fn ask(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let request = Request::builder().method(method).uri(format!("/api/v1/account{path}"));
        let request =
            request.header("authorization", format!("Bearer {token}")).header("content-type", "application/json");
        self.send(request.body(body.map_or_else(Body::empty, |b| Body::from(b.to_string()))).unwrap()).await
    }
}

pub fn registration(email: &str) -> Value {
    json!({
        "password": PASSWORD, "email": email, "first_name": "Ada", "last_name": "Lovelace",
        "address": "12 St James's Square", "phone_number": "+44 20 7946 0000",
    })
}
