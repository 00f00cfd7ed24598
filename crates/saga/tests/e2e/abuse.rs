//! Input that no honest client sends, against the whole shop (A-01 … A-15): always a problem with code and pointer, never a
//! 500, never half an effect. What only one service or the server decides is tested there, in more detail.

use std::process::Stdio;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use saga::remote::Answer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Process, saga};
use crate::town::{BodyJson as _, Person, Town, cart, created, product};

/// Codes for input that is wrong.
const WRONG_INPUT: [&str; 7] = [
    "conflict",
    "validation_error",
    "malformed_json",
    "unsupported_currency",
    "amount_out_of_range",
    "unauthenticated",
    "not_found",
];

/// Where a body is taken, with one that is lawful.
fn bodies(category: u64, cup: u64) -> Vec<(Method, String, Value)> {
    let person = json!({
        "email": "eve@example.com", "password": "a long password", "first_name": "Eve", "last_name": "Moore",
        "address": "1 Side Street", "phone_number": "7654321",
    });
    let change = json!({ "price": 11, "name": "Mug", "inventory_delta": 1, "reason": "found" });
    vec![
        (Method::POST, "/account/auth/register".into(), person),
        (
            Method::POST,
            "/account/auth/login".into(),
            json!({ "email": "no@example.com", "password": "a long password" }),
        ),
        (Method::POST, "/account/auth/refresh".into(), json!({ "refresh_token": "none" })),
        (
            Method::PUT,
            "/account/customer/personal".into(),
            json!({ "first_name": "A", "last_name": "B", "email": "admin@example.com" }),
        ),
        (Method::PUT, "/account/customer/delivery".into(), json!({ "address": "2 Road", "phone_number": "1" })),
        (Method::POST, "/products".into(), product(category, 10, 10)),
        (Method::PUT, format!("/products/{cup}"), change),
        (Method::POST, "/categories".into(), json!({ "name": "Garden", "description": "For sun" })),
        (Method::PUT, format!("/categories/{category}"), json!({ "name": "Kitchen", "description": "For tea" })),
        (Method::POST, "/purchases".into(), cart(&[(cup, 1)])),
    ]
}

/// Values that no field has; as raw JSON, because some of them no library would write.
const NASTY: [&str; 20] = [
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    "{\"$gt\":0}",
    "-1",
    "0",
    "1.5",
    "1e3",
    "1e400",
    "-9223372036854775809",
    "9223372036854775808",
    "18446744073709551616",
    "\"\"",
    "\"5\"",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\\u202e\"",
    "NaN",
    "\"\\ud800\"",
];

async fn send(who: &Person, method: &Method, path: &str, body: String) -> Answer {
    who.send(method.clone(), &format!("/api/v1{path}"), &[], Bytes::from(body)).await
}

/// A refusal that says what is wrong, or success; nothing else.
fn sane(answer: &Answer, what: &str) {
    if answer.status.is_success() {
        return;
    }
    let (status, code) = (answer.status, answer.code());
    assert!(status.is_client_error(), "{what}: {status} {:?}", answer.body);
    assert!(WRONG_INPUT.contains(&code.as_str()), "{what}: {code}");
    let body = answer.body_json();
    assert!(["type", "title", "detail"].iter().all(|member| body[member].is_string()), "{what}: {body}");
}

