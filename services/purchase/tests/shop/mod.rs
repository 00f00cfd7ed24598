//! The purchase service on a real file and a real in-process bus, between a catalogue with prices and an orchestrator that
//! follows a script.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod orchestrator;
pub mod tokens;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use chassis::ids::IdGen;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use purchase::{Catalogue, CatalogueError, Config, Course, Deps, Purchases, Quote, SCHEMA, SqliteStore};
use saga_adapters::inproc::InProcBus;
use saga_adapters::sqlite::{Db, Options};
use saga_core::{Millis, Name};
use saga_runtime::dead_letters::DeadLetterSink;
use saga_runtime::{Clock, Message, StoreError};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use orchestrator::{Orchestrator, Script};

pub const ALICE: u64 = 11;
pub const BOB: u64 = 12;

/// A clock that stands until it is moved.
pub struct HandClock(tokio::sync::watch::Sender<Millis>);

impl HandClock {
    pub fn at(now: Millis) -> Arc<Self> {
        Arc::new(Self(tokio::sync::watch::channel(now).0))
    }

    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.send_modify(|now| *now += by);
    }

    pub fn set(&self, now: Millis) {
        self.0.send_replace(now);
    }
}

#[async_trait::async_trait]
impl Clock for HandClock {
    fn now(&self) -> Millis {
        *self.0.borrow()
    }

    async fn sleep_until(&self, at: Millis) {
        let _ = self.0.subscribe().wait_for(|now| *now >= at).await;
    }

    async fn sleep(&self, wait: Duration) {
        self.sleep_until(self.now() + u64::try_from(wait.as_millis()).unwrap()).await;
    }
}

/// Product → price and currency.
#[derive(Default)]
pub struct Prices {
    pub products: Mutex<HashMap<u64, (i64, &'static str)>>,
    pub down: Mutex<bool>,
}

#[async_trait::async_trait]
impl Catalogue for Prices {
    async fn quote(&self, product_ids: &[u64]) -> Result<Vec<Quote>, CatalogueError> {
        if *self.down.lock() {
            return Err(CatalogueError::Unavailable("down".to_owned()));
        }
        let products = self.products.lock();
        let quote = |id: &u64| {
            let (price, currency) = products.get(id)?;
            Some(Quote { product_id: *id, price: *price, currency_code: (*currency).to_owned() })
        };
        Ok(product_ids.iter().filter_map(quote).collect())
    }
}

/// Dead letters in memory.
#[derive(Default)]
pub struct Graves(pub Mutex<Vec<Message>>);

#[async_trait::async_trait]
impl DeadLetterSink for Graves {
    async fn bury(&self, messages: Vec<Message>) -> Result<(), StoreError> {
        self.0.lock().extend(messages);
        Ok(())
    }
}

/// A response that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn id(&self) -> u64 {
        self.body["id"].as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_else(|| panic!("{self:?}"))
    }

    pub fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Everything around the service that outlives a restart of it.
pub struct Shop {
    pub dir: TempDir,
    pub disk: Options,
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub prices: Arc<Prices>,
    pub graves: Arc<Graves>,
    pub bus: InProcBus,
    pub orchestrator: Orchestrator,
    pub running: Option<Running>,
}

/// One life of the service.
pub struct Running {
    pub router: Router,
    pub purchases: Purchases,
    pub db: Db,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

/// Short times, so that what is due soon comes soon.
pub fn quick() -> Config {
    Config { admission_wait_ms: 50, stale_after_ms: 200, park_after_ms: 60_000, hold_ms: 0, ..Config::default() }
}

impl Shop {
    pub async fn open() -> Self {
        Self::with(quick(), Arc::new(saga_runtime::SystemClock), Script::Complete).await
    }

    /// Results wait very long for the end of their purchase; more than a test takes.
    pub async fn held() -> Self {
        let config = Config { hold_ms: 60_000, stale_after_ms: 3_600_000, ..quick() };
        Self::with(config, Arc::new(saga_runtime::SystemClock), Script::Hold).await
    }

    pub async fn with(config: Config, clock: Arc<dyn Clock>, script: Script) -> Self {
        let mut shop = Self::closed(config, clock, script).await;
        shop.start().await;
        shop
    }

    /// Everything but the service.
    pub async fn closed(config: Config, clock: Arc<dyn Clock>, script: Script) -> Self {
        let graves = Arc::new(Graves::default());
        let topics = contracts::topics::ALL.map(Name::new);
        let bus = InProcBus::new(topics, 100_000, Arc::clone(&graves) as Arc<dyn DeadLetterSink>);
        let prices = Arc::new(Prices::default());
        prices.products.lock().extend([(1, (1390, "VND")), (2, (3780, "VND")), (3, (500, "EUR"))]);
        let orchestrator = Orchestrator::start(bus.clone(), script).await;
        let dir = tempfile::tempdir().unwrap();
        Self { dir, disk: Options::default(), config, clock, prices, graves, bus, orchestrator, running: None }
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("purchase.db")
    }

    pub fn open_db(&self) -> Db {
        Db::open(&self.file(), &SCHEMA, &self.disk).unwrap()
    }

