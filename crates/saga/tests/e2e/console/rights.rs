//! Who sees what and who does what: every address of the console for nobody, a customer, and a viewer.

use hyper::{Method, StatusCode};
use saga::remote::Answer;

use super::forged::filled;
use super::routes::{self, Route};
use super::scene::{ADMIN, MARY, OSCAR, Scene, VERA};
use super::visitor::{Visitor, form, tags, text};
use crate::town::BodyJson as _;

const VERBS: [&str; 4] = ["retry", "cancel", "skip", "resolve"];
const SECRET: &str = "the reason why it is dead";

/// The addresses of a route of the console in this scene.
fn addresses(route: &Route, saga: u64, letter: u64) -> Vec<String> {
    let path = route.path.replace("{topic}", "reply");
    let verbs: &[&str] = match path.as_str() {
        "/console/sagas/{id}/{verb}" => &VERBS,
        "/console/letters/reply/do/{verb}" => &["redrive", "purge"],
        _ => &[""],
    };
    let id = if path.starts_with("/console/letters") { letter } else { saga };
    let path = path.replace("{id}", &id.to_string());
    let all: Vec<String> = verbs.iter().map(|verb| path.replace("{verb}", verb)).collect();
    assert!(all.iter().all(|address| !address.contains('{')), "what stands for {all:?}?");
    all
}

/// Every page that is not for everybody.
fn pages(saga: u64, letter: u64) -> Vec<String> {
    let gets = routes::all().into_iter().filter(|route| route.path.starts_with("/console") && route.gets);
    let all: Vec<String> = gets.flat_map(|route| addresses(&route, saga, letter)).collect();
    let closed = all.into_iter().filter(|page| !["/console", "/console/login"].contains(&page.as_str()));
    closed.collect()
}

/// Streams do not end by themselves.
fn is_stream(page: &str) -> bool {
    page.ends_with("/live") || page.ends_with("/events")
}

struct Watched {
    scene: Scene,
    saga: u64,
    letter: u64,
}

async fn watched() -> Watched {
    let scene = Scene::stocked().await;
    let saga = scene.stuck(1).await[0];
    let letter = scene.bury("reply", SECRET, "7", &[], "garbage");
    Watched { scene, saga, letter }
}