/// The pointers of a refusal.
fn pointers(answer: &Answer) -> Vec<String> {
    let body = answer.body_json();
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a01_a02_a07_every_field_of_every_body_refuses_what_it_cannot_be() {
    let town = Town::open().await;
    let category = town.category().await;
    let cup = created(&town.admin.post("/api/v1/products", &product(category, 10, 1_000)).await);
    for (method, path, lawful) in bodies(category, cup) {
        for field in lawful.as_object().unwrap().keys() {
            for nasty in NASTY {
                let what = format!("{method} {path}: {field} is {nasty}");
                let mut body = lawful.clone();
                body[field] = json!("@@");
                let answer = send(&town.admin, &method, &path, body.to_string().replace("\"@@\"", nasty)).await;
                sane(&answer, &what);
                if answer.status == StatusCode::UNPROCESSABLE_ENTITY && answer.code() == "validation_error" {
                    let inside = format!("#/{field}");
                    assert!(
                        pointers(&answer).iter().any(|at| at.starts_with(&inside)),
                        "{what}: {:?}",
                        pointers(&answer)
                    );
                }
            }
        }
        // What is not a field is not passed over: a client that sends it believes that it does something.
        for extra in ["role", "id", "price_override", "__proto__"] {
            let mut body = lawful.clone();
            body[extra] = json!(1);
            let answer = send(&town.admin, &method, &path, body.to_string()).await;
            assert_eq!(answer.code(), "validation_error", "{method} {path} takes {extra}");
            assert_eq!(pointers(&answer), [format!("#/{extra}")]);
        }
    }
    assert_eq!(town.nobody().get(&format!("/api/v1/categories/{category}")).await.status, StatusCode::OK);
    let report = town.books(0, 0).await;
    assert_eq!(report.violations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a08_a09_what_is_no_json_is_refused_before_anything_looks_at_it() {
    let town = Town::open().await;
    let category = town.category().await;
    let cup = created(&town.admin.post("/api/v1/products", &product(category, 10, 1_000)).await);
    let deep = format!("{{\"a\":{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let texts: [&[u8]; 4] = [b"{", b"\xff\xfe", b"{\"\xc3\x28\": 1}", b"'single'"];
    for (method, path, _) in bodies(category, cup) {
        let at = format!("/api/v1{path}");
        for text in texts {
            let answer = town.admin.send(method.clone(), &at, &[], Bytes::copy_from_slice(text)).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "malformed_json"), "{at} {text:?}");
        }
        for text in [b"[]".as_slice(), b"null", b"5", b"\"text\"", deep.as_bytes()] {
            let answer = town.admin.send(method.clone(), &at, &[], Bytes::copy_from_slice(text)).await;
            assert!(matches!(answer.status.as_u16(), 400 | 422), "{at} {text:?}");
            sane(&answer, &at);
        }
        let answer = town.admin.send(method.clone(), &at, &[], Bytes::from(vec![b' '; 65 * 1024])).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "payload_too_large"), "{at}");
        let packed = [("content-encoding", "gzip".to_owned())];
        let answer = town.admin.send(method.clone(), &at, &packed, Bytes::from_static(b"{}")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (415, "unsupported_media_type"), "{at}");
    }
    assert_eq!(town.books(0, 0).await.purchases, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a03_a04_a05_carts_are_merged_bounded_and_in_a_currency() {
    let town = Town::open().await;
    let cup = town.product(10, 1_000).await;
    let id = town.admin.buy(&[(cup, 1), (cup, 2), (cup, 3)]).await;
    assert_eq!(town.admin.ended(id).await["status"], "COMPLETED");
    assert_eq!(town.admin.get(&format!("/api/v1/payments/{id}")).await.body_json()["amount"], 60);
    let buy = |lines: Vec<(u64, i64)>, currency: &str| {
        let mut body = cart(&lines);
        body["payment"]["currency_code"] = json!(currency);
        let admin = town.admin.clone();
        async move {
            let answer = admin.post("/api/v1/purchases", &body).await;
            (answer.code(), pointers(&answer))
        }
    };
    let invalid = |at: &str| ("validation_error".to_owned(), vec![at.to_owned()]);
    assert_eq!(buy(vec![], "VND").await, invalid("#/order_items"));
    assert_eq!(buy(vec![(cup, 1); 101], "VND").await, invalid("#/order_items"));
    assert_eq!(buy(vec![(cup, 1_000_001)], "VND").await, invalid("#/order_items/0/quantity"));
    assert_eq!(buy(vec![(cup, 1), (cup, 0)], "VND").await, invalid("#/order_items/1/quantity"));
    assert_eq!(buy(vec![(cup, 1)], "vnd").await, invalid("#/payment/currency_code"));
    assert_eq!(buy(vec![(cup, 1)], "EUR").await.0, "unsupported_currency");
    assert_eq!(buy(vec![(cup + 1, 1)], "VND").await.0, "validation_error");
    assert_eq!(town.inventory(cup).await, 994);
    assert_eq!(town.books(1, 0).await.purchases, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_ids_of_every_wrong_shape_are_not_there() {
    let town = Town::open().await;
    let shapes = [
        "0",
        "-1",
        "1.0",
        "1e3",
        "+1",
        "0x10",
        "01",
        "9007199254740993",
        "18446744073709551616",
        "%31%20",
        "%00",
        "null",
        "1'--",
        "1%20or%201=1",
        "..%2f..%2fetc%2fpasswd",
        "%F0%9F%98%80",
        "a",
        "{id}",
        "1;drop%20table%20orders",
    ];
    for place in ["products", "categories", "orders", "payments", "purchases"] {
        for shape in shapes {
            let answer = town.admin.get(&format!("/api/v1/{place}/{shape}")).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"), "{place}/{shape}");
        }
    }
    for (path, expected) in
        [("/nothing", "not_found"), ("/api/v1/nothing", "not_found"), ("/api/v2/products", "not_found")]
    {
        assert_eq!(town.admin.get(path).await.code(), expected, "{path}");
    }
    let answer = town.admin.send(Method::PATCH, "/api/v1/orders", &[], Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(answer.header("allow").contains("GET"), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_pages_cannot_be_forged_or_made_endless() {
    let town = Town::open().await;
    for _ in 0..3 {
        town.product(10, 10).await;
    }
    let first = town.admin.get("/api/v1/products?limit=1").await.body_json();
    let token = first["next_page_token"].as_str().unwrap().to_owned();
    let next = town.admin.get(&format!("/api/v1/products?limit=1&page_token={token}")).await.body_json();
    assert_ne!(next["items"][0]["id"], first["items"][0]["id"]);
    for list in ["products", "categories", "orders", "payments", "purchases"] {
        for query in [
            "limit=0",
            "limit=-1",
            "limit=100000000",
            "limit=1.5",
            "limit=",
            "limit=ten",
            "page_token=x",
            "page_token=%00",
            "page_token=AAAAAAAAAAAAAAAAAAAAAAAA",
            "limit=1&limit=2",
            "lmit=1",
        ] {
            let answer = town.admin.get(&format!("/api/v1/{list}?{query}")).await;
            sane(&answer, &format!("{list}?{query}"));
            if answer.status.is_success() {
                assert!(answer.body_json()["items"].as_array().unwrap().len() <= 1_000, "{list}?{query}");
            }
        }
        let flipped = format!("{}{}", &token[1..], &token[..1]);
        let answer = town.admin.get(&format!("/api/v1/{list}?page_token={flipped}")).await;
        assert_eq!((answer.status.as_u16(), pointers(&answer)), (422, vec!["#/page_token".to_owned()]), "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_text_is_kept_as_text_whatever_it_looks_like() {
    let town = Town::open().await;
    let corpus = [
        "'; drop table product; --",
        "\" or \"\"=\"",
        "1; update account set role='ADMIN'",
        "%' union select * from account --",
        "\\'; --",
        "<script>alert(1)</script>",
        "{{7*7}}",
        "${jndi:ldap://127.0.0.1/a}",
        "$(reboot)",
        "../../etc/passwd",
        "\u{202e}evil",
        "Robert'); DROP TABLE Students;--",
        "%s%n%x",
        "a\tb",
    ];
    let category = town.category().await;
    for text in corpus {
        let mut body = product(category, 10, 5);
        for field in ["name", "brand_name", "description"] {
            body[field] = json!(text);
        }
        let answer = town.admin.post("/api/v1/products", &body).await;
        if answer.status == StatusCode::UNPROCESSABLE_ENTITY {
            sane(&answer, text);
            continue;
        }
        let id = created(&answer);
        let shown = town.nobody().get(&format!("/api/v1/products/{id}")).await.body_json();
        assert_eq!((&shown["name"], &shown["description"]), (&json!(text), &json!(text)));
        let bought = town.admin.buy(&[(id, 1)]).await;
        assert_eq!(town.admin.ended(bought).await["status"], "COMPLETED");
        let order = town.admin.get(&format!("/api/v1/orders/{bought}")).await.body_json();
        assert_eq!(order["products"][0]["name"], json!(text));
        let query: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let found = town.nobody().get(&format!("/api/v1/products?q={query}")).await;
        assert_eq!(found.status, StatusCode::OK, "{text}");
        let login = json!({ "email": text, "password": text });
        sane(&town.nobody().post("/api/v1/account/auth/login", &login).await, text);
    }
    town.books(1, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_what_a_client_sends_cannot_write_lines_into_the_log() {
    let data = TempDir::new().unwrap();
    let log = std::fs::File::create(data.path().join("log")).unwrap();
    let command = saga(data.path())
        .args(["--listen", "127.0.0.1:0"])
        .env("SAGA_LOG__FILTER", "debug")
        .env("SAGA_LOG__FORMAT", "json")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let process = Process::of(command, data.path()).await;
    let eve = process.nobody();
    let evil = "eve@example.com\n{\"level\":\"ERROR\",\"message\":\"forged\"}\u{1b}[31m";
    eve.post("/api/v1/account/auth/login", &json!({ "email": evil, "password": evil })).await;
    eve.get("/api/v1/products/1%0A%7B%22message%22%3A%22forged%22%7D%1B%5B31m").await;
    let agent = [("user-agent", "{\"message\":\"forged\"}".to_owned()), ("x-request-id", "a%0Aforged".to_owned())];
    eve.send(Method::GET, "/api/v1/purchases", &agent, Bytes::new()).await;
    eve.send(Method::POST, "/api/v1/purchases", &[("idempotency-key", "forged".to_owned())], Bytes::from("{")).await;
    drop(process);
    let log = std::fs::read_to_string(data.path().join("log")).unwrap();
    assert!(!log.is_empty());
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_ne!(entry["message"], "forged", "{line}");
    }
    assert!(!log.contains('\u{1b}') && !log.contains("a long password"), "nothing raw, nothing secret");
}
