//! Dead letters on SQLite: the `.dlq` topics of the in-process bus, which keeps nothing itself.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row};
use saga_core::{Millis, Name};
use saga_runtime::StoreError;
use saga_runtime::bus::Message;
use saga_runtime::dead_letters::{DeadLetter, DeadLetterCount, DeadLetterSink, DeadLetters, SOURCE, Which};

use super::{Db, Durability, Schema, SqlError};
use crate::headers;

/// The bus's file.
pub const SCHEMA: Schema = Schema {
    name: "bus",
    migrations: &[
        ("V1__init", include_str!("dead_letters/migrations/V1__init.sql")),
        ("V2__source", include_str!("dead_letters/migrations/V2__source.sql")),
    ],
};

const BURY: &str =
    "insert into dead_letter (topic, partition, position, at, attempts, reason, key, headers, payload, source)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) on conflict do nothing";
const COLUMNS: &str =
    "select id, topic, partition, position, at, attempts, reason, key, headers, payload from dead_letter";
const FORGET: &str =
    "delete from dead_letter where id in (select id from dead_letter where at < ?1 order by id limit ?2)";

/// The letters, over the file of [`SCHEMA`].
#[derive(Debug, Clone)]
pub struct SqliteDeadLetters {
    db: Db,
}

impl SqliteDeadLetters {
    /// Over a file opened with [`SCHEMA`].
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl DeadLetterSink for SqliteDeadLetters {
    async fn bury(&self, messages: Vec<Message>) -> Result<(), StoreError> {
        let bury = move |conn: &Connection| {
            let mut statement = conn.prepare_cached(BURY)?;
            for message in messages {
                let source = message.header(SOURCE).map(str::to_owned);
                let letter = DeadLetter::from_message(0, message);
                statement.execute((
                    letter.topic.as_str(),
                    letter.partition,
                    letter.offset.min(i64::MAX as u64),
                    letter.at.min(i64::MAX as u64),
                    letter.attempts,
                    &letter.reason,
                    &letter.key[..],
                    headers::to_json(&letter.headers)?,
                    &letter.payload[..],
                    source,
                ))?;
            }
            Ok(())
        };
        self.db.write(Durability::Durable, bury).await
    }
}

#[async_trait]
impl DeadLetters for SqliteDeadLetters {
    async fn topics(&self) -> Result<Vec<DeadLetterCount>, StoreError> {
        let sql = "select topic, count(*), min(at) from dead_letter group by topic order by topic";
        let count = |row: &Row<'_>| {
            let topic = Name::new(row.get::<_, String>(0)?);
            Ok(DeadLetterCount { topic, count: row.get(1)?, oldest_at: row.get(2)? })
        };
        self.db.read(move |conn| Ok(conn.prepare_cached(sql)?.query_map([], count)?.collect::<Result<_, _>>()?)).await
    }

    async fn list(&self, topic: &Name, after: Option<u64>, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let topic = topic.clone();
        let read = move |conn: &Connection| {
            let sql = format!("{COLUMNS} where topic = ?1 and id > ?2 order by id limit ?3");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_and_then((topic.as_str(), after.unwrap_or(0), limit), letter)?;
            rows.collect()
        };
        self.db.read(read).await
    }

    async fn show(&self, topic: &Name, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        let topic = topic.clone();
        let read = move |conn: &Connection| {
            let sql = format!("{COLUMNS} where topic = ?1 and id = ?2");
            let found = conn.prepare_cached(&sql)?.query_row((topic.as_str(), id), |row| Ok(letter(row))).optional()?;
            found.transpose()
        };
        self.db.read(read).await
    }

    async fn purge(&self, topic: &Name, which: Which) -> Result<u64, StoreError> {
        let topic = topic.clone();
        let purge = move |conn: &Connection| {
            let mut removed = 0;
            match which {
                Which::All => removed += conn.execute("delete from dead_letter where topic = ?1", [topic.as_str()])?,
                Which::Ids(ids) => {
                    let mut statement = conn.prepare_cached("delete from dead_letter where topic = ?1 and id = ?2")?;
                    for id in ids {
                        removed += statement.execute((topic.as_str(), id))?;
                    }
                }
            }
            u64::try_from(removed).map_err(SqlError::fault)
        };
        self.db.write(Durability::Durable, purge).await
    }

    async fn forget(&self, before: Millis, limit: u32) -> Result<u64, StoreError> {
        let before = before.min(i64::MAX as u64);
        let forget = move |conn: &Connection| {
            let removed = conn.prepare_cached(FORGET)?.execute((before, limit))?;
            u64::try_from(removed).map_err(SqlError::fault)
        };
        self.db.write(Durability::Durable, forget).await
    }
}

/// A row of [`COLUMNS`].
fn letter(row: &Row<'_>) -> Result<DeadLetter, SqlError> {
    Ok(DeadLetter {
        id: row.get(0)?,
        topic: Name::new(row.get::<_, String>(1)?),
        partition: row.get(2)?,
        offset: row.get(3)?,
        at: row.get(4)?,
        attempts: row.get(5)?,
        reason: row.get(6)?,
        key: Bytes::from(row.get::<_, Vec<u8>>(7)?),
        headers: headers::from_json(&row.get::<_, String>(8)?)?,
        payload: Bytes::from(row.get::<_, Vec<u8>>(9)?),
    })
}
