//! Text that would like to be a script, wherever text of others comes to a page: stored, said by a participant, in a record
//! of the bus, in an address. It stays text.

use hyper::{Method, StatusCode};
use serde_json::json;

use super::routes;
use super::scene::{ADMIN, OSCAR, Scene};
use super::visitor::{Visitor, escaped, form, tags, text};
use crate::town::{Person, comes_to, created, eventually, product};

/// Breaks out of an attribute of either kind, and of an element.
pub const EVIL: &str = r#"evil9"'><script>document.title='owned'</script><img src=x onerror="document.title='owned'">"#;
const MARK: &str = "evil9";
/// Whose name is that.
pub const EVE: &str = "eve@example.com";

/// A shop in which everybody has said it.
pub struct Stage {
    pub scene: Scene,
    /// Pages of the shop for Eve and of the console, and how often each says it at least.
    pub pages: Vec<(String, usize)>,
    /// A saga that is on its way.
    pub moving: u64,
    /// What is called that.
    pub goods: u64,
}

/// How often a page says it. That it is nowhere more than text is made sure of.
#[track_caller]
fn said(what: &str, page: &str) -> usize {
    let after: Vec<&str> = page.split(MARK).skip(1).collect();
    for rest in &after {
        // Escaped as HTML, perhaps as JSON before, or as a part of an address.
        let rest = rest.strip_prefix('\\').unwrap_or(rest);
        assert!(rest.starts_with("&#34;") || rest.starts_with("%22"), "{what}: {MARK}{rest:.80}");
    }
    for tag in tags(page) {
        let harmless = match tag.name.as_str() {
            "script" | "img" => tag.attribute("src").is_some_and(|src| src.starts_with("/")),
            _ => true,
        };
        let handled = tag.attributes.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("on"));
        assert!(harmless && !handled, "{what}: {tag:?}");
    }
    after.len()
}

/// Headers of a message about a saga.
fn headers(kind: &str, saga: &str, more: &[(&'static str, &'static str)]) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("ce_specversion", "1.0".to_owned()),
        ("ce_type", kind.to_owned()),
        ("ce_source", "purchase".to_owned()),
        ("ce_id", EVIL.to_owned()),
        ("saga_id", saga.to_owned()),
        ("said", EVIL.to_owned()),
    ];
    all.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    all
}

