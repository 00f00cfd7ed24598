//! Every operation of the store, on SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;

use contracts::purchase::{PaymentOutput, PurchaseInput};
use payment::domain::{Payment, Status};
use payment::gateway::Charged;
use payment::store::Store;
use saga_adapters::postgres::{Options as PgOptions, Pg};
use saga_adapters::sqlite::{Db, Options};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Op, SagaKey};
use saga_runtime::StoreError;
use testkit::conformance::Fixture;

type Port = Arc<dyn Store>;

async fn sqlite() -> Fixture<Port> {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("payment.db"), &payment::SCHEMA, &Options::default()).unwrap();
    Fixture::keeping(Arc::new(payment::SqliteStore::new(db)), folder)
}

async fn postgres() -> Fixture<Port> {
    let options = PgOptions::new(testkit::postgres::database());
    let pg = Pg::connect(&options, &payment::PG_SCHEMA).await.unwrap();
    Fixture::new(Arc::new(payment::PgStore::new(pg)))
}

testkit::store_tests!(sqlite, postgres;
    what_the_gateway_said_is_written_and_answered,
    what_is_not_final_is_asked_again,
    what_cannot_be_charged_is_refused,
    a_duplicate_gets_the_stored_answer,
    a_block_keeps_a_late_do_from_charging,
    what_has_its_final_answer_is_settled,
    a_captured_payment_is_voided_once,
    a_declined_payment_stays_declined,
    a_block_and_a_do_that_race_agree,
    a_customer_s_payments_are_paged_newest_first,
);

fn command(saga: u64, op: Op) -> Command {
    let input = PurchaseInput {
        purchase_id: saga,
        customer_id: 2 + saga % 2,
        items: vec![],
        currency_code: "VND".into(),
        amount: 24_460,
    };
    Command {
        saga: SagaKey::new("purchase", saga),
        definition_version: 1,
        step: "create-payment".into(),
        op,
        attempt: 1,
        input: Json::of(&input).unwrap(),
        outputs: vec![],
        reason: None,
        reply_to: "reply".into(),
    }
}

fn payment(id: u64, status: Status) -> Payment {
    let reference = (status != Status::Declined).then(|| format!("ref-{id}"));
    let (customer_id, currency_code) = (2 + id % 2, "VND".into());
    Payment { id, customer_id, amount: 24_460, currency_code, status, reference, created_at: 9 }
}

fn approved(ids: impl IntoIterator<Item = u64>) -> HashMap<u64, Charged> {
    ids.into_iter().map(|id| (id, Charged::Approved(format!("ref-{id}")))).collect()
}

async fn charge(store: &Port, ids: impl IntoIterator<Item = u64> + Clone) -> Vec<Reply> {
    let batch = ids.clone().into_iter().map(|id| command(id, Op::Do)).collect();
    store.charge(batch, approved(ids), 9).await.unwrap()
}

async fn find(store: &Port, id: u64) -> Option<Payment> {
    store.find(id, 2 + id % 2).await.unwrap()
}

fn code(reply: &Reply) -> &str {
    match &reply.outcome {
        Outcome::Done(_) => "done",
        Outcome::Refused(refusal) => &refusal.code,
        Outcome::Retry(_) => "retry",
        Outcome::Unknown(_) => "unknown",
    }
}

async fn what_the_gateway_said_is_written_and_answered(store: &Port) {
    let mut charged = approved([1, 3]);
    charged.insert(2, Charged::Declined("no funds".into()));
    let batch = (1..=3).map(|id| command(id, Op::Do)).collect();
    let replies = store.charge(batch, charged, 9).await.unwrap();
    assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), ["done", "payment_declined", "done"]);
    let output = PaymentOutput { payment_id: 1, amount: 24_460, currency_code: "VND".into() };
    assert_eq!(replies[0].outcome, Outcome::Done(Json::of(&output).unwrap()));
    for (id, status) in [(1, Status::Captured), (2, Status::Declined), (3, Status::Captured)] {
        assert_eq!(find(store, id).await, Some(payment(id, status)));
    }
    assert_eq!(store.find(1, 2).await.unwrap(), None, "somebody else's");
}

async fn what_is_not_final_is_asked_again(store: &Port) {
    let charged = HashMap::from([(1, Charged::Retry("busy".into())), (2, Charged::Unknown("silence".into()))]);
    let batch = || (1..=3).map(|id| command(id, Op::Do)).collect::<Vec<_>>();
    let replies = store.charge(batch(), charged, 9).await.unwrap();
    assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), ["retry", "unknown", "retry"]);
    assert_eq!(find(store, 1).await, None);
    let replies = store.charge(batch(), approved(1..=3), 9).await.unwrap();
    assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), ["done"; 3]);
}

async fn what_cannot_be_charged_is_refused(store: &Port) {
    let (mut nonsense, mut other) = (command(1, Op::Do), command(2, Op::Do));
    nonsense.input = Json::of("nonsense").unwrap();
    other.input = command(3, Op::Do).input;
    let replies = store.charge(vec![nonsense, other, command(3, Op::Do)], approved(1..=3), 9).await.unwrap();
    assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), ["invalid_payment", "invalid_payment", "done"]);
    assert_eq!(find(store, 2).await, None);
}

async fn a_duplicate_gets_the_stored_answer(store: &Port) {
    let first = charge(store, [1, 1]).await;
    assert_eq!(first[0], first[1]);
    let mut other = approved([]);
    other.insert(1, Charged::Declined("changed my mind".into()));
    assert_eq!(store.charge(vec![command(1, Op::Do)], other, 99).await.unwrap(), first[..1]);
    assert_eq!(find(store, 1).await, Some(payment(1, Status::Captured)));
}

