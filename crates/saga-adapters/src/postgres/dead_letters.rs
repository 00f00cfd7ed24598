//! Dead letters in the orchestrator's database, brought there from the bus's dead-letter topics.

use async_trait::async_trait;
use bytes::Bytes;
use saga_core::{Millis, Name};
use saga_runtime::StoreError;
use saga_runtime::bus::Message;
use saga_runtime::dead_letters::{DeadLetter, DeadLetterCount, DeadLetterSink, DeadLetters, SOURCE, Which};
use tokio_postgres::Row;

use super::{Columns as _, Pg, PgError, Query, big, bigs};
use crate::headers;

const BURY: &str = "insert into dead_letter
        (source, topic, partition, position, at, attempts, reason, key, headers, payload)
    select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
        $8::bytea[], $9::text[], $10::bytea[])
    on conflict (source) do nothing";
const COLUMNS: &str =
    "select id, topic, partition, position, at, attempts, reason, key, headers, payload from dead_letter";
const PURGE: &str = "with gone as (delete from dead_letter where topic = $1 and ($2::bigint[] is null or id = any ($2))
    returning 1) select count(*) from gone";
const FORGET: &str = "with gone as (delete from dead_letter where id in
    (select id from dead_letter where at < $1 order by id limit $2) returning 1) select count(*) from gone";

/// The letters, over the database of [`SCHEMA`](super::saga_store::SCHEMA).
#[derive(Debug, Clone)]
pub struct PgDeadLetters {
    pg: Pg,
}

impl PgDeadLetters {
    /// Over a database connected with that schema.
    pub fn new(pg: Pg) -> Self {
        Self { pg }
    }
}

/// A text column cannot hold a zero byte; a stranger's header can.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[async_trait]
impl DeadLetterSink for PgDeadLetters {
    async fn bury(&self, messages: Vec<Message>) -> Result<(), StoreError> {
        let sources: Vec<Option<String>> = messages.iter().map(|m| m.header(SOURCE).map(text)).collect();
        let letters: Vec<DeadLetter> = messages.into_iter().map(|m| DeadLetter::from_message(0, m)).collect();
        let headers: Result<Vec<String>, _> = letters.iter().map(|l| headers::to_json(&l.headers)).collect();
        let query = Query::new(BURY)
            .bind(sources)
            .bind(letters.iter().map(|l| text(l.topic.as_str())).collect::<Vec<_>>())
            .bind(bigs(letters.iter().map(|l| u64::from(l.partition))))
            .bind(bigs(letters.iter().map(|l| l.offset)))
            .bind(bigs(letters.iter().map(|l| l.at)))
            .bind(bigs(letters.iter().map(|l| u64::from(l.attempts))))
            .bind(letters.iter().map(|l| text(&l.reason)).collect::<Vec<_>>())
            .bind(letters.iter().map(|l| l.key.to_vec()).collect::<Vec<_>>())
            .bind(headers.map_err(PgError::from)?)
            .bind(letters.iter().map(|l| l.payload.to_vec()).collect::<Vec<_>>());
        self.pg.run(query).await?;
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for PgDeadLetters {
    async fn topics(&self) -> Result<Vec<DeadLetterCount>, StoreError> {
        let sql = "select topic, count(*), min(at) from dead_letter group by topic order by topic";
        let count = |row: &Row| {
            Ok(DeadLetterCount { topic: Name::new(row.col::<&str>(0)?), count: row.big(1)?, oldest_at: row.big(2)? })
        };
        let rows = self.pg.run(Query::new(sql)).await?;
        Ok(rows.iter().map(count).collect::<Result<_, PgError>>()?)
    }

    async fn list(&self, topic: &Name, after: Option<u64>, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let sql = format!("{COLUMNS} where topic = $1 and id > $2 order by id limit $3");
        let query = Query::new(sql).bind(text(topic.as_str())).big(after.unwrap_or(0)).bind(i64::from(limit));
        let rows = self.pg.run(query).await?;
        Ok(rows.iter().map(letter).collect::<Result<_, PgError>>()?)
    }

    async fn show(&self, topic: &Name, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        let sql = format!("{COLUMNS} where topic = $1 and id = $2");
        let rows = self.pg.run(Query::new(sql).bind(text(topic.as_str())).bind(big(id))).await?;
        Ok(rows.first().map(letter).transpose()?)
    }

    async fn purge(&self, topic: &Name, which: Which) -> Result<u64, StoreError> {
        let ids = match which {
            Which::All => None,
            Which::Ids(ids) => Some(bigs(ids)),
        };
        let rows = self.pg.run(Query::new(PURGE).bind(text(topic.as_str())).bind(ids)).await?;
        Ok(rows.first().map(|row| row.big(0)).transpose()?.unwrap_or(0))
    }

    async fn forget(&self, before: Millis, limit: u32) -> Result<u64, StoreError> {
        let rows = self.pg.run(Query::new(FORGET).big(before).bind(i64::from(limit))).await?;
        Ok(rows.first().map(|row| row.big(0)).transpose()?.unwrap_or(0))
    }
}

/// A row of [`COLUMNS`].
fn letter(row: &Row) -> Result<DeadLetter, PgError> {
    let number = |at| -> Result<u32, PgError> { row.big(at)?.try_into().map_err(PgError::fault) };
    Ok(DeadLetter {
        id: row.big(0)?,
        topic: Name::new(row.col::<&str>(1)?),
        partition: number(2)?,
        offset: row.big(3)?,
        at: row.big(4)?,
        attempts: number(5)?,
        reason: row.col(6)?,
        key: Bytes::copy_from_slice(row.col(7)?),
        headers: headers::from_json(row.col(8)?)?,
        payload: Bytes::copy_from_slice(row.col(9)?),
    })
}
