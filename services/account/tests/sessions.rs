//! Tokens: rotation, reuse, logout, expiry, keys, and `auth.AuthService`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod desk;

use std::sync::Arc;

use account::Config;
use axum::body::Body;
use axum::http::Request;
use chassis::auth::{AuthError, Verifier};
use contracts::auth::AuthRequest;
use contracts::auth::auth_service_client::AuthServiceClient;
use desk::{Office, PASSWORD, config};
use proptest::prelude::*;

#[tokio::test]
async fn g20_a_refresh_token_is_spent_by_its_use_and_the_chain_goes_on() {
    let office = Office::open().await;
    let mut token = office.register("ada@example.org").await.refresh();
    let mut all = vec![token.clone()];
    for _ in 0..5 {
        office.clock.advance_seconds(600);
        let pair = office.refresh(&token).await;
        assert_eq!(pair.status, 200, "{pair:?}");
        assert!(office.verifier.verify(&pair.access()).is_ok());
        token = pair.refresh();
        assert!(!all.contains(&token));
        all.push(token.clone());
    }
    let office = office.restart().await;
    assert_eq!(office.refresh(&token).await.status, 200, "a session outlives the process");
}

#[tokio::test]
async fn a35_a_spent_token_that_comes_again_revokes_the_whole_session() {
    let office = Office::open().await;
    let stolen = office.register("ada@example.org").await.refresh();
    let other = office.login("ada@example.org", PASSWORD).await.refresh();
    let second = office.refresh(&stolen).await.refresh();
    let third = office.refresh(&second).await.refresh();
    office.clock.advance_seconds(11);
    assert_eq!(office.refresh(&stolen).await.code(), (401, "unauthenticated"));
    for dead in [&stolen, &second, &third] {
        assert_eq!(office.refresh(dead).await.code(), (401, "unauthenticated"), "the thief's and the owner's alike");
    }
    assert_eq!(office.refresh(&other).await.status, 200, "another log-in is another session");
}

#[tokio::test]
async fn a36_two_tabs_that_refresh_at_once_do_not_lose_the_session() {
    let office = Office::open().await;
    let token = office.register("ada@example.org").await.refresh();
    let (one, two) = tokio::join!(office.refresh(&token), office.refresh(&token));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401], "exactly one gets the next pair");
    let winner = if one.status == 200 { one } else { two };
    office.clock.advance_seconds(9);
    assert_eq!(office.refresh(&token).await.status, 401, "within the grace, refused, and the session lives");
    assert_eq!(office.refresh(&winner.refresh()).await.status, 200);
}

#[tokio::test]
async fn the_grace_ends_when_it_is_configured_to() {
    let office = Office::with(Config { refresh_grace_seconds: 0, ..config() }).await;
    let token = office.register("ada@example.org").await.refresh();
    let next = office.refresh(&token).await.refresh();
    assert_eq!(office.refresh(&token).await.status, 401);
    assert_eq!(office.refresh(&next).await.status, 401, "without a grace the first reuse revokes");
}

#[tokio::test]
async fn logout_ends_the_session_that_asks_and_no_other() {
    let office = Office::open().await;
    let phone = office.register("ada@example.org").await;
    let desktop = office.login("ada@example.org", PASSWORD).await;
    assert_eq!(office.ask(&phone.access(), "POST", "/auth/logout", None).await.status, 204);
    assert_eq!(office.ask(&phone.access(), "POST", "/auth/logout", None).await.status, 204, "twice is once");
    assert_eq!(office.refresh(&phone.refresh()).await.code(), (401, "unauthenticated"));
    assert_eq!(office.refresh(&desktop.refresh()).await.status, 200);
    assert_eq!(office.ask("", "POST", "/auth/logout", None).await.status, 401);
}

#[tokio::test]
async fn a33_tokens_are_not_taken_for_one_another_and_nonsense_is_nothing() {
    let office = Office::open().await;
    let pair = office.register("ada@example.org").await;
    assert_eq!(office.refresh(&pair.access()).await.status / 100, 4);
    assert_eq!(office.ask(&pair.refresh(), "GET", "/customer/personal", None).await.code(), (401, "unauthenticated"));
    let longer = format!("{}A", pair.refresh());
    for nonsense in ["x", "' or 1=1 --", "\u{7f}", longer.as_str()] {
        assert_eq!(office.refresh(nonsense).await.code(), (401, "unauthenticated"), "{nonsense:?}");
    }
    for unlawful in ["", "\0"] {
        assert_eq!(office.refresh(unlawful).await.pointers(), ["#/refresh_token"], "{unlawful:?}");
    }
    assert_eq!(office.refresh(&pair.refresh()).await.status, 200);
}

