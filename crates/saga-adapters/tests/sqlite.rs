//! What the SQLite handle promises: groups, isolation between jobs, durability, room on the disk.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::path::Path;
use std::sync::mpsc;

use saga_adapters::sqlite::rusqlite::Connection;
use saga_adapters::sqlite::{Db, Durability, Options, Schema, SqlError};
use saga_runtime::StoreError;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use Durability::{Derivable, Durable};

const SCHEMA: Schema = Schema {
    name: "test",
    migrations: &[("V1__init", "create table entry (id integer primary key, text text not null default '') strict;")],
};

fn open(folder: &TempDir, options: &Options) -> Db {
    Db::open(&folder.path().join("test.db"), &SCHEMA, options).unwrap()
}

fn insert(conn: &Connection, id: i64) -> Result<i64, SqlError> {
    conn.prepare_cached("insert into entry (id) values (?1)")?.execute([id])?;
    Ok(id)
}

fn ids(conn: &Connection) -> Result<Vec<i64>, SqlError> {
    Ok(conn.prepare("select id from entry order by id")?.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?)
}

type Work = Box<dyn FnOnce(&Connection) -> Result<i64, SqlError> + Send>;

/// Runs these as one group: a first job holds the writer until all are queued. Answers in order.
async fn group(db: &Db, works: Vec<(Durability, Work)>) -> Vec<Result<i64, StoreError>> {
    let (go, wait) = mpsc::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel();
    let held = db.clone();
    let first = tokio::spawn(async move {
        let hold = move |_: &Connection| {
            began.send(()).unwrap();
            wait.recv().map_err(SqlError::fault)
        };
        held.write(Derivable, hold).await
    });
    begun.await.unwrap();
    let mut handles: Vec<JoinHandle<_>> = Vec::new();
    for (durability, work) in works {
        let db = db.clone();
        let (queued, is_queued) = tokio::sync::oneshot::channel();
        handles.push(tokio::spawn(async move {
            let writing = db.write(durability, work);
            tokio::pin!(writing);
            // The first poll queues it: there is room.
            let early = futures_util::poll!(writing.as_mut());
            queued.send(()).unwrap();
            match early {
                std::task::Poll::Ready(result) => result,
                std::task::Poll::Pending => writing.await,
            }
        }));
        is_queued.await.unwrap();
    }
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    let mut results = Vec::new();
    for handle in handles {
        results.push(handle.await.unwrap());
    }
    results
}

fn job(work: impl FnOnce(&Connection) -> Result<i64, SqlError> + Send + 'static) -> (Durability, Work) {
    (Durable, Box::new(work))
}

#[tokio::test]
async fn what_was_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    assert_eq!(db.write(Durable, |conn| insert(conn, 7)).await, Ok(7));
    assert_eq!(db.read(ids).await, Ok(vec![7]));
}

#[tokio::test]
async fn jobs_that_wait_are_committed_together() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    let path = folder.path().join("test.db");
    let works = (1..=50).map(|id| {
        let path = path.clone();
        job(move |conn| {
            insert(conn, id)?;
            // Another connection sees what is committed: nothing of this group, however far it got.
            Ok(Connection::open(path)?.query_row("select count(*) from entry", [], |row| row.get(0))?)
        })
    });
    assert_eq!(group(&db, works.collect()).await, vec![Ok(0); 50]);
    assert_eq!(db.read(ids).await.unwrap().len(), 50);
}

#[tokio::test]
async fn a_failing_job_takes_nothing_of_its_neighbours_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    let results = group(
        &db,
        vec![
            job(|conn| insert(conn, 1)),
            job(|conn| {
                insert(conn, 2)?;
                insert(conn, 1)
            }),
            job(|conn| {
                insert(conn, 3)?;
                Err(SqlError::Transient("not now".into()))
            }),
            job(|conn| {
                insert(conn, 4)?;
                panic!("at the disco")
            }),
            job(|conn| insert(conn, 5)),
        ],
    )
    .await;
    assert_eq!(results[0], Ok(1));
    assert!(matches!(&results[1], Err(StoreError::Fault(why)) if why.contains("UNIQUE")), "{:?}", results[1]);
    assert_eq!(results[2], Err(StoreError::Transient("not now".into())));
    assert_eq!(results[3], Err(StoreError::Fault("panic: at the disco".into())));
    assert_eq!(results[4], Ok(5));
    assert_eq!(db.read(ids).await, Ok(vec![1, 5]));
}

