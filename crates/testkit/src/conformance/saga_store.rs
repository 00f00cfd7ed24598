//! The orchestrator's store: compare-and-set, fences, histories, listings.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use std::sync::Arc;

use saga_core::{Event, Json, SagaKey, Status};
use saga_runtime::store::{CommitError, Owner, SagaFilter, SagaRow, SagaStore, Transition, Written};

type Store = Arc<dyn SagaStore>;

/// Makes a test of every case.
#[macro_export]
macro_rules! saga_store_conformance {
    ($make:expr) => {
        $crate::conformance_tests!(saga_store, $make;
            a_saga_is_written_and_read_back,
            transitions_of_one_saga_may_follow_each_other_in_a_batch,
            a_stale_transition_changes_nothing_and_stops_no_neighbour,
            a_saga_starts_once,
            s08_an_older_epoch_cannot_write,
            partitions_have_epochs_of_their_own,
            sagas_of_two_definitions_with_one_id_never_meet,
            histories_come_in_the_order_asked_for,
            what_is_in_flight_is_paged_and_leaves_when_it_ends,
            listings_filter,
            listings_page_newest_first_without_gap_or_repetition,
        );
    };
}

fn key(id: u64) -> SagaKey {
    SagaKey::new("purchase", id)
}

fn start(key: SagaKey) -> Transition {
    let started = Event::Started {
        definition_version: 1,
        input: Json::of(&key.id).unwrap(),
        deadline: None,
        trace: None,
        at: 1000,
    };
    let step = Event::StepStarted { step: "take".into(), due: 9000, at: 1000 };
    let row = SagaRow {
        key,
        definition_version: 1,
        version: 1,
        status: Status::Running,
        awaiting: "take.do".to_owned(),
        wake_at: Some(9000),
        started_at: 1000,
        updated_at: 1000,
    };
    Transition { row, events: vec![started, step] }
}

/// The transition after version `from`.
fn step(key: SagaKey, from: u64, status: Status, awaiting: &str) -> Transition {
    let at = 1000 + from;
    let mut transition = start(key);
    transition.row.version = from + 1;
    transition.row.status = status;
    transition.row.awaiting = awaiting.to_owned();
    transition.row.wake_at = (!status.is_terminal()).then_some(9000 + from);
    transition.row.updated_at = at;
    transition.events = vec![Event::StepCompleted { step: "take".into(), output: Json::of("ö\"").unwrap(), at }];
    transition
}

async fn write(store: &Store, owner: Owner, batch: Vec<Transition>) -> Vec<Written> {
    store.commit(owner, batch).await.unwrap()
}

async fn all(store: &Store) -> Vec<SagaRow> {
    store.list(SagaFilter { limit: 1000, ..SagaFilter::default() }).await.unwrap()
}

async fn ids(store: &Store, filter: SagaFilter) -> Vec<u64> {
    let rows = store.list(SagaFilter { limit: 1000, ..filter }).await.unwrap();
    rows.into_iter().map(|row| row.key.id).collect()
}

/// Row and history, to the last field.
pub async fn a_saga_is_written_and_read_back(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    let (first, second) = (start(key(7)), step(key(7), 1, Status::Compensating, "take.undo"));
    assert_eq!(store.commit(owner, vec![first.clone()]).await.unwrap(), [Written::Yes]);
    assert_eq!(all(store).await, [first.row]);
    assert_eq!(write(store, owner, vec![second.clone()]).await, [Written::Yes]);
    assert_eq!(all(store).await, [second.row]);
    let histories = store.histories(vec![key(7)]).await.unwrap();
    assert_eq!(histories, [vec![first.events, second.events]]);
}

/// In order.
pub async fn transitions_of_one_saga_may_follow_each_other_in_a_batch(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    let batch = vec![start(key(7)), start(key(8)), step(key(7), 1, Status::Running, "pay.do")];
    assert_eq!(write(store, owner, batch).await, [Written::Yes; 3]);
    assert_eq!(store.histories(vec![key(7)]).await.unwrap()[0].len(), 2);
    assert_eq!(all(store).await[1].version, 2);
}

/// Compare-and-set, saga by saga.
pub async fn a_stale_transition_changes_nothing_and_stops_no_neighbour(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    write(store, owner, vec![start(key(7)), start(key(8)), step(key(7), 1, Status::Running, "pay.do")]).await;
    let before = (all(store).await, store.histories(vec![key(7)]).await.unwrap());
    for (from, why) in [(1, "it is at 2"), (3, "it is not there yet"), (7, "far off")] {
        let batch = vec![step(key(7), from, Status::Completed, "")];
        assert_eq!(write(store, owner, batch).await, [Written::Conflict], "{why}");
    }
    assert_eq!(
        write(store, owner, vec![step(key(9), 1, Status::Running, "")]).await,
        [Written::Conflict],
        "no such saga"
    );
    assert_eq!((all(store).await, store.histories(vec![key(7)]).await.unwrap()), before);
    let batch = vec![step(key(7), 1, Status::Running, ""), step(key(8), 1, Status::Running, "")];
    assert_eq!(write(store, owner, batch).await, [Written::Conflict, Written::Yes]);
}

/// Its starter may ask twice.
pub async fn a_saga_starts_once(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    assert_eq!(write(store, owner, vec![start(key(7)), start(key(7))]).await, [Written::Yes, Written::Conflict]);
    assert_eq!(write(store, owner, vec![start(key(7))]).await, [Written::Conflict]);
    assert_eq!(store.histories(vec![key(7)]).await.unwrap()[0].len(), 1);
}

