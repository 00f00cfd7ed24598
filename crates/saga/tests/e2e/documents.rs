//! The API's document against the shop that serves it: routes, methods, limits, the page that shows it.

use bytes::Bytes;
use hyper::{Method, StatusCode};
use saga::up::documents::{admin, public};
use serde_json::{Value, json};

use crate::town::{BodyJson as _, Person, Town, created, product};

/// Every (path, methods) of a document.
pub fn operations(document: &Value) -> Vec<(String, Vec<String>)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = |item: &Value| item.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase()).collect();
    paths.map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_once_and_then_only_when_it_has_changed() {
    let town = Town::open().await;
    let nobody = town.nobody();
    let operators = Person { endpoint: town.admin_endpoint(), ..nobody.clone() };
    assert_eq!(operators.get("/openapi.json").await.body_json(), admin().unwrap());
    let answer = nobody.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    assert_eq!(answer.body_json(), public().unwrap());
    let known = [("if-none-match", answer.header("etag").to_owned())];
    let again = nobody.send(Method::GET, "/openapi.json", &known, Bytes::new()).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let other = [("if-none-match", "\"of-yesterday\"".to_owned())];
    assert_eq!(nobody.send(Method::GET, "/openapi.json", &other, Bytes::new()).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_comes_with_all_that_it_needs_and_may_load_nothing_from_elsewhere() {
    let town = Town::open().await;
    let nobody = town.nobody();
    let moved = nobody.get("/docs").await;
    assert_eq!((moved.status, moved.header("location")), (StatusCode::PERMANENT_REDIRECT, "/docs/"));
    for (file, kind) in [
        ("", "text/html"),
        ("swagger-ui.css", "text/css"),
        ("index.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui-standalone-preset.js", "text/javascript"),
        ("swagger-initializer.js", "text/javascript"),
        ("favicon-32x32.png", "image/png"),
    ] {
        let answer = nobody.get(&format!("/docs/{file}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, kind), "{file}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{file}: {policy}");
        assert!(!policy.contains("http") && !policy.contains('*'), "{file}: {policy}");
    }
    let settings = nobody.get("/docs/swagger-initializer.js").await.body;
    let settings = String::from_utf8(settings.to_vec()).unwrap();
    assert!(settings.contains("\"url\": \"/openapi.json\"") && settings.contains("\"validatorUrl\": \"none\""));
    let wrong = nobody.get("/docs/errors/no_code").await;
    assert_eq!(wrong.code(), "not_found");
    // The type of a problem leads to its page.
    let page = nobody.get(wrong.body_json()["type"].as_str().unwrap()).await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/plain; charset=utf-8"));
    assert!(page.body.starts_with(b"# not_found"), "{:?}", page.body);
    assert_eq!(nobody.get("/docs/etc%2Fpasswd").await.status, StatusCode::NOT_FOUND);
    // An alert leads to its runbook, at the operators' listener alone.
    let runbook = "/docs/runbooks/sagacompensationstuck";
    let operators = Person { endpoint: town.admin_endpoint(), ..nobody.clone() };
    let page = operators.get(runbook).await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/plain; charset=utf-8"));
    assert!(page.body.starts_with(b"SagaCompensationStuck\n"), "{:?}", page.body);
    assert_eq!(operators.get("/docs/runbooks/none").await.status, StatusCode::NOT_FOUND);
    assert_eq!(nobody.get(runbook).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_takes_the_methods_of_the_document_and_says_so_to_others() {
    let town = Town::open().await;
    let at = |endpoint| Person { endpoint, ..town.admin.clone() };
    let (shop, operators, accounts) = (town.nobody(), at(town.admin_endpoint()), at(town.accounts_endpoint()));
    let all = [operations(&public().unwrap()), operations(&admin().unwrap())].concat();
    assert!(all.len() > 30, "{all:?}");
    for (path, documented) in all {
        let who = match path.as_str() {
            "/admin/accounts" => &accounts,
            path if path.starts_with("/admin") => &operators,
            _ => &shop,
        };
        let path = path.replace("{id}", "1").replace("{verb}", "retry");
        let answer = who.send(Method::PATCH, &path, &[], Bytes::new()).await;
        assert_eq!(answer.code(), "method_not_allowed", "{path}");
        let mut allowed: Vec<&str> = answer.header("allow").split(',').filter(|method| *method != "HEAD").collect();
        allowed.sort_unstable();
        assert_eq!(allowed, documented, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_topic_saga_or_verb_is_called_like_is_not_there() {
    let town = Town::open().await;
    let operators = Person { endpoint: town.admin_endpoint(), ..town.admin.clone() };
    for path in
        ["/admin/dlq/a%00b", "/admin/dlq/%ff", "/admin/dlq/a%20b", "/admin/dlq/reply/0x1", "/admin/dlq/reply/%ff"]
    {
        assert_eq!(operators.get(path).await.code(), "not_found", "{path}");
    }
    let order = json!({ "reason": "to see" });
    for path in ["/admin/sagas/1/%ff", "/admin/sagas/%ff/retry", "/admin/sagas/1/forget", "/admin/sagas/-1/retry"] {
        assert_eq!(operators.post(path, &order).await.code(), "not_found", "{path}");
    }
}

/// What is wrong with a body, by its limits: (pointer, value).
fn beyond(properties: &Value) -> Vec<(String, Value)> {
    let mut wrong = Vec::new();
    for (name, schema) in properties.as_object().unwrap() {
        let at = format!("#/{name}");
        let text = |length: u64| json!("x".repeat(usize::try_from(length).unwrap()));
        if let Some(most) = schema["maxLength"].as_u64() {
            wrong.push((at.clone(), text(most + 1)));
        }
        if let Some(least) = schema["minLength"].as_u64() {
            wrong.push((at.clone(), text(least - 1)));
        }
        if let Some(most) = schema["maximum"].as_i64() {
            wrong.push((at.clone(), json!(most + 1)));
        }
        if let Some(least) = schema["minimum"].as_i64() {
            wrong.push((at.clone(), json!(least - 1)));
        }
    }
    wrong
}

/// The last values within the limits, where any text of that length is lawful.
fn within(properties: &Value) -> Vec<(String, Value)> {
    let mut lawful = Vec::new();
    for (name, schema) in properties.as_object().unwrap() {
        let at = format!("#/{name}");
        let any = schema["pattern"].is_null() && schema["format"] != "email";
        let lengths = [&schema["minLength"], &schema["maxLength"]].into_iter().filter_map(Value::as_u64);
        // Two bytes each: characters are counted.
        let texts = lengths.filter(|_| any).map(|length| json!("é".repeat(usize::try_from(length).unwrap())));
        lawful.extend(texts.map(|text| (at.clone(), text)));
        let numbers = [&schema["minimum"], &schema["maximum"]].into_iter().filter_map(Value::as_i64);
        lawful.extend(numbers.map(|number| (at.clone(), json!(number))));
    }
    lawful
}

/// Every operation with a body: (method, path, name of the body's schema).
fn bodies(document: &Value) -> Vec<(Method, String, String)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
                found.push((method.to_ascii_uppercase().parse().unwrap(), path.clone(), name.to_owned()));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_a_documented_limit_is_refused_at_its_field_and_what_is_within_is_not() {
    let town = Town::open().await;
    let category = town.category().await;
    let cup = created(&town.admin.post("/api/v1/products", &product(category, 10, 10)).await);
    let purchase = town.admin.buy(&[(cup, 1)]).await;
    let at = |endpoint| Person { endpoint, ..town.admin.clone() };
    let (operators, accounts) = (at(town.admin_endpoint()), at(town.accounts_endpoint()));
    let mut tried = 0;
    for document in [public().unwrap(), admin().unwrap()] {
        for (method, path, name) in bodies(&document) {
            let schema = &document["components"]["schemas"][&name];
            assert_eq!(schema["additionalProperties"], false, "{name}");
            let (who, id) = match path.as_str() {
                "/admin/accounts" => (&accounts, 0),
                path if path.starts_with("/admin") => (&operators, purchase),
                path if path.contains("/products") => (&town.admin, cup),
                path if path.contains("/categories") => (&town.admin, category),
                _ => (&town.admin, purchase),
            };
            let path = path.replace("{id}", &id.to_string()).replace("{topic}", "reply").replace("{verb}", "retry");
            tried += both_sides(who, &method, &path, schema).await;
        }
    }
    assert!(tried > 120, "{tried}");
}

/// Tries each limit of a body from both sides; how many values that were.
async fn both_sides(who: &Person, method: &Method, path: &str, schema: &Value) -> usize {
    let with = |pointer: &str, value: &Value| {
        let mut body = schema["example"].clone();
        body[pointer.trim_start_matches("#/")] = value.clone();
        body
    };
    let mut wrong = beyond(&schema["properties"]);
    wrong.push(("#/nobody_knows_this".to_owned(), json!(1)));
    for (pointer, value) in &wrong {
        let found = refused(who, method, path, &with(pointer, value)).await;
        assert!(found.contains(pointer), "{method} {path}: {value} at {pointer} is answered {found:?}");
    }
    let lawful = within(&schema["properties"]);
    for (pointer, value) in &lawful {
        let found = refused(who, method, path, &with(pointer, value)).await;
        // That there is no such category is another matter than its number.
        let taken = !found.contains(pointer) || pointer == "#/category_id";
        assert!(taken, "{method} {path}: {value} at {pointer} is answered {found:?}");
    }
    wrong.len() + lawful.len()
}

/// The pointers of a 422.
async fn refused(who: &Person, method: &Method, path: &str, body: &Value) -> Vec<String> {
    let answer = who.send(method.clone(), path, &[], Bytes::from(body.to_string())).await;
    let errors = answer.body_json()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}
