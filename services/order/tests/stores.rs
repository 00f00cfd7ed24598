//! Every operation of the store, on SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use contracts::purchase::{PurchaseInput, PurchaseItem};
use order::domain::{Line, Order, Status};
use order::store::{STEPS, Store};
use saga_adapters::postgres::{Options as PgOptions, Pg};
use saga_adapters::sqlite::{Db, Options};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Op, SagaKey};
use saga_runtime::StoreError;
use testkit::conformance::Fixture;

type Port = Arc<dyn Store>;

async fn sqlite() -> Fixture<Port> {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("order.db"), &order::SCHEMA, &Options::default()).unwrap();
    Fixture::keeping(Arc::new(order::SqliteStore::new(db)), folder)
}

async fn postgres() -> Fixture<Port> {
    let options = PgOptions::new(testkit::postgres::database());
    let pg = Pg::connect(&options, &order::PG_SCHEMA).await.unwrap();
    Fixture::new(Arc::new(order::PgStore::new(pg)))
}

testkit::store_tests!(sqlite, postgres;
    an_order_is_made_and_read_back_by_its_customer_only,
    an_order_is_confirmed_once,
    a_cancelled_order_stays_cancelled,
    what_is_not_there_is_not_confirmed,
    everything_may_happen_in_one_batch,
    a_duplicate_gets_the_stored_answer,
    an_undo_before_its_do_blocks_it,
    one_refusal_fails_no_neighbour,
    an_unknown_step_fails_the_batch_and_leaves_nothing,
    a_customer_s_orders_are_paged_newest_first,
    many_at_once_have_each_effect_once,
);

fn command(saga: u64, step: &str, op: Op) -> Command {
    let items = [(5, 4, 1390), (6, 5, 3780)];
    let items =
        items.into_iter().map(|(product_id, quantity, unit_price)| PurchaseItem { product_id, quantity, unit_price });
    let input = PurchaseInput {
        purchase_id: saga,
        customer_id: 2 + saga % 2,
        items: items.collect(),
        currency_code: "VND".into(),
        amount: 24_460,
    };
    Command {
        saga: SagaKey::new("purchase", saga),
        definition_version: 1,
        step: step.into(),
        op,
        attempt: 1,
        input: Json::of(&input).unwrap(),
        outputs: vec![],
        reason: None,
        reply_to: "reply".into(),
    }
}

fn create(saga: u64) -> Command {
    command(saga, STEPS.create, Op::Do)
}

fn cancel(saga: u64) -> Command {
    command(saga, STEPS.create, Op::Undo)
}

fn confirm(saga: u64) -> Command {
    command(saga, STEPS.confirm, Op::Do)
}

fn order(id: u64, status: Status) -> Order {
    let line = |(product_id, quantity, unit_price)| Line { product_id, quantity, unit_price };
    Order {
        id,
        customer_id: 2 + id % 2,
        status,
        currency_code: "VND".into(),
        amount: 24_460,
        lines: [(5, 4, 1390), (6, 5, 3780)].map(line).to_vec(),
        created_at: 9,
    }
}

async fn handle(store: &Port, batch: Vec<Command>) -> Vec<Reply> {
    store.handle(batch, STEPS, 9).await.unwrap()
}

/// `done`, or the refusal's code.
fn codes(replies: &[Reply]) -> Vec<&str> {
    let code = |reply| match reply {
        &Outcome::Done(_) => "done",
        Outcome::Refused(refusal) => refusal.code.as_str(),
        _ => "?",
    };
    replies.iter().map(|reply| code(&reply.outcome)).collect()
}

async fn stands(store: &Port, id: u64) -> Option<Status> {
    store.find(id, 2 + id % 2).await.unwrap().map(|order| order.status)
}

async fn an_order_is_made_and_read_back_by_its_customer_only(store: &Port) {
    assert_eq!(codes(&handle(store, vec![create(1)]).await), ["done"]);
    assert_eq!(store.find(1, 3).await.unwrap(), Some(order(1, Status::Pending)));
    assert_eq!(store.find(1, 2).await.unwrap(), None);
    assert_eq!(store.find(2, 3).await.unwrap(), None);
    assert_eq!(store.find(1, 1 << 60).await.unwrap(), None);
}

async fn an_order_is_confirmed_once(store: &Port) {
    handle(store, vec![create(1)]).await;
    assert_eq!(codes(&handle(store, vec![confirm(1)]).await), ["done"]);
    assert_eq!(codes(&handle(store, vec![confirm(1)]).await), ["done"]);
    assert_eq!(store.find(1, 3).await.unwrap(), Some(order(1, Status::Confirmed)));
}

async fn a_cancelled_order_stays_cancelled(store: &Port) {
    handle(store, vec![create(1)]).await;
    assert_eq!(codes(&handle(store, vec![cancel(1)]).await), ["done"]);
    assert_eq!(
        codes(&handle(store, vec![confirm(1), create(1), cancel(1)]).await),
        ["order_cancelled", "done", "done"]
    );
    assert_eq!(store.find(1, 3).await.unwrap(), Some(order(1, Status::Cancelled)));
}

async fn what_is_not_there_is_not_confirmed(store: &Port) {
    assert_eq!(codes(&handle(store, vec![confirm(1)]).await), ["order_not_found"]);
    assert_eq!(stands(store, 1).await, None);
}