#[tokio::test]
async fn g19_an_access_token_ends_after_its_minutes_and_says_so() {
    let office = Office::open().await;
    let pair = office.register("ada@example.org").await;
    office.clock.advance_seconds(15 * 60 - 1);
    assert_eq!(office.ask(&pair.access(), "GET", "/customer/personal", None).await.status, 200);
    office.clock.advance_seconds(1);
    let expired = office.ask(&pair.access(), "GET", "/customer/personal", None).await;
    assert_eq!(expired.code(), (401, "token_expired"));
    assert!(expired.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    let next = office.refresh(&pair.refresh()).await.access();
    assert_eq!(office.ask(&next, "GET", "/customer/personal", None).await.status, 200);
}

#[tokio::test]
async fn a_session_ends_after_its_hours_however_often_it_is_refreshed() {
    let office = Office::with(Config { session_hours: 1, ..config() }).await;
    let mut token = office.register("ada@example.org").await.refresh();
    for _ in 0..3 {
        office.clock.advance_seconds(19 * 60);
        token = office.refresh(&token).await.refresh();
    }
    office.clock.advance_seconds(3 * 60);
    assert_eq!(office.refresh(&token).await.code(), (401, "unauthenticated"));
}

#[tokio::test]
async fn no_secret_is_in_the_file_in_clear() {
    let office = Office::open().await;
    let pair = office.register("ada@example.org").await;
    let next = office.refresh(&pair.refresh()).await.refresh();
    let office = office.restart().await;
    let mut bytes = Vec::new();
    for file in std::fs::read_dir(office.dir.path()).unwrap() {
        bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let holds = |secret: &str| bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
    assert!(holds("ada@example.org"), "this is the file");
    for secret in [PASSWORD, &pair.refresh(), &next, &pair.access()] {
        assert!(!holds(secret), "{secret}");
    }
}

#[tokio::test]
async fn the_published_keys_verify_our_tokens_and_hold_nothing_private() {
    let office = Office::open().await;
    let token = office.register("ada@example.org").await.access();
    let keys = office.send(Request::get("/.well-known/jwks.json").body(Body::empty()).unwrap()).await;
    assert_eq!(keys.status, 200);
    let [key] = keys.body["keys"].as_array().unwrap().as_slice() else { panic!("{keys:?}") };
    assert_eq!(
        (key["kty"].as_str(), key["crv"].as_str(), key["alg"].as_str()),
        (Some("OKP"), Some("Ed25519"), Some("EdDSA"))
    );
    assert!(key.get("d").is_none(), "the private half");
    let elsewhere = Verifier::new(&office.config.issuer, &office.config.audience, office.clock.clone());
    assert_eq!(elsewhere.verify(&token), Err(AuthError::Invalid));
    elsewhere.set_keys(&serde_json::from_value(keys.body).unwrap());
    assert_eq!(elsewhere.verify(&token), office.verifier.verify(&token));
}

#[tokio::test]
async fn a37_after_a_rotation_old_tokens_live_on_and_new_ones_have_the_new_key() {
    let office = Office::open().await;
    let old = office.register("ada@example.org").await.access();
    // Later than the first key: the newest signs.
    office.clock.advance_seconds(1);
    office.accounts.rotate_key().await.unwrap();
    let new = office.login("ada@example.org", PASSWORD).await.access();
    let head = |token: &str| token.split('.').next().unwrap().to_owned();
    assert_ne!(head(&old), head(&new), "another key id");
    assert!(office.verifier.verify(&old).is_ok() && office.verifier.verify(&new).is_ok());
    let office = office.restart().await;
    assert!(office.verifier.verify(&old).is_ok() && office.verifier.verify(&new).is_ok());
    assert_eq!(head(&office.login("ada@example.org", PASSWORD).await.access()), head(&new));
}

#[tokio::test]
async fn auth_over_grpc_tells_who_asks_and_that_a_token_has_expired() {
    let office = Office::open().await;
    let token = office.register("ada@example.org").await.access();
    let mut client = AuthServiceClient::new(account::grpc::service(office.accounts.clone()));
    let mut auth = async |access_token: &str| {
        let request = AuthRequest { access_token: access_token.to_owned() };
        client.auth(request).await.map(|answer| answer.into_inner())
    };
    let known = auth(&token).await.unwrap();
    let customer_id = office.verifier.verify(&token).unwrap().customer_id;
    assert_eq!((known.customer_id, known.expired), (customer_id, false));
    for forged in ["", "x", &format!("{token}x"), &format!("Bearer {token}")] {
        assert_eq!(auth(forged).await.unwrap_err().code(), tonic::Code::Unauthenticated, "{forged}");
    }
    office.clock.advance_seconds(15 * 60);
    let expired = auth(&token).await.unwrap();
    assert_eq!((expired.customer_id, expired.expired), (0, true));
}

/// Refreshes with some token of those handed out so far, after some seconds.
async fn play(uses: Vec<(usize, u64)>) {
    let office = Office::open().await;
    let mut tokens = vec![office.register("ada@example.org").await.refresh()];
    // The model: only the newest is good, and only until one that was spent for longer than the grace came again.
    let mut spent_at: Vec<Option<u64>> = vec![None];
    let (mut now, mut revoked) = (0, false);
    for (which, wait) in uses {
        office.clock.advance_seconds(wait);
        now += wait;
        let which = which % tokens.len();
        let answer = office.refresh(&tokens[which]).await;
        let good = !revoked && spent_at[which].is_none();
        assert_eq!(answer.status, if good { 200 } else { 401 });
        if good {
            spent_at[which] = Some(now);
            tokens.push(answer.refresh());
            spent_at.push(None);
        } else if spent_at[which].is_some_and(|at| now - at >= 10) {
            revoked = true;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_refreshes_with_what_only_the_newest_token_of_a_clean_session_is_good(
        uses in proptest::collection::vec((0..100_usize, 0..14_u64), 1..16),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(uses));
    }
}

#[tokio::test]
async fn parallel_refreshes_of_one_token_hand_out_one_pair() {
    let office = Arc::new(Office::open().await);
    let token = office.register("ada@example.org").await.refresh();
    let racers: Vec<_> = (0..16)
        .map(|_| {
            let (office, token) = (office.clone(), token.clone());
            tokio::spawn(async move { office.refresh(&token).await.status })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        won += usize::from(racer.await.unwrap() == 200);
    }
    assert_eq!(won, 1);
}
