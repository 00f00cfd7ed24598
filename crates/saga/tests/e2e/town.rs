//! A whole shop, on ports of its own, and people who use it over HTTP.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use chassis::sse::Lines;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use saga::check::report::Report;
use saga::check::rules::Wanted;
use saga::config::Config;
use saga::remote::{Admin, Answer, Connection, Endpoint};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::home::Home;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A shop and its first account, the administrator.
pub struct Town {
    home: Option<Home>,
    config: Config,
    _folder: TempDir,
    pub admin: Person,
}

/// Somebody with (or without) an account.
#[derive(Clone)]
pub struct Person {
    pub endpoint: Endpoint,
    pub token: String,
    pub refresh: String,
}

/// Settings for tests: any port, cheap password hashes, in a folder of its own.
pub fn settings(data: &Path) -> Config {
    let mut config = Config { data: data.to_owned(), listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    config.account.password_memory_kib = 64;
    config.account.password_passes = 1;
    config.drain_s = 2;
    config
}

impl Town {
    pub async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    pub async fn open_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut config = settings(folder.path());
        change(&mut config);
        Home::prepare(&mut config).await;
        let home = Home::open(&config).await;
        let admin = Person::at(&home.public()).register("admin@example.com").await;
        Self { home: Some(home), config, _folder: folder, admin }
    }

    pub fn home(&self) -> &Home {
        self.home.as_ref().unwrap()
    }

    pub fn nobody(&self) -> Person {
        Person::at(&self.home().public())
    }

    pub async fn customer(&self, name: &str) -> Person {
        self.nobody().register(&format!("{name}@example.com")).await
    }

    /// Stops the shop and starts it again on the same folder, perhaps with other settings. Tokens stay valid.
    pub async fn reopen_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.close().await;
        change(&mut self.config);
        let home = Home::open(&self.config).await;
        self.admin.endpoint = Person::at(&home.public()).endpoint;
        self.home = Some(home);
    }

    pub async fn close(&mut self) {
        if let Some(home) = self.home.take() {
            home.stop().await;
        }
    }

    pub fn accounts_api(&self) -> Admin {
        Admin::new(&self.home().accounts_admin(), self.home().token()).unwrap()
    }

    pub fn admin_endpoint(&self) -> Endpoint {
        Endpoint::parse(&self.home().admin()).unwrap()
    }

    pub fn accounts_endpoint(&self) -> Endpoint {
        Endpoint::parse(&self.home().accounts_admin()).unwrap()
    }

    pub async fn category(&self) -> u64 {
        let body = json!({ "name": "Kitchen", "description": "For tea" });
        created(&self.admin.post("/api/v1/categories", &body).await)
    }

    pub async fn product(&self, price: i64, inventory: i64) -> u64 {
        let category = self.category().await;
        created(&self.admin.post("/api/v1/products", &product(category, price, inventory)).await)
    }

    pub async fn inventory(&self, product: u64) -> i64 {
        self.nobody().get(&format!("/api/v1/products/{product}")).await.body_json()["inventory"].as_i64().unwrap()
    }

    /// Waits until nothing is on its way, then checks the books.
    pub async fn books(&self, completed: u64, compensated: u64) -> Report {
        let wanted = Wanted { settled: true, completed, compensated };
        let report = eventually("the books balance", || async {
            let config = self.config.clone();
            let check = tokio::task::spawn_blocking(move || saga::check::check(&config, wanted));
            let report = check.await.unwrap().unwrap();
            // What is on its way is no defect yet; everything else is.
            let settling = report.found.iter().all(|violation| matches!(violation.invariant, 5 | 12));
            assert!(settling, "{}", report.text());
            (report.violations == 0).then_some(report)
        });
        report.await
    }
}

/// The built-in saga with less patience: no answer within `timeout` counts as none, and after two attempts at a payment a
/// human is told.
pub fn impatient(folder: &Path, timeout: &str) -> PathBuf {
    let yaml = include_str!("../../../../services/orchestrator/definitions/purchase.yaml");
    let patient = "undo: rollback-payment # only while it is not known whether the charge went through";
    assert!(yaml.contains(patient) && yaml.contains("timeout: 10s"));
    let retry = format!("{patient}\n    retry: {{ initial: 20ms, max: 20ms, attempts: 2 }}");
    let path = folder.join("impatient.yaml");
    std::fs::write(&path, yaml.replace("timeout: 10s", &format!("timeout: {timeout}")).replace(patient, &retry))
        .unwrap();
    path
}

/// A product as JSON.
pub fn product(category: u64, price: i64, inventory: i64) -> Value {
    json!({
        "category_id": category, "name": "Cup", "brand_name": "Plain", "description": "Holds tea",
        "price": price, "inventory": inventory,
    })
}

