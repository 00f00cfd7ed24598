//! What refusals say: which request, which field, and nothing that a forger could use.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use axum::routing::{get, post};
use chassis::http::oneshot;
use chassis::json::{PathId, Valid, ValidQuery};
use chassis::paging::{Page, PageQuery, decode_token, encode_token};
use chassis::problem::{Code, Problem};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize, garde::Validate)]
#[serde(deny_unknown_fields)]
struct Cart {
    #[garde(length(min = 1, max = 3), dive)]
    items: Vec<Line>,
    #[garde(dive)]
    payment: Option<Payment>,
}

#[derive(Deserialize, garde::Validate)]
#[serde(deny_unknown_fields)]
struct Line {
    #[garde(range(min = 1))]
    quantity: i64,
}

#[derive(Deserialize, garde::Validate)]
#[serde(deny_unknown_fields)]
struct Payment {
    #[garde(length(min = 3, max = 3))]
    currency: String,
}

async fn cart(Valid(cart): Valid<Cart>) -> String {
    let currency = cart.payment.map(|p| p.currency).unwrap_or_default();
    format!("{}{currency}", cart.items.iter().map(|line| line.quantity).sum::<i64>())
}

async fn list(ValidQuery(query): ValidQuery<PageQuery>) -> Result<axum::Json<Page<u64>>, Problem> {
    let after = query.after::<u64>()?.unwrap_or(0);
    let rows: Vec<u64> = (after + 1..=45).take(query.limit() as usize + 1).collect();
    Ok(axum::Json(Page::of(rows, query.limit(), |row| *row, |row| row)))
}

fn router() -> Router {
    Router::new()
        .route("/carts", post(cart))
        .route("/things", get(list))
        .route("/things/{id}", get(|PathId(id): PathId| async move { id.to_string() }))
        .route("/busy", get(|| async { Problem::new(Code::Overloaded, "busy").retry_after(7) }))
        .route("/expired", get(|| async { Problem::new(Code::TokenExpired, "old") }))
}

async fn ask(request: Request<Body>) -> (u16, HeaderMap, Value) {
    let response = oneshot(router(), request).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn asked(path: &str) -> (u16, HeaderMap, Value) {
    ask(Request::get(path).body(Body::empty()).unwrap()).await
}

async fn posted(body: impl Into<Body>) -> (u16, Value) {
    let request = Request::post("/carts").header("content-type", "application/json").body(body.into()).unwrap();
    let (status, _, body) = ask(request).await;
    (status, body)
}

#[tokio::test]
async fn a_problem_says_everything_that_rfc_9457_and_the_contract_name() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request =
        Request::get("/nowhere?token=secret").header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let (status, headers, problem) = ask(request.body(Body::empty()).unwrap()).await;
    assert_eq!(status, 404);
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cache-control"], "no-store");
    let wanted = json!({
        "type": "/docs/errors/not_found", "title": "Not found", "status": 404,
        "detail": "there is nothing at this path", "instance": "/nowhere",
        "code": "not_found", "trace_id": trace, "retryable": false,
    });
    assert_eq!(problem, wanted);
}

#[tokio::test]
async fn every_refused_request_has_a_trace_of_its_own() {
    let (_, _, first) = asked("/nowhere").await;
    let forged = Request::get("/nowhere").header("traceparent", "00-x\" onload=-1-01").body(Body::empty()).unwrap();
    let (_, _, second) = ask(forged).await;
    let id = |problem: &Value| problem["trace_id"].as_str().unwrap().to_owned();
    assert_ne!(id(&first), id(&second));
    assert!([first, second].iter().all(|p| id(p).len() == 32 && id(p).bytes().all(|b| b.is_ascii_hexdigit())));
}

#[tokio::test]
async fn the_status_brings_its_headers() {
    let (status, headers, problem) = asked("/busy").await;
    assert_eq!((status, &headers["retry-after"], &problem["retryable"]), (503, &"7".parse().unwrap(), &json!(true)));
    let (status, headers, _) = asked("/expired").await;
    assert_eq!(status, 401);
    assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Bearer error=\"invalid_token\""));
    let (status, headers, problem) = asked("/carts").await;
    assert_eq!(
        (status, &headers["allow"], &problem["code"]),
        (405, &"POST".parse().unwrap(), &json!("method_not_allowed"))
    );
}

