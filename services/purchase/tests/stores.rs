//! Every operation of the store, on SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use contracts::purchase::{PurchaseInput, PurchaseItem};
use purchase::domain::Status;
use purchase::results;
use purchase::store::{Applied, Cancelled, Group, Idle, Keyed, NewPurchase, Placed, Promised, Store};
use saga_adapters::postgres::{Options as PgOptions, Pg};
use saga_adapters::sqlite::{Db, Options};
use saga_core::protocol::{Refusal, ResultEvent, ResultStatus};
use saga_core::{Json, Millis};
use testkit::conformance::Fixture;

type Port = Arc<dyn Store>;

async fn sqlite() -> Fixture<Port> {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("purchase.db"), &purchase::SCHEMA, &Options::default()).unwrap();
    Fixture::keeping(Arc::new(purchase::SqliteStore::new(db)), folder)
}

async fn postgres() -> Fixture<Port> {
    let options = PgOptions::new(testkit::postgres::database());
    let pg = Pg::connect(&options, &purchase::PG_SCHEMA).await.unwrap();
    Fixture::new(Arc::new(purchase::PgStore::new(pg)))
}

testkit::store_tests!(sqlite, postgres;
    a_purchase_is_placed_and_read_back_by_its_customer_only,
    a_key_stands_for_one_purchase_of_one_customer,
    many_at_once_are_each_answered,
    one_key_at_once_makes_one_purchase,
    one_impossible_purchase_fails_no_neighbour,
    events_are_applied_once_and_in_order,
    what_does_not_follow_is_a_gap,
    a_purchase_ends_once,
    batches_know_what_there_is_and_what_not,
    replicas_that_apply_the_same_events_agree,
    purchases_are_paged_newest_first,
    changes_are_told_in_their_order,
    a_cancel_is_noted_until_it_is_too_late,
    what_is_outstanding_is_found,
    keys_are_forgotten_and_purchases_stay,
    only_what_ended_long_ago_is_promised_and_nothing_is_written_there_again,
);

const T: Millis = 1_700_000_000_000;

fn new(id: u64, key: Option<&str>) -> NewPurchase {
    NewPurchase {
        id,
        customer_id: 2 + id % 2,
        amount: 24_460,
        currency_code: "VND".into(),
        input: Json::of(&format!("input of {id}")).unwrap(),
        key: key.map(str::to_owned),
        fingerprint: [u8::try_from(id % 200).unwrap(); 16],
        now: T + id,
    }
}

async fn place(store: &Port, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        assert_eq!(store.place(new(id, None)).await.unwrap(), Placed::New);
    }
}

fn event(id: u64, seq: u32, step: &str, status: ResultStatus) -> ResultEvent {
    let terminal = step == "purchase";
    let reason = (status == ResultStatus::Failed).then(|| Refusal::new("no_more", "ö\""));
    ResultEvent { saga_id: id, seq, step: step.into(), status, terminal, reason, at: T + u64::from(seq) }
}

/// A whole saga that succeeds.
fn course(id: u64) -> Vec<ResultEvent> {
    vec![
        event(id, 1, "take", ResultStatus::Execute),
        event(id, 2, "take", ResultStatus::Success),
        event(id, 3, "pay", ResultStatus::Success),
        event(id, 4, "purchase", ResultStatus::Success),
    ]
}

fn group(id: u64, seqs: impl IntoIterator<Item = usize>) -> Group {
    Group { id, events: seqs.into_iter().map(|seq| course(id)[seq - 1].clone()).collect() }
}

async fn apply(store: &Port, groups: Vec<Group>, now: Millis) -> Vec<Applied> {
    store.apply(groups.into(), now).await.unwrap()
}

fn known(id: u64, status: Status, fresh: std::ops::Range<usize>, duplicates: usize) -> Applied {
    Applied::Known { customer_id: 2 + id % 2, status, fresh, duplicates, gap: false, ended: status.is_terminal() }
}

async fn get(store: &Port, id: u64) -> purchase::store::Row {
    store.get(2 + id % 2, id).await.unwrap().unwrap()
}