async fn a_block_keeps_a_late_do_from_charging(store: &Port) {
    let undos = || [1, 2, 1].map(|id| command(id, Op::Undo)).to_vec();
    assert_eq!(store.block(undos(), 9).await.unwrap(), [true; 3], "it may have crashed between charge and commit");
    assert_eq!(charge(store, [1]).await.iter().map(code).collect::<Vec<_>>(), ["undone_before_do"]);
    assert_eq!(store.void(undos(), 9).await.unwrap().iter().map(code).collect::<Vec<_>>(), ["done"; 3]);
    assert_eq!(find(store, 1).await, None);
}

async fn what_has_its_final_answer_is_settled(store: &Port) {
    charge(store, [1]).await;
    store.charge(vec![command(2, Op::Do)], HashMap::from([(2, Charged::Retry("busy".into()))]), 9).await.unwrap();
    store.block(vec![command(3, Op::Undo)], 9).await.unwrap();
    let dos = [3, 4, 1, 2, 1].map(|id| command(id, Op::Do)).to_vec();
    assert_eq!(store.settled(dos).await.unwrap(), [true, false, true, false, true]);
    assert_eq!(store.settled(vec![]).await.unwrap(), [false; 0]);
}

async fn a_captured_payment_is_voided_once(store: &Port) {
    charge(store, 1..=3).await;
    let undos = || [2, 1].map(|id| command(id, Op::Undo)).to_vec();
    for expected in [[true; 2], [true; 2]] {
        assert_eq!(store.block(undos(), 9).await.unwrap(), expected);
    }
    let first = store.void(undos(), 9).await.unwrap();
    assert_eq!(first.iter().map(|reply| reply.saga.id).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(store.void(undos(), 99).await.unwrap(), first);
    assert_eq!(store.block(undos(), 9).await.unwrap(), [false; 2], "it is given back already");
    for (id, status) in [(1, Status::Voided), (2, Status::Voided), (3, Status::Captured)] {
        assert_eq!(find(store, id).await, Some(payment(id, status)));
    }
    assert_eq!(store.void(vec![], 9).await.unwrap(), []);
    assert_eq!(store.block(vec![], 9).await.unwrap(), [false; 0]);
}

async fn a_declined_payment_stays_declined(store: &Port) {
    let declined = HashMap::from([(1, Charged::Declined("no".into()))]);
    store.charge(vec![command(1, Op::Do)], declined, 9).await.unwrap();
    assert_eq!(store.block(vec![command(1, Op::Undo)], 9).await.unwrap(), [false]);
    store.void(vec![command(1, Op::Undo)], 9).await.unwrap();
    assert_eq!(find(store, 1).await, Some(payment(1, Status::Declined)));
}

/// Either the do is first and the block sees its row, or the block is first and the do is refused.
async fn a_block_and_a_do_that_race_agree(store: &Port) {
    for round in 0..20_u64 {
        let ids: Vec<u64> = (1..=5).map(|n| round * 5 + n).collect();
        let (one, two) = (Arc::clone(store), Arc::clone(store));
        let batch: Vec<Command> = ids.iter().map(|id| command(*id, Op::Do)).collect();
        let undos: Vec<Command> = ids.iter().rev().map(|id| command(*id, Op::Undo)).collect();
        let charging = async move {
            loop {
                match one.charge(batch.clone(), approved(batch.iter().map(|c| c.saga.id)), 9).await {
                    Err(StoreError::Transient(_)) => {}
                    result => return result.unwrap(),
                }
            }
        };
        let blocking = async move {
            loop {
                match two.block(undos.clone(), 9).await {
                    Err(StoreError::Transient(_)) => {}
                    result => return result.unwrap(),
                }
            }
        };
        let (replies, charged) = tokio::join!(charging, blocking);
        assert_eq!(charged, [true; 5]);
        for (id, reply) in ids.into_iter().zip(&replies) {
            let there = find(store, id).await.is_some();
            assert_eq!(code(reply), if there { "done" } else { "undone_before_do" });
        }
    }
}

async fn a_customer_s_payments_are_paged_newest_first(store: &Port) {
    charge(store, 1..=10).await;
    let ids = async |before, limit| {
        let payments = store.list(2, before, limit).await.unwrap();
        payments.iter().map(|payment| payment.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 3).await, [10, 8, 6]);
    assert_eq!(ids(Some(6), 3).await, [4, 2]);
    assert_eq!(ids(Some(u64::MAX), 1).await, [10]);
}

/// What `saga check` reads is the same on both.
#[tokio::test]
async fn the_audits_agree() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.db");
    let db = Db::open(&file, &payment::SCHEMA, &Options::default()).unwrap();
    let pg = Pg::connect(&PgOptions::new(testkit::postgres::database()), &payment::PG_SCHEMA).await.unwrap();
    let stores: [Port; 2] = [Arc::new(payment::SqliteStore::new(db)), Arc::new(payment::PgStore::new(pg.clone()))];
    for store in &stores {
        charge(store, 1..=1500).await;
        store.void(vec![command(2, Op::Undo)], 10).await.unwrap();
        let declined = HashMap::from([(3000, Charged::Declined("no".into()))]);
        store.charge(vec![command(3000, Op::Do)], declined, 9).await.unwrap();
    }
    let conn = saga_adapters::sqlite::open_read_only(&file, &payment::SCHEMA).unwrap();
    let at = pg.snapshot().await.unwrap();
    // Later than this moment.
    charge(&stores[1], [9999]).await;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    payment::audit::read(&conn, &mut |row| one.push(row)).unwrap();
    payment::audit::read_pg(&at, &mut |row| two.push(row)).await.unwrap();
    assert_eq!(one.len(), 1501);
    assert_eq!(one, two);
}
