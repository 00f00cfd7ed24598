//! What is lost is asked for again: crashes, lost starts, lost results, duplicates, forged results.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod shop;

use std::sync::Arc;
use std::time::{Duration, Instant};

use purchase::Config;
use purchase::store::{Applied, Group, NewPurchase, Store as _};
use saga_adapters::sqlite::Options;
use saga_core::protocol::{ResultEvent, ResultStatus};
use saga_core::{Json, Name};
use saga_runtime::{Bus as _, Message, SystemClock};

use shop::orchestrator::{completed, declined, message};
use shop::{ALICE, ONE, Script, Shop, quick, until};

#[tokio::test]
async fn p02_a_start_that_was_lost_is_sent_again() {
    let shop = Shop::with(quick(), Arc::new(SystemClock), Script::Deaf).await;
    let id = shop.buy(ALICE).await;
    until("the start to be sent again", || shop.stat("asked") > 0).await;
    shop.orchestrator.follow(Script::Complete);
    shop.until(id, "COMPLETED").await;
}

#[tokio::test]
async fn p02_a_crash_after_the_commit_loses_nothing_and_doubles_nothing() {
    let mut shop = Shop::with(quick(), Arc::new(SystemClock), Script::Deaf).await;
    let key = [("idempotency-key", "k")];
    let first = shop.post_with(ALICE, "/purchases", ONE, &key).await;
    shop.stop().await;
    shop.orchestrator.follow(Script::Complete);
    shop.start().await;
    let again = shop.post_with(ALICE, "/purchases", ONE, &key).await;
    assert_eq!((again.id(), again.header("idempotency-replayed")), (first.id(), Some("true")));
    shop.until(first.id(), "COMPLETED").await;
    until("its slot to be free", || shop.stat("outstanding") == 0).await;
    assert_eq!(shop.stat("completed"), 1);
}

#[tokio::test]
async fn p01_d08_what_was_not_committed_is_not_there_and_the_retry_makes_one() {
    let mut shop = Shop::with(quick(), Arc::new(SystemClock), Script::Complete).await;
    shop.stop().await;
    // A disk with room for some purchases; the one that finds it full is rolled back like one that a crash cut off.
    shop.disk = Options { max_pages: Some(24), ..Options::default() };
    shop.start().await;
    let mut accepted = Vec::new();
    let (key, refused) = loop {
        let key = format!("key-{}", accepted.len());
        let answer = shop.post_with(ALICE, "/purchases", ONE, &[("idempotency-key", &key)]).await;
        if answer.status != 202 {
            break (key, answer);
        }
        accepted.push(answer.id());
    };
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "dependency_unavailable"));
    assert!(refused.header("retry-after").is_some() && !accepted.is_empty());
    shop.stop().await;
    shop.disk = Options::default();
    shop.start().await;
    let first = shop.post_with(ALICE, "/purchases", ONE, &[("idempotency-key", &key)]).await;
    let again = shop.post_with(ALICE, "/purchases", ONE, &[("idempotency-key", &key)]).await;
    assert_eq!((first.header("idempotency-replayed"), again.id()), (None, first.id()));
    accepted.push(first.id());
    for id in &accepted {
        shop.until(*id, "COMPLETED").await;
    }
    let listed = shop.get(ALICE, "/purchases?limit=200").await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), accepted.len());
    until("every slot to be free", || shop.stat("free_slots") == quick().max_in_flight as u64).await;
}

