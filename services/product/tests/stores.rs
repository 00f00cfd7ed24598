//! Every operation of the store, on SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use contracts::purchase::{PurchaseInput, PurchaseItem};
use product::domain::{Category, Product, ProductChange};
use product::store::{Listing, Refused, Store};
use saga_adapters::postgres::{Options as PgOptions, Pg};
use saga_adapters::sqlite::{Db, Options};
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Json, Op, SagaKey};
use saga_runtime::StoreError;
use testkit::conformance::Fixture;

type Port = Arc<dyn Store>;

async fn sqlite() -> Fixture<Port> {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("product.db"), &product::SCHEMA, &Options::default()).unwrap();
    Fixture::keeping(Arc::new(product::SqliteStore::new(db)), folder)
}

async fn postgres() -> Fixture<Port> {
    let options = PgOptions::new(testkit::postgres::database());
    let pg = Pg::connect(&options, &product::PG_SCHEMA).await.unwrap();
    Fixture::new(Arc::new(product::PgStore::new(pg)))
}

testkit::store_tests!(sqlite, postgres;
    categories_are_added_changed_paged_and_deleted,
    a_category_with_products_stays,
    products_are_added_changed_and_found,
    a_product_needs_a_category,
    stock_cannot_be_changed_out_of_range,
    products_are_listed_and_searched,
    stock_is_taken_and_put_back,
    a_batch_is_decided_in_its_order,
    a_duplicate_gets_the_stored_answer,
    an_undo_before_its_do_blocks_it,
    an_undo_may_follow_its_do_in_one_batch,
    one_refusal_fails_no_neighbour,
    sagas_of_two_definitions_with_one_id_never_meet,
    impossible_commands_are_refused_or_faults,
    many_at_once_never_sell_what_is_not_there,
);

fn category(id: u64) -> Category {
    Category { id, name: format!("Category {id}"), description: "d".into() }
}

fn product(id: u64, inventory: i64) -> Product {
    Product {
        id,
        category_id: 1,
        name: format!("Lamp {id}"),
        brand_name: "B".into(),
        description: "Ö'\"".into(),
        price: 10,
        currency_code: "VND".into(),
        inventory,
        version: 1,
    }
}

async fn stocked(store: &Port, stock: &[(u64, i64)]) {
    store.add_category(category(1), 5).await.unwrap();
    for (id, inventory) in stock {
        store.add_product(product(*id, *inventory), 5).await.unwrap().unwrap();
    }
}

async fn inventory(store: &Port, id: u64) -> i64 {
    store.products(vec![id]).await.unwrap()[0].inventory
}

fn command(saga: u64, op: Op, items: &[(u64, i64)]) -> Command {
    let items = items.iter().map(|&(product_id, quantity)| PurchaseItem { product_id, quantity, unit_price: 10 });
    let input = PurchaseInput {
        purchase_id: saga,
        customer_id: 2,
        items: items.collect(),
        currency_code: "VND".into(),
        amount: 0,
    };
    Command {
        saga: SagaKey::new("purchase", saga),
        definition_version: 1,
        step: "update-product-inventory".into(),
        op,
        attempt: 1,
        input: Json::of(&input).unwrap(),
        outputs: vec![],
        reason: None,
        reply_to: "reply".into(),
    }
}