async fn a_purchase_is_placed_and_read_back_by_its_customer_only(store: &Port) {
    place(store, [1]).await;
    let row = get(store, 1).await;
    assert_eq!((row.id, row.customer_id, row.status, row.amount), (1, 3, Status::Pending, 24_460));
    assert_eq!((row.currency_code.as_str(), row.input.as_str()), ("VND", "\"input of 1\""));
    assert_eq!((row.last_seq, row.results.as_str(), row.reason), (0, results::empty().as_str(), None));
    assert_eq!((row.created_at, row.updated_at, row.ended_at, row.cancel_requested_at), (T + 1, T + 1, None, None));
    assert_eq!(store.get(2, 1).await.unwrap(), None);
    assert_eq!(store.get(3, 9).await.unwrap(), None);
}

async fn a_key_stands_for_one_purchase_of_one_customer(store: &Port) {
    assert_eq!(store.place(new(1, Some("key"))).await.unwrap(), Placed::New);
    let keyed = Keyed { id: 1, fingerprint: [1; 16] };
    assert_eq!(store.place(new(3, Some("key"))).await.unwrap(), Placed::Before(keyed));
    assert_eq!(store.get(3, 3).await.unwrap(), None);
    assert_eq!(store.of_key(3, "key".into()).await.unwrap(), Some(keyed));
    assert_eq!(store.of_key(2, "key".into()).await.unwrap(), None);
    assert_eq!(store.of_key(3, "KEY".into()).await.unwrap(), None);
    assert_eq!(store.place(new(2, Some("key"))).await.unwrap(), Placed::New, "another customer's");
    assert_eq!(store.place(new(5, Some("other"))).await.unwrap(), Placed::New);
    place(store, [7, 9]).await;
}

async fn many_at_once_are_each_answered(store: &Port) {
    let mut requests = tokio::task::JoinSet::new();
    for id in 1..=500 {
        let store = Arc::clone(store);
        let key = (id % 3 == 0).then(|| format!("key {id}"));
        requests.spawn(async move { store.place(new(id, key.as_deref())).await.unwrap() });
    }
    assert_eq!(requests.join_all().await, vec![Placed::New; 500]);
    assert_eq!(store.count_in_flight().await.unwrap(), 500);
    for id in [1, 3, 250, 500] {
        assert_eq!(get(store, id).await.created_at, T + id);
    }
}

async fn one_key_at_once_makes_one_purchase(store: &Port) {
    let mut requests = tokio::task::JoinSet::new();
    for n in 1..=60 {
        let store = Arc::clone(store);
        // The same customer, twenty requests a key.
        let key = format!("key {}", n % 3);
        requests.spawn(async move { (n, store.place(new(n * 2, Some(&key))).await.unwrap()) });
    }
    let answers = requests.join_all().await;
    let winners: Vec<_> = answers.iter().filter(|(_, placed)| *placed == Placed::New).collect();
    assert_eq!(winners.len(), 3);
    for (n, placed) in &answers {
        let (winner, _) = winners.iter().find(|(w, _)| w % 3 == n % 3).unwrap();
        if winner != n {
            assert!(matches!(placed, Placed::Before(keyed) if keyed.id == winner * 2));
        }
    }
    assert_eq!(store.count_in_flight().await.unwrap(), 3);
}

async fn one_impossible_purchase_fails_no_neighbour(store: &Port) {
    let mut requests = tokio::task::JoinSet::new();
    for id in 1..=50 {
        let store = Arc::clone(store);
        requests.spawn(async move {
            let amount = if id == 25 { -1 } else { 1 };
            (id, store.place(NewPurchase { amount, ..new(id, None) }).await.is_ok())
        });
    }
    for (id, placed) in requests.join_all().await {
        assert_eq!(placed, id != 25, "{id}");
    }
    assert_eq!(store.count_in_flight().await.unwrap(), 49);
}

