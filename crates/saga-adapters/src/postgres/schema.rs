//! Whose database it is, and what has been done to it: refusing, migrating.
//!
//! Ours is a database whose `schema_migrations` name the same service with the same migrations, unchanged, and none
//! that this program does not know; or one without any table. Migrations run all or nothing, one program at a time.

use tokio_postgres::{Client, Transaction};

use super::Schema;
use super::connect::ConnectReason;
use super::error::describe;

/// `SAGA` in ASCII: the advisory lock under which a database is migrated.
const LOCK: i64 = 0x5341_4741;

const TABLE: &str = "create table if not exists schema_migrations (
    version integer primary key check (version > 0),
    name text not null unique,
    schema_name text not null,
    hash text not null, -- BLAKE3 of the migration's text
    applied_at timestamptz not null default now()
)";
const OURS: &str = "select to_regclass('schema_migrations') is not null";
const OTHERS: &str = "select relname::text from pg_class
    where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') order by relname limit 1";
const APPLIED: &str = "select name, schema_name, hash from schema_migrations order by version";
/// How to have the tables analyzed by a sample of 3,000 rows. One of 30,000, PostgreSQL's own choice, tells the planner no
/// more where rows are looked up by their keys, and while tables grow it takes a quarter of a second of a core for each of
/// them, again and again: the slowest purchases of a busy shop waited for that. What somebody has set by hand stays.
const SAMPLED: &str = "select format('alter table %s ', c.oid::regclass)
        || string_agg(format('alter column %I set statistics 10', a.attname), ', ' order by a.attnum)
    from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
        and a.attnum > 0 and not a.attisdropped and coalesce(a.attstattarget, -1) = -1
    group by c.oid";
const RECORD: &str = "insert into schema_migrations (version, name, schema_name, hash) values ($1, $2, $3, $4)";

pub(super) async fn bring_up_to_date(client: &mut Client, schema: &Schema, migrate: bool) -> Result<(), ConnectReason> {
    let transaction = client.transaction().await?;
    // A long migration is no reason to give up, here or in those who wait for it.
    transaction.batch_execute("set local statement_timeout = 0; set local lock_timeout = 0").await?;
    if migrate {
        transaction.query_one("select pg_advisory_xact_lock($1)::text", &[&LOCK]).await?;
    }
    let found = applied(&transaction, schema).await?;
    let known = schema.migrations.len();
    if !migrate {
        return if found < known { Err(ConnectReason::Older { found, known }) } else { Ok(()) };
    }
    if found < known {
        apply(&transaction, schema, found).await?;
    }
    for alter in transaction.query(SAMPLED, &[]).await? {
        transaction.batch_execute(alter.try_get(0)?).await?;
    }
    transaction.commit().await?;
    if found < known {
        tracing::info!(service = schema.name, found, known, "the database was brought up to date");
    }
    Ok(())
}

async fn apply(transaction: &Transaction<'_>, schema: &Schema, found: usize) -> Result<(), ConnectReason> {
    transaction.batch_execute(TABLE).await?;
    for (version, (name, sql)) in (1_i32..).zip(schema.migrations).skip(found) {
        let failed = |error: tokio_postgres::Error| ConnectReason::Migration { name, detail: describe(&error) };
        transaction.batch_execute(sql).await.map_err(failed)?;
        transaction.execute(RECORD, &[&version, name, &schema.name, &hash(sql)]).await.map_err(failed)?;
    }
    Ok(())
}

/// How many of the migrations are in the database; refuses another program's, another service's, newer and edited ones.
async fn applied(transaction: &Transaction<'_>, schema: &Schema) -> Result<usize, ConnectReason> {
    if !transaction.query_one(OURS, &[]).await?.try_get::<_, bool>(0)? {
        return match transaction.query_opt(OTHERS, &[]).await? {
            Some(row) => Err(ConnectReason::Foreign(row.try_get(0)?)),
            None => Ok(0),
        };
    }
    let rows = transaction.query(APPLIED, &[]).await?;
    for (position, row) in rows.iter().enumerate() {
        let (found, service, stored): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if service != schema.name {
            return Err(ConnectReason::OtherService { found: service, expected: schema.name });
        }
        match schema.migrations.get(position) {
            None => return Err(ConnectReason::Newer { found, known: schema.migrations.len() }),
            Some((name, sql)) if found != *name || stored != hash(sql) => return Err(ConnectReason::Edited(found)),
            Some(_) => {}
        }
    }
    Ok(rows.len())
}

fn hash(sql: &str) -> String {
    blake3::hash(sql.as_bytes()).to_hex().to_string()
}