/// It slept while another took over.
pub async fn s08_an_older_epoch_cannot_write(store: &Store) {
    let old = store.claim(0).await.unwrap();
    assert_eq!(write(store, old, vec![start(key(7))]).await, [Written::Yes]);
    let new = store.claim(0).await.unwrap();
    assert!(new.epoch > old.epoch);
    let refused = store.commit(old, vec![step(key(7), 1, Status::Running, ""), start(key(8))]).await;
    assert_eq!(refused, Err(CommitError::Fenced(old)));
    assert_eq!(all(store).await.len(), 1);
    assert_eq!(write(store, new, vec![step(key(7), 1, Status::Running, "")]).await, [Written::Yes]);
    let invented = Owner { partition: 0, epoch: new.epoch + 1 };
    assert_eq!(store.commit(invented, vec![start(key(9))]).await, Err(CommitError::Fenced(invented)));
}

/// And sagas.
pub async fn partitions_have_epochs_of_their_own(store: &Store) {
    let (zero, one) = (store.claim(0).await.unwrap(), store.claim(1).await.unwrap());
    store.claim(1).await.unwrap();
    assert_eq!(write(store, zero, vec![start(key(7))]).await, [Written::Yes]);
    assert_eq!(store.commit(one, vec![start(key(8))]).await, Err(CommitError::Fenced(one)));
    assert_eq!(store.in_flight(0, None, 10).await.unwrap().len(), 1);
    assert_eq!(store.in_flight(1, None, 10).await.unwrap(), []);
}

/// A saga's name is both.
pub async fn sagas_of_two_definitions_with_one_id_never_meet(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    let other = SagaKey::new("refund", 7);
    let batch = vec![start(key(7)), start(other.clone()), step(key(7), 1, Status::Completed, "")];
    assert_eq!(write(store, owner, batch).await, [Written::Yes; 3]);
    let lengths: Vec<_> = store.histories(vec![other, key(7)]).await.unwrap().iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, 2]);
}

/// Empty where there is none.
pub async fn histories_come_in_the_order_asked_for(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    write(store, owner, (1..=5).map(|id| start(key(id))).collect()).await;
    let histories = store.histories([5, 99, 1].map(key).into()).await.unwrap();
    assert_eq!(histories, [vec![start(key(5)).events], vec![], vec![start(key(1)).events]]);
    assert_eq!(store.histories(vec![]).await.unwrap(), Vec::<Vec<Vec<Event>>>::new());
}

/// Terminal ones are not; stuck ones are.
pub async fn what_is_in_flight_is_paged_and_leaves_when_it_ends(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    write(store, owner, (1..=25).map(|id| start(key(id))).collect()).await;
    write(store, owner, (1..=10).map(|id| step(key(id), 1, Status::Completed, "")).collect()).await;
    write(store, owner, vec![step(key(11), 1, Status::Stuck, "pay.do")]).await;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.in_flight(0, after.clone(), 4).await.unwrap();
        assert!(page.len() <= 4);
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        found.extend(page.into_iter().map(|row| row.key.id));
    }
    found.sort_unstable();
    assert_eq!(found, (11..=25).collect::<Vec<_>>());
}

/// All conditions hold together.
pub async fn listings_filter(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    write(store, owner, (1..=6).map(|id| start(key(id))).chain([start(SagaKey::new("refund", 7))]).collect()).await;
    let stuck = step(key(1), 1, Status::CompensationStuck, "take.undo");
    write(
        store,
        owner,
        vec![stuck, step(key(2), 1, Status::Completed, ""), step(key(3), 1, Status::Running, "takeover.do")],
    )
    .await;
    let none = SagaFilter::default;
    assert_eq!(ids(store, none()).await, [7, 6, 5, 4, 3, 2, 1]);
    let running = SagaFilter { statuses: vec![Status::Running], ..none() };
    assert_eq!(ids(store, running.clone()).await, [7, 6, 5, 4, 3]);
    let two = vec![Status::CompensationStuck, Status::Completed];
    assert_eq!(ids(store, SagaFilter { statuses: two, ..none() }).await, [2, 1]);
    assert_eq!(ids(store, SagaFilter { definition: Some("refund".into()), ..running.clone() }).await, [7]);
    assert_eq!(ids(store, SagaFilter { step: Some("take".into()), ..none() }).await, [7, 6, 5, 4, 1]);
    assert_eq!(ids(store, SagaFilter { updated_before: Some(1001), ..none() }).await, [7, 6, 5, 4]);
    assert_eq!(ids(store, SagaFilter { id: Some(3), ..none() }).await, [3]);
    assert_eq!(ids(store, SagaFilter { id: Some(2), ..running }).await, [0_u64; 0]);
    assert_eq!(ids(store, SagaFilter { definition: Some("' or 1=1 --".into()), ..none() }).await, [0_u64; 0]);
}

/// By key, so that new sagas shift nothing.
pub async fn listings_page_newest_first_without_gap_or_repetition(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    let both = (1..=12).flat_map(|id| [start(key(id)), start(SagaKey::new("refund", id))]);
    write(store, owner, both.collect()).await;
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = store.list(SagaFilter { before, limit: 5, ..SagaFilter::default() }).await.unwrap();
        assert!(page.len() <= 5);
        let Some(last) = page.last() else { break };
        before = Some(last.key.clone());
        found.extend(page.into_iter().map(|row| row.key));
        write(store, owner, vec![start(key(1000 + found.len() as u64))]).await;
    }
    assert!(found.is_sorted_by(|a, b| a.id >= b.id));
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 24);
}
