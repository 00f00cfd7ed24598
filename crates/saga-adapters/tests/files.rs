//! Which files are opened, and which are refused by name.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use saga_adapters::sqlite::rusqlite::Connection;
use saga_adapters::sqlite::{Db, Durability, OpenError, OpenReason, Options, Schema, open_read_only};
use tempfile::TempDir;

const ONE: (&str, &str) = ("V1__init", "create table entry (id integer primary key) strict;");
const TWO: (&str, &str) = ("V2__text", "alter table entry add column text text;");
const V1: Schema = Schema { name: "order", migrations: &[ONE] };
const V2: Schema = Schema { name: "order", migrations: &[ONE, TWO] };

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("order.db");
    (folder, path)
}

fn open(path: &Path, schema: &Schema) -> Result<Db, OpenError> {
    Db::open(path, schema, &Options::default())
}

async fn with_rows(path: &Path, rows: i64) {
    let db = open(path, &V1).unwrap();
    let insert = move |conn: &Connection| {
        for id in 0..rows {
            conn.execute("insert into entry (id) values (?1)", [id])?;
        }
        Ok(())
    };
    db.write(Durability::Durable, insert).await.unwrap();
    db.close().await;
}

/// Refused for writing and for reading, with the file's name; the file is as it was.
fn refused(path: &Path, schema: &Schema) -> OpenReason {
    let before = std::fs::read(path).ok();
    let error = open(path, schema).unwrap_err();
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    assert!(std::fs::read(path).ok() == before, "a refused file is not touched");
    let reading = open_read_only(path, schema).unwrap_err();
    assert_eq!(reading.to_string(), error.to_string());
    assert!(std::fs::read(path).ok() == before, "nor by looking");
    error.reason
}

#[tokio::test]
async fn a_new_file_is_made_and_opened_again() {
    let (_folder, path) = folder();
    with_rows(&path, 3).await;
    let count = |conn: &Connection| Ok(conn.query_row("select count(*) from entry", [], |r| r.get::<_, i64>(0))?);
    assert_eq!(open(&path, &V1).unwrap().read(count).await, Ok(3));
    assert_eq!(count(&open_read_only(&path, &V1).unwrap()).unwrap(), 3);
}

#[tokio::test]
async fn an_empty_file_is_a_new_one() {
    let (_folder, path) = folder();
    std::fs::write(&path, b"").unwrap();
    assert!(open(&path, &V1).is_ok());
}

#[tokio::test]
async fn an_older_file_is_brought_up_to_date() {
    let (_folder, path) = folder();
    with_rows(&path, 3).await;
    let error = open_read_only(&path, &V2).unwrap_err();
    assert!(matches!(error.reason, OpenReason::Older { found: 1, known: 2 }), "{error}");
    let db = open(&path, &V2).unwrap();
    let texts = |conn: &Connection| {
        Ok(conn.query_row("select count(*) from entry where text is null", [], |r| r.get::<_, i64>(0))?)
    };
    assert_eq!(db.read(texts).await, Ok(3));
}

#[tokio::test]
async fn what_is_not_a_database_is_refused() {
    let (_folder, path) = folder();
    for content in [&b"hello"[..], b"SQLite format 3", &[0; 8192]] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(refused(&path, &V1), OpenReason::NotSqlite));
    }
}

#[tokio::test]
async fn a_folder_or_a_missing_folder_is_refused() {
    let (folder, _) = folder();
    for path in [folder.path().to_owned(), folder.path().join("no/such/order.db")] {
        let error = open(&path, &V1).unwrap_err();
        assert!(matches!(error.reason, OpenReason::Unreadable(_)), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn another_program_s_database_is_refused() {
    let (_folder, path) = folder();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("create table bookmarks (url text)").unwrap();
    assert!(matches!(refused(&path, &V1), OpenReason::Foreign(0)));
    conn.pragma_update(None, "application_id", 42).unwrap();
    drop(conn);
    assert!(matches!(refused(&path, &V1), OpenReason::Foreign(42)));
}

#[tokio::test]
async fn another_service_s_database_is_refused() {
    let (_folder, path) = folder();
    with_rows(&path, 3).await;
    let payment = Schema { name: "payment", ..V1 };
    let reason = refused(&path, &payment);
    assert!(reason.to_string().contains("`order`") && reason.to_string().contains("`payment`"), "{reason}");
}

#[tokio::test]
async fn a_newer_file_is_refused() {
    let (_folder, path) = folder();
    open(&path, &V2).unwrap().close().await;
    let reason = refused(&path, &V1);
    assert!(reason.to_string().contains("V2__text"), "{reason}");
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let (_folder, path) = folder();
    with_rows(&path, 3).await;
    const EDITED: Schema = Schema {
        name: "order",
        migrations: &[("V1__init", "create table entry (id integer primary key, x text) strict;")],
    };
    assert!(matches!(refused(&path, &EDITED), OpenReason::Edited(name) if name == "V1__init"));
    const RENAMED: Schema = Schema { name: "order", migrations: &[("V1__begin", ONE.1)] };
    assert!(matches!(refused(&path, &RENAMED), OpenReason::Edited(_)));
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_file_as_it_was() {
    let (_folder, path) = folder();
    with_rows(&path, 3).await;
    const BROKEN: Schema = Schema {
        name: "order",
        migrations: &[
            ONE,
            TWO,
            ("V3__broken", "create table more (id integer) strict; insert into nowhere values (1);"),
        ],
    };
    let error = open(&path, &BROKEN).unwrap_err();
    assert!(matches!(&error.reason, OpenReason::Migration { name: "V3__broken", .. }), "{error}");
    with_rows(&path, 0).await;
}

#[tokio::test]
async fn a_damaged_file_is_refused_wherever_it_is_damaged() {
    let (_folder, path) = folder();
    with_rows(&path, 20_000).await;
    let sound = std::fs::read(&path).unwrap();
    let mut refusals = 0;
    for at in (0..sound.len()).step_by(4096) {
        let mut bytes = sound.clone();
        bytes[at..at + 2048].fill(0xA5);
        std::fs::write(&path, &bytes).unwrap();
        match open(&path, &V1) {
            Err(OpenError { reason: OpenReason::Damaged(_) | OpenReason::NotSqlite, .. }) => refusals += 1,
            other => panic!("page at {at}: {other:?}"),
        }
    }
    assert!(refusals > 20, "{refusals}");
    let cut = &sound[..sound.len() / 2];
    std::fs::write(&path, cut).unwrap();
    assert!(matches!(open(&path, &V1).unwrap_err().reason, OpenReason::Damaged(_)));
}

#[test]
fn d13_two_programs_may_open_a_new_file_at_once() {
    let (_folder, path) = folder();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&path, &V2).map(drop))).collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    let conn = open_read_only(&path, &V2).unwrap();
    let applied: i64 = conn.query_row("select count(*) from schema_migrations", [], |r| r.get(0)).unwrap();
    assert_eq!(applied, 2);
}
