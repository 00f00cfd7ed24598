//! A copy of several files is of one moment, whoever writes meanwhile.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use saga_adapters::sqlite::backup::Moment;
use saga_adapters::sqlite::rusqlite::Connection;
use saga_adapters::sqlite::{Db, Durability, Options, Schema};
use tempfile::TempDir;

const LEFT: Schema =
    Schema { name: "left", migrations: &[("V1__init", "create table n (n integer primary key) strict;")] };
const RIGHT: Schema =
    Schema { name: "right", migrations: &[("V1__init", "create table n (n integer primary key) strict;")] };

async fn put(db: &Db, n: u64) {
    let put = move |conn: &Connection| Ok(conn.execute("insert into n values (?1)", [n]).map(|_| ())?);
    db.write(Durability::Durable, put).await.unwrap();
}

fn highest(folder: &TempDir, name: &str) -> u64 {
    let conn = Connection::open(folder.path().join(name)).unwrap();
    conn.query_row("select coalesce(max(n), 0) from n", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_file_has_after_the_other_is_never_copied_without_it() {
    let folder = TempDir::new().unwrap();
    let open = |schema: &Schema| {
        let path = folder.path().join(format!("{}.db", schema.name));
        Db::open(&path, schema, &Options::default()).unwrap()
    };
    let (left, right) = (open(&LEFT), open(&RIGHT));
    let over = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (left, right, over) = (left.clone(), right.clone(), Arc::clone(&over));
        async move {
            // Each number is in the left file before it is in the right one.
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                n += 1;
                put(&left, n).await;
                put(&right, n).await;
            }
            n
        }
    });
    let mut seen = Vec::new();
    for _ in 0..20 {
        let path = folder.path().to_owned();
        // The dependent file is named first: one after the other would copy it too early or the other too late.
        let copied = tokio::task::spawn_blocking(move || {
            let to = TempDir::new().unwrap();
            for schemas in [[&RIGHT, &LEFT], [&LEFT, &RIGHT]] {
                let to = TempDir::new_in(to.path()).unwrap();
                let copied = Moment::hold(&path, &schemas).unwrap().copy(to.path()).unwrap();
                assert_eq!(copied.len(), 2);
                let (left, right) = (highest(&to, "left.db"), highest(&to, "right.db"));
                assert!(left == right || left == right + 1, "left {left}, right {right}");
            }
            let to = TempDir::new_in(to.path()).unwrap();
            Moment::hold(&path, &[&LEFT]).unwrap().copy(to.path()).unwrap();
            highest(&to, "left.db")
        });
        seen.push(copied.await.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    seen.dedup();
    assert!(seen.len() > 5, "it was written meanwhile: {seen:?} of {written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_or_not_ours_and_a_copy_that_is_there_are_refused() {
    let folder = TempDir::new().unwrap();
    let db = Db::open(&folder.path().join("left.db"), &LEFT, &Options::default()).unwrap();
    put(&db, 1).await;
    let refused = |schemas: &[&'static Schema]| Moment::hold(folder.path(), schemas).err().unwrap().to_string();
    assert!(refused(&[&LEFT, &RIGHT]).contains("right.db"));
    std::fs::write(folder.path().join("right.db"), "my diary").unwrap();
    assert!(refused(&[&LEFT, &RIGHT]).contains("is not a SQLite database"));
    // Nothing stays locked after a refusal.
    put(&db, 2).await;
    let to = TempDir::new().unwrap();
    Moment::hold(folder.path(), &[&LEFT]).unwrap().copy(to.path()).unwrap();
    let again = Moment::hold(folder.path(), &[&LEFT]).unwrap().copy(to.path()).unwrap_err();
    assert!(again.to_string().contains("exists"), "{again}");
    assert_eq!(highest(&to, "left.db"), 2);
}