#[tokio::test]
async fn a_job_that_fails_alone_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    let failed = db.write(Durable, |conn| insert(conn, 1).and(Err::<(), _>(SqlError::fault("no")))).await;
    assert_eq!(failed, Err(StoreError::Fault("no".into())));
    let panicked = db.write(Durable, |conn| insert(conn, 2).map(|_| assert!(conn.is_autocommit()))).await;
    assert!(matches!(panicked, Err(StoreError::Fault(_))));
    assert_eq!(db.write(Durable, |conn| insert(conn, 3)).await, Ok(3));
    assert_eq!(db.read(ids).await, Ok(vec![3]));
}

#[tokio::test]
async fn a_job_that_ends_the_transaction_is_a_fault_and_the_writer_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    let rude = db.write(Durable, |conn| Ok(conn.execute_batch("rollback")?)).await;
    assert!(matches!(rude, Err(StoreError::Fault(_))), "{rude:?}");
    assert_eq!(db.write(Durable, |conn| insert(conn, 1)).await, Ok(1));
}

#[tokio::test]
async fn a_panicking_or_writing_reader_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options { readers: 1, ..Options::default() });
    let panicked = db.read(|_| -> Result<(), SqlError> { panic!("no") }).await;
    assert_eq!(panicked, Err(StoreError::Fault("panic: no".into())));
    assert!(matches!(db.read(|conn| insert(conn, 1)).await, Err(StoreError::Fault(_))));
    assert_eq!(db.read(ids).await, Ok(vec![]));
}

#[tokio::test]
async fn a_read_sees_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    let (looked, once) = tokio::sync::oneshot::channel();
    let (go, wait) = mpsc::channel::<()>();
    let reading = tokio::spawn({
        let db = db.clone();
        async move {
            db.read(move |conn| {
                let before = ids(conn)?;
                looked.send(()).unwrap();
                wait.recv().map_err(SqlError::fault)?;
                Ok((before, ids(conn)?))
            })
            .await
        }
    });
    once.await.unwrap();
    db.write(Durable, |conn| insert(conn, 1)).await.unwrap();
    assert_eq!(db.read(ids).await, Ok(vec![1]), "the other reader is not held up");
    go.send(()).unwrap();
    assert_eq!(reading.await.unwrap(), Ok((vec![], vec![])));
}

#[tokio::test]
async fn a_queued_job_runs_even_if_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    {
        let writing = db.write(Durable, |conn| insert(conn, 1));
        tokio::pin!(writing);
        let _ = futures_util::poll!(writing);
    }
    db.write(Durable, |conn| insert(conn, 2)).await.unwrap();
    assert_eq!(db.read(ids).await, Ok(vec![1, 2]));
}

#[tokio::test]
async fn a_group_is_synced_if_any_of_its_jobs_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    let level = |durability| -> (Durability, Work) {
        (durability, Box::new(|conn: &Connection| Ok(conn.query_row("pragma synchronous", [], |row| row.get(0))?)))
    };
    let (normal, full) = (Ok(1), Ok(2));
    assert_eq!(group(&db, vec![level(Derivable), level(Derivable)]).await, [normal.clone(), normal.clone()]);
    assert_eq!(group(&db, vec![level(Derivable), level(Durable)]).await, [full.clone(), full.clone()]);
    assert_eq!(group(&db, vec![level(Durable)]).await, [full]);
    assert_eq!(group(&db, vec![level(Derivable)]).await, [normal]);
}

/// What a `kill -9` at this moment would leave: the files as they are, without the locks.
fn crash_image(path: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["test.db", "test.db-wal"] {
        std::fs::copy(path.with_file_name(file), folder.path().join(file)).unwrap();
    }
    folder
}

