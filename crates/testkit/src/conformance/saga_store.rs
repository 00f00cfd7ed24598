//! The orchestrator's store: compare-and-set, fences, histories, listings.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use std::sync::Arc;

use saga_core::{Event, Json, SagaKey, Status};
use saga_runtime::Watermark;
use saga_runtime::store::{
    Awaited, CommitError, InFlight, Owner, SagaCount, SagaFilter, SagaRow, SagaStore, Transition, Written,
};

type Store = Arc<dyn SagaStore>;

/// Makes a test of every case.
#[macro_export]
macro_rules! saga_store_conformance {
    ($make:expr) => {
        $crate::conformance_tests!(saga_store, $make;
            a_saga_is_written_and_read_back,
            transitions_of_one_saga_may_follow_each_other_in_a_batch,
            a_stale_transition_changes_nothing_and_stops_no_neighbour,
            what_follows_a_stale_transition_is_as_stale,
            a_saga_starts_once,
            s08_an_older_epoch_cannot_write,
            partitions_have_epochs_of_their_own,
            sagas_of_two_definitions_with_one_id_never_meet,
            histories_come_in_the_order_asked_for,
            what_is_in_flight_is_paged_and_leaves_when_it_ends,
            listings_filter,
            any_filters_together_find_what_a_plain_look_finds,
            sagas_are_counted_by_definition_and_state,
            listings_page_newest_first_without_gap_or_repetition,
            what_is_forgotten_is_not_started_again,
            a_watermark_never_falls_and_never_passes_a_saga_in_flight,
            only_what_is_forgotten_and_has_ended_is_removed,
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
    transition.events =
        vec![Event::StepCompleted { step: "take".into(), output: Json::of("ö\"").unwrap(), work: None, at }];
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

/// Two loops decide one saga from the same version; the second has gone on from there in one batch. Its second transition
/// finds the version that it expects, and it is not the one that it goes on from.
pub async fn what_follows_a_stale_transition_is_as_stale(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    let batch = vec![start(key(7)), start(key(8)), step(key(7), 1, Status::Compensating, "take.undo")];
    write(store, owner, batch).await;
    let before = (all(store).await, store.histories(vec![key(7)]).await.unwrap());
    let other = vec![
        step(key(7), 1, Status::Running, "pay.do"),
        step(key(8), 1, Status::Running, "pay.do"),
        step(key(7), 2, Status::Running, "pay.do"),
        step(key(8), 2, Status::Running, "confirm.do"),
        step(key(7), 3, Status::Completed, ""),
    ];
    let [yes, no] = [Written::Yes, Written::Conflict];
    assert_eq!(write(store, owner, other).await, [no, yes, no, yes, no]);
    assert_eq!(all(store).await.iter().find(|row| row.key == key(7)), before.0.iter().find(|row| row.key == key(7)));
    assert_eq!(store.histories(vec![key(7)]).await.unwrap(), before.1);
    // A start that was there before, and what was decided on it.
    let again = vec![start(key(9)), step(key(9), 1, Status::Running, "pay.do")];
    assert_eq!(write(store, owner, vec![start(key(9))]).await, [yes]);
    assert_eq!(write(store, owner, again).await, [no, no]);
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
    assert_eq!(ids(store, SagaFilter { ids: vec![3], ..none() }).await, [3]);
    assert_eq!(ids(store, SagaFilter { ids: vec![2, 99, 1], ..none() }).await, [2, 1]);
    assert_eq!(ids(store, SagaFilter { ids: vec![2], ..running }).await, [0_u64; 0]);
    assert_eq!(ids(store, SagaFilter { definition: Some("' or 1=1 --".into()), ..none() }).await, [0_u64; 0]);
}

/// A saga that started (and, if it has ended, ended) at other moments than the others.
fn at(key: SagaKey, started_at: u64, ended: Option<(Status, u64)>) -> Vec<Transition> {
    let mut first = start(key.clone());
    (first.row.started_at, first.row.updated_at) = (started_at, started_at);
    let last = ended.map(|(status, at)| {
        let mut last = step(key, 1, status, "");
        (last.row.started_at, last.row.updated_at) = (started_at, at);
        last
    });
    [first].into_iter().chain(last).collect()
}

/// Every combination of filters finds what a plain look at every row finds, page by page.
pub async fn any_filters_together_find_what_a_plain_look_finds(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    let mut batch = Vec::new();
    for id in 1..=60_u64 {
        let key = SagaKey::new(["purchase", "refund", "parcel"][id as usize % 3], id);
        let started = 1000 + (id * 37) % 50;
        let ended = match id % 5 {
            0 | 1 => Some((Status::Completed, started + id % 7)),
            2 => Some((Status::Compensated, started + 20)),
            3 => Some((Status::Stuck, started + 3)),
            _ => None,
        };
        batch.extend(at(key, started, ended));
    }
    write(store, owner, batch).await;
    let rows = all(store).await;
    assert_eq!(rows.len(), 60);
    let statuses = [vec![], vec![Status::Compensated], vec![Status::Stuck], vec![Status::Completed, Status::Running]];
    let mut found = 0;
    for statuses in statuses {
        for definition in [None, Some("refund".into())] {
            for (step, ids) in [(None, vec![]), (Some("take".into()), vec![]), (None, vec![3, 5, 7, 8, 12, 30])] {
                for (updated_before, started_from, started_before) in [
                    (None, None, None),
                    (Some(1030), None, None),
                    (None, Some(1010), Some(1040)),
                    (Some(1049), Some(1020), None),
                ] {
                    let filter = SagaFilter {
                        statuses: statuses.clone(),
                        definition: Option::clone(&definition),
                        step: Option::clone(&step),
                        ids: ids.clone(),
                        updated_before,
                        started_from,
                        started_before,
                        ..SagaFilter::default()
                    };
                    let expected: Vec<SagaKey> =
                        rows.iter().filter(|row| filter.admits(row)).map(|row| row.key.clone()).collect();
                    assert_eq!(paged(store, &filter).await, expected, "{filter:?}");
                    found += expected.len();
                }
            }
        }
    }
    assert!(found > 300, "{found}");
}

async fn paged(store: &Store, filter: &SagaFilter) -> Vec<SagaKey> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = store.list(SagaFilter { before, limit: 7, ..filter.clone() }).await.unwrap();
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { return found };
        before = Some((last.started_at, last.key.clone()));
        found.extend(page.into_iter().map(|row| row.key));
    }
}

/// Whatever has ended apart, so that what is in flight can be counted often.
pub async fn sagas_are_counted_by_definition_and_state(store: &Store) {
    assert_eq!(store.count_in_flight().await.unwrap(), []);
    assert_eq!(store.count_ended().await.unwrap(), []);
    let owner = store.claim(0).await.unwrap();
    let refund = |id| SagaKey::new("refund", id);
    let mut batch = vec![start(key(1)), start(key(2)), start(refund(1))];
    batch.push(step(key(2), 1, Status::Stuck, "take.do"));
    batch.extend((3..=6).flat_map(|id| at(key(id), 500, Some((Status::Completed, 600)))));
    batch.extend(at(refund(7), 500, Some((Status::Compensated, 600))));
    batch.extend(at(key(8), 700, None));
    write(store, owner, batch).await;
    let count = |definition: &str, status, count| SagaCount { definition: definition.into(), status, count };
    let open = |definition: &str, status, count, oldest_at| InFlight {
        definition: definition.into(),
        status,
        count,
        oldest_at,
    };
    let expected = [
        open("purchase", Status::Running, 2, 700),
        open("purchase", Status::Stuck, 1, 1000),
        open("refund", Status::Running, 1, 1000),
    ];
    assert_eq!(store.count_in_flight().await.unwrap(), expected);
    let expected = [count("purchase", Status::Completed, 4), count("refund", Status::Compensated, 1)];
    assert_eq!(store.count_ended().await.unwrap(), expected);
    // What is awaited, and since when.
    let awaited = |definition: &str, count, oldest_at| Awaited {
        definition: definition.into(),
        awaiting: "take.do".to_owned(),
        count,
        oldest_at,
    };
    let expected = [awaited("purchase", 2, 700), awaited("refund", 1, 1000)];
    assert_eq!(store.count_awaited().await.unwrap(), expected);
    // Those that started lately, whether they have ended or not.
    let started = |from| async move {
        let mut counts = store.count_started(from).await.unwrap();
        counts.sort_by(|a, b| (&a.definition, a.status.as_str()).cmp(&(&b.definition, b.status.as_str())));
        counts
    };
    let lately = [
        count("purchase", Status::Running, 1),
        count("purchase", Status::Stuck, 1),
        count("refund", Status::Running, 1),
    ];
    assert_eq!(started(1000).await, lately);
    assert_eq!(started(500).await.iter().map(|count| count.count).sum::<u64>(), 9);
    assert_eq!(started(1001).await, []);
}

/// By a place, so that new sagas shift nothing.
pub async fn listings_page_newest_first_without_gap_or_repetition(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    let both = (1..=12).flat_map(|id| [start(key(id)), start(SagaKey::new("refund", id))]);
    write(store, owner, both.collect()).await;
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = store.list(SagaFilter { before, limit: 5, ..SagaFilter::default() }).await.unwrap();
        assert!(page.len() <= 5);
        let Some(last) = page.last() else { break };
        before = Some((last.started_at, last.key.clone()));
        found.extend(page.into_iter().map(|row| row.key));
        write(store, owner, vec![start(key(1000 + found.len() as u64))]).await;
    }
    assert!(found.is_sorted_by(|a, b| a.id >= b.id));
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 24);
}