/// The id in a 201.
pub fn created(answer: &Answer) -> u64 {
    assert_eq!(answer.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&answer.body));
    answer.body_json()["id"].as_u64().unwrap()
}

/// A purchase's body.
pub fn cart(lines: &[(u64, i64)]) -> Value {
    let items: Vec<Value> = lines.iter().map(|(id, n)| json!({ "product_id": id, "quantity": n })).collect();
    json!({ "order_items": items, "payment": { "currency_code": "VND" } })
}

/// Waits until a saga is in a state, as operators see it; what they see then.
pub async fn comes_to(desk: &Admin, id: u64, status: &str) -> Value {
    eventually(&format!("saga {id} is {status}"), || async {
        // Not yet there: its start is on its way.
        let saga = desk.get(&format!("/admin/sagas/{id}")).await.ok()?;
        (saga["status"] == status).then_some(saga)
    })
    .await
}

/// Tries until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < limit, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub trait BodyJson {
    fn body_json(&self) -> Value;
    fn code(&self) -> String;
    fn header(&self, name: &str) -> &str;
}

impl BodyJson for Answer {
    fn body_json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The problem's code.
    fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{:?}", self.body);
        self.body_json()["code"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Person {
    pub fn at(url: &str) -> Self {
        let endpoint = Endpoint::parse(url).unwrap();
        Self { endpoint, token: String::new(), refresh: String::new() }
    }

    pub async fn register(&self, email: &str) -> Self {
        let body = json!({
            "email": email, "password": "a long password", "first_name": "Mary", "last_name": "Godwin",
            "address": "12 Lake Road", "phone_number": "1234567",
        });
        let answer = self.post("/api/v1/account/auth/register", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&answer.body));
        self.with_tokens(&answer)
    }

    pub async fn login(&self, email: &str) -> Self {
        let body = json!({ "email": email, "password": "a long password" });
        let answer = self.post("/api/v1/account/auth/login", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
        self.with_tokens(&answer)
    }

    fn with_tokens(&self, answer: &Answer) -> Self {
        let tokens = answer.body_json();
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        Self { endpoint: self.endpoint.clone(), token: text("access_token"), refresh: text("refresh_token") }
    }

    pub fn bearer(&self) -> Option<HeaderValue> {
        (!self.token.is_empty()).then(|| HeaderValue::from_str(&format!("Bearer {}", self.token)).unwrap())
    }

    pub async fn send(&self, method: Method, path: &str, extra: &[(&'static str, String)], body: Bytes) -> Answer {
        let mut connection = Connection::new(&self.endpoint);
        let answer = connection.send_with(method.clone(), path, self.bearer().as_ref(), extra, body).await.unwrap();
        crate::conformance::check(&method, path, &answer);
        answer
    }

    /// `None`: nobody answers.
    pub async fn try_get(&self, path: &str) -> Option<Answer> {
        let mut connection = Connection::new(&self.endpoint);
        connection.send_with(Method::GET, path, self.bearer().as_ref(), &[], Bytes::new()).await.ok()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[], Bytes::from(body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, &[], Bytes::from(body.to_string())).await
    }

    /// Buys; the purchase's id.
    pub async fn buy(&self, lines: &[(u64, i64)]) -> u64 {
        let answer = self.post("/api/v1/purchases", &cart(lines)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", String::from_utf8_lossy(&answer.body));
        answer.body_json()["id"].as_u64().unwrap()
    }

    /// The purchase when it has ended.
    pub async fn ended(&self, purchase: u64) -> Value {
        eventually("the purchase ends", || async {
            let answer = self.get(&format!("/api/v1/purchases/{purchase}?wait=5s")).await;
            let purchase = answer.body_json();
            matches!(purchase["status"].as_str(), Some("COMPLETED" | "COMPENSATED")).then_some(purchase)
        })
        .await
    }

    /// Reads an event stream to its end: (id, event, data).
    pub async fn events(&self, path: &str, resume_after: Option<&str>) -> (StatusCode, Vec<(String, String, Value)>) {
        let mut connection = Connection::new(&self.endpoint);
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        let resume: Vec<(&'static str, String)> =
            resume_after.map(|id| ("last-event-id", id.to_owned())).into_iter().collect();
        let chunk = |bytes: &[u8]| {
            lines.feed(bytes, |event| {
                seen.push((event.id.to_owned(), event.name.to_owned(), serde_json::from_str(event.data).unwrap()));
            });
            true
        };
        let bearer = self.bearer();
        let stream = connection.stream(path, bearer.as_ref(), &resume, || {}, chunk);
        let status = tokio::time::timeout(PATIENCE, stream).await.expect("the stream ends").unwrap();
        for (_, _, data) in seen.iter().filter(|_| path.starts_with("/api/v1/purchases")) {
            crate::conformance::check_event(data);
        }
        (status, seen)
    }
}
