//! The order service on a real file, beside a catalogue that can be away.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use axum::Router;
use chassis::auth::Role;
use contracts::purchase::{PurchaseInput, PurchaseItem};
use order::audit::Status;
use order::{Catalogue, CatalogueError, ProductDetails, SCHEMA, SqliteStore};
use saga_adapters::sqlite::{Db, Durability, Options};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Op, SagaKey};
use saga_runtime::{Participant, ReadThrough};
use tempfile::TempDir;

use testkit::client::{Answer, HandClock, ask, mounted};

pub const ALICE: u64 = 11;
pub const BOB: u64 = 12;

/// Knows the products 1 to 9.
#[derive(Default)]
pub struct Shelf {
    pub away: AtomicBool,
}

#[async_trait]
impl Catalogue for Shelf {
    async fn details(&self, ids: &[u64]) -> Result<Vec<ProductDetails>, CatalogueError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(CatalogueError("away".to_owned()));
        }
        let text = |what: &str, id: u64| format!("{what} {id}");
        let known = ids.iter().copied().filter(|id| (1..10).contains(id)).rev().map(|id| ProductDetails {
            id,
            category_id: 100 + id,
            name: text("name", id),
            brand_name: text("brand", id),
            description: text("description", id),
        });
        Ok(known.collect())
    }
}

pub struct Desk {
    pub dir: TempDir,
    pub clock: Arc<HandClock>,
    pub shelf: Arc<Shelf>,
    pub db: Db,
    pub router: Router,
    pub participant: Arc<dyn Participant>,
}

impl Desk {
    pub fn open() -> Self {
        Self::at(tempfile::tempdir().unwrap(), HandClock::new())
    }

    fn at(dir: TempDir, clock: Arc<HandClock>) -> Self {
        let db = Db::open(&dir.path().join("order.db"), &SCHEMA, &Options::default()).unwrap();
        let shelf = Arc::new(Shelf::default());
        let service =
            order::build(Arc::new(SqliteStore::new(db.clone())), shelf.clone(), ReadThrough::none(), clock.clone());
        let router = mounted(service.router, clock.clone());
        Self { dir, clock, shelf, db, router, participant: service.participant }
    }

    pub async fn restart(self) -> Self {
        let Self { dir, clock, db, router, participant, .. } = self;
        drop((router, participant));
        db.close().await;
        Self::at(dir, clock)
    }

    pub async fn get(&self, customer: u64, path: &str) -> Answer {
        ask(&self.router, Some((customer, Role::Customer)), "GET", path, None).await
    }

    pub async fn handle(&self, batch: Vec<Command>) -> Vec<Reply> {
        self.participant.handle(batch).await.unwrap()
    }

    pub async fn outcome(&self, command: Command) -> Outcome {
        let [reply] = self.handle(vec![command]).await.try_into().unwrap();
        reply.outcome
    }

    /// Every order's status by id, as `saga check` reads them.
    pub async fn statuses(&self) -> BTreeMap<u64, Status> {
        let read = |conn: &saga_adapters::sqlite::rusqlite::Connection| {
            let mut all = BTreeMap::new();
            order::audit::read(conn, &mut |order| {
                all.insert(order.id, order.status);
            })?;
            Ok(all)
        };
        self.db.write(Durability::Derivable, read).await.unwrap()
    }
}

/// Four of product 1 and five of product 2.
pub fn input(saga: u64, customer_id: u64) -> PurchaseInput {
    let item = |product_id, quantity, unit_price| PurchaseItem { product_id, quantity, unit_price };
    let items = vec![item(1, 4, 1390), item(2, 5, 3780)];
    PurchaseInput { purchase_id: saga, customer_id, items, currency_code: "VND".to_owned(), amount: 24_460 }
}

pub fn command(step: &str, op: Op, input: &PurchaseInput) -> Command {
    Command {
        saga: SagaKey::new("purchase", input.purchase_id),
        definition_version: 1,
        step: step.into(),
        op,
        attempt: 1,
        input: Json::of(input).unwrap(),
        outputs: vec![],
        reason: None,
        reply_to: "reply".into(),
    }
}

pub fn place(saga: u64) -> Command {
    command("create-order", Op::Do, &input(saga, ALICE))
}

pub fn cancel(saga: u64) -> Command {
    command("create-order", Op::Undo, &input(saga, ALICE))
}

pub fn confirm(saga: u64) -> Command {
    command("confirm-order", Op::Do, &input(saga, ALICE))
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
