//! Stock under sagas: taken once, given back once, never negative, whatever arrives how often and in which order.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod desk;

use std::sync::Arc;
use std::time::Duration;

use desk::{STEP, Shop, code, take, undo};
use proptest::prelude::*;
use saga_adapters::inproc::InProcBus;
use saga_core::protocol::{Outcome, Refusal, Reply};
use saga_core::{Json, Name, Op, SagaKey};
use saga_runtime::barrier::UNDONE_BEFORE_DO;
use saga_runtime::dead_letters::DeadLetterSink;
use saga_runtime::{
    Bus as _, LoopContext, LoopOptions, Message, Stats, StoreError, SystemClock, run_participant, wire,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const MOST: i64 = (1 << 53) - 1;

#[tokio::test]
async fn a_purchase_takes_its_stock_and_the_ledger_says_so() {
    let shop = Shop::open().await;
    let (tea, cup) = (shop.product(1390, 1000).await, shop.product(3780, 1000).await);
    assert_eq!(shop.outcome(take(5, &[(tea, 4, 1390), (cup, 5, 3780)])).await, Outcome::done());
    assert_eq!((shop.inventory(tea).await, shop.inventory(cup).await), (996, 995));
    assert_eq!(shop.get(&format!("/products/{tea}")).await.body["inventory"], 996);
    let moved: Vec<_> = shop.audit().await.1.iter().map(|m| (m.saga_id, m.product_id, m.is_take, m.quantity)).collect();
    assert_eq!(moved, [(5, tea, true, 4), (5, cup, true, 5)]);
    shop.check_stock().await;
}

#[tokio::test]
async fn g04_m01_a_command_that_comes_again_gets_the_same_answer_and_no_second_effect() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 3).await;
    let (two, again) = (take(5, &[(tea, 2, 10)]), take(6, &[(tea, 2, 10)]));
    let batch = vec![two.clone(), two.clone(), again.clone(), again.clone()];
    let outcomes = |replies: Vec<Reply>| replies.iter().map(|r| code(&r.outcome).to_owned()).collect::<Vec<_>>();
    let first = outcomes(shop.handle(batch.clone()).await);
    assert_eq!(first, ["done", "done", "insufficient_stock", "insufficient_stock"]);
    // More stock does not change an answer that was given.
    shop.admin("PUT", &format!("/products/{tea}"), json!({ "inventory_delta": 100, "reason": "delivery" })).await;
    assert_eq!(outcomes(shop.handle(batch.clone()).await), first);
    let shop = shop.restart().await;
    assert_eq!(outcomes(shop.handle(batch).await), first);
    assert_eq!(shop.inventory(tea).await, 101);
    shop.check_stock().await;
}

#[tokio::test]
async fn the_answer_names_the_attempt_that_asked() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 3).await;
    let mut command = take(5, &[(tea, 1, 10)]);
    for attempt in 1..4 {
        command.attempt = attempt;
        let [reply] = shop.handle(vec![command.clone()]).await.try_into().unwrap();
        assert_eq!((reply.attempt, reply.op, reply.step.as_str()), (attempt, Op::Do, STEP));
    }
    assert_eq!(shop.inventory(tea).await, 2);
}

#[tokio::test]
async fn g01_g05_an_undo_gives_back_exactly_what_was_taken_and_only_once() {
    let shop = Shop::open().await;
    let (tea, cup) = (shop.product(10, 8).await, shop.product(20, 8).await);
    let lines = [(tea, 3, 10), (cup, 4, 20)];
    shop.outcome(take(5, &lines)).await;
    // The undo's input is not asked: the ledger knows.
    let back = undo(5, &[(tea, 8, 10)]);
    let replies = shop.handle(vec![back.clone(), back.clone()]).await;
    assert!(replies.iter().all(|reply| reply.outcome == Outcome::done()));
    let (one, two) = tokio::join!(shop.outcome(back.clone()), shop.outcome(back));
    assert_eq!((one, two), (Outcome::done(), Outcome::done()));
    assert_eq!((shop.inventory(tea).await, shop.inventory(cup).await), (8, 8));
    // The do that was delivered twice finds its own answer, and takes nothing.
    assert_eq!(shop.outcome(take(5, &lines)).await, Outcome::done());
    assert_eq!(shop.inventory(tea).await, 8);
    shop.check_stock().await;
}

