//! Signing keys: made here, kept in the account database, published as a JWK set (RFC 7517, RFC 8037).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::auth::Claims;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use saga_runtime::StoreError;
use serde_json::json;

use crate::store::SigningKey;

/// The keys in force.
pub struct Keys {
    kid: String,
    signer: EncodingKey,
    public: JwkSet,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// A new key. Its name is the hash of its public half (in the spirit of RFC 7638).
///
/// # Errors
/// When the machine has no randomness.
pub fn generate() -> Result<SigningKey, StoreError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| StoreError::Transient("no random numbers for a signing key".into()))?;
    let pkcs8 = document.as_ref().to_vec();
    let kid = URL_SAFE_NO_PAD.encode(&blake3::hash(pair(&pkcs8)?.public_key().as_ref()).as_bytes()[..12]);
    Ok(SigningKey { kid, pkcs8 })
}

fn pair(pkcs8: &[u8]) -> Result<Ed25519KeyPair, StoreError> {
    Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| StoreError::Fault("a signing key is damaged".into()))
}

impl Keys {
    /// The first key signs, all verify.
    ///
    /// # Errors
    /// `Fault` when there is none or one is damaged.
    pub fn load(stored: &[SigningKey]) -> Result<Self, StoreError> {
        let first = stored.first().ok_or_else(|| StoreError::Fault("there is no signing key".into()))?;
        let mut keys = Vec::with_capacity(stored.len());
        for key in stored {
            let public = URL_SAFE_NO_PAD.encode(pair(&key.pkcs8)?.public_key().as_ref());
            let jwk =
                json!({ "kty": "OKP", "crv": "Ed25519", "x": public, "kid": key.kid, "alg": "EdDSA", "use": "sig" });
            keys.push(jwk);
        }
        let public = serde_json::from_value(json!({ "keys": keys }))
            .map_err(|e| StoreError::Fault(format!("the key set cannot be shown: {e}")))?;
        Ok(Self { kid: first.kid.clone(), signer: EncodingKey::from_ed_der(&first.pkcs8), public })
    }

    /// The public halves.
    pub fn public(&self) -> &JwkSet {
        &self.public
    }

    /// A signed token.
    ///
    /// # Errors
    /// `Fault` when the library refuses the key.
    pub fn sign(&self, claims: &Claims) -> Result<String, StoreError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.signer)
            .map_err(|e| StoreError::Fault(format!("signing failed: {e}")))
    }
}
