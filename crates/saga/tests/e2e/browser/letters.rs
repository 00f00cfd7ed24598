//! Dead letters in a browser: an operator reads them, sends one again, throws one away; a viewer only reads.

use std::path::Path;

use saga::remote::Admin;
use saga_adapters::sqlite::dead_letters;
use saga_adapters::sqlite::rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::driver::Browser;
use super::{content, log_in};
use crate::binary::Process;
use crate::town::eventually;

/// Dead letters that no version of a shop can read, put where its next start finds them: `(reason, headers as JSON)`.
pub async fn prepared(data: &Path, letters: &[(&str, &str)]) {
    let mut process = Process::start(data).await;
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    let file = Connection::open(data.join(format!("{}.db", dead_letters::SCHEMA.name))).unwrap();
    for (position, (reason, headers)) in (1..).zip(letters) {
        let letter = "insert into dead_letter (topic, partition, position, at, attempts, reason, key, headers, payload)
            values ('reply', 0, ?1, 1790000000000, 5, ?2, x'37', ?3, cast('no reply <b>at all</b>' as blob))";
        let position: i64 = position;
        file.execute(letter, (position, *reason, *headers)).unwrap();
    }
}

/// A shop with two letters that no version of it can read, an operator and a viewer.
async fn with_letters(data: &Path) -> (Process, Admin) {
    prepared(data, &[("the first is odd", "[]"), ("the second is odd", "[]")]).await;
    let process = Process::start(data).await;
    process.nobody().register("admin@example.com").await;
    let admin = Admin::new(&process.run.admin, &process.run.token).unwrap();
    for (name, role) in [("oscar", "OPERATOR"), ("vera", "VIEWER")] {
        let made = json!({ "email": format!("{name}@example.com"), "password": super::PASSWORD, "role": role, "reason": "they help" });
        admin.post("/admin/accounts", &made).await.unwrap();
    }
    (process, admin)
}

/// The letters of the topic: number and reason.
async fn letters(admin: &Admin) -> Vec<(u64, String)> {
    let listed = admin.get("/admin/dlq/reply").await.unwrap();
    let letter = |item: &Value| (item["id"].as_u64().unwrap(), item["reason"].as_str().unwrap().to_owned());
    listed["items"].as_array().unwrap().iter().map(letter).collect()
}

async fn audited(admin: &Admin, action: &str) -> Vec<Value> {
    let lines = admin.get(&format!("/admin/audit?action={action}")).await.unwrap();
    lines["items"].as_array().unwrap().clone()
}

/// The dialog that asks: without a reason it stays.
async fn confirm(browser: &Browser, question: &str, reason: &str) {
    browser.until("document.querySelector('dialog').open").await;
    browser.shows(question).await;
    browser.click("dialog form button").await;
    assert!(browser.run("return document.querySelector('dialog').open").await.as_bool().unwrap());
    browser.fill("dialog #reason", reason).await;
    browser.click("dialog form button").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reads_a_dead_letter_sends_it_again_and_throws_one_away() {
    let folder = TempDir::new().unwrap();
    let (process, admin) = with_letters(folder.path()).await;
    let before = letters(&admin).await;
    assert_eq!(before.len(), 2);
    let (first, second) = (before[0].0, before[1].0);
    let browser = Browser::open().await;
    let base = process.run.admin.clone();
    log_in(&browser, &base, "/console", "oscar@example.com").await;
    browser.go(&format!("{base}/console/letters")).await;
    browser.click("a[href='/console/letters/reply']").await;
    browser.shows("the second is odd").await;
    browser.click(&format!("a[href='/console/letters/reply/{first}']")).await;
    browser.shows("the first is odd").await;
    browser.shows("no reply <b>at all</b>").await;

    browser.click("a[href*='/do/redrive']").await;
    confirm(&browser, &format!("Send dead letter {first} again?"), "the reader was mended, I hope").await;
    browser.shows("1 sent again.").await;
    // It went to its topic, was read there, and came back: nobody can read it.
    let back = eventually("it is back", || async {
        let now = letters(&admin).await;
        let new = now.iter().find(|(id, _)| ![first, second].contains(id)).map(|(id, _)| *id);
        new.filter(|_| now.len() == 2 && now.iter().all(|(id, _)| *id != first))
    })
    .await;
    let lines = audited(&admin, "dlq.redrive").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["outcome"], &lines[0]["target"]), (&json!("done"), &json!("reply")), "{lines:?}");
    assert_eq!(lines[0]["reason"], "the reader was mended, I hope");

    // One of two, chosen in the list.
    browser.go(&format!("{base}/console/letters/reply")).await;
    browser.click(&format!("input[name=id][value='{second}']")).await;
    browser.click("a.danger[href*='/do/purge']").await;
    confirm(&browser, &format!("Throw dead letter {second} away?"), "nobody will ever read it").await;
    browser.shows("1 thrown away.").await;
    assert_eq!(letters(&admin).await.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [back]);
    browser.go(&format!("{base}/console/audit?action=dlq.purge")).await;
    browser.shows("nobody will ever read it").await;
    let lines = audited(&admin, "dlq.purge").await;
    assert!(lines.len() == 1 && lines[0]["actor"].as_str().unwrap().starts_with("account "), "{lines:?}");
    content(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_reads_dead_letters_and_does_nothing_to_them() {
    let folder = TempDir::new().unwrap();
    let (process, admin) = with_letters(folder.path()).await;
    let before = letters(&admin).await;
    let browser = Browser::open().await;
    let base = process.run.admin.clone();
    log_in(&browser, &base, "/console", "vera@example.com").await;
    for page in ["reply".to_owned(), format!("reply/{}", before[0].0)] {
        browser.go(&format!("{base}/console/letters/{page}")).await;
        browser.shows("the first is odd").await;
        let offered = "return document.querySelectorAll('[href*=\"/do/\"], main input[type=checkbox]').length";
        assert_eq!(browser.run(offered).await, 0, "{page} offers what a viewer may not do");
    }
    content(&browser).await;
    // By address, and by a form that she makes herself.
    for verb in ["redrive", "purge"] {
        browser.go(&format!("{base}/console/letters/reply")).await;
        let script = format!(
            "const body = new URLSearchParams({{ token: document.querySelector('input[name=token]').value, reason: 'x' }});
             return fetch('/console/letters/reply/do/{verb}', {{ method: 'POST', body }}).then((answer) => answer.status)"
        );
        assert_eq!(browser.run(&script).await, 403, "{verb}");
        browser.go(&format!("{base}/console/letters/reply/do/{verb}")).await;
        browser.shows("Not allowed").await;
        assert!(audited(&admin, &format!("dlq.{verb}")).await.is_empty());
    }
    assert_eq!(letters(&admin).await, before);
}