    pub async fn start(&mut self) {
        let db = self.open_db();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let deps = Deps {
            store: Arc::new(SqliteStore::new(db.clone())),
            catalogue: Arc::clone(&self.prices) as Arc<dyn Catalogue>,
            bus: Arc::new(self.bus.clone()),
            clock: Arc::clone(&self.clock),
            tracer: saga_runtime::trace::Tracer::default(),
            ids: Arc::new(IdGen::new(1, Arc::clone(&self.clock))),
            course: Course::default(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            pace: Duration::ZERO,
            quotes: Duration::ZERO,
            hold: true,
            replica: None,
            forget: None,
        };
        let service = purchase::build(&self.config, deps).await.unwrap();
        let router = Router::new().nest("/api/v1", service.router);
        let router = router.layer(axum::Extension(tokens::verifier(Arc::clone(&self.clock))));
        self.running = Some(Running { router, purchases: service.purchases, db, stop, tasks });
    }

    pub async fn stop(&mut self) {
        let Some(Running { router, purchases, db, stop, tasks }) = self.running.take() else { return };
        stop.cancel();
        tasks.close();
        within("the loops end", tasks.wait()).await;
        drop((router, purchases));
        db.close().await;
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub fn life(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.life().purchases.stats();
        stats.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }

    pub async fn send(
        &self,
        customer: u64,
        request: axum::http::request::Builder,
        body: impl Into<Body>,
    ) -> axum::response::Response {
        let request =
            request.header("authorization", tokens::bearer(customer, tokens::NEVER)).body(body.into()).unwrap();
        self.send_raw(request).await
    }

    pub async fn send_raw(&self, request: Request<Body>) -> axum::response::Response {
        within("an answer", chassis::http::oneshot(self.life().router.clone(), request)).await
    }

    pub async fn get(&self, customer: u64, path: &str) -> Answer {
        answer(self.send(customer, Request::get(format!("/api/v1{path}")), Body::empty()).await).await
    }

    pub async fn post(&self, customer: u64, path: &str, body: &str) -> Answer {
        self.post_with(customer, path, body, &[]).await
    }

    pub async fn post_with(&self, customer: u64, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(format!("/api/v1{path}")).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(self.send(customer, request, body.to_owned()).await).await
    }

    /// Buys one of product 1.
    pub async fn buy(&self, customer: u64) -> u64 {
        let answer = self.post(customer, "/purchases", ONE).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        answer.id()
    }

    /// Waits until a purchase of Alice has this status.
    pub async fn until(&self, id: u64, status: &str) -> Value {
        self.until_of(ALICE, id, status).await
    }

    pub async fn until_of(&self, customer: u64, id: u64, status: &str) -> Value {
        let path = format!("/purchases/{id}");
        let what = format!("purchase {id} to be {status}");
        let poll = async {
            loop {
                let answer = self.get(customer, &path).await;
                if answer.body["status"] == status {
                    return answer.body;
                }
                tokio::task::yield_now().await;
            }
        };
        within(&what, poll).await
    }

    /// Opens a stream.
    pub async fn stream(&self, customer: u64, path: &str, last_event_id: Option<&str>) -> Events {
        let mut request = Request::get(format!("/api/v1{path}"));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = self.send(customer, request, Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events::of(response)
    }
}

pub const ONE: &str = r#"{"order_items":[{"product_id":1,"quantity":1}],"payment":{"currency_code":"VND"}}"#;

pub async fn answer(response: axum::response::Response) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = within("the body", body.collect()).await.unwrap().to_bytes();
    let body = match bytes.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {bytes:?}")),
    };
    Answer { status: parts.status, headers: parts.headers, body }
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct SseEvent {
    pub id: String,
    pub event: String,
    pub data: Value,
}

impl SseEvent {
    pub fn seq(&self) -> u64 {
        self.data["seq"].as_u64().unwrap()
    }
}

/// A stream being read.
pub struct Events {
    body: Body,
    text: String,
    pub comments: usize,
}

impl Events {
    pub fn of(response: axum::response::Response) -> Self {
        Self { body: response.into_body(), text: String::new(), comments: 0 }
    }

    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<SseEvent> {
        within("an event", self.read(false)).await
    }

    /// Reads on until a comment comes by.
    pub async fn comment(&mut self) {
        let before = self.comments;
        let event = within("a comment", self.read(true)).await;
        assert!(event.is_none() && self.comments > before, "{event:?}");
    }

    pub async fn rest(&mut self) -> Vec<SseEvent> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }

    async fn read(&mut self, stop_at_comment: bool) -> Option<SseEvent> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name).map(str::to_owned));
                if block.starts_with(':') {
                    self.comments += 1;
                    if stop_at_comment {
                        return None;
                    }
                }
                if let Some(data) = field("data: ") {
                    let data = serde_json::from_str(&data).unwrap();
                    return Some(SseEvent { id: field("id: ").unwrap(), event: field("event: ").unwrap(), data });
                }
            }
            let frame = self.body.frame().await?.unwrap();
            self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }
}

/// Waits for what should come soon.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("waited {limit:?} for {what}"))
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(what, poll).await;
}