impl Stage {
    pub async fn set() -> Self {
        let scene = Scene::stocked().await;
        let category = json!({ "name": EVIL, "description": EVIL });
        let category = created(&scene.town.admin.post("/api/v1/categories", &category).await);
        let mut goods = product(category, 10, 5);
        for field in ["name", "brand_name", "description"] {
            goods[field] = EVIL.into();
        }
        let goods = created(&scene.town.admin.post("/api/v1/products", &goods).await);
        let eve = register(&scene.town.nobody()).await;
        let mut oscar = scene.operator(OSCAR).await;
        // The bus in this process keeps what somebody looks at.
        oscar.get("/console/topics/reply").await;
        // Nobody answers but who puts words into participants' mouths.
        scene.fail(&json!({ "stopped": ["order", "payment", "product"], "reason": EVIL })).await;
        let bought = eve.buy(&[(goods, 1)]).await;
        comes_to(&scene.desk(), bought, "RUNNING").await;
        let first = [("step", "update-product-inventory"), ("op", "do"), ("attempt", "1")];
        let refused = json!({ "outcome": "refused", "code": EVIL, "detail": EVIL });
        scene.say(&mut oscar, "reply", &headers("saga.reply.v1", &bought.to_string(), &first), &refused).await;
        comes_to(&scene.desk(), bought, "COMPENSATED").await;

        // A saga that nobody bought, with an input of its own.
        let moving = bought + 1;
        let start = headers("saga.start.v1", &moving.to_string(), &[]);
        scene.say(&mut oscar, "purchase", &start, &json!({ "wish": EVIL })).await;
        comes_to(&scene.desk(), moving, "RUNNING").await;
        let done = json!({ "outcome": "done", "output": { "said": EVIL } });
        scene.say(&mut oscar, "reply", &headers("saga.reply.v1", &moving.to_string(), &first), &done).await;
        scene.waits_for(moving, "create-order").await;
        let second = [("step", "create-order"), ("op", "do"), ("attempt", "1")];
        let retry = json!({ "outcome": "retry", "detail": EVIL });
        scene.say(&mut oscar, "reply", &headers("saga.reply.v1", &moving.to_string(), &second), &retry).await;
        eventually("it was told, and sent again", || async {
            let saga = scene.saga(moving).await;
            let told = saga["text"].as_str()?;
            (told.contains(MARK) && told.contains("do sent again, attempt 2")).then_some(())
        })
        .await;
        let page = format!("/console/sagas/{moving}/retry");
        let answer = oscar.submit(&page, &page, &[("reason", EVIL)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", text(&answer));

        let letter = scene.bury("reply", EVIL, EVIL, &[(EVIL, EVIL)], EVIL);
        let quoted = scene.bury("reply", EVIL, EVIL, &[("said", EVIL)], &json!({ "a": EVIL }).to_string());
        let pages = [
            ("/shop", 6),
            ("/shop/basket", 3),
            ("/shop/purchases", 2),
            (&format!("/shop/purchases/{bought}"), 3),
            (&format!("/console/sagas/{bought}"), 4),
            (&format!("/console/sagas/{moving}"), 6),
            (&format!("/console/sagas/{moving}/cancel"), 0),
            ("/console/sagas", 0),
            ("/console/overview", 0),
            ("/console/letters", 0),
            ("/console/letters/reply", 2),
            (&format!("/console/letters/reply/{letter}"), 5),
            (&format!("/console/letters/reply/{quoted}"), 4),
            ("/console/topics", 0),
            ("/console/topics/reply", 6),
            ("/console/participants", 0),
            ("/console/audit", 5),
            ("/console/failures", 0),
        ];
        let pages = pages.map(|(page, least)| (page.to_owned(), least)).to_vec();
        Self { scene, pages, moving, goods }
    }
}

async fn register(nobody: &Person) -> Person {
    let body = json!({
        "email": EVE, "password": "a long password", "first_name": EVIL, "last_name": EVIL, "address": EVIL,
        "phone_number": "1234567",
    });
    let answer = nobody.post("/api/v1/account/auth/register", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", text(&answer));
    nobody.login(EVE).await
}

impl Scene {
    /// Puts a record on the bus: a dead letter that an operator sends again.
    async fn say(
        &self,
        oscar: &mut Visitor,
        topic: &str,
        headers: &[(&'static str, String)],
        payload: &serde_json::Value,
    ) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let saga = headers.iter().find(|(name, _)| *name == "saga_id").unwrap().1;
        let id = self.bury(topic, EVIL, saga, &headers, &payload.to_string());
        let action = format!("/console/letters/{topic}/do/redrive");
        let answer = oscar.submit(&format!("{action}?ids={id}"), &action, &[("reason", EVIL)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", text(&answer));
    }

    async fn waits_for(&self, id: u64, step: &str) {
        eventually(&format!("{id} waits for {step}"), || async {
            let listed = self.desk().get(&format!("/admin/sagas?q={id}&step={step}")).await.unwrap();
            (listed["items"].as_array().unwrap().len() == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_said_as_a_script_is_text_on_every_page_that_shows_it() {
    let Stage { scene, pages, moving, goods } = Stage::set().await;
    let (mut eve, mut admin) = (scene.customer(EVE).await, scene.operator(ADMIN).await);
    eve.post("/shop", "/shop/basket", &[("product_id", &goods.to_string()), ("quantity", "9")]).await;
    for (page, least) in &pages {
        let visitor = if page.starts_with("/shop") { &mut eve } else { &mut admin };
        let answer = visitor.get(page).await;
        assert_eq!(answer.status, StatusCode::OK, "{page}: {}", text(&answer));
        let count = said(page, &text(&answer));
        assert!(count >= *least, "{page} says it {count} times: {}", text(&answer));
    }
    // The parts that come live.
    let live = admin.first_event(&format!("/console/sagas/{moving}/live")).await;
    assert!(said("live", &live) >= 3, "{live}");
    let bought = pages.iter().find(|(page, _)| page.starts_with("/shop/purchases/")).unwrap();
    let live = text(&eve.get(&format!("{}/live", bought.0)).await);
    assert!(said("live", &live) >= 2 && live.contains("event: end"), "{live}");
}

/// What forms and addresses say is repeated as text, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_address_or_a_form_says_as_a_script_is_repeated_as_text() {
    let scene = Scene::stocked().await;
    let (mut shop, mut console) = (scene.customer(ADMIN).await, scene.operator(ADMIN).await);
    let evil = escaped(EVIL);
    let fields = [
        "state",
        "definition",
        "step",
        "older_than",
        "q",
        "page_token",
        "actor",
        "action",
        "target",
        "partition",
        "from",
        "key",
        "after",
        "redrive",
        "purge",
        "ids",
        "version",
        "done",
        "next",
        "category_id",
        "started_after",
        "limit",
    ];
    let mut repeated = std::collections::BTreeSet::new();
    for route in routes::all().into_iter().filter(|route| route.gets) {
        let visitor = if route.path.starts_with("/shop") { &mut shop } else { &mut console };
        let parts = route.path.split('/').map(|part| if part.starts_with('{') { evil.as_str() } else { part });
        let bad = parts.collect::<Vec<_>>().join("/");
        let good = route.path.replace("{topic}", "reply").replace("{verb}", "redrive").replace("{id}", "7");
        let mut pages = vec![bad, format!("{good}/{evil}")];
        // The overview's stream has no fields, and no end.
        if !route.path.ends_with("/events") {
            pages.extend(fields.map(|field| format!("{good}?{field}={evil}")));
        }
        for page in pages.into_iter().filter(|page| page != "/console/overview/events") {
            let answer = visitor.get(&page).await;
            assert!(answer.status.as_u16() < 500, "{page}: {} {}", answer.status, text(&answer));
            let header = answer.headers.get("location").map_or("", |value| value.to_str().unwrap());
            assert!(header.is_empty() || header.starts_with('/'), "{page} leads to {header}");
            if said(&page, &text(&answer)) > 0 {
                repeated.insert(page.split(&evil).next().unwrap().to_owned());
            }
        }
    }
    for page in [
        "/console/sagas?definition=",
        "/console/sagas?step=",
        "/console/sagas?q=",
        "/console/sagas/bulk?state=",
        "/console/audit?actor=",
        "/console/topics/reply?key=",
        "/console/login?next=",
        "/shop/login?next=",
        "/shop?q=",
    ] {
        assert!(repeated.contains(page), "{page} is repeated in the form: {repeated:?}");
    }
    let names = [
        "email",
        "password",
        "first_name",
        "last_name",
        "address",
        "phone_number",
        "next",
        "verb",
        "status",
        "reason",
        "expect_count",
        "state",
        "definition",
        "step",
        "older_than",
        "q",
        "ids",
        "version",
        "decline",
        "latency_ms",
        "stopped",
        "product_id",
        "quantity",
        "currency",
        "key",
        "line",
        "how",
    ];
    let filled: Vec<(&str, &str)> = names.map(|name| (name, EVIL)).to_vec();
    // Logging in and out come last: they end what the others need.
    let mut places: Vec<String> = routes::posts().into_iter().collect();
    places.sort_by_key(|place| place.ends_with("/logout") || place.ends_with("/login") || place.ends_with("/register"));
    for place in places {
        let visitor = if place.starts_with("/shop") { &mut shop } else { &mut console };
        let token = visitor.token(if place.starts_with("/shop") { "/shop/login" } else { "/console/login" }).await;
        let page = place.replace("{topic}", "reply").replace("{verb}", "retry").replace("{id}", "7");
        let answer = visitor.send(Method::POST, &page, &[], form(&token, &filled)).await;
        assert!(answer.status.as_u16() < 500, "{page}: {} {}", answer.status, text(&answer));
        let count = said(&page, &text(&answer));
        let repeats = ["/console/login", "/shop/login", "/shop/register", "/console/sagas/bulk"];
        assert!(count > 0 || !repeats.contains(&page.as_str()), "{page}: {}", text(&answer));
    }
}
