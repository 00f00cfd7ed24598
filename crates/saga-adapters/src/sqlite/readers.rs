//! Reader threads: each has a connection of its own and sees, per job, one moment of the file.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags};

use super::options::Options;

pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The readers' common queue.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Read>,
    closed: bool,
}

impl Queue {
    pub(super) fn push(&self, job: Read) {
        self.waiting.lock().jobs.push_back(job);
        self.arrived.notify_one();
    }

    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_all();
    }

    fn pop(&self) -> Option<Read> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            self.arrived.wait(&mut waiting);
        }
    }
}

/// A reader's connection.
pub(super) fn connect(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(super::db::STATEMENTS);
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "cache_size", -i64::from(options.reader_cache_kib))?;
    Ok(conn)
}

/// Runs until the queue is closed and empty.
pub(super) fn run(conn: &Connection, queue: &Arc<Queue>) {
    while let Some(job) = queue.pop() {
        job(conn);
    }
}
