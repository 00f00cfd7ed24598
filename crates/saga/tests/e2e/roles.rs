//! Who may do what: every route against every kind of caller, and tokens that somebody made up (A-30 … A-37,
//!

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use saga::remote::{Connection, Endpoint};
use serde_json::{Value, json};

use crate::documents;
use crate::home::Home;
use crate::town::{BodyJson as _, Person, Town, cart, created, product};

/// Nobody, the owner, another customer, a viewer, an operator, an administrator: what each is answered.
type Answers = [u16; 6];

const OPEN: Answers = [200; 6];
const SIGNED_IN: Answers = [401, 200, 200, 200, 200, 200];
const OWN: Answers = [401, 200, 404, 404, 404, 404];
/// Administrators get as far as being told that the body is wrong.
const ADMINS: Answers = [401, 403, 403, 403, 403, 422];
const VIEWERS: Answers = [401, 403, 403, 200, 200, 200];
const OPERATORS: Answers = [401, 403, 403, 403, 200, 200];

/// (method, route as the routers name it, body, answers). `{id}` is what the route is about: the owner's purchase, or a
/// product or category that everybody sees.
fn public() -> Vec<(Method, &'static str, Value, Answers)> {
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let none = || Value::Null;
    let wrong = || json!({});
    vec![
        (get.clone(), "/livez", none(), OPEN),
        (get.clone(), "/readyz", none(), OPEN),
        (get.clone(), "/.well-known/jwks.json", none(), OPEN),
        (post.clone(), "/account/auth/register", wrong(), [422; 6]),
        (post.clone(), "/account/auth/login", wrong(), [422; 6]),
        (post.clone(), "/account/auth/refresh", wrong(), [422; 6]),
        (get.clone(), "/account/customer/personal", none(), SIGNED_IN),
        (put.clone(), "/account/customer/personal", wrong(), [401, 422, 422, 422, 422, 422]),
        (get.clone(), "/account/customer/delivery", none(), SIGNED_IN),
        (put.clone(), "/account/customer/delivery", wrong(), [401, 422, 422, 422, 422, 422]),
        (get.clone(), "/products", none(), OPEN),
        (post.clone(), "/products", wrong(), ADMINS),
        (get.clone(), "/products/{id}", none(), OPEN),
        (put.clone(), "/products/{id}", json!({ "price": -1 }), ADMINS),
        (get.clone(), "/categories", none(), OPEN),
        (post.clone(), "/categories", wrong(), ADMINS),
        (get.clone(), "/categories/{id}", none(), OPEN),
        (put.clone(), "/categories/{id}", wrong(), ADMINS),
        (Method::DELETE, "/categories/{id}", none(), [401, 403, 403, 403, 403, 409]),
        (get.clone(), "/orders", none(), SIGNED_IN),
        (get.clone(), "/orders/{id}", none(), OWN),
        (get.clone(), "/payments", none(), SIGNED_IN),
        (get.clone(), "/payments/{id}", none(), OWN),
        (post.clone(), "/purchases", wrong(), [401, 422, 422, 422, 422, 422]),
        (get.clone(), "/purchases", none(), SIGNED_IN),
        (get.clone(), "/purchases/events", none(), SIGNED_IN),
        (get.clone(), "/purchases/{id}", none(), OWN),
        (get, "/purchases/{id}/events", none(), OWN),
        (post.clone(), "/purchases/{id}/cancel", wrong(), [401, 409, 404, 404, 404, 404]),
        // The last one: it ends the callers' sessions.
        (post, "/account/auth/logout", none(), [401, 204, 204, 204, 204, 204]),
    ]
}