fn mark(up_to: u64) -> Watermark {
    Watermark { definition: "purchase".into(), up_to }
}

async fn ended(store: &Store, owner: Owner, key: SagaKey) {
    let batch = vec![start(key.clone()), step(key, 1, Status::Completed, "")];
    assert_eq!(write(store, owner, batch).await, [Written::Yes; 2]);
}

/// The condition is the insert's own: no row was needed to know it.
pub async fn what_is_forgotten_is_not_started_again(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    ended(store, owner, key(5)).await;
    assert_eq!(store.raise(mark(7)).await.unwrap(), Some(7));
    let batch = [key(5), key(6), key(7), key(8), SagaKey::new("refund", 6)].map(start).to_vec();
    let expected = [Written::Conflict, Written::Conflict, Written::Conflict, Written::Yes, Written::Yes];
    assert_eq!(write(store, owner, batch).await, expected);
    let histories = store.histories(vec![key(5), key(6), key(8)]).await.unwrap();
    assert_eq!(histories.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0, 1]);
}

/// Whatever was promised: a saga that has not ended is still to be driven, and its participants must listen.
pub async fn a_watermark_never_falls_and_never_passes_a_saga_in_flight(store: &Store) {
    assert_eq!(store.marks().await.unwrap().all(), []);
    let owner = store.claim(0).await.unwrap();
    write(store, owner, vec![start(key(0)), start(SagaKey::new("refund", 3))]).await;
    assert_eq!(store.raise(mark(9)).await.unwrap(), None, "nothing is below the first");
    assert!(!store.marks().await.unwrap().covers(&key(0)));
    write(store, owner, vec![step(key(0), 1, Status::Completed, ""), start(key(5))]).await;
    assert_eq!(store.raise(mark(9)).await.unwrap(), Some(4));
    assert_eq!(store.raise(mark(2)).await.unwrap(), Some(4));
    write(store, owner, vec![step(key(5), 1, Status::Compensated, "")]).await;
    assert_eq!(store.raise(mark(9)).await.unwrap(), Some(9));
    assert_eq!(store.raise(mark(3)).await.unwrap(), Some(9));
    let marks = store.marks().await.unwrap();
    assert_eq!(marks.all(), [mark(9)]);
    assert!(marks.covers(&key(9)) && !marks.covers(&key(10)) && !marks.covers(&SagaKey::new("refund", 3)));
}

