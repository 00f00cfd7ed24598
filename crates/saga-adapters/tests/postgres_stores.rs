//! The PostgreSQL adapters pass the ports' suites.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use saga_adapters::postgres::saga_store::{self, PgSagaStore};
use saga_adapters::postgres::{Options, Pg, Query, Schema};
use saga_core::{Event, Json, SagaKey, Status};
use saga_runtime::StoreError;
use saga_runtime::store::{CommitError, SagaRow, SagaStore, Transition, Written};
use testkit::conformance::Fixture;

async fn open(schema: &Schema) -> (Pg, String) {
    let address = testkit::postgres::database();
    (Pg::connect(&Options::new(address.as_str()), schema).await.unwrap(), address)
}

async fn make() -> Fixture<Arc<dyn SagaStore>> {
    let (pg, _) = open(&saga_store::SCHEMA).await;
    Fixture::new(Arc::new(PgSagaStore::new(pg)))
}

mod saga_store_on_postgres {
    use super::*;

    testkit::saga_store_conformance!(make);
}

mod audit_log_on_postgres {
    use saga_adapters::postgres::audit_log::PgAuditLog;
    use saga_runtime::audit::AuditLog;

    use super::*;

    async fn make() -> Fixture<Arc<dyn AuditLog>> {
        let (pg, _) = open(&saga_store::SCHEMA).await;
        Fixture::new(Arc::new(PgAuditLog::new(pg)))
    }

    testkit::audit_log_conformance!(make);
}

mod saga_store_on_postgres_without_lazy_commits {
    use super::*;

    async fn make() -> Fixture<Arc<dyn SagaStore>> {
        let options = Options { lazy_commits: false, ..Options::new(testkit::postgres::database()) };
        Fixture::new(Arc::new(PgSagaStore::new(Pg::connect(&options, &saga_store::SCHEMA).await.unwrap())))
    }

    testkit::saga_store_conformance!(make);
}

fn start(id: u64) -> Transition {
    let events =
        vec![Event::Started { definition_version: 1, input: Json::null(), deadline: None, trace: None, at: 1 }];
    let (status, awaiting) = (Status::Running, String::new());
    let row = SagaRow {
        key: SagaKey::new("purchase", id),
        definition_version: 1,
        version: 1,
        status,
        awaiting,
        wake_at: None,
        started_at: 1,
        updated_at: 1,
    };
    Transition { row, events }
}

fn then(id: u64, version: u64) -> Transition {
    let mut next = start(id);
    next.row.version = version;
    next.events = vec![Event::StepStarted { step: "take".into(), due: 9, at: version }];
    next
}

#[tokio::test]
async fn the_audit_shows_every_saga_also_the_impossible_ones() {
    let (pg, _) = open(&saga_store::SCHEMA).await;
    let store = PgSagaStore::new(pg.clone());
    let owner = store.claim(0).await.unwrap();
    store.commit(owner, (1..=4).map(start).collect()).await.unwrap();
    for change in [
        "delete from history where saga_id = 2",
        "delete from saga where id = 3",
        "update history set events = '[{\"nonsense\":1}]' where saga_id = 4",
    ] {
        pg.run(Query::new(change)).await.unwrap();
    }
    let mut seen = Vec::new();
    saga_store::audit(&pg.snapshot().await.unwrap(), &mut |saga| {
        seen.push((saga.key.id, saga.row.is_some(), saga.history.map(|h| h.len()).ok()));
    })
    .await
    .unwrap();
    assert_eq!(seen, [(1, true, Some(1)), (2, true, Some(0)), (3, false, Some(1)), (4, true, None)]);
    let histories = store.histories([1, 4].map(|id| SagaKey::new("purchase", id)).into()).await.unwrap();
    assert_eq!(histories[0], [start(1).events]);
    assert_eq!(histories[1], [Vec::<Event>::new()], "d12: quarantined, and only this one");
}

#[tokio::test]
async fn the_audit_pages_through_more_than_a_page() {
    let (pg, _) = open(&saga_store::SCHEMA).await;
    let store = PgSagaStore::new(pg.clone());
    let owner = store.claim(0).await.unwrap();
    store.commit(owner, (1..=5_000).map(start).collect()).await.unwrap();
    let batch = (1..=5_000).flat_map(|id| [then(id, 2), then(id, 3)]);
    store.commit(owner, batch.collect()).await.unwrap();
    let mut seen = Vec::new();
    saga_store::audit(&pg.snapshot().await.unwrap(), &mut |saga| seen.push((saga.key.id, saga.history.unwrap().len())))
        .await
        .unwrap();
    assert_eq!(seen, (1..=5_000).map(|id| (id, 3)).collect::<Vec<_>>());
}

#[tokio::test]
async fn impossible_rows_are_refused_by_the_database() {
    let (pg, _) = open(&saga_store::SCHEMA).await;
    let store = PgSagaStore::new(pg.clone());
    let owner = store.claim(0).await.unwrap();
    store.commit(owner, vec![start(1)]).await.unwrap();
    for change in [
        "update saga set status = 'HALF_DONE'",
        "update saga set status = 'COMPLETED'",
        "update saga set version = 0",
        "update saga set id = -1",
        "update owner set epoch = 0",
        "insert into history values (1, 'purchase', 1, '[]')",
    ] {
        let result = pg.run(Query::new(change)).await.map_err(StoreError::from);
        assert!(matches!(result, Err(StoreError::Fault(_))), "{change}: {result:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_waits_for_a_commit_that_is_under_way_and_fences_the_next() {
    let (pg, _) = open(&saga_store::SCHEMA).await;
    let store = PgSagaStore::new(pg.clone());
    let old = store.claim(0).await.unwrap();
    // What a commit holds while it writes.
    let lock = Query::new("select epoch from owner where partition = 0 and epoch = $1 for share").big(old.epoch);
    let (tx, _) = pg.begin(vec![lock]).await.unwrap();
    let mut claiming = tokio::task::JoinSet::new();
    claiming.spawn({
        let store = store.clone();
        async move { store.claim(0).await.unwrap() }
    });
    testkit::conformance::until("the claim waits", || async {
        let waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        !pg.run(Query::new(waiting)).await.unwrap().is_empty()
    })
    .await;
    // A commit that begins now sees the old epoch, waits for the claim behind the lock, and then sees the new one.
    let mut late = tokio::task::JoinSet::new();
    let finished = late.spawn({
        let store = store.clone();
        async move { store.commit(old, vec![start(1)]).await }
    });
    testkit::conformance::until("the commit waits or is done", || async {
        let waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        finished.is_finished() || pg.run(Query::new(waiting)).await.unwrap().len() > 1
    })
    .await;
    tx.commit(vec![]).await.unwrap();
    let new = claiming.join_next().await.unwrap().unwrap();
    assert_eq!(new.epoch, old.epoch + 1);
    match late.join_next().await.unwrap().unwrap() {
        Ok(written) => assert_eq!(written, [Written::Yes], "it came before the claim"),
        Err(error) => assert_eq!(error, CommitError::Fenced(old)),
    }
    let after = store.commit(old, vec![start(2)]).await;
    assert_eq!(after, Err(CommitError::Fenced(old)));
}