async fn handle(store: &Port, batch: Vec<Command>) -> Vec<Reply> {
    store.handle(batch, 9).await.unwrap()
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

async fn categories_are_added_changed_paged_and_deleted(store: &Port) {
    for id in [3, 1, 2] {
        store.add_category(category(id), 5).await.unwrap();
    }
    let changed = Category { name: "Other".into(), ..category(2) };
    assert_eq!(store.set_category(changed.clone(), 6).await.unwrap(), Ok(()));
    assert_eq!(store.set_category(category(9), 6).await.unwrap(), Err(Refused::NotFound));
    assert_eq!(store.category(2).await.unwrap(), Some(changed.clone()));
    assert_eq!(store.category(9).await.unwrap(), None);
    assert_eq!(store.categories(None, 2).await.unwrap(), [category(1), changed]);
    assert_eq!(store.categories(Some(2), 2).await.unwrap(), [category(3)]);
    assert_eq!(store.delete_category(1).await.unwrap(), Ok(()));
    assert_eq!(store.delete_category(1).await.unwrap(), Err(Refused::NotFound));
    assert_eq!(store.category(1).await.unwrap(), None);
}

async fn a_category_with_products_stays(store: &Port) {
    stocked(store, &[(5, 1)]).await;
    assert_eq!(store.delete_category(1).await.unwrap(), Err(Refused::CategoryInUse));
    assert_eq!(store.category(1).await.unwrap(), Some(category(1)));
}

async fn products_are_added_changed_and_found(store: &Port) {
    stocked(store, &[(5, 3), (6, 0)]).await;
    store.add_category(category(2), 5).await.unwrap();
    assert_eq!(store.products(vec![5]).await.unwrap(), [product(5, 3)]);
    let change = ProductChange {
        category_id: Some(2),
        name: Some("N".into()),
        brand_name: Some(String::new()),
        description: Some("D".into()),
        price: Some(0),
        inventory: Some((4, "delivery".into())),
    };
    let expected = Product {
        category_id: 2,
        name: "N".into(),
        brand_name: String::new(),
        description: "D".into(),
        price: 0,
        inventory: 7,
        version: 2,
        ..product(5, 3)
    };
    assert_eq!(store.set_product(5, change, 6).await.unwrap(), Ok(expected.clone()));
    let nothing = store.set_product(5, ProductChange::default(), 7).await.unwrap().unwrap();
    assert_eq!(nothing, Product { version: 3, ..expected });
    assert_eq!(store.set_product(9, ProductChange::default(), 7).await.unwrap(), Err(Refused::NotFound));
    let mut found: Vec<u64> = store.products(vec![6, 99, 5]).await.unwrap().iter().map(|p| p.id).collect();
    found.sort_unstable();
    assert_eq!(found, [5, 6]);
    assert_eq!(store.products(vec![]).await.unwrap(), []);
    assert_eq!(store.ids(None, 1).await.unwrap(), [5]);
    assert_eq!(store.ids(Some(5), 10).await.unwrap(), [6]);
}

async fn a_product_needs_a_category(store: &Port) {
    assert_eq!(store.add_product(product(5, 1), 5).await.unwrap(), Err(Refused::NoSuchCategory));
    stocked(store, &[(6, 1)]).await;
    let change = ProductChange { category_id: Some(9), ..ProductChange::default() };
    assert_eq!(store.set_product(6, change, 6).await.unwrap(), Err(Refused::NoSuchCategory));
    assert_eq!(store.ids(None, 10).await.unwrap(), [6]);
}

async fn stock_cannot_be_changed_out_of_range(store: &Port) {
    stocked(store, &[(5, 3)]).await;
    for delta in [-4, i64::MIN, i64::MAX, 1 << 53] {
        let change = ProductChange { inventory: Some((delta, "r".into())), ..ProductChange::default() };
        assert_eq!(store.set_product(5, change, 6).await.unwrap(), Err(Refused::StockOutOfRange), "{delta}");
    }
    assert_eq!(store.products(vec![5]).await.unwrap(), [product(5, 3)]);
    handle(store, vec![command(1, Op::Do, &[(5, 1)])]).await;
    let most = |delta| ProductChange { inventory: Some((delta, "r".into())), ..ProductChange::default() };
    let refused = store.set_product(5, most((1 << 53) - 1 - 2), 6).await.unwrap();
    assert_eq!(refused, Err(Refused::StockOutOfRange), "what is taken may come back");
    assert_eq!(store.set_product(5, most((1 << 53) - 1 - 3), 6).await.unwrap().unwrap().inventory, (1 << 53) - 2);
    handle(store, vec![command(1, Op::Undo, &[])]).await;
    store.set_product(5, most(4 - (1 << 53)), 6).await.unwrap().unwrap();
    let all = ProductChange { inventory: Some((-3, "lost".into())), ..ProductChange::default() };
    assert_eq!(store.set_product(5, all, 6).await.unwrap().unwrap().inventory, 0);
}

async fn products_are_listed_and_searched(store: &Port) {
    stocked(store, &[(5, 1), (6, 1), (7, 1)]).await;
    store.add_category(category(2), 5).await.unwrap();
    let other = ProductChange { category_id: Some(2), name: Some("50% Desk_".into()), ..ProductChange::default() };
    store.set_product(6, other, 6).await.unwrap().unwrap();
    let ids = async |category_id, q: Option<&str>, after, limit| {
        let listing = Listing { category_id, q: q.map(str::to_owned), after, limit };
        store.list(listing).await.unwrap().iter().map(|p| p.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, None, None, 2).await, [5, 6]);
    assert_eq!(ids(None, None, Some(6), 2).await, [7]);
    assert_eq!(ids(Some(1), None, None, 9).await, [5, 7]);
    assert_eq!(ids(Some(1), None, Some(5), 9).await, [7]);
    assert_eq!(ids(None, Some("dESK"), None, 9).await, [6]);
    assert_eq!(ids(None, Some("%"), None, 9).await, [6], "not a pattern");
    assert_eq!(ids(None, Some("_"), None, 9).await, [6]);
    assert_eq!(ids(None, Some(""), None, 9).await, [5, 6, 7]);
    assert_eq!(ids(None, Some("\0"), None, 9).await, [0_u64; 0]);
    assert_eq!(ids(Some(2), Some("lamp"), None, 9).await, [0_u64; 0]);
}

async fn stock_is_taken_and_put_back(store: &Port) {
    stocked(store, &[(5, 3), (6, 4)]).await;
    let took = handle(store, vec![command(1, Op::Do, &[(5, 3), (6, 1)])]).await;
    assert_eq!(codes(&took), ["done"]);
    assert_eq!((inventory(store, 5).await, inventory(store, 6).await), (0, 3));
    assert_eq!(store.products(vec![5]).await.unwrap()[0].version, 2);
    // What the undo says does not matter: the ledger does.
    let undone = handle(store, vec![command(1, Op::Undo, &[(6, 4)])]).await;
    assert_eq!(codes(&undone), ["done"]);
    assert_eq!((inventory(store, 5).await, inventory(store, 6).await), (3, 4));
}

async fn a_batch_is_decided_in_its_order(store: &Port) {
    stocked(store, &[(5, 3)]).await;
    let take = |saga, quantity| command(saga, Op::Do, &[(5, quantity)]);
    let replies = handle(store, vec![take(1, 2), take(2, 2), take(3, 1), take(4, 1)]).await;
    assert_eq!(codes(&replies), ["done", "insufficient_stock", "done", "insufficient_stock"]);
    assert!(replies.iter().zip(1..).all(|(reply, saga)| reply.saga.id == saga));
    assert_eq!(inventory(store, 5).await, 0);
    let replies = handle(store, vec![command(1, Op::Undo, &[]), take(5, 2)]).await;
    assert_eq!(codes(&replies), ["done", "done"], "what is given back can be taken in the same batch");
}

async fn a_duplicate_gets_the_stored_answer(store: &Port) {
    stocked(store, &[(5, 3)]).await;
    let (take, refused) = (command(1, Op::Do, &[(5, 2)]), command(2, Op::Do, &[(5, 9)]));
    let batch = vec![take.clone(), refused.clone(), take.clone()];
    let first = handle(store, batch.clone()).await;
    assert_eq!(codes(&first), ["done", "insufficient_stock", "done"]);
    assert_eq!(handle(store, batch).await, first);
    handle(store, vec![command(1, Op::Undo, &[]), command(1, Op::Undo, &[])]).await;
    handle(store, vec![command(1, Op::Undo, &[]), take]).await;
    assert_eq!(inventory(store, 5).await, 3);
}

async fn an_undo_before_its_do_blocks_it(store: &Port) {
    stocked(store, &[(5, 3)]).await;
    assert_eq!(codes(&handle(store, vec![command(1, Op::Undo, &[(5, 1)])]).await), ["done"]);
    assert_eq!(codes(&handle(store, vec![command(1, Op::Do, &[(5, 1)])]).await), ["undone_before_do"]);
    assert_eq!(inventory(store, 5).await, 3);
}

async fn an_undo_may_follow_its_do_in_one_batch(store: &Port) {
    stocked(store, &[(5, 3)]).await;
    let batch = vec![command(1, Op::Do, &[(5, 2)]), command(1, Op::Undo, &[]), command(2, Op::Do, &[(5, 3)])];
    assert_eq!(codes(&handle(store, batch).await), ["done", "done", "done"]);
    assert_eq!(inventory(store, 5).await, 0);
}

async fn one_refusal_fails_no_neighbour(store: &Port) {
    stocked(store, &[(5, 3)]).await;
    let mut nonsense = command(2, Op::Do, &[]);
    nonsense.input = Json::of("nonsense").unwrap();
    let mut dear = command(3, Op::Do, &[(5, 1)]);
    dear.input = Json::of(&PurchaseInput {
        items: vec![PurchaseItem { product_id: 5, quantity: 1, unit_price: 11 }],
        ..dear.input.parse().unwrap()
    })
    .unwrap();
    let batch = vec![
        command(1, Op::Do, &[(99, 1)]),
        nonsense,
        dear,
        command(4, Op::Do, &[(5, 1), (99, 1)]),
        command(5, Op::Do, &[(5, 3)]),
    ];
    let expected = ["product_not_found", "invalid_purchase", "price_changed", "product_not_found", "done"];
    assert_eq!(codes(&handle(store, batch).await), expected);
    assert_eq!(inventory(store, 5).await, 0);
}

async fn sagas_of_two_definitions_with_one_id_never_meet(store: &Port) {
    stocked(store, &[(5, 3)]).await;
    let of = |definition: &str, op| {
        let mut command = command(1, op, &[(5, 1)]);
        command.saga = SagaKey::new(definition, 1);
        command
    };
    handle(store, vec![of("purchase", Op::Do), of("gift", Op::Do)]).await;
    assert_eq!(inventory(store, 5).await, 1);
    handle(store, vec![of("gift", Op::Undo)]).await;
    assert_eq!(inventory(store, 5).await, 2);
}

async fn impossible_commands_are_refused_or_faults(store: &Port) {
    stocked(store, &[(5, 3)]).await;
    let far = handle(store, vec![command(1, Op::Do, &[(5, 1), (u64::MAX, 1)])]).await;
    assert_eq!(codes(&far), ["product_not_found"]);
    assert_eq!(codes(&handle(store, vec![command(2, Op::Do, &[(5, i64::MAX)])]).await), ["insufficient_stock"]);
    let impossible = store.handle(vec![command(u64::MAX, Op::Do, &[(5, 1)])], 9).await;
    assert!(matches!(impossible, Err(StoreError::Fault(_))), "{impossible:?}");
    assert_eq!(handle(store, vec![]).await, []);
    assert_eq!(inventory(store, 5).await, 3);
}

/// Several replicas' batches over the same products, in orders that would deadlock if the rows' order were the batch's.
async fn many_at_once_never_sell_what_is_not_there(store: &Port) {
    stocked(store, &[(5, 40), (6, 40), (7, 40)]).await;
    let mut replicas = tokio::task::JoinSet::new();
    for replica in 0..6_u64 {
        let store = Arc::clone(store);
        replicas.spawn(async move {
            let mut sold = 0;
            for round in 0..10 {
                let first = replica * 1000 + round * 10 + 1;
                let lines: &[&[(u64, i64)]] = &[&[(5, 1), (7, 1)], &[(6, 1), (7, 1)], &[(5, 1), (6, 1)]];
                let take = |at: u64| command(first + at, Op::Do, lines[((at + replica) % 3) as usize]);
                let batch: Vec<Command> = (0..3).map(take).collect();
                let replies = loop {
                    match store.handle(batch.clone(), 9).await {
                        Ok(replies) => break replies,
                        Err(StoreError::Transient(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                };
                sold += codes(&replies).iter().filter(|code| **code == "done").count();
                // The same again, on its way: nothing is sold twice.
                assert_eq!(codes(&store.handle(batch, 9).await.unwrap()), codes(&replies));
            }
            sold
        });
    }
    let sold: usize = replicas.join_all().await.into_iter().sum();
    let mut left = 0;
    for id in [5, 6, 7] {
        left += inventory(store, id).await;
    }
    assert_eq!(left, 120 - 2 * i64::try_from(sold).unwrap());
    assert!(sold > 50, "{sold}");
}

/// What `saga check` reads is the same on both.
#[tokio::test]
async fn the_audits_agree() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.db");
    let db = Db::open(&file, &product::SCHEMA, &Options::default()).unwrap();
    let pg = Pg::connect(&PgOptions::new(testkit::postgres::database()), &product::PG_SCHEMA).await.unwrap();
    let stores: [Port; 2] = [Arc::new(product::SqliteStore::new(db)), Arc::new(product::PgStore::new(pg.clone()))];
    for store in &stores {
        stocked(store, &[(5, 30), (6, 40), (7, 0)]).await;
        let more = ProductChange { inventory: Some((5, "delivery".into())), ..ProductChange::default() };
        store.set_product(7, more, 6).await.unwrap().unwrap();
        handle(store, (1..=10).map(|saga| command(saga, Op::Do, &[(5, 1), (6, 2)])).collect()).await;
        handle(store, vec![command(3, Op::Undo, &[]), command(99, Op::Undo, &[])]).await;
    }
    let conn = saga_adapters::sqlite::open_read_only(&file, &product::SCHEMA).unwrap();
    let at = pg.snapshot().await.unwrap();
    // Later than this moment.
    handle(&stores[1], vec![command(50, Op::Do, &[(5, 1)])]).await;
    let (mut one, mut two) = ((vec![], vec![]), (vec![], vec![]));
    product::audit::read(&conn, &mut |row| one.0.push(row), &mut |row| one.1.push(row)).unwrap();
    product::audit::read_pg(&at, &mut |row| two.0.push(row), &mut |row| two.1.push(row)).await.unwrap();
    assert_eq!((one.0.len(), one.1.len()), (3, 22));
    assert_eq!((one.0[0].inventory, one.0[0].taken, one.0[0].ledger_taken), (21, 9, 9));
    assert_eq!((one.0[2].stocked, one.0[2].ledger_stocked), (5, 5));
    assert_eq!(one, two);
    let mut answers = Vec::new();
    saga_adapters::postgres::participant::audit(&at, &mut |row| answers.push(row)).await.unwrap();
    assert_eq!(answers.len(), 13, "ten dos, two undos, and a do that was blocked");
    assert_eq!((answers[0].key.saga.id, answers[0].key.op, &answers[0].outcome), (1, Op::Do, &Outcome::done()));
}
