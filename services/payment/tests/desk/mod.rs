//! The payment service on a real file, beside a bank that keeps the rules of a gateway and counts the money.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use chassis::auth::Role;
use contracts::purchase::PurchaseInput;
use parking_lot::Mutex;
use payment::audit::Payment;
use payment::gateway::{Charge, Charged};
use payment::{Gateway, SCHEMA, SqliteStore};
use saga_adapters::sqlite::{Db, Durability, Options};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Op, SagaKey};
use saga_runtime::{Clock, Participant, ReadThrough};
use tempfile::TempDir;
use tokio::sync::Notify;

use testkit::client::{Answer, HandClock, ask, mounted};

pub const ALICE: u64 = 11;
pub const BOB: u64 = 12;

/// How the bank meets the next request for a charge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// Says no.
    Declines,
    /// Is too busy to look.
    Busy,
    /// Takes the money and loses the answer.
    TakesAndForgets,
    /// Loses the request, and does not know.
    Forgets,
    /// Takes the money, and the line is dead before the answer.
    TakesAndHangs,
}

/// What the bank knows of a key.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub taken: i64,
    pub given_back: i64,
    pub asked: u32,
    pub voids: u32,
    pub last_attempt: u32,
    pub declined: bool,
}

/// Idempotent by key: moves money for a key once, and back once.
#[derive(Default)]
pub struct Bank {
    pub book: Mutex<HashMap<String, Entry>>,
    pub moods: Mutex<VecDeque<Mood>>,
    pub refuses_voids: Mutex<u32>,
    pub hanging: Notify,
    /// The next void does its work, tells `voided`, and answers when `answer_void` is told.
    pub slow_void: Mutex<bool>,
    pub voided: Notify,
    pub answer_void: Notify,
}

impl Bank {
    pub fn will(&self, moods: &[Mood]) {
        self.moods.lock().extend(moods);
    }

    pub fn entry(&self, saga: u64) -> Entry {
        self.book.lock().get(&format!("purchase-{saga}")).cloned().unwrap_or_default()
    }

    /// What it has taken and not given back.
    pub fn balance(&self) -> i64 {
        self.book.lock().values().map(|entry| entry.taken - entry.given_back).sum()
    }

    fn take(&self, charge: &Charge) -> Charged {
        let mut book = self.book.lock();
        let entry = book.entry(charge.key.clone()).or_default();
        if entry.taken == 0 {
            entry.taken = charge.amount;
        }
        assert_eq!(entry.taken, charge.amount, "one key, one amount");
        Charged::Approved(format!("ref-{}", charge.key))
    }
}

#[async_trait]
impl Gateway for Bank {
    async fn charge(&self, charge: Charge) -> Charged {
        {
            let mut book = self.book.lock();
            let entry = book.entry(charge.key.clone()).or_default();
            (entry.asked, entry.last_attempt) = (entry.asked + 1, charge.attempt);
            // A key keeps its final answer, whatever the mood.
            if entry.taken > 0 {
                return Charged::Approved(format!("ref-{}", charge.key));
            }
            if entry.declined {
                return Charged::Declined("no cover".to_owned());
            }
        }
        let mood = self.moods.lock().pop_front();
        match mood {
            None => self.take(&charge),
            Some(Mood::Declines) => {
                self.book.lock().entry(charge.key).or_default().declined = true;
                Charged::Declined("no cover".to_owned())
            }
            Some(Mood::Busy) => Charged::Retry("busy".to_owned()),
            Some(Mood::Forgets) => Charged::Unknown("no answer".to_owned()),
            Some(Mood::TakesAndForgets) => {
                self.take(&charge);
                Charged::Unknown("no answer".to_owned())
            }
            Some(Mood::TakesAndHangs) => {
                self.take(&charge);
                self.hanging.notify_one();
                std::future::pending().await
            }
        }
    }

    async fn void(&self, key: &str) -> Result<(), String> {
        {
            let mut refuses = self.refuses_voids.lock();
            if *refuses > 0 {
                *refuses -= 1;
                return Err("the bank is closed".to_owned());
            }
            let mut book = self.book.lock();
            let entry = book.entry(key.to_owned()).or_default();
            (entry.voids, entry.given_back) = (entry.voids + 1, entry.taken);
        }
        let is_slow = std::mem::take(&mut *self.slow_void.lock());
        if is_slow {
            self.voided.notify_one();
            self.answer_void.notified().await;
        }
        Ok(())
    }
}

pub struct Desk {
    pub dir: TempDir,
    pub clock: Arc<HandClock>,
    pub bank: Arc<Bank>,
    pub db: Db,
    pub router: Router,
    pub participant: Arc<dyn Participant>,
}

impl Desk {
    pub fn open() -> Self {
        Self::at(tempfile::tempdir().unwrap(), HandClock::new(), Arc::new(Bank::default()))
    }

    fn at(dir: TempDir, clock: Arc<HandClock>, bank: Arc<Bank>) -> Self {
        let db = Db::open(&dir.path().join("payment.db"), &SCHEMA, &Options::default()).unwrap();
        let service =
            payment::build(Arc::new(SqliteStore::new(db.clone())), bank.clone(), ReadThrough::none(), clock.clone());
        let router = mounted(service.router, clock.clone());
        Self { dir, clock, bank, db, router, participant: service.participant }
    }

    /// The process ends and another starts over the same file; the bank stays.
    pub async fn restart(self) -> Self {
        let Self { dir, clock, bank, db, router, participant } = self;
        drop((router, participant));
        db.close().await;
        Self::at(dir, clock, bank)
    }

    /// The same service behind another gateway.
    pub fn behind(&self, gateway: Arc<dyn Gateway>) -> Arc<dyn Participant> {
        let clock: Arc<dyn Clock> = self.clock.clone();
        payment::build(Arc::new(SqliteStore::new(self.db.clone())), gateway, ReadThrough::none(), clock).participant
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

    /// Every payment, as `saga check` reads them.
    pub async fn payments(&self) -> Vec<Payment> {
        let read = |conn: &saga_adapters::sqlite::rusqlite::Connection| {
            let mut all = Vec::new();
            payment::audit::read(conn, &mut |payment| all.push(payment))?;
            Ok(all)
        };
        self.db.write(Durability::Derivable, read).await.unwrap()
    }

    /// `CAPTURED`, …, or `-` where there is no row.
    pub async fn status(&self, saga: u64) -> &'static str {
        self.payments().await.iter().find(|payment| payment.id == saga).map_or("-", |payment| payment.status.as_str())
    }
}

pub fn input(saga: u64, customer_id: u64, amount: i64) -> PurchaseInput {
    PurchaseInput { purchase_id: saga, customer_id, items: vec![], currency_code: "VND".to_owned(), amount }
}

pub fn command(op: Op, input: &PurchaseInput) -> Command {
    Command {
        saga: SagaKey::new("purchase", input.purchase_id),
        definition_version: 1,
        step: "create-payment".into(),
        op,
        attempt: 1,
        input: Json::of(input).unwrap(),
        outputs: vec![],
        reason: None,
        reply_to: "reply".into(),
    }
}

pub const AMOUNT: i64 = 24_460;

pub fn pay(saga: u64) -> Command {
    command(Op::Do, &input(saga, ALICE, AMOUNT))
}

pub fn undo(saga: u64) -> Command {
    command(Op::Undo, &input(saga, ALICE, AMOUNT))
}

/// The code of a refusal, or which of the others it is.
pub fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Done(_) => "done",
        Outcome::Refused(refusal) => &refusal.code,
        Outcome::Retry(_) => "retry",
        Outcome::Unknown(_) => "unknown",
    }
}