fn admin() -> Vec<(Method, &'static str, Value, Answers)> {
    let (get, post) = (Method::GET, Method::POST);
    let why = || json!({ "reason": "to see" });
    vec![
        (get.clone(), "/admin/sagas", Value::Null, VIEWERS),
        (get.clone(), "/admin/sagas/counts", Value::Null, VIEWERS),
        (
            post.clone(),
            "/admin/sagas/bulk",
            json!({ "verb": "retry", "filter": { "ids": [1] }, "reason": "to see" }),
            OPERATORS,
        ),
        (get.clone(), "/admin/audit", Value::Null, VIEWERS),
        (get.clone(), "/admin/sagas/{id}", Value::Null, VIEWERS),
        (get.clone(), "/admin/sagas/{id}/messages", Value::Null, VIEWERS),
        (get.clone(), "/admin/sagas/{id}/events", Value::Null, VIEWERS),
        (post.clone(), "/admin/sagas/{id}/{verb}", why(), [401, 403, 403, 403, 409, 409]),
        (get.clone(), "/admin/dlq", Value::Null, VIEWERS),
        (get.clone(), "/admin/dlq/{topic}", Value::Null, VIEWERS),
        (get.clone(), "/admin/dlq/{topic}/{id}", Value::Null, [401, 403, 403, 404, 404, 404]),
        (post.clone(), "/admin/dlq/{topic}/redrive", why(), OPERATORS),
        (post.clone(), "/admin/dlq/{topic}/purge", why(), OPERATORS),
        (get.clone(), "/admin/topics", Value::Null, VIEWERS),
        (get.clone(), "/admin/topics/list", Value::Null, VIEWERS),
        (get.clone(), "/admin/topics/{topic}/messages", Value::Null, VIEWERS),
        (get.clone(), "/admin/overview", Value::Null, VIEWERS),
        (get.clone(), "/admin/overview/events", Value::Null, VIEWERS),
        (get.clone(), "/admin/participants", Value::Null, VIEWERS),
        (get.clone(), "/admin/definitions", Value::Null, VIEWERS),
        (get.clone(), "/admin/stats", Value::Null, VIEWERS),
        // A scraper has no account.
        (get.clone(), "/metrics", Value::Null, OPEN),
        (post.clone(), "/admin/check", json!({}), VIEWERS),
        (get, "/admin/failures", Value::Null, VIEWERS),
        (Method::PUT, "/admin/failures", why(), [401, 403, 403, 403, 409, 409]),
        (post, "/admin/accounts", json!({}), [401, 403, 403, 403, 403, 422]),
    ]
}

/// What is on a route, or how far a stream got.
async fn ask(who: &Person, at: &Endpoint, method: &Method, path: &str, body: &Value) -> u16 {
    let person = Person { endpoint: at.clone(), ..who.clone() };
    if path.ends_with("/events") {
        return stream(&person, path).await;
    }
    let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    person.send(method.clone(), path, &[], bytes).await.status.as_u16()
}

/// A stream's status; one that stays open counts as soon as it is.
async fn stream(person: &Person, path: &str) -> u16 {
    let (opened, mut is_open) = tokio::sync::mpsc::unbounded_channel();
    let mut connection = Connection::new(&person.endpoint);
    let bearer = person.bearer();
    let whole = connection.stream(path, bearer.as_ref(), &[], || opened.send(()).unwrap(), |_| false);
    tokio::select! {
        status = whole => status.unwrap().as_u16(),
        Some(()) = is_open.recv() => 200,
        () = tokio::time::sleep(Duration::from_secs(10)) => panic!("{path} does not answer"),
    }
}

