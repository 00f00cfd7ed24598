//! A clock that stands, tokens that the service believes, and requests without a socket.

#![allow(
    clippy::unwrap_used,
    clippy::must_use_candidate,
    missing_docs,
    reason = "for tests only: a surprise is a panic, and the names say what there is"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use chassis::auth::{Claims, Role, Verifier};
use http_body_util::BodyExt as _;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use saga_core::Millis;
use saga_runtime::Clock;
use serde_json::Value;

/// 2026 in ms since the epoch.
pub const NOW: Millis = 1_767_225_600_000;

/// Stands until it is moved.
pub struct HandClock(AtomicU64);

impl HandClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(NOW)))
    }

    pub fn advance(&self, by: Millis) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// An Ed25519 key (PKCS #8) that nobody else trusts.
fn key() -> EncodingKey {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der: Vec<u8> = head.into_iter().chain([7; 32]).collect();
    EncodingKey::from_ed_der(&der)
}

/// The routes as the shop mounts them, trusting that key.
pub fn mounted(router: Router, clock: Arc<dyn Clock>) -> Router {
    let mut jwk = Jwk::from_encoding_key(&key(), Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some("test".to_owned());
    let verifier = Verifier::new("issuer", "shop", clock);
    verifier.set_keys(&JwkSet { keys: vec![jwk] });
    Router::new().nest("/api/v1", router).layer(axum::Extension(verifier))
}

/// An `Authorization` header's value.
pub fn bearer(customer_id: u64, role: Role) -> String {
    let (sub, iss, aud) = (customer_id.to_string(), "issuer".to_owned(), "shop".to_owned());
    let claims = Claims { sub, role, sid: 1, iss, aud, iat: 0, exp: 9_000_000_000 };
    let header = Header { kid: Some("test".to_owned()), ..Header::new(Algorithm::EdDSA) };
    format!("Bearer {}", jsonwebtoken::encode(&header, &claims, &key()).unwrap())
}

/// A response that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn id(&self) -> u64 {
        self.body["id"].as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }

    pub fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_else(|| panic!("{self:?}")))
    }

    pub fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }

    /// The ids of a page's items, by the field that carries them.
    pub fn ids(&self, field: &str) -> Vec<u64> {
        let items = self.body["items"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        items.iter().map(|item| item[field].as_u64().unwrap()).collect()
    }
}

/// Asks as somebody (or, with `None`, as nobody).
pub async fn ask(router: &Router, who: Option<(u64, Role)>, method: &str, path: &str, body: Option<Value>) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
    if let Some((customer_id, role)) = who {
        request = request.header("authorization", bearer(customer_id, role));
    }
    let body = match body {
        Some(json) => {
            request = request.header("content-type", "application/json");
            Body::from(json.to_string())
        }
        None => Body::empty(),
    };
    let response = chassis::http::oneshot(router.clone(), request.body(body).unwrap()).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}