#[tokio::test]
async fn g06_m02_an_undo_before_its_do_has_no_effect_and_blocks_the_do() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 3).await;
    let lines = [(tea, 1, 10)];
    for saga in [5, 6] {
        assert_eq!(shop.outcome(undo(saga, &lines)).await, Outcome::done());
        assert_eq!(code(&shop.outcome(take(saga, &lines)).await), UNDONE_BEFORE_DO);
        assert_eq!(shop.outcome(undo(saga, &lines)).await, Outcome::done());
    }
    // The same within one batch.
    let replies = shop.handle(vec![undo(7, &lines), take(7, &lines)]).await;
    assert_eq!(code(&replies[1].outcome), UNDONE_BEFORE_DO);
    assert_eq!(shop.inventory(tea).await, 3);
    assert!(shop.audit().await.1.is_empty(), "nothing moved");
}

#[tokio::test]
async fn the_undo_of_a_refused_step_gives_nothing_back() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 3).await;
    assert_eq!(code(&shop.outcome(take(5, &[(tea, 4, 10)])).await), "insufficient_stock");
    assert_eq!(shop.outcome(undo(5, &[(tea, 4, 10)])).await, Outcome::done());
    assert_eq!(shop.inventory(tea).await, 3);
    shop.check_stock().await;
}

#[tokio::test]
async fn g13_the_last_item_is_sold_once() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 1).await;
    assert_eq!(shop.outcome(take(5, &[(tea, 1, 10)])).await, Outcome::done());
    assert_eq!(code(&shop.outcome(take(6, &[(tea, 1, 10)])).await), "insufficient_stock");
    shop.outcome(undo(5, &[])).await;
    assert_eq!(shop.outcome(take(7, &[(tea, 1, 10)])).await, Outcome::done(), "what came back can be bought");
    assert_eq!(shop.inventory(tea).await, 0);
}

#[tokio::test]
async fn s14_fifty_sagas_at_once_for_ten_items_sell_exactly_ten() {
    let shop = Arc::new(Shop::open().await);
    let tea = shop.product(10, 10).await;
    let buyers: Vec<_> = (1..=50)
        .map(|saga| {
            let shop = shop.clone();
            tokio::spawn(async move { shop.outcome(take(saga, &[(tea, 1, 10)])).await })
        })
        .collect();
    let mut sold = 0;
    for buyer in buyers {
        match code(&buyer.await.unwrap()) {
            "done" => sold += 1,
            code => assert_eq!(code, "insufficient_stock"),
        }
    }
    assert_eq!((sold, shop.inventory(tea).await), (10, 0));
    // And as one batch.
    let cup = shop.product(10, 10).await;
    let replies = shop.handle((101..=150).map(|saga| take(saga, &[(cup, 1, 10)])).collect()).await;
    let done: Vec<u64> = replies.iter().filter(|r| code(&r.outcome) == "done").map(|r| r.saga.id).collect();
    assert_eq!(done, (101..=110).collect::<Vec<u64>>(), "in the batch's order");
    shop.check_stock().await;
}

#[tokio::test]
async fn s16_a_price_that_changed_since_the_quote_refuses_and_nothing_is_taken() {
    let shop = Shop::open().await;
    let (tea, cup) = (shop.product(10, 9).await, shop.product(20, 9).await);
    let quoted = [(tea, 1, 10), (cup, 1, 20)];
    let changed = shop.admin("PUT", &format!("/products/{cup}"), json!({ "price": 21 })).await;
    assert_eq!(changed.status, 200);
    assert_eq!(code(&shop.outcome(take(5, &quoted)).await), "price_changed");
    assert_eq!((shop.inventory(tea).await, shop.inventory(cup).await), (9, 9), "all lines or none");
    assert_eq!(shop.outcome(take(6, &[(tea, 1, 10), (cup, 1, 21)])).await, Outcome::done());
    shop.check_stock().await;
}