#[tokio::test]
async fn p21_a_crash_in_the_middle_of_a_group_leaves_what_was_acknowledged_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    db.write(Durable, |conn| insert(conn, 1)).await.unwrap();
    db.write(Derivable, |conn| insert(conn, 2)).await.unwrap();
    let path = db.path().to_owned();
    let image = db
        .write(Durable, move |conn| {
            // More than the page cache holds, so that a part of it is in the log already.
            conn.pragma_update(None, "cache_size", 5)?;
            for id in 3..5000 {
                conn.execute("insert into entry (id, text) values (?1, ?2)", (id, "x".repeat(100)))?;
            }
            Ok(crash_image(&path))
        })
        .await
        .unwrap();
    let log = std::fs::metadata(image.path().join("test.db-wal")).unwrap().len();
    assert!(log > 100_000, "the crash is in the middle of something: {log}");
    let survivor = open(&image, &Options::default());
    assert_eq!(survivor.read(ids).await, Ok(vec![1, 2]));
    assert_eq!(survivor.write(Durable, |conn| insert(conn, 3)).await, Ok(3));
}

#[tokio::test]
async fn d08_a_full_disk_refuses_and_resumes_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options { max_pages: Some(20), ..Options::default() });
    let fill = |id: i64| {
        move |conn: &Connection| {
            conn.execute("insert into entry (id, text) values (?1, ?2)", (id, "x".repeat(3000)))?;
            Ok(id)
        }
    };
    let mut last = 0;
    let refused = loop {
        match db.write(Durable, fill(last + 1)).await {
            Ok(id) => last = id,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
    let results = group(&db, vec![job(fill(901)), job(fill(902)), job(fill(903))]).await;
    assert!(results.iter().all(|r| matches!(r, Err(StoreError::Full(_)))), "{results:?}");
    assert_eq!(db.read(ids).await, Ok((1..=last).collect()), "what was acknowledged is there, the rest is not");
    db.write(Durable, |conn| Ok(conn.pragma_update(None, "max_page_count", 1000)?)).await.unwrap();
    assert_eq!(db.write(Durable, fill(last + 1)).await, Ok(last + 1));
    let sound = db.read(|conn| Ok(conn.query_row("pragma integrity_check", [], |r| r.get::<_, String>(0))?)).await;
    assert_eq!(sound.unwrap(), "ok");
}

#[tokio::test]
async fn the_log_starts_over_instead_of_growing() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options { checkpoint_pages: 50, ..Options::default() });
    for id in 0..2000 {
        db.write(Derivable, move |conn| insert(conn, id)).await.unwrap();
    }
    let log = std::fs::metadata(folder.path().join("test.db-wal")).unwrap().len();
    assert!(log < 100 * 4096, "{log} bytes after 2000 transactions");
}

#[tokio::test]
async fn closing_does_what_is_queued_and_lets_go_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder, &Options::default());
    for id in 0..100 {
        let writing = db.write(Durable, move |conn| insert(conn, id));
        tokio::pin!(writing);
        let _ = futures_util::poll!(writing);
    }
    db.close().await;
    assert!(!folder.path().join("test.db-wal").exists(), "the last connection is gone");
    assert_eq!(open(&folder, &Options::default()).read(ids).await.unwrap().len(), 100);
}

mod any_mix_of_jobs {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Ending {
        Succeeds,
        Fails,
        Panics,
    }

    fn job_of(id: i64, rows: i64, ending: Ending) -> (Durability, Work) {
        job(move |conn| {
            for row in 0..rows {
                insert(conn, id * 100 + row)?;
            }
            match ending {
                Ending::Succeeds => Ok(id),
                Ending::Fails => Err(SqlError::fault("fails")),
                Ending::Panics => panic!("panics"),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn leaves_exactly_the_rows_of_those_that_succeeded(
            jobs in prop::collection::vec(
                (0_i64..5, prop_oneof![Just(Ending::Succeeds), Just(Ending::Fails), Just(Ending::Panics)]), 1..12),
        ) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let left = runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let db = open(&folder, &Options { max_batch: 5, ..Options::default() });
                let works = (0..).zip(&jobs).map(|(id, (rows, ending))| job_of(id, *rows, *ending)).collect();
                let results = group(&db, works).await;
                for ((id, (_, ending)), result) in (0..).zip(&jobs).zip(results) {
                    match ending {
                        Ending::Succeeds => assert_eq!(result, Ok(id)),
                        Ending::Fails | Ending::Panics => assert!(matches!(result, Err(StoreError::Fault(_)))),
                    }
                }
                db.read(ids).await.unwrap()
            });
            let kept = (0_i64..).zip(&jobs).filter(|(_, (_, ending))| matches!(ending, Ending::Succeeds));
            let expected: Vec<i64> = kept.flat_map(|(id, (rows, _))| (0..*rows).map(move |row| id * 100 + row)).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