/// Every `.route("…")` in the routers' sources.
fn routes_in(files: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        found.extend(text.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    found
}

#[test]
fn a39_the_table_names_every_route() {
    let named = |table: Vec<(Method, &'static str, Value, Answers)>| -> BTreeSet<String> {
        table.into_iter().map(|(_, route, ..)| route.to_owned()).collect()
    };
    // The services' routes are those of the document: none is mounted without a word.
    let services = ["account", "product", "order", "payment", "purchase"].map(|s| format!("services/{s}/src/http.rs"));
    let files: Vec<&str> = services.iter().map(String::as_str).collect();
    assert_eq!(routes_in(&files), BTreeSet::new());
    let documented =
        |document: Value| documents::operations(&document).into_iter().map(|(path, _)| path.replace("/api/v1", ""));
    let others = routes_in(&["crates/chassis/src/health.rs"]);
    let shown = documented(saga::up::documents::public().unwrap());
    assert_eq!(named(public()), shown.chain(others).collect());
    let others =
        routes_in(&["services/orchestrator/src/http.rs", "crates/saga/src/up/admin.rs", "crates/saga/src/metrics.rs"]);
    let shown = documented(saga::up::documents::admin().unwrap());
    assert_eq!(named(admin()), shown.chain(others).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a38_a39_every_route_answers_every_caller_as_the_table_says() {
    let town = Town::open().await;
    let (category, mary, joe) = (town.category().await, town.customer("mary").await, town.customer("joe").await);
    let cup = created(&town.admin.post("/api/v1/products", &product(category, 10, 10)).await);
    let oscar = town.customer("oscar").await;
    let made = json!({ "email": "oscar@example.com", "password": "a long password", "role": "OPERATOR", "reason": "he steers" });
    town.accounts_api().post("/admin/accounts", &made).await.unwrap();
    let oscar = oscar.login("oscar@example.com").await;
    let vera = town.customer("vera").await;
    let made =
        json!({ "email": "vera@example.com", "password": "a long password", "role": "VIEWER", "reason": "she looks" });
    town.accounts_api().post("/admin/accounts", &made).await.unwrap();
    let vera = vera.login("vera@example.com").await;
    let purchase = mary.buy(&[(cup, 1)]).await;
    assert_eq!(mary.ended(purchase).await["status"], "COMPLETED");

    let callers = [town.nobody(), mary, joe, vera, oscar, town.admin.clone()];
    let names = ["nobody", "the owner", "another customer", "a viewer", "an operator", "an administrator"];
    let shop = town.nobody().endpoint;
    let (accounts, sagas) = admin().into_iter().partition(|(_, route, ..)| *route == "/admin/accounts");
    let tables = [(shop, public()), (town.accounts_endpoint(), accounts), (town.admin_endpoint(), sagas)];
    let mut wrong = Vec::new();
    for (at, table) in &tables {
        for (method, route, body, expected) in table {
            let id = match *route {
                route if route.starts_with("/products") => cup,
                route if route.starts_with("/categories") => category,
                _ => purchase,
            };
            let at_root =
                ["/livez", "/readyz", "/.well", "/admin", "/metrics"].iter().any(|root| route.starts_with(root));
            let path = route.replace("{id}", &id.to_string()).replace("{topic}", "reply").replace("{verb}", "retry");
            let path = if at_root { path } else { format!("/api/v1{path}") };
            for ((caller, name), expected) in callers.iter().zip(names).zip(expected) {
                let status = ask(caller, at, method, &path, body).await;
                // An edge shows nobody how the services are.
                let hidden = !Home::SHOWS_HEALTH && ["/livez", "/readyz"].contains(&path.as_str());
                let expected = if hidden { 404 } else { *expected };
                if status != expected {
                    wrong.push(format!("{method} {path}: {name} is answered {status}, not {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a30_to_a35_tokens_that_somebody_made_up_are_refused_alike() {
    let town = Town::open().await;
    let mary = town.customer("mary").await;
    let parts: Vec<&str> = mary.token.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    let text = |part: &str| String::from_utf8(BASE64.decode(part).unwrap()).unwrap();
    let kid = serde_json::from_str::<Value>(&text(header)).unwrap()["kid"].as_str().unwrap().to_owned();
    let claims: Value = serde_json::from_str(&text(payload)).unwrap();
    let keys = town.nobody().get("/.well-known/jwks.json").await.body_json();
    let published = BASE64.decode(keys["keys"][0]["x"].as_str().unwrap()).unwrap();
    let mut promoted = claims.clone();
    promoted["role"] = json!("ADMIN");
    let joined = |header: &Value, payload: &Value, signature: &str| {
        format!("{}.{}.{signature}", BASE64.encode(header.to_string()), BASE64.encode(payload.to_string()))
    };
    // A key of our own, and the one that is published taken for a shared secret.
    let own = EncodingKey::from_ed_pem(include_bytes!("forger.pem")).unwrap();
    let secret = EncodingKey::from_secret(&published);
    let signed = |algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, claims, key).unwrap()
    };
    let forged = [
        ("a30 no algorithm", joined(&json!({ "alg": "none", "kid": kid }), &promoted, "")),
        ("a30 no algorithm, the old signature", joined(&json!({ "alg": "none", "kid": kid }), &promoted, signature)),
        ("a31 the public key as a secret", signed(Algorithm::HS256, Some(&kid), &secret, &promoted)),
        ("a32 another key under the right name", signed(Algorithm::EdDSA, Some(&kid), &own, &promoted)),
        ("a32 another key under its own name", signed(Algorithm::EdDSA, Some("mine"), &own, &promoted)),
        ("a32 another key without a name", signed(Algorithm::EdDSA, None, &own, &promoted)),
        ("a32 a name that is a path", signed(Algorithm::EdDSA, Some("../../etc/passwd"), &own, &promoted)),
        ("a33 a refresh token", mary.refresh.clone()),
        ("other claims under the signature", format!("{header}.{}.{signature}", BASE64.encode(promoted.to_string()))),
        ("a signature cut off", format!("{header}.{payload}.{}", &signature[..40])),
        ("no signature", format!("{header}.{payload}.")),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{}.{signature}", mary.token)),
        ("nothing in it", "..".to_owned()),
        ("nothing", String::new()),
        ("longer than any of ours", "a".repeat(9_000)),
    ];
    for (what, token) in forged {
        let answer = bearing(&town, &[format!("Bearer {token}")]).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{what}");
        assert!(
            !answer.body_json()["detail"].as_str().unwrap().contains("signature"),
            "{what}: a forger learns nothing"
        );
    }
    assert_eq!(bearing(&town, &[format!("Bearer {}", mary.token)]).await.status, StatusCode::OK);
}

/// Somebody's personal data, asked for with these `Authorization` headers.
async fn bearing(town: &Town, headers: &[String]) -> saga::remote::Answer {
    let headers: Vec<(&'static str, String)> = headers.iter().map(|value| ("authorization", value.clone())).collect();
    town.nobody().send(Method::GET, "/api/v1/account/customer/personal", &headers, Bytes::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a44_odd_authorization_headers_are_refused_and_the_schemes_case_does_not_matter() {
    let town = Town::open().await;
    let mary = town.customer("mary").await;
    let joe = town.customer("joe").await;
    for (headers, expected) in [
        (vec![format!("bearer {}", mary.token)], 200),
        (vec![format!("BEARER {}", mary.token)], 200),
        (vec![mary.token.clone()], 401),
        (vec![format!("Bearer{}", mary.token)], 401),
        (vec![format!("Basic {}", mary.token)], 401),
        (vec![format!("Bearer {} {}", mary.token, mary.token)], 401),
        (vec![format!("Bearer \"{}\"", mary.token)], 401),
        (vec!["Bearer".to_owned()], 401),
        (vec![String::new()], 401),
        (vec![format!("Bearer {}", mary.token), format!("Bearer {}", joe.token)], 401),
        (vec![format!("Bearer {}", mary.token), format!("Bearer {}", mary.token)], 401),
    ] {
        assert_eq!(bearing(&town, &headers).await.status.as_u16(), expected, "{headers:?}");
    }
    // Nowhere else: an address ends up in logs.
    let path = format!("/api/v1/account/customer/personal?access_token={}", mary.token);
    assert_eq!(town.nobody().get(&path).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a36_a_refresh_token_is_spent_once_and_its_reuse_ends_the_session() {
    let town = Town::open_with(|config| config.account.refresh_grace_seconds = 0).await;
    let mary = town.customer("mary").await;
    let refresh = |token: String| {
        let nobody = town.nobody();
        async move { nobody.post("/api/v1/account/auth/refresh", &json!({ "refresh_token": token })).await }
    };
    let first = refresh(mary.refresh.clone()).await;
    assert_eq!(first.status, StatusCode::OK);
    let second = first.body_json()["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(refresh(mary.refresh.clone()).await.status, StatusCode::UNAUTHORIZED, "spent");
    assert_eq!(refresh(second).await.status, StatusCode::UNAUTHORIZED, "stolen, perhaps: the session is over");
    assert_eq!(refresh(mary.token.clone()).await.status, StatusCode::UNPROCESSABLE_ENTITY, "an access token is none");
    // Her other session is not touched, and buying goes on.
    let again = mary.login("mary@example.com").await;
    let cup = town.product(10, 5).await;
    assert_eq!(again.post("/api/v1/purchases", &cart(&[(cup, 1)])).await.status, StatusCode::ACCEPTED);
}