#[tokio::test]
async fn s16_what_cannot_be_sold_is_refused_with_its_reason() {
    let shop = Shop::open().await;
    let (tea, cup) = (shop.product(10, 5).await, shop.product(20, 5).await);
    let mut foreign = take(9, &[(tea, 1, 10)]);
    let text = foreign.input.as_str().replace("VND", "EUR");
    foreign.input = Json::of(&serde_json::from_str::<serde_json::Value>(&text).unwrap()).unwrap();
    let mut nonsense = take(10, &[]);
    nonsense.input = Json::of(&json!({ "order": "tea" })).unwrap();
    for (command, wanted) in [
        (take(1, &[(tea, 1, 10), (cup + 1_000, 1, 20)]), "product_not_found"),
        (take(2, &[(tea, 1, 10), (cup, 6, 20)]), "insufficient_stock"),
        (take(3, &[(tea, i64::MAX, 10)]), "insufficient_stock"),
        (take(4, &[(tea, 0, 10)]), "invalid_purchase"),
        (take(5, &[(tea, -3, 10)]), "invalid_purchase"),
        (take(6, &[(tea, i64::MIN, 10)]), "invalid_purchase"),
        (take(7, &[(tea, 1, 10), (tea, 1, 10)]), "invalid_purchase"),
        (take(8, &[]), "invalid_purchase"),
        (foreign, "price_changed"),
        (nonsense, "invalid_purchase"),
    ] {
        assert_eq!(code(&shop.outcome(command).await), wanted);
    }
    assert_eq!((shop.inventory(tea).await, shop.inventory(cup).await), (5, 5));
    assert!(shop.audit().await.1.is_empty());
}

#[tokio::test]
async fn g12_stock_stays_within_what_json_can_hold_even_when_some_comes_back() {
    let shop = Shop::open().await;
    let tea = shop.product(10, MOST).await;
    let path = format!("/products/{tea}");
    assert_eq!(shop.outcome(take(5, &[(tea, 1_000, 10)])).await, Outcome::done());
    let more = |delta: i64| shop.admin("PUT", &path, json!({ "inventory_delta": delta, "reason": "delivery" }));
    for delta in [1, 1_000, MOST] {
        assert_eq!(more(delta).await.code(), (409, "conflict"), "{delta}: the purchase may still be undone");
    }
    assert_eq!(more(-1_000).await.status, 200);
    assert_eq!(more(1_000).await.status, 200);
    shop.outcome(undo(5, &[])).await;
    assert_eq!(shop.inventory(tea).await, MOST);
    shop.check_stock().await;
}

#[tokio::test]
async fn sagas_of_two_definitions_with_one_id_do_not_meet() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 5).await;
    let mut other = take(5, &[(tea, 1, 10)]);
    other.saga = SagaKey::new("reserve", 5);
    let replies = shop.handle(vec![take(5, &[(tea, 2, 10)]), other.clone()]).await;
    assert!(replies.iter().all(|reply| reply.outcome == Outcome::done()));
    assert_eq!(shop.inventory(tea).await, 2);
    other.op = Op::Undo;
    shop.outcome(other).await;
    assert_eq!(shop.inventory(tea).await, 3);
    shop.check_stock().await;
}

struct NoGraves;

#[async_trait::async_trait]
impl DeadLetterSink for NoGraves {
    async fn bury(&self, messages: Vec<Message>) -> Result<(), StoreError> {
        panic!("nothing here is poison: {messages:?}");
    }
}

