//! The SQLite adapters pass the ports' suites.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use saga_adapters::inproc::InProcBus;
use saga_adapters::sqlite::dead_letters::{self, SqliteDeadLetters};
use saga_adapters::sqlite::saga_store::{self, SqliteSagaStore};
use saga_adapters::sqlite::{Db, Options, Schema};
use saga_core::Name;
use testkit::conformance::Fixture;

fn open(schema: &Schema) -> (Db, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Db::open(&folder.path().join("test.db"), schema, &Options::default()).unwrap(), folder)
}

mod dead_letters_on_sqlite {
    use testkit::conformance::dead_letters::DeadLettersUnderTest;

    use super::*;

    async fn make() -> Fixture<DeadLettersUnderTest> {
        let (db, folder) = open(&dead_letters::SCHEMA);
        let letters = Arc::new(SqliteDeadLetters::new(db));
        let topics: [Name; 2] = ["one".into(), "two".into()];
        let bus = Arc::new(InProcBus::new(topics.clone(), 1000, letters.clone()));
        Fixture::keeping(DeadLettersUnderTest { bus, letters, topics }, folder)
    }

    testkit::dead_letters_conformance!(make);
}

mod audit_log_on_sqlite {
    use saga_adapters::sqlite::audit_log::SqliteAuditLog;
    use saga_runtime::audit::AuditLog;

    use super::*;

    async fn make() -> Fixture<Arc<dyn AuditLog>> {
        let (db, folder) = open(&saga_store::SCHEMA);
        Fixture::keeping(Arc::new(SqliteAuditLog::new(db)), folder)
    }

    testkit::audit_log_conformance!(make);
}

mod saga_store_on_sqlite {
    use saga_adapters::sqlite::open_read_only;
    use saga_core::{Event, Json, SagaKey, Status};
    use saga_runtime::store::{SagaRow, SagaStore, Transition};

    use super::*;

    async fn make() -> Fixture<Arc<dyn SagaStore>> {
        let (db, folder) = open(&saga_store::SCHEMA);
        Fixture::keeping(Arc::new(SqliteSagaStore::new(db)), folder)
    }

    testkit::saga_store_conformance!(make);

    fn start(id: u64) -> Transition {
        let events =
            vec![Event::Started { definition_version: 1, input: Json::null(), deadline: None, trace: None, at: 1 }];
        let key = SagaKey::new("purchase", id);
        let (status, awaiting) = (Status::Running, String::new());
        let row = SagaRow {
            key,
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

    #[tokio::test]
    async fn the_audit_shows_every_saga_also_the_impossible_ones() {
        let (db, _folder) = open(&saga_store::SCHEMA);
        let store = SqliteSagaStore::new(db.clone());
        let owner = store.claim(0).await.unwrap();
        store.commit(owner, (1..=4).map(start).collect()).await.unwrap();
        db.write(saga_adapters::sqlite::Durability::Durable, |conn| {
            conn.execute_batch(
                "delete from history where saga_id = 2;
                 delete from saga where id = 3;
                 update history set events = '[{\"nonsense\":1}]' where saga_id = 4;",
            )?;
            Ok(())
        })
        .await
        .unwrap();
        let conn = open_read_only(db.path(), &saga_store::SCHEMA).unwrap();
        let mut seen = Vec::new();
        saga_store::audit(&conn, &mut |saga| {
            seen.push((saga.key.id, saga.row.is_some(), saga.history.map(|h| h.len()).ok()));
        })
        .unwrap();
        assert_eq!(seen, [(1, true, Some(1)), (2, true, Some(0)), (3, false, Some(1)), (4, true, None)]);
    }

    #[tokio::test]
    async fn d12_one_unreadable_history_does_not_stop_the_others() {
        let (db, _folder) = open(&saga_store::SCHEMA);
        let store = SqliteSagaStore::new(db.clone());
        let owner = store.claim(0).await.unwrap();
        store.commit(owner, (1..=2).map(start).collect()).await.unwrap();
        db.write(saga_adapters::sqlite::Durability::Durable, |conn| {
            conn.execute("update history set events = 'garbage' where saga_id = 1", [])?;
            Ok(())
        })
        .await
        .unwrap();
        let keys: Vec<SagaKey> = [1, 2].map(|id| SagaKey::new("purchase", id)).into();
        let histories = store.histories(keys.clone()).await.unwrap();
        let replays = |at: usize| saga_core::replay(&keys[at], histories[at].iter().map(Vec::as_slice)).is_ok();
        assert!(!replays(0), "quarantined");
        assert!(replays(1));
    }

    #[tokio::test]
    async fn impossible_rows_are_refused_by_the_database() {
        let (db, _folder) = open(&saga_store::SCHEMA);
        for change in [
            "update saga set status = 'HALF_DONE', open = 1",
            "update saga set status = 'COMPLETED'",
            "update saga set version = 0",
            "update saga set updated_at = 'yesterday'",
        ] {
            let store = SqliteSagaStore::new(db.clone());
            let owner = store.claim(0).await.unwrap();
            store.commit(owner, vec![start(1)]).await.unwrap();
            let result = db
                .write(saga_adapters::sqlite::Durability::Durable, move |conn| {
                    conn.execute(change, [])?;
                    Ok(())
                })
                .await;
            assert!(matches!(result, Err(saga_runtime::StoreError::Fault(_))), "{change}: {result:?}");
        }
    }
}