async fn events_are_applied_once_and_in_order(store: &Port) {
    place(store, [1]).await;
    assert_eq!(apply(store, vec![group(1, [1, 2])], T + 50).await, [known(1, Status::Running, 0..2, 0)]);
    let row = get(store, 1).await;
    assert_eq!((row.status, row.last_seq, row.updated_at, row.ended_at), (Status::Running, 2, T + 50, None));
    assert_eq!(apply(store, vec![group(1, [1, 2])], T + 60).await, [known(1, Status::Running, 2..2, 2)]);
    assert_eq!(get(store, 1).await, row, "nothing new changes nothing");
    assert_eq!(apply(store, vec![group(1, [2, 3])], T + 20).await, [known(1, Status::Running, 1..2, 1)]);
    let row = get(store, 1).await;
    assert_eq!((row.last_seq, row.updated_at), (3, T + 50), "a clock that was set back does not go back here");
    let steps: Vec<_> =
        results::parse(&row.results).unwrap().iter().map(|e| (e.seq, e.step.to_owned(), e.at)).collect();
    assert_eq!(steps, [(1, "take".into(), T + 1), (2, "take".into(), T + 2), (3, "pay".into(), T + 3)]);
    let failed = Group { id: 1, events: vec![event(1, 4, "pay", ResultStatus::Failed)] };
    assert_eq!(apply(store, vec![failed], T + 70).await, [known(1, Status::Compensating, 0..1, 0)]);
    assert_eq!(get(store, 1).await.reason, Some(Refusal::new("no_more", "ö\"")));
}

async fn what_does_not_follow_is_a_gap(store: &Port) {
    place(store, [1]).await;
    let gap = |status, fresh, duplicates| Applied::Known {
        customer_id: 3,
        status,
        fresh,
        duplicates,
        gap: true,
        ended: false,
    };
    assert_eq!(apply(store, vec![group(1, [2])], T).await, [gap(Status::Pending, 0..0, 0)]);
    assert_eq!(apply(store, vec![group(1, [1, 3])], T).await, [gap(Status::Running, 0..1, 0)]);
    assert_eq!(get(store, 1).await.last_seq, 1);
    assert_eq!(apply(store, vec![group(1, [1, 4])], T).await, [gap(Status::Running, 1..1, 1)]);
}

async fn a_purchase_ends_once(store: &Port) {
    place(store, [1]).await;
    assert_eq!(apply(store, vec![group(1, 1..=4)], T).await, [known(1, Status::Completed, 0..4, 0)]);
    let row = get(store, 1).await;
    assert_eq!((row.status, row.ended_at), (Status::Completed, Some(T + 1)), "not before it began");
    assert_eq!(store.count_in_flight().await.unwrap(), 0);
    let after = Group {
        id: 1,
        events: vec![event(1, 4, "purchase", ResultStatus::Success), event(1, 5, "x", ResultStatus::Failed)],
    };
    let applied = apply(store, vec![after], T + 99).await;
    let expected = Applied::Known {
        customer_id: 3,
        status: Status::Completed,
        fresh: 1..1,
        duplicates: 2,
        gap: false,
        ended: false,
    };
    assert_eq!(applied, [expected]);
    assert_eq!(get(store, 1).await, row);
}

async fn batches_know_what_there_is_and_what_not(store: &Port) {
    place(store, 1..=4).await;
    let nothing = Group { id: 4, events: vec![] };
    let batch = vec![group(3, 1..=4), group(99, [1]), group(1, [1]), nothing, group(2, [2])];
    let applied = apply(store, batch, T + 50).await;
    assert_eq!(applied[0], known(3, Status::Completed, 0..4, 0));
    assert_eq!(applied[1], Applied::Unknown);
    assert_eq!(applied[2], known(1, Status::Running, 0..1, 0));
    assert_eq!(applied[3], known(4, Status::Pending, 0..0, 0));
    assert!(matches!(applied[4], Applied::Known { gap: true, .. }));
    let rows: Vec<_> =
        [get(store, 1).await, get(store, 2).await, get(store, 3).await].map(|r| (r.last_seq, r.ended_at)).into();
    assert_eq!(rows, [(1, None), (0, None), (4, Some(T + 50))]);
    assert_eq!(apply(store, vec![], T).await, []);
    // The same purchase twice: one after the other.
    let twice = apply(store, vec![group(2, [1, 2]), group(2, [2, 3])], T + 60).await;
    assert_eq!(twice, [known(2, Status::Running, 0..2, 0), known(2, Status::Running, 1..2, 1)]);
    assert_eq!(get(store, 2).await.last_seq, 3);
}

