//! What an operator does from a terminal: find the saga that is stuck, see why, put it right. The real binary, its own
//! verbs, text and JSON.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use saga_adapters::sqlite::rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Process, run, saga, stderr, stdout};
use crate::town::{BodyJson as _, Person, cart, created, eventually, impatient, product};

/// A file of settings for a gateway that is like this.
pub fn settings(folder: &Path, gateway: &str) -> String {
    let path = folder.join("saga.toml");
    let definition = impatient(folder, "10s");
    let text = format!("[orchestrator]\ndefinitions = [{definition:?}]\n[payment.sandbox]\n{gateway}\n");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn json(data: &Path, args: &[&str]) -> Value {
    let output = run(data, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", stdout(&output)))
}

/// A shop whose gateway never answers, a customer, and `count` purchases that are stuck at it.
pub async fn stuck(data: &Path, count: usize) -> (Process, Person, Vec<u64>) {
    stuck_with(data, count, "").await
}

/// The same with more settings: sections of their own.
pub async fn stuck_with(data: &Path, count: usize, more: &str) -> (Process, Person, Vec<u64>) {
    let config = settings(data, &format!("unknown_rate = 1.0\n{more}"));
    let process = Process::start_with(data, &["--listen", "127.0.0.1:0", "--config", &config]).await;
    let mary = process.nobody().register("mary@example.com").await;
    let category = serde_json::json!({ "name": "Kitchen", "description": "For tea" });
    let category = created(&mary.post("/api/v1/categories", &category).await);
    let cup = created(&mary.post("/api/v1/products", &product(category, 10, 100)).await);
    let mut bought = Vec::new();
    for _ in 0..count {
        let answer = mary.post("/api/v1/purchases", &cart(&[(cup, 1)])).await;
        bought.push(answer.body_json()["id"].as_u64().unwrap());
    }
    eventually("all are stuck", || async {
        let listed = json(data, &["sagas", "list", "--state", "STUCK"]);
        (listed["items"].as_array().unwrap().len() == count).then_some(())
    })
    .await;
    (process, mary, bought)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_saga_is_found_understood_and_retried_to_its_end() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let (mut process, mary, bought) = stuck(data, 2).await;
    let id = bought[0].to_string();

    let listed = stdout(&run(data, &["sagas", "list", "--state", "STUCK", "--step", "create-payment"]));
    assert!(listed.contains(&id) && listed.contains("create-payment"), "{listed}");
    let shown = stdout(&run(data, &["sagas", "show", &id]));
    assert!(shown.contains("STUCK") && shown.contains("create-payment: do STUCK, 2 attempts"), "{shown}");

    // A verb says why, and only moves what it was meant for.
    let version = json(data, &["sagas", "show", &id])["version"].as_u64().unwrap();
    let stale = ["sagas", "retry", &id, "--reason", "the gateway is back", "--version", &(version - 1).to_string()];
    let refused = run(data, &stale);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("version"), "{}", stderr(&refused));
    assert_eq!(run(data, &["sagas", "retry", &id]).status.code(), Some(2), "without a reason");

    // Tried again, and stuck again: nobody answers.
    let retried = json(data, &["sagas", "retry", &id, "--reason", "the gateway is back, I hope"]);
    assert_eq!(retried["status"], "RUNNING");
    eventually("it is stuck again", || async {
        (json(data, &["sagas", "show", &id])["status"] == "STUCK").then_some(())
    })
    .await;

    // The gateway answers again: a start asks once more for whatever is outstanding.
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    let config = settings(data, "unknown_rate = 0.0");
    let process = Process::start_with(data, &["--listen", "127.0.0.1:0", "--config", &config]).await;
    let watched = run(data, &["sagas", "watch", &id]);
    assert!(watched.status.success() && stdout(&watched).contains("COMPLETED"), "{}", stdout(&watched));
    let shown = stdout(&run(data, &["sagas", "show", &id]));
    assert!(shown.contains("retried by local: the gateway is back, I hope"), "{shown}");
    let mary = Person { endpoint: process.nobody().endpoint, ..mary };
    for id in bought {
        assert_eq!(mary.ended(id).await["status"], "COMPLETED");
    }
    assert_eq!(json(data, &["check", "--settled", "--expect-completed", "2"])["violations"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_saga_is_cancelled_and_what_it_held_is_given_back() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    // Undoing asks the gateway, too, and gets an answer.
    let (_process, mary, bought) = stuck(data, 1).await;
    let id = bought[0].to_string();
    let cancelled = json(data, &["sagas", "cancel", &id, "--reason", "the customer rang"]);
    assert_eq!(cancelled["status"], "COMPENSATING");
    let ended = mary.ended(bought[0]).await;
    assert_eq!((&ended["status"], &ended["reason"]["code"]), (&"COMPENSATED".into(), &"cancelled".into()));
    let again = run(data, &["sagas", "cancel", &id, "--reason", "once more"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(json(data, &["check", "--settled", "--expect-compensated", "1"])["violations"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_that_others_keep_getting_ahead_of_is_a_conflict_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let (_process, _mary, bought) = stuck(data, 1).await;
    let id = bought[0].to_string();
    let file = Connection::open(data.join("orchestrator.db")).unwrap();
    // Whoever writes a saga finds that it is not as it was.
    file.execute_batch("create trigger ahead before update on saga begin select raise(ignore); end").unwrap();
    let retry = ["sagas", "retry", &id, "--reason", "again"];
    let lost = run(data, &retry);
    let told = stderr(&lost);
    assert!(lost.status.code() == Some(1) && told.contains("others kept changing the saga"), "{told}");
    assert_eq!(json(data, &["sagas", "show", &id])["status"], "STUCK");
    file.execute_batch("drop trigger ahead").unwrap();
    assert_eq!(json(data, &retry)["status"], "RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_api_and_console_show_and_do_can_be_had_in_a_terminal() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let (process, _mary, bought) = stuck(data, 4).await;
    let [skipped, resolved, ..] = [bought[0].to_string(), bought[1].to_string()];
    let told = |args: &[&str]| {
        let output = run(data, args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stdout(&output) + &stderr(&output)
    };
    let counts = told(&["sagas", "counts"]);
    assert!(counts.contains("STUCK") && counts.contains('4'), "{counts}");
    let messages = told(&["sagas", "messages", &skipped]);
    assert!(messages.contains("create-payment") && messages.contains("update-product-inventory"), "{messages}");
    let participants = told(&["participants"]);
    assert!(["product", "order", "payment"].iter().all(|name| participants.contains(name)), "{participants}");
    let topics = json(data, &["topics", "list"]);
    let topic = topics["items"].as_array().unwrap().iter().find_map(|topic| topic["topic"].as_str()).unwrap();
    told(&["topics", "messages", topic]);
    glance(data, &process.run.admin, &skipped).await;

    // Declared dealt with, and ended by hand.
    let skip = json(data, &["sagas", "skip", &skipped, "--reason", "paid in cash"]);
    assert!(skip["status"] == "RUNNING" || skip["status"] == "COMPLETED", "{skip}");
    let ended = ["sagas", "resolve", &resolved, "--status", "COMPENSATED", "--reason", "sent back by post"];
    assert_eq!(json(data, &ended)["status"], "COMPENSATED");
    // To many: first only told.
    let bulk = ["sagas", "bulk", "cancel", "--state", "STUCK", "--reason", "the gateway is gone"];
    assert!(told(&bulk).contains('2'));
    assert_eq!(json(data, &["sagas", "list", "--state", "STUCK"])["items"].as_array().unwrap().len(), 2);
    told(&[&bulk[..], &["--yes"]].concat());
    eventually("none is stuck", || async {
        json(data, &["sagas", "list", "--state", "STUCK"])["items"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    let audit = told(&["audit"]);
    assert!(
        ["paid in cash", "sent back by post", "the gateway is gone"].iter().all(|why| audit.contains(why)),
        "{audit}"
    );

    // Letters, one after the other: shown, sent again, thrown away.
    let topic = "purchase";
    drop(process);
    bury(data, topic, [1_795_000_000_000; 2]);
    let _process = Process::start(data).await;
    let listed = json(data, &["dlq", "list", topic]);
    let ids: Vec<String> =
        listed["items"].as_array().unwrap().iter().map(|letter| letter["id"].to_string().replace('"', "")).collect();
    assert_eq!(ids.len(), 2, "{listed}");
    let first = json(data, &["dlq", "list", topic, "--limit", "1"]);
    let next = json(data, &["dlq", "list", topic, "--page-token", first["next_page_token"].as_str().unwrap()]);
    let [one, two] = [&first, &next].map(|page| page["items"][0]["id"].to_string().replace('"', ""));
    assert_eq!(([&one, &two], &next["more"]), ([&ids[0], &ids[1]], &Value::Bool(false)));
    assert!(told(&["dlq", "show", topic, &ids[0]]).contains("no such thing"));
    told(&["dlq", "purge", topic, "--id", &ids[0], "--reason", "garbage"]);
    told(&["dlq", "redrive", topic, "--all", "--reason", "mended"]);
    eventually("it is buried again: it is still garbage", || async {
        let listed = json(data, &["dlq", "list", topic]);
        let items = listed["items"].as_array().unwrap();
        (items.len() == 1 && items[0]["id"].to_string().replace('"', "") != ids[1]).then_some(())
    })
    .await;
}

/// The shop at a glance and what it counts, the kinds of sagas, lists page by page, a check by the shop itself.
async fn glance(data: &Path, admin: &str, id: &str) {
    let overview = json(data, &["overview"]);
    assert_eq!((&overview["stuck"], &overview["profile"]), (&4.into(), &"embedded".into()), "{overview}");
    let shown = stdout(&run(data, &["overview"]));
    assert!(shown.contains("in flight 4, 4 of them stuck") && shown.contains("PARTICIPANT"), "{shown}");
    let mut watch = saga(data).args(["overview", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let seconds: Vec<Value> =
        lines.by_ref().take(2).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(seconds.iter().all(|second| second["stuck"] == 4), "{seconds:?}");
    assert!(json(data, &["stats"])["commits"].as_u64() > Some(0));
    assert!(stdout(&run(data, &["stats"])).contains("commits"));

    let all = json(data, &["definitions"]);
    assert_eq!(all["items"][0]["name"], "purchase", "{all}");
    assert_eq!(json(data, &["definitions", "purchase"])["items"], all["items"]);
    let [table, one] = [&["definitions"][..], &["definitions", "purchase"]].map(|args| stdout(&run(data, args)));
    assert!(table.contains("confirm-order") && one.contains("create-payment"), "{table}{one}");
    let none = run(data, &["definitions", "parcel"]);
    assert!(none.status.code() == Some(1) && stderr(&none).contains("there are purchase"), "{}", stderr(&none));

    let page = |more: &[&str]| json(data, &[&["sagas", "list", "--limit", "3"], more].concat());
    let (first, mut ids) = (page(&[]), Vec::new());
    let token = first["next_page_token"].as_str().unwrap();
    let told = stderr(&run(data, &["sagas", "list", "--limit", "3"]));
    assert!(told.contains(&format!("--page-token {token}")), "{told}");
    for page in [&first, &page(&["--page-token", token])] {
        ids.extend(page["items"].as_array().unwrap().iter().map(|saga| saga["id"].to_string()));
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((count, ids.len()), (4, 4), "each once");
    let found = page(&["-q", id]);
    assert_eq!((found["items"].as_array().unwrap().len(), found["items"][0]["id"].to_string()), (1, id.to_owned()));

    // By the shop, whose databases need not be reachable from here.
    let token = data.join("its-token");
    std::fs::write(&token, saga::remote::RunFile::read(data).unwrap().unwrap().token).unwrap();
    let asked = ["check", "--url", admin, "--token-file", token.to_str().unwrap()];
    assert_eq!(json(data, &asked)["stuck"], 4);
    let unmet = run(data, &[&asked[..], &["--expect-completed", "1"]].concat());
    assert_eq!(unmet.status.code(), Some(3), "{}", stdout(&unmet));
}

/// Records that nobody could handle, one for each time (ms since the epoch), in the file of a shop that is at rest.
pub fn bury(data: &Path, topic: &str, times: impl IntoIterator<Item = i64>) {
    let file = Connection::open(data.join(format!("{}.db", saga_adapters::sqlite::dead_letters::SCHEMA.name))).unwrap();
    for at in times {
        let letter = "insert into dead_letter (topic, partition, position, at, attempts, reason, key, headers, payload)
            values (?1, 0, 1, ?2, 5, 'no such thing', x'37', '[]', x'00')";
        file.execute(letter, (topic, at)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_asks_a_shop_for_every_product_that_the_books_have() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let (process, ..) = stuck(data, 1).await;
    let check = ["check", "--shop", &process.run.public];
    assert!(run(data, &check).status.success());
    // One that filter and caches have never heard of.
    let file = Connection::open(data.join("product.db")).unwrap();
    let behind = "create temp table other as select * from product limit 1; update other set id = 7;
        insert into product select * from other";
    file.execute_batch(behind).unwrap();
    let told = run(data, &check);
    assert_eq!(told.status.code(), Some(3));
    assert!(stdout(&told).contains("the shop answers 404"), "{}", stdout(&told));
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_that_cannot_work_say_what_to_do() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let nowhere = run(data, &["sagas", "list"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("--data") && stderr(&nowhere).contains("--url"), "{}", stderr(&nowhere));

    let _process = Process::start(data).await;
    // Who reads the books decides what else can be said: nothing that was typed goes unheeded.
    for (typed, wants) in [
        (&["check", "--url", "http://127.0.0.1:1", "--shop", "http://127.0.0.1:2"][..], "cannot be used with"),
        (&["check", "--token-file", "token"], "--url <URL>"),
    ] {
        let refused = run(data, typed);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(wants), "{}", stderr(&refused));
    }
    let unknown = run(data, &["sagas", "show", "12345"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("12345"), "{}", stderr(&unknown));
    assert!(stderr(&run(data, &["dlq", "list"])).contains("no dead letters"));
    assert_eq!(json(data, &["dlq", "list"])["items"], Value::Array(Vec::new()));
    let topic = run(data, &["dlq", "list", "no-such-topic"]);
    assert!(topic.status.code() == Some(1) || stdout(&topic).contains("REASON"), "{}", stderr(&topic));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_with_rights_are_made_beside_a_running_shop_and_without_one() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let password = data.join("password");
    let file = password.to_str().unwrap();
    let make = |email: &str, role: &str| {
        let who = ["admin", "create", "--email", email, "--role", role, "--password-file", file];
        run(data, &[&who[..], &["--reason", "they help"]].concat())
    };
    std::fs::write(&password, "short\n").unwrap();
    let refused = make("ann@example.com", "admin");
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("8 to 128"), "{}", stderr(&refused));
    std::fs::write(&password, "a long password\n").unwrap();
    let nobody = make("no address", "admin");
    assert!(nobody.status.code() == Some(1) && stderr(&nobody).contains("; #/email: "), "{}", stderr(&nobody));
    let made = make("ann@example.com", "admin");
    assert!(made.status.success(), "{}", stderr(&made));
    let process = Process::start(data).await;
    let made = make("oscar@example.com", "operator");
    assert!(made.status.success(), "{}", stderr(&made));
    let why = ["--role", "viewer", "--password-file", file, "--reason", "she writes the report"];
    let made = run(data, &[&["admin", "create", "--email", "vera@example.com"], &why[..]].concat());
    assert!(made.status.success(), "{}", stderr(&made));
    let again = make("oscar@example.com", "operator");
    assert!(again.status.success(), "{}", stderr(&again));
    let silent = run(data, &["admin", "create", "--email", "eve@example.com", "--password-file", file]);
    assert!(silent.status.code() == Some(2) && stderr(&silent).contains("--reason"), "{}", stderr(&silent));
    // Each once, with the reason that was given, in the same log, whether or not a shop ran.
    let lines = json(data, &["audit", "--action", "account.create"]);
    let lines = lines["items"].as_array().unwrap().iter();
    let lines: Vec<_> = lines.map(|line| ["target", "reason", "outcome", "actor"].map(|name| &line[name])).collect();
    assert_eq!(
        lines,
        [
            ["vera@example.com", "she writes the report", "done", "local"],
            ["oscar@example.com", "they help", "done", "local"],
            ["ann@example.com", "they help", "done", "local"],
        ]
    );

    // The token of an account opens what its role opens.
    let list = |token: &str| {
        let path = data.join("token");
        std::fs::write(&path, token).unwrap();
        let args = ["sagas", "list", "--url", &process.run.admin, "--token-file", path.to_str().unwrap()];
        saga(data).args(args).output().unwrap().status.code()
    };
    let ann = process.nobody().login("ann@example.com").await;
    let oscar = process.nobody().login("oscar@example.com").await;
    let mary = process.nobody().register("mary@example.com").await;
    assert_eq!([list(&ann.token), list(&oscar.token), list(&mary.token)], [Some(0), Some(0), Some(1)]);
    let category = serde_json::json!({ "name": "Kitchen", "description": "For tea" });
    assert_eq!(ann.post("/api/v1/categories", &category).await.status, 201);
    assert_eq!(oscar.post("/api/v1/categories", &category).await.status, 403);
}