#[tokio::test]
async fn p09_a_lost_end_is_asked_for() {
    let shop = Shop::with(quick(), Arc::new(SystemClock), Script::Hold).await;
    let id = shop.buy(ALICE).await;
    let events = completed(id);
    shop.orchestrator.emit(id, &events[..8]).await;
    shop.orchestrator.emit_and_lose(id, &events[8..]);
    let stream = shop.stream(ALICE, &format!("/purchases/{id}/events"), None).await.rest().await;
    assert_eq!(stream.iter().map(|e| e.seq()).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    assert_eq!(stream.iter().filter(|e| e.data["terminal"] == true).count(), 1);
}

#[tokio::test]
async fn m03_a_gap_is_asked_for_at_once_and_never_applied() {
    // So slow a sweep that only asking at once can help.
    let config = Config { stale_after_ms: 3_600_000, ..quick() };
    let shop = Shop::with(config, Arc::new(SystemClock), Script::Hold).await;
    let id = shop.buy(ALICE).await;
    until("the start", || !shop.orchestrator.starts().is_empty()).await;
    let events = completed(id);
    shop.orchestrator.emit(id, &events[..2]).await;
    shop.orchestrator.emit_and_lose(id, &events[2..4]);
    shop.orchestrator.emit(id, &events[4..]).await;
    let stream = shop.stream(ALICE, &format!("/purchases/{id}/events"), None).await.rest().await;
    assert_eq!(stream.iter().map(|e| e.seq()).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    assert!(shop.stat("gaps") > 0 && shop.stat("asked") > 0);
}

#[tokio::test]
async fn m01_m02_m21_duplicates_and_disorder_change_nothing() {
    let shop = Shop::with(quick(), Arc::new(SystemClock), Script::Hold).await;
    let id = shop.buy(ALICE).await;
    until("the start", || !shop.orchestrator.starts().is_empty()).await;
    let events = declined(id);
    let mut shuffled: Vec<ResultEvent> = events.iter().chain(events.iter().rev()).cloned().collect();
    shuffled.swap(3, 7);
    shop.orchestrator.emit_and_lose(id, &events);
    for _ in 0..3 {
        shop.orchestrator.publish(&shuffled).await;
    }
    let seen = shop.until(id, "COMPENSATED").await;
    shop.orchestrator.publish(&events).await;
    // After the end even what looks like the next one changes nothing (M-06).
    let late = ResultEvent { seq: 10, status: ResultStatus::Success, ..events[0].clone() };
    shop.orchestrator.publish(&[late]).await;
    // Results are taken in order: when the end of another purchase is seen, all of these were.
    let other = shop.buy(ALICE).await;
    shop.orchestrator.emit(other, &completed(other)).await;
    shop.until(other, "COMPLETED").await;
    let after = shop.get(ALICE, &format!("/purchases/{id}")).await;
    assert_eq!(after.body, seen);
    until("both slots to be free", || shop.stat("outstanding") == 0).await;
    assert_eq!((shop.stat("applied"), shop.stat("compensated"), shop.stat("completed")), (18, 1, 1));
    assert!(shop.stat("duplicates") > 9);
}

#[tokio::test]
async fn m07_m10_poison_and_forged_results_become_dead_letters_and_the_others_go_on() {
    let shop = Shop::with(quick(), Arc::new(SystemClock), Script::Hold).await;
    let id = shop.buy(ALICE).await;
    until("the start", || !shop.orchestrator.starts().is_empty()).await;
    let good = completed(id);
    let event = &good[0];
    let mut other_definition = message(event);
    let mut headers = other_definition.headers.to_vec();
    for (name, value) in &mut headers {
        if name == "ce_source" {
            *value = "refund".into();
        }
    }
    other_definition.headers = headers.into();
    let with = |payload: &'static str| Message { payload: payload.into(), ..message(event) };
    let bad = [
        with("{"),
        with("null"),
        with("\u{7f}"),
        Message { headers: Vec::new().into(), ..message(event) },
        other_definition,
        message(&ResultEvent { seq: 0, ..event.clone() }),
        message(&ResultEvent { step: Name::new("a\nid: 7\ndata: forged"), ..event.clone() }),
        message(&ResultEvent { terminal: true, ..event.clone() }),
        message(&ResultEvent { saga_id: 4711, ..event.clone() }),
    ];
    let count = bad.len();
    shop.bus.publish(bad.to_vec()).await.unwrap();
    shop.orchestrator.emit(id, &good).await;
    shop.until(id, "COMPLETED").await;
    until("the dead letters", || shop.graves.0.lock().len() == count).await;
    assert_eq!((shop.stat("poisoned"), shop.stat("unknown")), (9, 1));
    let graves = shop.graves.0.lock();
    assert!(graves.iter().all(|grave| grave.topic == "purchase-result.dlq" && grave.header("dlq_reason").is_some()));
    assert!(graves.iter().any(|grave| grave.header("dlq_reason").unwrap().contains("there is no purchase 4711")));
}

#[tokio::test]
async fn d12_a_row_that_makes_no_sense_is_left_alone_and_the_others_go_on() {
    let shop = Shop::with(quick(), Arc::new(SystemClock), Script::Hold).await;
    let (sick, well) = (shop.buy(ALICE).await, shop.buy(ALICE).await);
    until("both starts", || shop.orchestrator.starts().len() >= 2).await;
    let spoil = move |conn: &saga_adapters::sqlite::rusqlite::Connection| {
        Ok(conn.execute("update purchase set results = 'nonsense' where id = ?1", [sick])?)
    };
    shop.life().db.write(saga_adapters::sqlite::Durability::Durable, spoil).await.unwrap();
    let (a, b) = (completed(sick), completed(well));
    shop.bus.publish(a.iter().chain(&b).map(message).collect()).await.unwrap();
    shop.until(well, "COMPLETED").await;
    until("the dead letters", || shop.graves.0.lock().len() >= 9).await;
    let answer = shop.get(ALICE, &format!("/purchases/{sick}")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (500, "internal_error"));
}

#[tokio::test]
async fn s04_a_purchase_that_needs_a_human_gives_up_its_slot_and_can_still_end() {
    let config = Config { max_in_flight: 1, ..quick() };
    let shop = Shop::with(config, Arc::new(SystemClock), Script::Hold).await;
    let id = shop.buy(ALICE).await;
    let mut events = declined(id);
    events.truncate(6);
    let stuck = ResultEvent { seq: 7, status: ResultStatus::RollbackFailed, ..events[3].clone() };
    events.push(stuck);
    shop.orchestrator.emit(id, &events).await;
    shop.until(id, "COMPENSATION_STUCK").await;
    until("its slot to be free", || shop.stat("free_slots") == 1).await;
    let other = shop.buy(ALICE).await;
    // The human came.
    let end = ResultEvent { seq: 8, ..declined(id).pop().unwrap() };
    shop.orchestrator.emit(id, &[end]).await;
    shop.until(id, "COMPENSATED").await;
    shop.orchestrator.emit(other, &completed(other)).await;
    shop.until(other, "COMPLETED").await;
    until("one slot again, not two", || shop.stat("outstanding") == 0).await;
    assert_eq!((shop.stat("free_slots"), shop.stat("parked")), (1, 0));
}

#[tokio::test]
async fn t01_a_clock_that_jumps_an_hour_either_way_stops_nothing() {
    let clock = shop::HandClock::at(1_795_435_200_000);
    let shop = Shop::with(quick(), Arc::clone(&clock) as _, Script::Deaf).await;
    let id = shop.buy(ALICE).await;
    let back = 1_795_435_200_000 - 3_600_000;
    clock.set(back);
    shop.orchestrator.follow(Script::Complete);
    let ticking = async {
        loop {
            clock.advance(Duration::from_millis(50));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = shop.until(id, "COMPLETED") => {}
        () = ticking => {}
    }
    clock.advance(Duration::from_secs(2 * 3600));
    let later = shop.buy(ALICE).await;
    shop.until(later, "COMPLETED").await;
}

/// Written directly: as a crash would leave them.
async fn leave(shop: &Shop, count: u64, seen: bool) {
    let db = shop.open_db();
    let work = move |conn: &saga_adapters::sqlite::rusqlite::Connection| {
        let insert = "insert into purchase (id, customer_id, status, amount, currency_code, input, last_seq, results, \
                      created_at, updated_at) values (?1, 11, ?2, 1390, 'VND', ?3, ?4, ?5, 1, 1)";
        let mut insert = conn.prepare(insert)?;
        let (status, last_seq, results) =
            if seen { ("RUNNING", 1, "create-order E 5\n") } else { ("PENDING", 0, "\n") };
        for id in 1..=count {
            let input = format!(
                r#"{{"purchase_id":{id},"customer_id":11,"items":[{{"product_id":1,"quantity":1,"unit_price":1390}}],"currency_code":"VND","amount":1390}}"#
            );
            insert.execute((id, status, input, last_seq, results))?;
        }
        Ok(())
    };
    db.write(saga_adapters::sqlite::Durability::Durable, work).await.unwrap();
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_very_many_in_flight_after_a_crash_are_asked_for_as_fast_as_they_are_answered() {
    let config = Config { max_in_flight: 100, resend_window: 500, recovery_rate: 1_000_000, ..quick() };
    let mut shop = Shop::closed(config, Arc::new(SystemClock), Script::Complete).await;
    leave(&shop, 5_000, false).await;
    let began = Instant::now();
    shop.start().await;
    assert_eq!(shop.stat("free_slots"), 0, "they hold all slots and owe some");
    until("all to end", || shop.stat("outstanding") == 0).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!((shop.stat("completed"), shop.stat("free_slots")), (5_000, 100));
    let queue = shop.bus.queues().into_iter().find(|queue| queue.topic == "purchase").unwrap();
    assert_eq!(queue.dropped, 0);
}

#[tokio::test]
async fn what_the_orchestrator_knows_is_left_to_it_at_first() {
    let config = Config { stale_after_ms: 3_600_000, ..quick() };
    let mut shop = Shop::closed(config, Arc::new(SystemClock), Script::Hold).await;
    leave(&shop, 10, true).await;
    shop.start().await;
    let new = shop.buy(ALICE).await;
    until("the new one's start", || shop.orchestrator.starts().contains(&new)).await;
    assert_eq!(shop.stat("asked"), 0);
}

#[tokio::test]
async fn a_batch_of_results_is_applied_as_one_with_the_same_end_as_one_by_one() {
    let mut shop = Shop::with(quick(), Arc::new(SystemClock), Script::Deaf).await;
    let (a, b) = (shop.buy(ALICE).await, shop.buy(ALICE).await);
    let store = purchase::SqliteStore::new(shop.life().db.clone());
    let group = |id: u64, events: &[ResultEvent]| Group { id, events: events.to_vec() };
    let batch: Arc<[Group]> = [group(a, &completed(a)), group(77, &completed(77)), group(b, &declined(b)[2..])].into();
    let applied = store.apply(batch, 5).await.unwrap();
    assert!(matches!(&applied[0], Applied::Known { fresh, ended: true, gap: false, .. } if *fresh == (0..9)));
    assert_eq!(applied[1], Applied::Unknown);
    assert!(matches!(&applied[2], Applied::Known { fresh, gap: true, .. } if fresh.is_empty()));
    for event in declined(b) {
        store.apply([group(b, &[event])].into(), 5).await.unwrap();
    }
    drop(store);
    let file = shop.file();
    shop.stop().await;
    // And what the checker reads agrees.
    let conn = saga_adapters::sqlite::open_read_only(&file, &purchase::SCHEMA).unwrap();
    let mut rows = Vec::new();
    purchase::audit::read(&conn, &mut |row| rows.push(row)).unwrap();
    assert_eq!(rows.iter().map(|row| row.results.clone()).collect::<Vec<_>>(), [completed(a), declined(b)]);
    assert_eq!(rows[0].status, "COMPLETED");
    assert_eq!((rows[0].last_seq, rows[0].input.amount, rows[0].customer_id), (9, 1390, ALICE));
}

#[tokio::test]
async fn the_database_refuses_what_cannot_be() {
    let shop = Shop::with(quick(), Arc::new(SystemClock), Script::Deaf).await;
    let store = purchase::SqliteStore::new(shop.life().db.clone());
    let new = NewPurchase {
        id: 5,
        customer_id: 1,
        amount: 1,
        currency_code: "VND".to_owned(),
        input: Json::null(),
        key: None,
        fingerprint: [0; 16],
        now: 1,
    };
    store.place(new.clone()).await.unwrap();
    let wrong = [
        NewPurchase { id: 5, ..new.clone() },
        NewPurchase { id: 1 << 53, ..new.clone() },
        NewPurchase { id: 6, amount: -1, ..new.clone() },
        NewPurchase { id: 6, amount: 1 << 53, ..new.clone() },
        NewPurchase { id: 6, currency_code: "VNDX".to_owned(), ..new.clone() },
        NewPurchase { id: 6, customer_id: 0, ..new },
    ];
    for wrong in wrong {
        assert!(store.place(wrong.clone()).await.is_err(), "{wrong:?}");
    }
    for sql in [
        "update purchase set status = 'COMPLETED' where id = 5",
        "update purchase set ended_at = 5 where id = 5",
        "update purchase set status = 'DONE' where id = 5",
        "update purchase set updated_at = 0 where id = 5",
        "update purchase set idempotency_key = 'k' where id = 5",
    ] {
        let work = move |conn: &saga_adapters::sqlite::rusqlite::Connection| Ok(conn.execute(sql, [])?);
        let written = shop.life().db.write(saga_adapters::sqlite::Durability::Durable, work).await;
        assert!(written.is_err(), "{sql}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Whatever is lost, doubled or shuffled on the way: the row is always a prefix, and once everything has come by in order
    /// it is all of it.
    #[test]
    fn the_row_is_always_a_prefix_of_what_happened(
        well in proptest::prelude::any::<bool>(),
        arrivals in proptest::collection::vec((0_usize..9, 1_usize..5), 0..20),
    ) {
        thread_local! {
            static RIG: (tokio::runtime::Runtime, tempfile::TempDir, purchase::SqliteStore) = {
                let (runtime, dir) = (tokio::runtime::Runtime::new().unwrap(), tempfile::tempdir().unwrap());
                let file = dir.path().join("purchase.db");
                let db = saga_adapters::sqlite::Db::open(&file, &purchase::SCHEMA, &Options::default()).unwrap();
                (runtime, dir, purchase::SqliteStore::new(db))
            };
            static NEXT: std::cell::Cell<u64> = const { std::cell::Cell::new(1) };
        }
        let id = NEXT.with(|next| next.replace(next.get() + 1));
        let all = if well { completed(id) } else { declined(id) };
        RIG.with(|(runtime, _, store)| runtime.block_on(async {
            let (currency_code, input) = ("VND".to_owned(), Json::null());
            let new = NewPurchase { id, customer_id: 1, amount: 1, currency_code, input, key: None, fingerprint: [0; 16], now: 1 };
            store.place(new).await.unwrap();
            let mut last = 0;
            for (from, count) in arrivals {
                let events = all[from..(from + count).min(all.len())].to_vec();
                let expected = if from as u32 <= last { last.max(events.last().unwrap().seq) } else { last };
                store.apply([Group { id, events }].into(), 2).await.unwrap();
                let row = store.get(1, id).await.unwrap().unwrap();
                assert_eq!(row.last_seq, expected);
                let stored = purchase::results::parse(&row.results).unwrap();
                assert!(stored.iter().zip(&all).all(|(stored, event)| *stored == purchase::results::Entry::from(event)));
                assert_eq!(stored.len(), row.last_seq as usize);
                last = row.last_seq;
            }
            let applied = store.apply([Group { id, events: all.clone() }].into(), 3).await.unwrap();
            let ended = matches!(&applied[0], Applied::Known { ended, .. } if *ended);
            assert_eq!(ended, last < 9, "it ends once");
            let row = store.get(1, id).await.unwrap().unwrap();
            assert!(row.status.is_terminal() && row.last_seq == 9);
        }));
    }
}