async fn replicas_that_apply_the_same_events_agree(store: &Port) {
    place(store, 1..=40).await;
    let mut replicas = tokio::task::JoinSet::new();
    for replica in 0..4 {
        let store = Arc::clone(store);
        replicas.spawn(async move {
            let mut ended = 0;
            for last in 1..=4 {
                let mut batch: Vec<Group> = (1..=40).map(|id| group(id, 1..=last)).collect();
                if replica % 2 == 1 {
                    batch.reverse();
                }
                let applied = store.apply(batch.into(), T + 50).await.unwrap();
                ended += applied.iter().filter(|a| matches!(a, Applied::Known { ended: true, .. })).count();
            }
            ended
        });
    }
    assert_eq!(replicas.join_all().await.into_iter().sum::<usize>(), 40, "each ends once");
    for id in 1..=40 {
        let row = get(store, id).await;
        assert_eq!((row.status, row.last_seq), (Status::Completed, 4));
        assert_eq!(results::parse(&row.results).unwrap().len(), 4);
    }
}

async fn purchases_are_paged_newest_first(store: &Port) {
    place(store, 1..=10).await;
    let ids = async |before, limit| {
        let rows = store.page(2, before, limit).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(i64::MAX as u64, 3).await, [10, 8, 6]);
    assert_eq!(ids(6, 3).await, [4, 2]);
    assert_eq!(store.page(99, 6, 3).await.unwrap(), []);
}

async fn changes_are_told_in_their_order(store: &Port) {
    place(store, 1..=10).await;
    apply(store, vec![group(4, [1])], T + 70).await;
    apply(store, vec![group(8, [1])], T + 60).await;
    assert_eq!(store.changed(2, T + 6, 100).await.unwrap(), [(T + 6, 6), (T + 10, 10), (T + 60, 8), (T + 70, 4)]);
    assert_eq!(store.changed(2, 0, 2).await.unwrap(), [(T + 10, 10), (T + 60, 8)], "of the newest two");
    assert_eq!(store.changed(2, T + 71, 100).await.unwrap(), []);
}

async fn a_cancel_is_noted_until_it_is_too_late(store: &Port) {
    place(store, 1..=4).await;
    let cancel = async |id: u64, reason: &str, now| {
        store.cancel(2 + id % 2, id, reason.into(), Some("pay".into()), now).await.unwrap()
    };
    apply(store, vec![group(1, [1, 2]), group(2, 1..=3), group(3, 1..=4)], T + 50).await;
    let Cancelled::Accepted(row) = cancel(1, "too dear", T + 60).await else { panic!("it can be cancelled") };
    assert_eq!((row.cancel_requested_at, row.updated_at, row.status), (Some(T + 60), T + 60, Status::Running));
    assert_eq!(*row, get(store, 1).await);
    let Cancelled::Accepted(again) = cancel(1, "again", T + 70).await else { panic!("again") };
    assert_eq!(again, row, "the first one counts");
    assert_eq!(cancel(2, "r", T + 60).await, Cancelled::TooLate(Status::Running), "the pivot is done");
    assert_eq!(cancel(3, "r", T + 60).await, Cancelled::TooLate(Status::Completed));
    assert_eq!(cancel(9, "r", T + 60).await, Cancelled::NotFound);
    assert_eq!(store.cancel(2, 1, "r".into(), None, T).await.unwrap(), Cancelled::NotFound, "somebody else's");
    let Cancelled::Accepted(_) = store.cancel(2, 2, "r".into(), None, T + 60).await.unwrap() else {
        panic!("no pivot")
    };
    let outstanding = store.outstanding(vec![1]).await.unwrap();
    assert_eq!(outstanding[0].cancel.as_deref(), Some("too dear"));
}

async fn what_is_outstanding_is_found(store: &Port) {
    place(store, 1..=6).await;
    apply(store, vec![group(1, [1]), group(2, 1..=4)], T + 50).await;
    assert_eq!(store.count_in_flight().await.unwrap(), 5);
    let idle = async |after, since, now, unseen, limit| {
        let rows = store.idle(Idle { after, since, now, unseen, limit }).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let now = T + 100;
    assert_eq!(idle(0, now, now, false, 100).await, [1, 3, 4, 5, 6]);
    assert_eq!(idle(0, now, now, true, 100).await, [3, 4, 5, 6]);
    assert_eq!(idle(3, now, now, false, 2).await, [4, 5]);
    assert_eq!(idle(0, T + 4, now, false, 100).await, [3, 4]);
    assert_eq!(idle(0, 0, T - 60_000 + 4, false, 100).await, [1, 5, 6], "the clock was set back");
    let mut found = store.outstanding(vec![5, 2, 99, 1]).await.unwrap();
    found.sort_by_key(|row| row.id);
    assert_eq!(found.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 5]);
    let row = &found[1];
    assert_eq!((row.customer_id, row.status, row.updated_at, &row.cancel), (3, Status::Pending, T + 5, &None));
    assert_eq!(row.input, Json::of("input of 5").unwrap());
    assert_eq!(store.outstanding(vec![]).await.unwrap(), []);
}

