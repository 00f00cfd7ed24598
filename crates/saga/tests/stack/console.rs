//! Every page of the console in a process of its own, on PostgreSQL and Kafka: its content, filters and further pages, what
//! comes live, and orders through its forms.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hyper::StatusCode;
use saga::up::roles::ServiceRole;
use saga_adapters::kafka::{KafkaBus, Options};
use saga_core::Name;
use saga_runtime::bus::{Bus as _, Message};
use serde_json::json;

use crate::city::City;
use crate::pages::with_pages;
use crate::town::{BodyJson as _, Person, created, eventually, product};
use crate::traffic::balanced;
use crate::visitor::{Visitor, tags, text};

/// Sagas on a page of the list.
const PAGE: usize = 50;

/// A page, whole and with what it should say.
async fn shows(visitor: &mut Visitor, page: &str, wanted: &[&str]) -> String {
    let answer = visitor.get(page).await;
    let shown = text(&answer);
    assert_eq!(answer.status, StatusCode::OK, "{page}: {shown}");
    for part in wanted {
        assert!(shown.contains(part), "{page} does not say {part}: {shown}");
    }
    shown
}

/// The first address on a page that has `part` in it.
fn link(page: &str, part: &str) -> String {
    let found = tags(page).into_iter().find_map(|tag| {
        let href = tag.attribute("href")?.to_owned();
        href.contains(part).then_some(href)
    });
    found.unwrap_or_else(|| panic!("nothing leads to {part}: {page}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_of_the_console_has_its_content_where_services_run_apart() {
    let city = with_pages().await;
    let admin = Person::at(&city.public()).login("admin@example.com").await;
    let category = created(&admin.post("/api/v1/categories", &json!({ "name": "Kitchen", "description": "" })).await);
    let cup = created(&admin.post("/api/v1/products", &product(category, 10, 1_000)).await);
    let spoon = created(&admin.post("/api/v1/products", &product(category, 13, 1_000)).await);
    let declined = admin.buy(&[(spoon, 1)]).await;
    let mut bought = Vec::new();
    for _ in 0..=PAGE {
        bought.push(admin.buy(&[(cup, 1)]).await);
    }
    for id in [&declined, &bought[0], &bought[PAGE]] {
        admin.ended(*id).await;
    }
    let mut operator = Visitor::at(&city.admin("console", 0));
    let login = operator.log_in("/console", "admin@example.com").await;
    assert_eq!(login.status, StatusCode::SEE_OTHER, "{}", text(&login));

    shows(&mut operator, "/console/overview", &["Participants", "payment", "id=\"charts\""]).await;
    let live = operator.first_event("/console/overview/events").await;
    assert!(live.contains("event: ") && live.contains("data: "), "{live}");
    lists(&mut operator, &bought, declined).await;
    one(&mut operator, declined).await;
    letters(&city, &mut operator).await;
    topics(&mut operator, declined).await;
    shows(&mut operator, "/console/definitions", &["purchase v1", "<svg", "create-payment", "rollback-order"]).await;
    shows(&mut operator, "/console/participants", &["order", "payment", "product", "1"]).await;
    shows(&mut operator, "/console/failures", &["<h1>Failures on purpose</h1>"]).await;
    moves(&city, &mut operator, &admin, cup).await;
    balanced(&city).await;
}

/// The list: filters that are really asked for, and what does not fit on the first page.
async fn lists(operator: &mut Visitor, bought: &[u64], declined: u64) {
    let row = |id: u64| format!("href=\"/console/sagas/{id}\"");
    let completed = "/console/sagas?state=COMPLETED&definition=purchase";
    eventually("all have ended", || async {
        let running = text(&operator.clone().get("/console/sagas?state=RUNNING").await);
        running.contains("No saga fits").then_some(())
    })
    .await;
    // By when each began, which on two partitions is not quite the order in which they were bought.
    let listed = |page: &str| -> BTreeSet<u64> {
        let rows = page.split("data-label=\"Saga\"><a class=\"num\" href=\"/console/sagas/").skip(1);
        rows.map(|row| row.split('"').next().unwrap().parse().unwrap()).collect()
    };
    let first = shows(operator, completed, &["Older"]).await;
    let next = link(&first, "page_token=");
    assert!(next.contains("state=COMPLETED"), "the filter stays: {next}");
    let second = shows(operator, &next, &["Newest"]).await;
    let (first, second) = (listed(&first), listed(&second));
    assert_eq!((first.len(), second.len()), (PAGE, 1));
    assert_eq!(first.union(&second).copied().collect::<BTreeSet<_>>(), bought.iter().copied().collect());
    let compensated = shows(operator, "/console/sagas?state=COMPENSATED", &[&row(declined)]).await;
    assert_eq!(compensated.matches("data-label=\"Saga\"").count(), 1, "{compensated}");
    let found = shows(operator, &format!("/console/sagas?q={}", bought[7]), &[&row(bought[7])]).await;
    assert_eq!(found.matches("data-label=\"Saga\"").count(), 1, "{found}");
    for none in ["definition=refund", "step=create-order", "older_than=604800"] {
        shows(operator, &format!("/console/sagas?{none}"), &["No saga fits"]).await;
    }
    shows(operator, "/console/sagas/counts", &["completed", "compensated", "51"]).await;
    shows(operator, "/console/sagas?page_token=forged", &["notice bad", "<form"]).await;
}

/// One that was taken back: both ways, timeline, history, messages with their headers.
async fn one(operator: &mut Visitor, id: u64) {
    let page = format!("/console/sagas/{id}");
    let shown =
        ["compensated", "payment_declined", "class=\"timeline\"", "Queue", "undo create-order", "<h2>Messages</h2>"];
    let shown = shows(operator, &page, &shown).await;
    for header in ["ce_type", "saga.command.v1", "saga.reply.v1", "<dt>attempt</dt>", "rollback-product-inventory"] {
        assert!(shown.contains(header), "{header} in {shown}");
    }
    let ended = text(&operator.get(&format!("{page}/live")).await);
    assert!(ended.contains("event: end"), "{ended}");
}

/// What nobody can read: found, sent again, thrown away.
async fn letters(city: &City, operator: &mut Visitor) {
    let brokers = city.config.bus.url.trim_start_matches("kafka://");
    let options = Options { prefix: city.config.bus.prefix.clone(), ..Options::new(brokers, "test") };
    let garbage = Message {
        topic: Name::new(contracts::topics::REPLY),
        key: Bytes::from_static(b"a key"),
        headers: vec![("ce_type".into(), Bytes::from_static(b"saga.reply.v1"))].into(),
        payload: Bytes::from_static(b"no reply at all"),
    };
    KafkaBus::new(options).unwrap().publish(vec![garbage]).await.unwrap();
    let list = "/console/letters/reply";
    let looks = operator.clone();
    let newest = async |after: &str| {
        eventually("it is a dead letter", || async {
            let shown = text(&looks.clone().get(list).await);
            let letters = tags(&shown).into_iter().filter_map(|tag| tag.attribute("href").map(str::to_owned));
            letters
                .filter(|href| href.starts_with(&format!("{list}/")) && !href.contains("/do/"))
                .find(|href| href != after)
        })
        .await
    };
    let first = newest("").await;
    shows(operator, "/console/letters", &[list, "reply"]).await;
    shows(operator, &first, &["no reply at all", "a key", "ce_type", "ce_specversion is missing"]).await;
    let id = first.rsplit('/').next().unwrap();
    let again = format!("{list}/do/redrive");
    let done = operator.submit(&format!("{again}?ids={id}"), &again, &[("reason", "the reader is mended")]).await;
    assert_eq!(done.header("location"), format!("{list}?redrive=1"), "{}", text(&done));
    let second = newest(&first).await;
    let id = second.rsplit('/').next().unwrap();
    let away = format!("{list}/do/purge");
    let done = operator.submit(&format!("{away}?ids={id}"), &away, &[("reason", "nobody can read it")]).await;
    assert_eq!(done.header("location"), format!("{list}?purge=1"), "{}", text(&done));
    shows(operator, list, &["There are none."]).await;
    let audit = shows(operator, "/console/audit", &["the reader is mended", "nobody can read it", "account "]).await;
    assert!(audit.contains("dlq.redrive") && audit.contains("dlq.purge"), "{audit}");
    let filtered = shows(operator, "/console/audit?action=dlq.purge", &["nobody can read it"]).await;
    assert!(!filtered.contains("the reader is mended"), "{filtered}");
}

/// From topics to partitions to messages, and who is how far behind.
async fn topics(operator: &mut Visitor, id: u64) {
    let shown =
        shows(operator, "/console/topics", &["/console/topics/reply", "orchestrator", "waiting", "1 member"]).await;
    assert!(shown.contains("0: ") && shown.contains(", 1: "), "both partitions of a topic: {shown}");
    let records = shows(operator, &link(&shown, "/topics/reply"), &["ce_type", "saga.reply.v1", "outcome"]).await;
    assert!(records.contains(">0/") || records.contains(">1/"), "partition and offset: {records}");
    // The key of a record is its saga: one partition, and what it said there.
    let keyed =
        shows(operator, &format!("/console/topics/reply?key={id}"), &["create-payment.do.reply", "refused"]).await;
    let other: Vec<_> = keyed.split("<span class=\"num\">").skip(1).filter(|part| part.contains("saga_id")).collect();
    assert!(other.iter().all(|part| part.contains(&id.to_string())), "{keyed}");
    for partition in ["0", "1"] {
        let page = format!("/console/topics/reply?partition={partition}");
        let here = format!(">{partition}/");
        let newest = shows(operator, &page, &[&here, "Older"]).await;
        let older = shows(operator, &link(&newest, "from="), &[&here]).await;
        let other = if partition == "0" { ">1/" } else { ">0/" };
        assert!(!newest.contains(other) && !older.contains(other), "{newest} {older}");
        let first = |page: &str| page.split(&here).nth(1).and_then(|rest| rest.split('<').next()?.parse::<u64>().ok());
        assert!(first(&newest) > first(&older), "{newest} {older}");
    }
    shows(operator, "/console/topics/reply?partition=one", &["notice bad"]).await;
}

/// A saga whose page is open while its payment is made.
async fn moves(city: &City, operator: &mut Visitor, admin: &Person, cup: u64) {
    city.signal(ServiceRole::Payment, 0, "STOP");
    let id = admin.buy(&[(cup, 1)]).await;
    eventually("it waits for its payment", || async {
        let found = city.operators().get(&format!("/admin/sagas?q={id}&step=create-payment")).await.ok()?;
        (found["items"].as_array()?.len() == 1).then_some(())
    })
    .await;
    shows(operator, &format!("/console/sagas/{id}"), &["waits for do create-payment", "sse-connect", "do-cancel"])
        .await;
    let seen = AtomicBool::new(false);
    let path = format!("/console/sagas/{id}/live");
    let follow = operator.follow(&path, |said| {
        seen.store(said.contains("waits for do create-payment"), Ordering::Relaxed);
        said.contains("event: end")
    });
    let goes_on = async {
        eventually("it is shown as it stands", || async { seen.load(Ordering::Relaxed).then_some(()) }).await;
        city.signal(ServiceRole::Payment, 0, "CONT");
    };
    let (said, ()) = tokio::join!(follow, goes_on);
    assert!(said.contains("<span id=\"status\">running</span>"), "{said}");
    let last = said.rsplit("event: saga").next().unwrap();
    assert!(last.contains("<span id=\"status\">completed</span>") && !last.contains("do-cancel"), "{last}");
}
