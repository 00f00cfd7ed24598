//! Forms that no page of the session has made: not one of them does anything.

use std::collections::BTreeSet;

use hyper::{Method, StatusCode};

use super::routes;
use super::scene::{ADMIN, Example, MARY, Scene};
use super::visitor::{Form, Visitor, form, text};
use crate::town::BodyJson as _;

/// Sends an example in every way in which it must not be taken; its cookies stay as they are.
async fn is_refused(visitor: &mut Visitor, example: &Example) {
    let Example { page, action, .. } = example;
    let mine = visitor.token(page).await;
    let theirs = Visitor { endpoint: visitor.endpoint.clone(), cookies: [].into() };
    let theirs = { theirs }.token(&format!("{}/login", base(action))).await;
    let fields = filled(visitor, example).await;
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let own = visitor.endpoint.to_string();
    let host = own.trim_start_matches("http://").to_owned();
    let other_port = format!("http://{}:1", host.split(':').next().unwrap());
    let other_scheme = format!("file://{host}.evil.example");
    let attempts: [(&str, &[(&'static str, &str)]); 10] = [
        ("", &[]),
        (&theirs, &[]),
        (&theirs, &[("sec-fetch-site", "same-origin"), ("origin", &own)]),
        ("0123456789abcdef0123456789abcdef", &[]),
        (&mine[1..], &[]),
        (&mine, &[("sec-fetch-site", "cross-site")]),
        (&mine, &[("sec-fetch-site", "same-site"), ("origin", &own)]),
        (&mine, &[("origin", "null")]),
        (&mine, &[("origin", &other_port)]),
        (&mine, &[("origin", &other_scheme)]),
    ];
    let cookies = visitor.cookies.clone();
    for (token, headers) in attempts {
        let answer = visitor.send(Method::POST, action, headers, form(token, &fields)).await;
        let shown = text(&answer);
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{action} {token} {headers:?}: {shown}");
        assert!(shown.contains("<h1>Not allowed</h1>") && shown.contains("nothing was done"), "{action}: {shown}");
        assert_eq!(visitor.cookies, cookies, "{action} {token} {headers:?}");
        assert_eq!(answer.header("set-cookie"), "", "{action} {token} {headers:?}");
    }
    // The token in the address instead of the form, and the form's own cookie gone.
    let mut query = form(&mine, &fields);
    query.insert(0, '?');
    let answer = visitor.send(Method::POST, &format!("{action}{query}"), &[], String::new()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{action}");
    let kept = visitor.cookies.remove("saga_form").unwrap();
    let answer = visitor.send(Method::POST, action, &[], form(&mine, &fields)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{action}: without the cookie");
    visitor.cookies.insert("saga_form".to_owned(), kept);
    // A look never does what the form does, and there are no other ways to send it.
    visitor.get(&format!("{action}{query}")).await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let answer = visitor.send(method.clone(), action, &[], form(&mine, &fields)).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {action}: {}", text(&answer));
    }
    assert_eq!(visitor.cookies, cookies, "{action}");
}

/// The fields, and the version that the page says was looked at.
pub async fn filled(visitor: &mut Visitor, example: &Example) -> Vec<(&'static str, String)> {
    let shown = text(&visitor.get(&example.page).await);
    let form = Form::all(&shown).into_iter().find(|form| form.action == example.action);
    let version = form.map(|form| form.value("version").to_owned()).filter(|version| !version.is_empty());
    assert_eq!(version.is_some(), example.route.ends_with("/sagas/{id}/{verb}"), "{shown}");
    example.fields.iter().cloned().chain(version.map(|version| ("version", version))).collect()
}

fn base(action: &str) -> &str {
    if action.starts_with("/shop") { "/shop" } else { "/console" }
}

/// The same with its token: it works, so what was refused was refused for the token.
async fn is_done(visitor: &mut Visitor, example: &Example) {
    let token = visitor.token(&example.page).await;
    let fields = filled(visitor, example).await;
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let headers = [("sec-fetch-site", "same-origin")];
    let answer = visitor.send(Method::POST, &example.action, &headers, form(&token, &fields)).await;
    let done = answer.status == StatusCode::SEE_OTHER || text(&answer).contains("Done, to 1.");
    assert!(done, "{}: {} {}", example.action, answer.status, text(&answer));
    assert!(!answer.header("location").contains("/login") || example.action.ends_with("/logout"), "{}", example.action);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_of_shop_or_console_does_anything_without_its_token_or_from_elsewhere() {
    let mut scene = Scene::empty().await;
    // The one that works only where nothing is.
    let samples = Example {
        route: "/shop/samples",
        page: "/shop".to_owned(),
        action: "/shop/samples".to_owned(),
        fields: Vec::new(),
    };
    let mut admin = scene.customer(ADMIN).await;
    is_refused(&mut admin, &samples).await;
    let products = scene.mary.get("/api/v1/products").await.body_json();
    assert_eq!(products["items"], serde_json::json!([]));
    scene.stock().await;
    let stuck = scene.stuck(6).await;
    let letters = [1, 2].map(|n| scene.bury("reply", "odd", "7", &[], &format!("garbage {n}")));
    let shop = Scene::shop_examples(scene.cup, stuck[5]);
    let console = Scene::examples(&stuck, &letters);
    let tried: BTreeSet<String> =
        shop.iter().chain(&console).chain([&samples]).map(|example| example.route.to_owned()).collect();
    assert_eq!(tried, routes::posts(), "every form has its example in scene.rs");

    let (mut mary, mut oscar) = (scene.customer(MARY).await, scene.operator(ADMIN).await);
    let before = scene.state().await;
    for example in &shop {
        is_refused(&mut mary, example).await;
    }
    for example in &console {
        is_refused(&mut oscar, example).await;
    }
    assert_eq!(scene.state().await, before);
    // Nobody was logged out: the sessions can be renewed.
    for (visitor, page) in [(&mut mary, "/shop/purchases"), (&mut oscar, "/console/overview")] {
        visitor.cookies.insert("saga_access".to_owned(), "e30.e30.e30".to_owned());
        assert_eq!(visitor.get(page).await.status, StatusCode::OK, "{page}");
    }
    for example in &shop {
        is_done(&mut mary, example).await;
    }
    for example in &console {
        is_done(&mut oscar, example).await;
    }
    let after = scene.state().await;
    for changed in ["audit", "sagas", "letters", "failures", "purchases", "registered"] {
        assert_ne!(after[changed], before[changed], "{changed}");
    }
}
