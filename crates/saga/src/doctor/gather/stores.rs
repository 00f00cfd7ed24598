//! Each service's file or database, read only.

use std::path::Path;

use saga_adapters::postgres::saga_store as pg_sagas;
use saga_adapters::postgres::{Columns as _, ConnectReason, Options, Pg, PgError, Query};
use saga_adapters::sqlite::rusqlite::{self, Connection, OptionalExtension as _};
use saga_adapters::sqlite::{OpenError, OpenReason, Schema, dead_letters, open_read_only, saga_store};
use saga_runtime::{Clock as _, SystemClock};
use tokio::time::timeout;

use super::{PATIENCE, millis};
use crate::config::Config;
use crate::doctor::facts::{Server, Store, StoreState};
use crate::up::places::{self, Place};
use crate::up::roles::ServiceRole;

const STUCK: &str = "select count(*) from saga where open = 1 and status in ('STUCK', 'COMPENSATION_STUCK')";
const PG_STUCK: &str = "select count(*) from saga where status in ('STUCK', 'COMPENSATION_STUCK') and open";
const NEWEST: &str = "select updated_at from saga order by id desc limit 1";
/// Whether there is one: counting them all takes its time.
const ACCOUNTS: &str = "select count(*) from (select 1 from account limit 1) one";
const LETTERS: &str = "select count(*) from dead_letter";
const SETTINGS: &str = "select current_setting('fsync'), current_setting('synchronous_commit'),
    current_setting('full_page_writes'),
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
    (extract(epoch from clock_timestamp()) * 1000)::bigint";
const SESSIONS: &str = "select application_name, count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'saga-%' group by 1 order by 1";

/// A service's rows; nothing where its URL is none, which the configuration's finding says.
pub(super) async fn look(config: &Config, role: ServiceRole) -> Option<Store> {
    let (file, database) = schemas(role)?;
    let mut store = Store {
        service: role.as_str(),
        place: String::new(),
        state: StoreState::Missing,
        stuck: None,
        letters: None,
        newest: None,
        accounts: None,
    };
    match places::of(config, role).ok()? {
        Place::File => {
            let data = config.data.clone();
            let looked = tokio::task::spawn_blocking(move || {
                self::file(&data, file, &mut store);
                store
            });
            looked.await.ok()
        }
        Place::Postgres(url) => {
            let own = places::database(config, role, &url);
            let options = Options {
                migrate: false,
                pool_size: 1,
                connect_timeout: PATIENCE,
                application_name: "saga-doctor".to_owned(),
                ..own
            };
            server(&options, database, role, &mut store).await;
            Some(store)
        }
    }
}

/// Of a service; the pages have no rows.
fn schemas(role: ServiceRole) -> Option<(&'static Schema, &'static saga_adapters::postgres::Schema)> {
    let both = match role {
        ServiceRole::Account => (&account::SCHEMA, &account::PG_SCHEMA),
        ServiceRole::Product => (&product::SCHEMA, &product::PG_SCHEMA),
        ServiceRole::Order => (&order::SCHEMA, &order::PG_SCHEMA),
        ServiceRole::Payment => (&payment::SCHEMA, &payment::PG_SCHEMA),
        ServiceRole::Purchase => (&purchase::SCHEMA, &purchase::PG_SCHEMA),
        ServiceRole::Orchestrator => (&saga_store::SCHEMA, &pg_sagas::SCHEMA),
        ServiceRole::Console => return None,
    };
    Some(both)
}

fn file(data: &Path, schema: &Schema, store: &mut Store) {
    let path = data.join(format!("{}.db", schema.name));
    store.place = path.display().to_string();
    if !path.exists() {
        return;
    }
    store.state = match open_read_only(&path, schema) {
        Ok(conn) => match counted(&conn, schema, data, store) {
            Ok(()) => StoreState::File,
            Err(error) => refused(error.to_string(), false, false),
        },
        Err(OpenError { reason, .. }) => {
            let older = matches!(reason, OpenReason::Older { .. });
            refused(reason.to_string(), false, older)
        }
    };
}

fn refused(why: String, unreachable: bool, older: bool) -> StoreState {
    StoreState::Refused { why, unreachable, older }
}

fn counted(conn: &Connection, schema: &Schema, data: &Path, store: &mut Store) -> rusqlite::Result<()> {
    let count = |conn: &Connection, sql: &str| conn.query_row(sql, [], |row| row.get::<_, u64>(0));
    if schema.name == saga_store::SCHEMA.name {
        store.stuck = Some(count(conn, STUCK)?);
        store.newest = conn.query_row(NEWEST, [], |row| row.get(0)).optional()?;
        let letters = data.join(format!("{}.db", dead_letters::SCHEMA.name));
        if let Ok(letters) = open_read_only(&letters, &dead_letters::SCHEMA) {
            store.letters = Some(count(&letters, LETTERS)?);
        }
    }
    if schema.name == account::SCHEMA.name {
        store.accounts = Some(count(conn, ACCOUNTS)?);
    }
    Ok(())
}

async fn server(options: &Options, schema: &saga_adapters::postgres::Schema, role: ServiceRole, store: &mut Store) {
    let database = match timeout(PATIENCE * 2, Pg::connect_once(options, schema)).await {
        Ok(Ok(database)) => database,
        Ok(Err(error)) => {
            let unreachable = matches!(error.reason, ConnectReason::Unreachable(_));
            let older = matches!(error.reason, ConnectReason::Older { .. });
            store.place = error.address;
            store.state = refused(error.reason.to_string(), unreachable, older);
            return;
        }
        Err(_) => {
            store.place = format!("the {role} service's database");
            store.state = refused(format!("gives no answer for {:?}", PATIENCE * 2), true, false);
            return;
        }
    };
    store.place = database.address().to_owned();
    store.state = match told(&database, role, store).await {
        Ok(server) => StoreState::Server(server),
        Err(error) => refused(error.to_string(), false, false),
    };
}

async fn told(database: &Pg, role: ServiceRole, store: &mut Store) -> Result<Server, PgError> {
    let begun = SystemClock.nanos();
    database.read(Query::new("select 1")).await?;
    let latency_ms = millis(begun);
    let now = SystemClock.now();
    let settings = database.read(Query::new(SETTINGS)).await?;
    let settings = settings.first().ok_or_else(|| PgError::Fault("no settings".to_owned()))?;
    let on = |at| settings.col::<&str>(at).map(|text| text == "on");
    let theirs = settings.big(4)?;
    let ahead = i64::try_from(theirs).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(i64::MAX);
    let mut sessions = Vec::new();
    for row in database.read(Query::new(SESSIONS)).await? {
        sessions.push((row.col::<&str>(0)?.to_owned(), row.big(1)?));
    }
    let count =
        async |sql| Ok::<_, PgError>(database.read(Query::new(sql)).await?.first().map(|row| row.big(0)).transpose()?);
    match role {
        ServiceRole::Orchestrator => {
            store.stuck = count(PG_STUCK).await?;
            store.letters = count(LETTERS).await?;
            store.newest = count(NEWEST).await?;
        }
        ServiceRole::Account => store.accounts = count(ACCOUNTS).await?,
        _ => {}
    }
    Ok(Server {
        latency_ms,
        fsync: on(0)?,
        synchronous_commit: settings.col::<&str>(1)?.to_owned(),
        full_page_writes: on(2)?,
        sessions_allowed: settings.big(3)?,
        ahead_ms: ahead,
        sessions,
    })
}
