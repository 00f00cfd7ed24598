//! The product service on a real file with the in-process filter: what people ask over HTTP, what sagas command.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::sync::Arc;

use axum::Router;
use chassis::auth::Role;
use chassis::ids::IdGen;
use contracts::purchase::{PurchaseInput, PurchaseItem};
use product::audit::{Movement, ProductStock};
use product::{Config, Existence, Products, SCHEMA, SqliteStore};
use saga_adapters::inproc::InProcFilter;
use saga_adapters::sqlite::{Db, Durability, Options};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Op, SagaKey};
use saga_runtime::{Participant, ReadThrough};
use serde_json::{Value, json};
use tempfile::TempDir;

use testkit::client::{Answer, HandClock, ask, mounted};

pub const ADMIN: Option<(u64, Role)> = Some((1, Role::Admin));
pub const STEP: &str = "update-product-inventory";

pub struct Shop {
    pub dir: TempDir,
    pub clock: Arc<HandClock>,
    pub db: Db,
    pub router: Router,
    pub products: Products,
    pub participant: Arc<dyn Participant>,
}

impl Shop {
    pub async fn open() -> Self {
        Self::at(tempfile::tempdir().unwrap(), HandClock::new()).await
    }

    async fn at(dir: TempDir, clock: Arc<HandClock>) -> Self {
        let db = Db::open(&dir.path().join("product.db"), &SCHEMA, &Options::default()).unwrap();
        let (store, filter) = (Arc::new(SqliteStore::new(db.clone())), Arc::new(InProcFilter::default()));
        let ids = Arc::new(IdGen::new(1, clock.clone()));
        let service = product::build(
            Config::default(),
            store,
            Existence { filter, fill: true },
            ReadThrough::none(),
            ids,
            clock.clone(),
        )
        .await
        .unwrap();
        let router = mounted(service.router, clock.clone());
        Self { dir, clock, db, router, products: service.products, participant: service.participant }
    }

    /// Ends the service and starts it again over the same file.
    pub async fn restart(self) -> Self {
        let Self { dir, clock, db, router, products, participant } = self;
        drop((router, products, participant));
        db.close().await;
        // Ids carry the time: a new process does not start in the old one's millisecond.
        clock.advance(1_000);
        Self::at(dir, clock).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        ask(&self.router, None, "GET", path, None).await
    }

    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Answer {
        ask(&self.router, ADMIN, method, path, Some(body)).await
    }

    pub async fn category(&self) -> u64 {
        let answer = self.admin("POST", "/categories", json!({ "name": "Tea", "description": "" })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.id()
    }

    /// A product in a category of its own.
    pub async fn product(&self, price: i64, inventory: i64) -> u64 {
        let category = self.category().await;
        let answer = self.admin("POST", "/products", product(category, price, inventory)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.id()
    }

    pub async fn handle(&self, batch: Vec<Command>) -> Vec<Reply> {
        self.participant.handle(batch).await.unwrap()
    }

    pub async fn outcome(&self, command: Command) -> Outcome {
        let [reply] = self.handle(vec![command]).await.try_into().unwrap();
        reply.outcome
    }

    /// What can be bought, by the row itself.
    pub async fn inventory(&self, id: u64) -> i64 {
        self.audit().await.0.iter().find(|stock| stock.product_id == id).unwrap().inventory
    }

    /// Stock and movements as `saga check` reads them.
    pub async fn audit(&self) -> (Vec<ProductStock>, Vec<Movement>) {
        let read = |conn: &saga_adapters::sqlite::rusqlite::Connection| {
            let (mut stocks, mut movements) = (Vec::new(), Vec::new());
            product::audit::read(conn, &mut |stock| stocks.push(stock), &mut |movement| movements.push(movement))?;
            Ok((stocks, movements))
        };
        self.db.write(Durability::Derivable, read).await.unwrap()
    }

    /// Invariant 1: initial + restocked = available + taken, all ≥ 0, equal to the ledgers' sums.
    pub async fn check_stock(&self) {
        for stock in self.audit().await.0 {
            let ProductStock { inventory, taken, stocked, ledger_stocked, ledger_taken, .. } = stock;
            assert!(inventory >= 0 && taken >= 0, "{stock:?}");
            assert_eq!((stocked, taken), (ledger_stocked, ledger_taken), "{stock:?}");
            assert_eq!(stocked, inventory + taken, "{stock:?}");
        }
    }
}

pub fn product(category_id: u64, price: i64, inventory: i64) -> Value {
    json!({
        "category_id": category_id, "name": "Oolong", "brand_name": "Hill", "description": "half-oxidized",
        "price": price, "inventory": inventory,
    })
}

/// Lines of (product, quantity, quoted price).
pub type Lines<'a> = &'a [(u64, i64, i64)];

pub fn command(saga: u64, op: Op, lines: Lines<'_>) -> Command {
    let items =
        lines.iter().map(|&(product_id, quantity, unit_price)| PurchaseItem { product_id, quantity, unit_price });
    let currency_code = "VND".to_owned();
    let mut input =
        PurchaseInput { purchase_id: saga, customer_id: 7, items: items.collect(), currency_code, amount: 0 };
    input.amount = input.total().unwrap_or(0);
    Command {
        saga: SagaKey::new("purchase", saga),
        definition_version: 1,
        step: STEP.into(),
        op,
        attempt: 1,
        input: Json::of(&input).unwrap(),
        outputs: vec![],
        reason: None,
        reply_to: "reply".into(),
    }
}

pub fn take(saga: u64, lines: Lines<'_>) -> Command {
    command(saga, Op::Do, lines)
}

pub fn undo(saga: u64, lines: Lines<'_>) -> Command {
    command(saga, Op::Undo, lines)
}

/// The code of a refusal, or `done`.
pub fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Done(_) => "done",
        Outcome::Refused(refusal) => &refusal.code,
        Outcome::Retry(_) => "retry",
        Outcome::Unknown(_) => "unknown",
    }
}