#[tokio::test]
async fn commands_on_the_bus_are_answered_on_the_bus() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 1).await;
    let bus = InProcBus::new(contracts::topics::ALL.map(Name::new), 100, Arc::new(NoGraves));
    let mut replies = bus.subscribe("test", &["reply".into()]).await.unwrap();
    let stop = CancellationToken::new();
    let context = LoopContext {
        bus: Arc::new(bus.clone()),
        clock: Arc::new(SystemClock),
        stop: stop.clone(),
        stats: Arc::new(Stats::default()),
        options: LoopOptions::default(),
        tracer: saga_runtime::trace::Tracer::default(),
    };
    let service = tokio::spawn(run_participant(context, shop.participant.clone()));
    let joined = async {
        while !bus.queues().iter().any(|queue| queue.group == "product") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), joined).await.unwrap();
    let lines = [(tea, 1, 10)];
    let commands = [
        ("update-product-inventory", take(5, &lines)),
        ("update-product-inventory", take(6, &lines)),
        ("rollback-product-inventory", undo(5, &lines)),
    ];
    let mut answered = Vec::new();
    // One after the other: two topics have no order between them.
    for (topic, command) in commands {
        bus.publish(vec![wire::command_message(&topic.into(), &command)]).await.unwrap();
        let next = tokio::time::timeout(Duration::from_secs(20), replies.next(10)).await.unwrap().unwrap();
        replies.commit().await.unwrap();
        for delivery in next {
            let wire::Inbound::Reply(reply) = wire::parse(&delivery.message).unwrap() else { panic!("no reply") };
            answered.push((reply.saga.id, reply.op, code(&reply.outcome).to_owned()));
        }
    }
    let wanted = [(5, Op::Do, "done"), (6, Op::Do, "insufficient_stock"), (5, Op::Undo, "done")];
    assert_eq!(answered, wanted.map(|(id, op, code)| (id, op, code.to_owned())));
    assert_eq!(shop.inventory(tea).await, 1);
    stop.cancel();
    bus.close();
    service.await.unwrap();
}

/// One thing that happens: a command of a saga, or an admin's delta.
#[derive(Clone, Debug)]
enum Step {
    Take { saga: u64, quantities: [i64; 2] },
    Undo { saga: u64 },
    Restock { product: usize, delta: i64 },
    Price { product: usize, price: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..8_u64, -1..6_i64, 0..6_i64).prop_map(|(saga, a, b)| Step::Take { saga, quantities: [a, b] }),
        3 => (1..8_u64).prop_map(|saga| Step::Undo { saga }),
        1 => (0..2_usize, -6..6_i64).prop_map(|(product, delta)| Step::Restock { product, delta }),
        1 => (0..2_usize, 10..12_i64).prop_map(|(product, price)| Step::Price { product, price }),
    ]
}

/// What each saga did first decides; counts what it holds now.
async fn play(batches: Vec<Vec<Step>>) {
    let shop = Shop::open().await;
    let products = [shop.product(10, 7).await, shop.product(10, 5).await];
    for batch in batches {
        let mut commands = Vec::new();
        for step in batch {
            match step {
                Step::Take { saga, quantities } => {
                    let lines = [(products[0], quantities[0], 10), (products[1], quantities[1], 10)];
                    // A quantity of 0 leaves the line out, −1 is unlawful.
                    let lines: Vec<_> = lines.into_iter().filter(|line| line.1 != 0).collect();
                    commands.push(take(saga, &lines));
                }
                Step::Undo { saga } => commands.push(undo(saga, &[])),
                Step::Restock { product, delta } => {
                    let body = json!({ "inventory_delta": delta, "reason": "count" });
                    let answer = shop.admin("PUT", &format!("/products/{}", products[product]), body).await;
                    assert!([200, 409].contains(&answer.status), "{answer:?}");
                }
                Step::Price { product, price } => {
                    shop.admin("PUT", &format!("/products/{}", products[product]), json!({ "price": price })).await;
                }
            }
        }
        let replies = shop.handle(commands.clone()).await;
        assert_eq!(shop.handle(commands).await, replies, "redelivery changes nothing");
        shop.check_stock().await;
    }
    // Undone to the last, everything is back.
    shop.handle((1..8).map(|saga| undo(saga, &[])).collect()).await;
    let stocks = shop.audit().await.0;
    assert!(stocks.iter().all(|stock| stock.taken == 0 && stock.inventory == stock.stocked), "{stocks:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_arrives_stock_and_ledger_agree(
        batches in proptest::collection::vec(proptest::collection::vec(step(), 1..8), 1..6),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(batches));
    }
}

/// A refusal is for people, too: it names product and numbers.
#[tokio::test]
async fn a_refusal_says_what_was_wanted_and_what_is_there() {
    let shop = Shop::open().await;
    let tea = shop.product(10, 3).await;
    let Outcome::Refused(Refusal { detail, .. }) = shop.outcome(take(5, &[(tea, 4, 10)])).await else { panic!() };
    assert_eq!(detail, format!("4 of product {tea} were wanted, 3 are there"));
}