#[tokio::test]
async fn each_wrong_field_is_pointed_at_exactly() {
    for (body, pointers) in [
        (
            r#"{"items":[{"quantity":0},{"quantity":1},{"quantity":-1}]}"#,
            vec!["#/items/0/quantity", "#/items/2/quantity"],
        ),
        (r#"{"items":[{"quantity":1}],"payment":{"currency":"VNDX"}}"#, vec!["#/payment/currency"]),
        (r#"{"items":[{"quantity":1}],"payment":{}}"#, vec!["#/payment/currency"]),
        (r#"{"items":[{"quantity":1}],"payment":7}"#, vec!["#/payment"]),
        (r#"{"items":[{"quantity":1}],"items":[]}"#, vec!["#/items"]),
        (r#"{"items":7}"#, vec!["#/items"]),
        (r#"{"items":[7]}"#, vec!["#/items/0"]),
        (r#"{"items":[{"quantity":1}],"a.b":1}"#, vec!["#/a.b"]),
        (r#"{"items":[{"quantity":1}],"a/b~c":1}"#, vec!["#/a~1b~0c"]),
        (r#"{"items":[{"quantity":1,"x[0]?":1}]}"#, vec!["#/items/0/x[0]?"]),
        (r#"{"items":[{"quantity":1}],"a`b":1}"#, vec!["#/a`b"]),
        (r#"{"items":[{"quantity":1}],"":1}"#, vec!["#/"]),
        ("7", vec!["#"]),
        ("null", vec!["#"]),
        (r#""text""#, vec!["#"]),
    ] {
        let (status, problem) = posted(body).await;
        assert_eq!((status, problem["code"].as_str()), (422, Some("validation_error")), "{body}: {problem}");
        let found: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers, "{body}");
    }
}

#[tokio::test]
async fn a08_what_is_not_json_is_malformed_however_it_is_broken() {
    for body in [
        &b"{"[..],
        b"",
        b"{\"items\":[{\"quantity\":1}]}{}",
        b"{\"items\":[{\"quantity\":1}],}",
        b"{'items':1}",
        b"\xff\xfe{}",
        b"{\"items\":\"\xff\"}",
    ] {
        let (status, problem) = posted(body.to_vec()).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("malformed_json")), "{body:?}");
    }
    let deep = r#"{"items":[{"quantity":1}],"payment":"#.to_owned() + &"[".repeat(10_000);
    assert_eq!(posted(deep).await.0 / 100, 4);
    let (status, problem) = posted(r#"{"items":[{"quantity":1}]}"#).await;
    assert_eq!(status, 200, "{problem}");
}

#[tokio::test]
async fn a11_ids_of_every_wrong_shape_name_nothing() {
    for id in
        ["0", "-1", "01", "1.0", "1e3", "+1", "abc", "9007199254740992", "18446744073709551616", "%20", "1%00", "%ff"]
    {
        let (status, _, problem) = asked(&format!("/things/{id}")).await;
        assert_eq!((status, problem["code"].as_str()), (404, Some("not_found")), "{id}");
    }
    assert_eq!(asked("/things/9007199254740991").await.2, json!(9_007_199_254_740_991_u64));
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap_and_the_last_has_no_token() {
    // 45 rows: 7 leaves a last page that is not full, 9 one that is.
    for limit in [7, 9] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let (status, _, page) = asked(&format!("/things?limit={limit}{token}")).await;
            let items = page["items"].as_array().unwrap();
            assert!(status == 200 && !items.is_empty() && items.len() <= limit, "{page}");
            seen.extend(items.iter().map(|item| item.as_u64().unwrap()));
            match page["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => break,
            }
        }
        assert_eq!(seen, (1..=45).collect::<Vec<u64>>());
    }
    assert_eq!(asked("/things").await.2["items"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn a12_limits_and_tokens_out_of_range_are_refused_by_name() {
    let long = "A".repeat(201);
    let (text, list) = (encode_token(&"1"), encode_token(&[1]));
    for (query, pointer) in [
        ("limit=0", "#/limit"),
        ("limit=101", "#/limit"),
        ("limit=-1", "#"),
        ("limit=ten", "#"),
        ("limit=99999999999", "#"),
        ("page_token=", "#/page_token"),
        ("page_token=5", "#/page_token"),
        ("page_token=%27%20or%201%3D1", "#/page_token"),
        (&format!("page_token={long}"), "#/page_token"),
        (&format!("page_token={text}"), "#/page_token"),
        (&format!("page_token={list}"), "#/page_token"),
        ("offset=3", "#/offset"),
        ("limit=1&limit=2", "#/limit"),
    ] {
        let (status, _, problem) = asked(&format!("/things?{query}")).await;
        assert_eq!(status, 422, "{query}");
        let found = problem["errors"][0]["pointer"].as_str().unwrap();
        assert!(found == pointer || (pointer == "#" && found == "#/limit"), "{query}: {problem}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_token_comes_back_as_it_was(id in 0..=u64::MAX) {
        prop_assert_eq!(decode_token::<u64>(&encode_token(&id)).unwrap(), id);
    }

    #[test]
    fn whatever_is_no_token_is_refused_and_never_panics(text in ".{0,64}") {
        if let Err(problem) = decode_token::<u64>(&text) {
            prop_assert_eq!(problem.code, Code::ValidationError);
        }
    }
}
