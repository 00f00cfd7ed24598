//! Access tokens as the account service issues them.

use std::sync::{Arc, LazyLock};

use chassis::auth::{Claims, Role, Verifier};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use saga_runtime::Clock;

/// Seconds since the epoch, far away.
pub const NEVER: u64 = 9_000_000_000;

/// An Ed25519 key (PKCS #8) that nobody else trusts.
static KEY: LazyLock<EncodingKey> = LazyLock::new(|| {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der: Vec<u8> = head.into_iter().chain([7; 32]).collect();
    EncodingKey::from_ed_der(&der)
});

/// Trusts that key.
pub fn verifier(clock: Arc<dyn Clock>) -> Verifier {
    let mut jwk = Jwk::from_encoding_key(&KEY, Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some("test".to_owned());
    let verifier = Verifier::new("issuer", "shop", clock);
    verifier.set_keys(&JwkSet { keys: vec![jwk] });
    verifier
}

/// An `Authorization` header.
pub fn bearer(customer_id: u64, expires_at_seconds: u64) -> String {
    let claims = Claims {
        sub: customer_id.to_string(),
        role: Role::Customer,
        sid: 1,
        iss: "issuer".to_owned(),
        aud: "shop".to_owned(),
        iat: 0,
        exp: expires_at_seconds,
    };
    let header = Header { kid: Some("test".to_owned()), ..Header::new(Algorithm::EdDSA) };
    format!("Bearer {}", jsonwebtoken::encode(&header, &claims, &KEY).unwrap())
}