async fn everything_may_happen_in_one_batch(store: &Port) {
    handle(store, vec![create(4), create(5)]).await;
    let batch = vec![create(1), confirm(1), create(2), cancel(2), confirm(2), confirm(4), cancel(5), create(3)];
    let expected = ["done", "done", "done", "done", "order_cancelled", "done", "done", "done"];
    assert_eq!(codes(&handle(store, batch).await), expected);
    let statuses = [Status::Confirmed, Status::Cancelled, Status::Pending, Status::Confirmed, Status::Cancelled];
    for (id, status) in (1..).zip(statuses) {
        assert_eq!(stands(store, id).await, Some(status), "{id}");
    }
}

async fn a_duplicate_gets_the_stored_answer(store: &Port) {
    let batch = vec![create(1), create(1), confirm(1)];
    let first = handle(store, batch.clone()).await;
    assert_eq!(codes(&first), ["done"; 3]);
    assert_eq!(handle(store, batch).await, first);
}

async fn an_undo_before_its_do_blocks_it(store: &Port) {
    assert_eq!(codes(&handle(store, vec![cancel(1)]).await), ["done"]);
    assert_eq!(codes(&handle(store, vec![create(1)]).await), ["undone_before_do"]);
    assert_eq!(stands(store, 1).await, None);
}

async fn one_refusal_fails_no_neighbour(store: &Port) {
    let mut nonsense = create(1);
    nonsense.input = Json::of("nonsense").unwrap();
    let mut wrong = create(2);
    wrong.input = create(3).input;
    assert_eq!(
        codes(&handle(store, vec![nonsense, wrong, create(3)]).await),
        ["invalid_order", "invalid_order", "done"]
    );
    assert_eq!((stands(store, 1).await, stands(store, 3).await), (None, Some(Status::Pending)));
}

async fn an_unknown_step_fails_the_batch_and_leaves_nothing(store: &Port) {
    let failed = store.handle(vec![create(1), command(2, "fly", Op::Do)], STEPS, 9).await;
    assert!(matches!(failed, Err(StoreError::Fault(_))), "{failed:?}");
    assert_eq!(stands(store, 1).await, None);
    assert_eq!(codes(&handle(store, vec![create(1)]).await), ["done"]);
}

async fn a_customer_s_orders_are_paged_newest_first(store: &Port) {
    handle(store, (1..=10).map(create).collect()).await;
    let ids = async |before, limit| {
        let orders = store.list(2, before, limit).await.unwrap();
        orders.iter().map(|order| order.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 3).await, [10, 8, 6]);
    assert_eq!(ids(Some(6), 3).await, [4, 2]);
    assert_eq!(ids(Some(u64::MAX), 1).await, [10]);
    assert_eq!(store.list(99, None, 3).await.unwrap(), []);
}

/// Two replicas have the same commands, as after a rebalance.
async fn many_at_once_have_each_effect_once(store: &Port) {
    let mut replicas = tokio::task::JoinSet::new();
    for replica in 0..4_u64 {
        let store = Arc::clone(store);
        replicas.spawn(async move {
            for round in 0..10_u64 {
                let mut batch: Vec<Command> = (1..=5).map(|n| create(round * 5 + n)).collect();
                batch.extend((1..=5).map(|n| if n < 3 { confirm(round * 5 + n) } else { cancel(round * 5 + n) }));
                // In different orders, each saga's own kept.
                if replica % 2 == 1 {
                    batch.sort_by_key(|command| {
                        (std::cmp::Reverse(command.saga.id), command.op != Op::Do || command.step == STEPS.confirm)
                    });
                }
                let replies = loop {
                    match store.handle(batch.clone(), STEPS, 9).await {
                        Ok(replies) => break replies,
                        Err(StoreError::Transient(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                };
                assert_eq!(codes(&replies), ["done"; 10]);
            }
        });
    }
    replicas.join_all().await;
    for id in 1..=50_u64 {
        let status = if (id - 1) % 5 < 2 { Status::Confirmed } else { Status::Cancelled };
        assert_eq!(stands(store, id).await, Some(status));
    }
}

/// What `saga check` reads is the same on both.
#[tokio::test]
async fn the_audits_agree() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.db");
    let db = Db::open(&file, &order::SCHEMA, &Options::default()).unwrap();
    let pg = Pg::connect(&PgOptions::new(testkit::postgres::database()), &order::PG_SCHEMA).await.unwrap();
    let stores: [Port; 2] = [Arc::new(order::SqliteStore::new(db)), Arc::new(order::PgStore::new(pg.clone()))];
    for store in &stores {
        handle(store, (1..=1500).map(create).collect()).await;
        handle(store, vec![confirm(1), cancel(2)]).await;
    }
    let conn = saga_adapters::sqlite::open_read_only(&file, &order::SCHEMA).unwrap();
    let at = pg.snapshot().await.unwrap();
    // Later than this moment.
    handle(&stores[1], vec![create(9999)]).await;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    order::audit::read(&conn, &mut |row| one.push(row)).unwrap();
    order::audit::read_pg(&at, &mut |row| two.push(row)).await.unwrap();
    assert_eq!(one.len(), 1500);
    assert_eq!(one, two);
}
