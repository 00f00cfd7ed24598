//! Copies of several files, all as they were at one moment, beside a program that writes them.
//!
//! ```text
//!   begin immediate on every file ─► begin (a snapshot) on every file ─► roll the first ones back ─► copy the snapshots
//!   └──────── nobody writes: milliseconds ──────────┘
//! ```
//!
//! While every file's write lock is held, nothing is committed anywhere: what the snapshots show together is what a power
//! loss at that moment would have left, and what a program that survives those goes on from. Copied one after the other, files would
//! not be that: no order of copying makes them (`docs/operations.md` says why).
//!
//! A writer that uses more than one file in one transaction would be waited for in vain; ours use one each. The copies are
//! synced and checked. A file's log (`-wal`) is not cut back while its snapshot is held, so it grows as long as copying takes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::schema::{OpenError, OpenReason, Schema, open_read_only};

/// A transaction takes milliseconds; a machine that swaps needs longer.
const LOCKED_WITHIN: Duration = Duration::from_secs(10);

/// A file as it was at the moment.
struct Snapshot<'s> {
    schema: &'s Schema,
    conn: Connection,
}

/// A file that was copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copied {
    /// Its name in the folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Several files at one moment, to be copied.
pub struct Moment<'s>(Vec<Snapshot<'s>>);

impl<'s> Moment<'s> {
    /// Holds on to a moment of these files of a folder, each named after its schema. Blocks; writers wait for milliseconds.
    ///
    /// # Errors
    /// The first file that is not there, is not ours, or stays locked by another program.
    pub fn hold(folder: &Path, schemas: &[&'s Schema]) -> Result<Self, OpenError> {
        let mut locks = Vec::with_capacity(schemas.len());
        let mut snapshots = Vec::with_capacity(schemas.len());
        // Looked at before anything is locked: opening may take its time.
        for schema in schemas {
            let path = path_of(folder, schema);
            let conn = open_read_only(&path, schema)?;
            locks.push(locker(&path)?);
            snapshots.push(Snapshot { schema, conn });
        }
        for (lock, schema) in locks.iter().zip(schemas) {
            run(lock, "begin immediate", &path_of(folder, schema))?;
        }
        for Snapshot { schema, conn } in &snapshots {
            // The snapshot begins with the first look, not with `begin`.
            run(conn, "begin; select count(*) from sqlite_schema;", &path_of(folder, schema))?;
        }
        for (lock, schema) in locks.iter().zip(schemas) {
            run(lock, "rollback", &path_of(folder, schema))?;
        }
        Ok(Self(snapshots))
    }

    /// Copies them into a folder in which none of them is yet. Blocks.
    ///
    /// # Errors
    /// The first file that cannot be written, and why; what was copied before stays.
    pub fn copy(self, folder: &Path) -> Result<Vec<Copied>, OpenError> {
        self.0
            .into_iter()
            .map(|Snapshot { schema, conn }| {
                let path = path_of(folder, schema);
                let bytes = copy(&conn, &path).map_err(|reason| OpenError { path: path.clone(), reason })?;
                Ok(Copied { name: format!("{}.db", schema.name), bytes })
            })
            .collect()
    }
}

fn path_of(folder: &Path, schema: &Schema) -> PathBuf {
    folder.join(format!("{}.db", schema.name))
}

fn locker(path: &Path) -> Result<Connection, OpenError> {
    let open = || -> Result<Connection, OpenReason> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(LOCKED_WITHIN)?;
        Ok(conn)
    };
    open().map_err(|reason| OpenError { path: path.to_owned(), reason })
}

fn run(conn: &Connection, sql: &str, path: &Path) -> Result<(), OpenError> {
    conn.execute_batch(sql).map_err(|error| OpenError { path: path.to_owned(), reason: error.into() })
}

fn copy(from: &Connection, path: &Path) -> Result<u64, OpenReason> {
    let io = |error: std::io::Error| OpenReason::Unreadable(error.to_string());
    // Nobody else's business; and never over something that is there.
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?);
    let mut to = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let step = Backup::new(from, &mut to)?.step(-1)?;
    if step != StepResult::Done {
        return Err(OpenReason::Busy("the copy could not be finished".to_owned()));
    }
    let found: String = to.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(OpenReason::Damaged(found));
    }
    to.close().map_err(|(_, error)| error)?;
    let file = File::open(path).map_err(io)?;
    file.sync_all().map_err(io)?;
    Ok(file.metadata().map_err(io)?.len())
}