async fn keys_are_forgotten_and_purchases_stay(store: &Port) {
    for id in 1..=10 {
        store.place(new(id, Some(&format!("key {id}")))).await.unwrap();
    }
    let has = async |id: u64| store.of_key(2 + id % 2, format!("key {id}")).await.unwrap().is_some();
    assert!(store.forget_keys(T + 8, 4).await.unwrap(), "there are more");
    assert!(!has(4).await && has(5).await);
    assert!(!store.forget_keys(T + 8, 4).await.unwrap());
    assert!(!has(7).await && has(8).await);
    assert!(!store.forget_keys(T + 8, 4).await.unwrap());
    assert_eq!(get(store, 1).await.amount, 24_460);
    assert_eq!(store.place(new(11, Some("key 1"))).await.unwrap(), Placed::New);
}

async fn only_what_ended_long_ago_is_promised_and_nothing_is_written_there_again(store: &Port) {
    let promise = async |before: Millis| {
        let Promised { up_to, more } = store.promise(before, 2).await.unwrap();
        (up_to, more)
    };
    assert_eq!((promise(T).await, store.lowest_in_flight().await.unwrap()), ((0, false), None));
    place(store, [10, 11, 12, 13, 14]).await;
    let end = async |id: u64, at: Millis| apply(store, vec![group(id, 1..=4)], at).await;
    for id in [10, 11, 12, 14] {
        end(id, T + 100).await;
    }
    assert_eq!(store.lowest_in_flight().await.unwrap(), Some(13));
    assert_eq!(promise(T + 100).await, (0, false), "not long enough ago");
    assert_eq!(promise(T + 101).await, (11, true));
    assert_eq!(promise(T + 101).await, (12, false), "13 has not ended");
    assert_eq!(promise(T + 50).await, (12, false), "a promise stays");
    end(13, T + 200).await;
    assert_eq!(promise(T + 201).await, (14, true));
    assert_eq!(promise(T + 201).await, (14, false));
    for id in [5, 9] {
        assert!(store.place(new(id, None)).await.is_err(), "{id} would never be started");
    }
    assert_eq!(store.place(new(15, None)).await.unwrap(), Placed::New);
    assert_eq!(get(store, 10).await.amount, 24_460);
}

/// What `saga check` reads is the same on both.
#[tokio::test]
async fn the_audits_agree() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.db");
    let db = Db::open(&file, &purchase::SCHEMA, &Options::default()).unwrap();
    let pg = Pg::connect(&PgOptions::new(testkit::postgres::database()), &purchase::PG_SCHEMA).await.unwrap();
    let stores: [Port; 2] = [Arc::new(purchase::SqliteStore::new(db)), Arc::new(purchase::PgStore::new(pg.clone()))];
    for store in &stores {
        for id in 1..=1100 {
            let input = PurchaseInput {
                purchase_id: id,
                customer_id: 2,
                items: vec![PurchaseItem { product_id: 5, quantity: 1, unit_price: 7 }],
                currency_code: "VND".into(),
                amount: 7,
            };
            let key = (id % 2 == 0).then(|| format!("key {id}"));
            let input = Json::of(&input).unwrap();
            store.place(NewPurchase { input, ..new(id, key.as_deref()) }).await.unwrap();
        }
        apply(store, vec![group(1, 1..=4), group(2, [1, 2])], T + 50).await;
    }
    let conn = saga_adapters::sqlite::open_read_only(&file, &purchase::SCHEMA).unwrap();
    let at = pg.snapshot().await.unwrap();
    // Later than this moment.
    apply(&stores[1], vec![group(3, 1..=4)], T + 50).await;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    purchase::audit::read(&conn, &mut |row| one.push(row)).unwrap();
    purchase::audit::read_pg(&at, &mut |row| two.push(row)).await.unwrap();
    assert_eq!(one.len(), 1100);
    assert_eq!(one, two);
}
