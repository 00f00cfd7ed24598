//! Whose file it is, and what has been done to it: opening, refusing, migrating.
//!
//! A file is ours when its `application_id` says so and its `schema_migrations` name the same service with the same
//! migrations, unchanged, and none that this program does not know. Everything else is refused with the file's name
//! and the reason, and is not touched.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};
use thiserror::Error;

/// `SAGA` in ASCII, in every file of ours (SQLite's header has a field for it).
const APPLICATION_ID: i32 = 0x5341_4741;

/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Two instances may open a file at once: the second waits, this often and this long, for the first to have migrated
/// it. Waiting inside SQLite alone is not enough: changing to the log (`journal_mode`) does not wait.
const TRIES: u32 = 120;
const WAIT: Duration = Duration::from_millis(250);

/// A service's tables: its name, and the migrations that make them, append-only.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The service's name; a file knows whose it is.
    pub name: &'static str,
    /// `("V1__init", "create table …")`, in order.
    pub migrations: &'static [(&'static str, &'static str)],
}

/// A file that is refused.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub struct OpenError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub reason: OpenReason,
}

/// Why a file is refused.
#[derive(Debug, Error)]
pub enum OpenReason {
    /// Not a database at all.
    #[error("is not a SQLite database")]
    NotSqlite,
    /// A database of another program.
    #[error("is a SQLite database of another program (application id {0:#x})")]
    Foreign(i32),
    /// A database of another service of ours.
    #[error("is the database of `{found}`, not of `{expected}`")]
    OtherService {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: &'static str,
    },
    /// Pages that do not fit together.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// Written by a newer version of this program.
    #[error("was written by a newer version (migration `{found}`; this one knows {known})")]
    Newer {
        /// A migration that is not known here.
        found: String,
        /// How many are.
        known: usize,
    },
    /// Not what the migration of that name does today.
    #[error("migration `{0}` is not the one that was applied to this file")]
    Edited(String),
    /// Read-only access to a file that lacks migrations.
    #[error("has {found} of {known} migrations: start the program once, it applies them")]
    Older {
        /// How many were applied.
        found: usize,
        /// How many there are.
        known: usize,
    },
    /// A migration that does not run.
    #[error("migration `{name}` failed: {detail}")]
    Migration {
        /// Which one.
        name: &'static str,
        /// What SQLite said.
        detail: String,
    },
    /// Somebody holds it locked and does not let go.
    #[error("is in use by another program: {0}")]
    Busy(String),
    /// Anything that the operating system or SQLite says.
    #[error("cannot be opened: {0}")]
    Unreadable(String),
}

impl From<rusqlite::Error> for OpenReason {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => Self::NotSqlite,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                Self::Busy(error.to_string())
            }
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => Self::Damaged(error.to_string()),
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

/// Opens a file for reading only, beside a program that may be writing it. Refuses what [`Db::open`](super::Db::open)
/// refuses; nothing is migrated.
///
/// # Errors
/// [`OpenError`] with file and reason; a file that is not there is one.
pub fn open_read_only(path: &Path, schema: &Schema) -> Result<Connection, OpenError> {
    let open = || {
        if !has_content(path)? {
            return Err(OpenReason::Unreadable("no such file, or an empty one".to_owned()));
        }
        let conn =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        conn.busy_timeout(Duration::from_secs(5))?;
        owned(&conn)?;
        let found = applied(&conn, schema)?;
        let known = schema.migrations.len();
        if found < known { Err(OpenReason::Older { found, known }) } else { Ok(conn) }
    };
    open().map_err(|reason| OpenError { path: path.to_owned(), reason })
}

/// Opens a file for writing, creates it if it is not there, checks whose it is, brings it up to date.
#[expect(clippy::disallowed_methods, reason = "opening blocks: it is called off the executor")]
pub(super) fn open(path: &Path, schema: &Schema, check_up_to_bytes: u64) -> Result<Connection, OpenError> {
    let mut left = TRIES;
    loop {
        match open_or_create(path, schema, check_up_to_bytes) {
            Err(OpenReason::Busy(_)) if left > 0 => {
                left -= 1;
                std::thread::sleep(WAIT / 10);
            }
            result => return result.map_err(|reason| OpenError { path: path.to_owned(), reason }),
        }
    }
}