/// Nothing of what the console knows.
fn shows_nothing(answer: &Answer, watched: &Watched, what: &str) {
    let shown = text(answer);
    let saga = watched.saga.to_string();
    for secret in [saga.as_str(), "create-payment", SECRET, "stuck", "aria-label=\"Console\"", "<table", "hx-get"] {
        assert!(!shown.contains(secret), "{what} shows {secret}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_shows_nobody_and_no_customer_anything() {
    let watched = watched().await;
    let admin = watched.scene.town.home().admin();
    // A customer's own tokens, which the shop gave her, as the console's cookies.
    let shopping = watched.scene.customer(MARY).await;
    for page in pages(watched.saga, watched.letter) {
        for forged in ["", "e30.eyJyb2xlIjoiYWRtaW4ifQ.e30"] {
            let mut nobody = Visitor::at(&admin);
            if !forged.is_empty() {
                nobody.cookies.insert("saga_access".to_owned(), forged.to_owned());
            }
            let answer = nobody.get(&page).await;
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{page}");
            assert!(answer.header("location").starts_with("/console/login"), "{page}: {}", answer.header("location"));
            assert!(answer.body.is_empty(), "{page} shows {}", text(&answer));
            for part in [("hx-request", "true"), ("accept", "text/event-stream")] {
                let answer = nobody.send(Method::GET, &page, &[part], String::new()).await;
                assert_eq!((answer.status, answer.body.len()), (StatusCode::UNAUTHORIZED, 0), "{page} {part:?}");
            }
        }
        let mut mary = Visitor { endpoint: Visitor::at(&admin).endpoint, cookies: shopping.cookies.clone() };
        for headers in [&[][..], &[("hx-request", "true")], &[("accept", "text/event-stream")]] {
            let answer = mary.send(Method::GET, &page, headers, String::new()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{page} {headers:?}: {}", text(&answer));
            shows_nothing(&answer, &watched, &page);
        }
    }
    // Those are seen by who may: what was looked for is there to be seen.
    let mut oscar = watched.scene.operator(OSCAR).await;
    let shown = text(&oscar.get(&format!("/console/sagas/{}", watched.saga)).await);
    assert!(shown.contains("create-payment") && shown.contains("stuck") && shown.contains("hx-get"), "{shown}");
    assert!(text(&oscar.get("/console/letters/reply").await).contains(SECRET));
}

/// The forms of nobody, of a customer and of a viewer, all right but for who sends them.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_no_customer_and_no_viewer_steers_whatever_form_they_send() {
    let scene = Scene::stocked().await;
    let stuck = scene.stuck(5).await;
    let letters = [1, 2].map(|n| scene.bury("reply", SECRET, "7", &[], &format!("garbage {n}")));
    let admin = scene.town.home().admin();
    let shopping = scene.customer(MARY).await;
    let mut mary = Visitor { endpoint: Visitor::at(&admin).endpoint, cookies: shopping.cookies.clone() };
    let (mut nobody, mut vera, mut oscar) =
        (Visitor::at(&admin), scene.operator(VERA).await, scene.operator(OSCAR).await);
    let before = scene.state().await;
    for example in Scene::examples(&stuck, &letters) {
        if ["/console/login", "/console/logout"].contains(&example.route) {
            continue;
        }
        // What stands in the form is known from somebody who may.
        let fields = filled(&mut oscar, &example).await;
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for (name, visitor) in [("nobody", &mut nobody), ("mary", &mut mary), ("vera", &mut vera)] {
            let token = visitor.token("/console/login").await;
            let headers = [("sec-fetch-site", "same-origin")];
            let answer = visitor.send(Method::POST, &example.action, &headers, form(&token, &fields)).await;
            let shown = text(&answer);
            match name {
                "nobody" => assert_eq!(
                    (answer.status, answer.header("location")),
                    (StatusCode::SEE_OTHER, "/console/login"),
                    "{}: {shown}",
                    example.action
                ),
                _ => {
                    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name} {}: {shown}", example.action);
                    assert!(shown.contains("<h1>Not allowed</h1>"), "{name} {}: {shown}", example.action);
                    assert!(!shown.contains("page that you were shown here"), "the form was right: {shown}");
                }
            }
        }
    }
    let after = scene.state().await;
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_is_offered_nothing_that_a_viewer_may_not_do() {
    let watched = watched().await;
    let (mut vera, mut oscar) = (watched.scene.operator(VERA).await, watched.scene.operator(OSCAR).await);
    let mut offered = 0;
    for page in pages(watched.saga, watched.letter).into_iter().filter(|page| !is_stream(page)) {
        let asks = VERBS.iter().any(|verb| page.ends_with(verb)) || page.contains("/do/") || page.ends_with("/bulk");
        let answer = vera.get(&page).await;
        if asks {
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{page}");
            shows_nothing(&answer, &watched, &page);
            continue;
        }
        assert_eq!(answer.status, StatusCode::OK, "{page}: {}", text(&answer));
        assert_eq!(actions(&text(&answer)), Vec::<String>::new(), "{page}");
        offered += actions(&text(&oscar.get(&page).await)).len();
    }
    // A saga's four, a letter's two, a topic's two, the switches' two, the way to the bulk.
    assert!(offered >= 11, "an operator is offered {offered}");
    // What comes live is the same.
    for (visitor, expected) in [(&vera, false), (&oscar, true)] {
        let moving = visitor.first_event(&format!("/console/sagas/{}/live", watched.saga)).await;
        assert!(moving.contains("create-payment"), "{moving}");
        assert_eq!(moving.contains("do-retry"), expected, "{moving}");
    }
}

/// What can be pressed on a page and does something or leads to it.
fn actions(html: &str) -> Vec<String> {
    let (mut found, mut sends) = (Vec::new(), false);
    for tag in tags(html) {
        let of = |name: &str| tag.attribute(name).unwrap_or_default().to_owned();
        match tag.name.as_str() {
            "form" => sends = of("method") == "post" && of("action") != "/console/logout",
            "/form" => sends = false,
            "button" if sends => found.push(format!("{:?}", tag.attributes)),
            "input" if sends && ["submit", "image"].contains(&of("type").as_str()) => found.push("input".to_owned()),
            "a" => {
                let href = of("href");
                let path = href.split('?').next().unwrap();
                let asks = VERBS.iter().any(|verb| path.ends_with(&format!("/{verb}")));
                if asks || path.contains("/do/") || path.ends_with("/bulk") {
                    found.push(href);
                }
            }
            _ => {}
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_sees_and_cancels_no_purchase_of_another_and_nobody_sees_any() {
    let scene = Scene::stocked().await;
    let id = scene.stuck(1).await[0];
    let gets: Vec<String> = routes::all()
        .into_iter()
        .filter(|route| route.gets && route.path.starts_with("/shop/purchases"))
        .map(|route| route.path.replace("{id}", &id.to_string()))
        .collect();
    assert_eq!(gets.len(), 3, "{gets:?}");
    let mut admin = scene.customer(ADMIN).await;
    for page in &gets {
        let mut nobody = Visitor::at(&scene.town.home().public());
        let answer = nobody.get(page).await;
        assert!(answer.header("location").starts_with("/shop/login") && answer.body.is_empty(), "{page}");
        // Another customer, be it the administrator.
        let answer = admin.get(page).await;
        let (status, shown) = (answer.status, text(&answer));
        let expected = if page.ends_with("purchases") { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(status, expected, "{page}: {shown}");
        // The number that was asked for may be repeated; nothing else of the purchase is there.
        let told = [&format!("/shop/purchases/{id}"), "class=\"steps\"", "Cup"];
        assert!(!told.iter().any(|told| shown.contains(*told)), "{page}: {shown}");
    }
    let cancel = format!("/shop/purchases/{id}/cancel");
    let answer = admin.post("/shop", &cancel, &[]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", text(&answer));
    assert_eq!(scene.saga(id).await["status"], "STUCK");
    // By the form that stands there for who bought it.
    let mut mary = scene.customer(MARY).await;
    let shown = text(&mary.get(&format!("/shop/purchases/{id}")).await);
    assert!(shown.contains("class=\"steps\"") && shown.contains("Cup"), "{shown}");
    mary.submit(&format!("/shop/purchases/{id}"), &cancel, &[]).await;
    assert_eq!(scene.mary.ended(id).await["reason"]["code"], "cancelled");
}