/// In bites, lowest first, and only once what is asked for and the watermark both allow it.
pub async fn only_what_is_forgotten_and_has_ended_is_removed(store: &Store) {
    let owner = store.claim(0).await.unwrap();
    for id in [1, 2, 3, 4, 5, 6] {
        ended(store, owner, key(id)).await;
    }
    ended(store, owner, SagaKey::new("refund", 2)).await;
    assert_eq!(store.remove(mark(6), 2).await.unwrap().count, 0, "nothing is forgotten yet");
    assert_eq!(store.raise(mark(5)).await.unwrap(), Some(5));
    assert_eq!(gone(store, 3).await, 3);
    let there: Vec<SagaKey> = all(store).await.into_iter().map(|row| row.key).collect();
    let mut expected = vec![key(4), key(5), key(6), SagaKey::new("refund", 2)];
    expected.sort();
    assert_eq!(there.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(), expected);
    let histories = store.histories(vec![key(1), key(3), key(4), SagaKey::new("refund", 2)]).await.unwrap();
    assert_eq!(histories.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 2, 2]);
    assert_eq!(gone(store, 9).await, 2, "not above the watermark");
    assert_eq!(gone(store, 9).await, 0);
    let again = [key(1), key(5), key(6)].map(start).to_vec();
    assert_eq!(write(store, owner, again).await, [Written::Conflict; 3]);
    let histories = store.histories(vec![key(1), key(5), key(6)]).await.unwrap();
    assert_eq!(histories.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 2]);
}

async fn gone(store: &Store, up_to: u64) -> u64 {
    let mut count = 0;
    for _ in 0..20 {
        let removed = store.remove(mark(up_to), 2).await.unwrap();
        count += removed.count;
        if !removed.more {
            return count;
        }
    }
    panic!("there is always more");
}