fn open_or_create(path: &Path, schema: &Schema, check_up_to_bytes: u64) -> Result<Connection, OpenReason> {
    let existed = has_content(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(WAIT)?;
    if existed {
        owned(&conn)?;
        quick_check(&conn, path, check_up_to_bytes)?;
        // Looked at before anything is written: a refused file stays as it is.
        applied(&conn, schema)?;
    }
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut conn, schema)?;
    // Nobody else writes this file; a checkpoint of somebody who looks (`saga check`) is short.
    conn.busy_timeout(Duration::from_secs(5))?;
    Ok(conn)
}

/// Whether there is something in the file; refuses what does not begin like a SQLite file.
fn has_content(path: &Path) -> Result<bool, OpenReason> {
    let mut head = Vec::with_capacity(MAGIC.len());
    match File::open(path) {
        Ok(file) => file.take(16).read_to_end(&mut head).map_err(|e| OpenReason::Unreadable(e.to_string()))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(OpenReason::Unreadable(error.to_string())),
    };
    match head.as_slice() {
        [] => Ok(false),
        head if head == MAGIC => Ok(true),
        _ => Err(OpenReason::NotSqlite),
    }
}

/// A file of ours says so; one without any table is nobody's (a crash before the first migration leaves that).
fn owned(conn: &Connection) -> Result<(), OpenReason> {
    let id: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = conn.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    if id == APPLICATION_ID || (id == 0 && tables == 0) { Ok(()) } else { Err(OpenReason::Foreign(id)) }
}

fn quick_check(conn: &Connection, path: &Path, up_to_bytes: u64) -> Result<(), OpenReason> {
    let bytes = std::fs::metadata(path).map_err(|e| OpenReason::Unreadable(e.to_string()))?.len();
    if bytes > up_to_bytes {
        return Ok(());
    }
    let found: String = conn.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(OpenReason::Damaged(found)) }
}

/// Applies what is missing, all or nothing, while nobody else can.
fn migrate(conn: &mut Connection, schema: &Schema) -> Result<(), OpenReason> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    // Asked again under the lock: another program may have been here between.
    owned(&transaction)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    let done = applied(&transaction, schema)?;
    if done == 0 {
        transaction.execute_batch(
            "create table if not exists schema_migrations (
                version integer primary key check (version > 0),
                name text not null unique,
                schema_name text not null,
                hash text not null -- BLAKE3 of the migration's text
            ) strict;",
        )?;
    }
    for (version, (name, sql)) in (1_i64..).zip(schema.migrations).skip(done) {
        let failed = |e: rusqlite::Error| {
            let detail = e.to_string();
            match OpenReason::from(e) {
                busy @ OpenReason::Busy(_) => busy,
                _ => OpenReason::Migration { name, detail },
            }
        };
        transaction.execute_batch(sql).map_err(failed)?;
        let row = (version, name, schema.name, hash(sql));
        transaction
            .execute("insert into schema_migrations (version, name, schema_name, hash) values (?1, ?2, ?3, ?4)", row)
            .map_err(failed)?;
    }
    transaction.commit()?;
    Ok(())
}

/// How many of the migrations are in the file; refuses another service's, newer and edited ones.
fn applied(conn: &Connection, schema: &Schema) -> Result<usize, OpenReason> {
    let table =
        conn.query_row("select 1 from sqlite_schema where name = 'schema_migrations'", [], |_| Ok(())).optional()?;
    if table.is_none() {
        return Ok(0);
    }
    let mut statement = conn.prepare("select name, schema_name, hash from schema_migrations order by version")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows: Vec<(String, String, String)> = rows.collect::<Result<_, _>>()?;
    for (position, (found, service, stored)) in rows.iter().enumerate() {
        if service != schema.name {
            return Err(OpenReason::OtherService { found: service.clone(), expected: schema.name });
        }
        match schema.migrations.get(position) {
            None => return Err(OpenReason::Newer { found: found.clone(), known: schema.migrations.len() }),
            Some((name, sql)) if found != name || *stored != hash(sql) => {
                return Err(OpenReason::Edited(found.clone()));
            }
            Some(_) => {}
        }
    }
    Ok(rows.len())
}

fn hash(sql: &str) -> String {
    blake3::hash(sql.as_bytes()).to_hex().to_string()
}
