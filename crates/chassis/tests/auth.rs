//! Which tokens are believed: one good one, and a table of everything else.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderValue, Request};
use chassis::auth::{AuthError, Claims, Role, Verifier};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use saga_core::Millis;
use saga_runtime::Clock;
use serde_json::{Value, json};

const NOW: Millis = 1_767_225_600_000;

struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// An Ed25519 key (PKCS #8) made of one byte.
fn key(seed: u8) -> EncodingKey {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der: Vec<u8> = head.into_iter().chain([seed; 32]).collect();
    EncodingKey::from_ed_der(&der)
}

fn jwk(seed: u8, kid: &str) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(&key(seed), Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    jwk
}

fn verifier() -> (Arc<HandClock>, Verifier) {
    let clock = Arc::new(HandClock(AtomicU64::new(NOW)));
    let verifier = Verifier::new("issuer", "shop", clock.clone());
    verifier.set_keys(&JwkSet { keys: vec![jwk(1, "one"), jwk(2, "two")] });
    (clock, verifier)
}

fn claims() -> Value {
    let seconds = NOW / 1_000;
    json!({ "sub": "7", "role": "admin", "sid": 3, "iss": "issuer", "aud": "shop", "iat": seconds, "exp": seconds + 60 })
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

fn without(field: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(field);
    claims
}

fn signed(kid: &str, seed: u8, claims: &Value) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &key(seed)).unwrap()
}

fn base64(json: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string())
}

#[test]
fn a_good_token_says_who_asks() {
    let (_, verifier) = verifier();
    let identity = verifier.verify(&signed("two", 2, &claims())).unwrap();
    assert_eq!((identity.customer_id, identity.role, identity.session), (7, Role::Admin, 3));
    assert_eq!(identity.expires_at, NOW + 60_000);
    let typed: Claims = serde_json::from_value(claims()).unwrap();
    assert_eq!(typed.sub, "7");
}

#[test]
fn a30_to_a37_forged_and_confused_tokens_are_refused() {
    let (_, verifier) = verifier();
    let good = signed("one", 1, &claims());
    let [head, body, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let hmac = |secret: &[u8]| {
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let public = serde_json::to_value(jwk(1, "one")).unwrap()["x"].as_str().unwrap().to_owned();
    let none = |alg: &str| base64(&json!({ "alg": alg, "kid": "one", "typ": "JWT" }));
    let table = [
        ("another's key under a known name", signed("one", 2, &claims())),
        ("a key that nobody knows", signed("one", 9, &claims())),
        ("an unknown name", signed("three", 1, &claims())),
        ("a name that is a path", signed("../one", 1, &claims())),
        ("no name", jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims(), &key(1)).unwrap()),
        ("alg none", format!("{}.{body}.", none("none"))),
        ("alg None", format!("{}.{body}.{signature}", none("None"))),
        ("the public key as an HMAC secret", hmac(public.as_bytes())),
        ("claims changed after signing", format!("{head}.{}.{signature}", base64(&with("sub", json!("8"))))),
        ("no signature", format!("{head}.{body}.")),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{good}.{signature}")),
        ("another issuer", signed("one", 1, &with("iss", json!("else")))),
        ("another audience", signed("one", 1, &with("aud", json!("else")))),
        ("a role that there is not", signed("one", 1, &with("role", json!("root")))),
        ("a subject that is no number", signed("one", 1, &with("sub", json!("7 or 1=1")))),
        ("a subject that is negative", signed("one", 1, &with("sub", json!("-7")))),
        ("an expiry that is text", signed("one", 1, &with("exp", json!("never")))),
        ("an expiry that is negative", signed("one", 1, &with("exp", json!(-1)))),
        ("too long a token", signed("one", 1, &with("iss", json!("i".repeat(3_000))))),
        ("nothing", String::new()),
        ("dots", "...".to_owned()),
        ("no base64", "é.é.é".to_owned()),
    ];
    for (what, token) in table {
        assert_eq!(verifier.verify(&token), Err(AuthError::Invalid), "{what}");
    }
    for field in ["sub", "role", "sid", "iss", "aud", "exp"] {
        let token = signed("one", 1, &without(field));
        assert_eq!(verifier.verify(&token), Err(AuthError::Invalid), "without {field}");
    }
    assert!(verifier.verify(&good).is_ok());
}

#[test]
fn g19_a_token_expires_by_the_services_clock_also_when_it_is_remembered() {
    let (clock, verifier) = verifier();
    let token = signed("one", 1, &claims());
    assert!(verifier.verify(&token).is_ok());
    clock.0.store(NOW + 59_999, Ordering::Relaxed);
    assert!(verifier.verify(&token).is_ok());
    for _ in 0..2 {
        clock.0.store(NOW + 60_000, Ordering::Relaxed);
        assert_eq!(verifier.verify(&token), Err(AuthError::Expired));
    }
    let forged = token.replacen('.', ".A", 1);
    assert_eq!(verifier.verify(&forged), Err(AuthError::Invalid), "what is forged is not told to be expired");
}

#[test]
fn a_key_that_is_withdrawn_takes_its_remembered_tokens_along() {
    let (_, verifier) = verifier();
    let (one, two) = (signed("one", 1, &claims()), signed("two", 2, &claims()));
    assert!(verifier.verify(&one).is_ok() && verifier.verify(&two).is_ok());
    verifier.set_keys(&JwkSet { keys: vec![jwk(2, "two")] });
    assert_eq!(verifier.verify(&one), Err(AuthError::Invalid));
    assert!(verifier.verify(&two).is_ok());
}

#[test]
fn a_verifier_without_keys_trusts_nobody_and_keys_of_other_kinds_are_passed_over() {
    let empty = Verifier::new("issuer", "shop", Arc::new(HandClock(AtomicU64::new(NOW))));
    assert_eq!(empty.verify(&signed("one", 1, &claims())), Err(AuthError::Invalid));
    let secret = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256" }] });
    empty.set_keys(&serde_json::from_value(secret).unwrap());
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
    let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(b"secret")).unwrap();
    assert_eq!(empty.verify(&token), Err(AuthError::Invalid));
}

#[test]
fn g18_a44_odd_authorization_headers_are_refused_and_never_panic() {
    let (_, verifier) = verifier();
    let token = signed("one", 1, &claims());
    let ask = |values: &[&[u8]]| {
        let mut request = Request::new(());
        for value in values {
            request.headers_mut().append("authorization", HeaderValue::from_bytes(value).unwrap());
        }
        verifier.verify_header(&request.into_parts().0)
    };
    let bearer = format!("Bearer {token}");
    for good in [bearer.clone(), format!("bEaReR {token}"), format!("Bearer   {token} ")] {
        assert!(ask(&[good.as_bytes()]).is_ok(), "{good}");
    }
    let basic = format!("Basic {token}");
    let glued = format!("Bearer{token}");
    let tab = format!("Bearer\t{token}");
    let twice = format!("Bearer Bearer {token}");
    for odd in [&b""[..], b" ", b"B", b"Bearer", b"Bearer ", b"Bearer  ", b"\xff\xfe", b"Bearer \xff", token.as_bytes()]
    {
        assert_eq!(ask(&[odd]), Err(AuthError::Invalid), "{odd:?}");
    }
    for odd in [&basic, &glued, &tab, &twice] {
        assert_eq!(ask(&[odd.as_bytes()]), Err(AuthError::Invalid), "{odd}");
    }
    assert_eq!(ask(&[]), Err(AuthError::Invalid));
    assert_eq!(ask(&[bearer.as_bytes(), bearer.as_bytes()]), Err(AuthError::Invalid), "which of the two?");
}
