//! The handle to one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use saga_runtime::StoreError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::error::SqlError;
use super::options::{Durability, Options};
use super::readers::{self, Queue};
use super::schema::{self, OpenError, OpenReason, Schema};
use super::writer::{Job, Write, Writer, guarded};
use crate::stats::DatabaseStats;

/// Prepared statements that a connection keeps: more than any service has.
pub(super) const STATEMENTS: usize = 128;

/// Reads that may wait or run at once; more wait outside.
const READS: usize = 256;

/// One file, its writer thread and its reader threads. Cheap to clone; the threads end with the last clone,
/// after they have done what was queued.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    path: PathBuf,
    jobs: mpsc::Sender<Box<dyn Job>>,
    reads: Arc<Queue>,
    reading: Arc<Semaphore>,
    stats: Arc<DatabaseStats>,
    /// Ends (nobody sends) when the writer has, which is the last.
    ended: parking_lot::Mutex<Option<mpsc::Receiver<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reads.close();
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Db").field(&self.0.path).finish()
    }
}

impl Db {
    /// Opens a file, creating and migrating it as needed. Blocks; for start-up.
    ///
    /// # Errors
    /// A file that is not ours, damaged, newer or edited is refused, with its name and the reason.
    pub fn open(path: &Path, schema: &Schema, options: &Options) -> Result<Self, OpenError> {
        let conn = schema::open(path, schema, options.check_up_to_bytes)?;
        start(path, schema.name, conn, options).map_err(|reason| OpenError { path: path.to_owned(), reason })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What it did so far.
    pub fn stats(&self) -> &DatabaseStats {
        &self.0.stats
    }

    /// Writes that wait for the writer, and how many may.
    pub fn queue(&self) -> (usize, usize) {
        let most = self.0.jobs.max_capacity();
        (most - self.0.jobs.capacity(), most)
    }

    /// Runs `work` on the writer thread, in a transaction that it shares with whatever else is waiting and in a
    /// savepoint of its own. On `Ok` it is committed (and, if durable, on disk); on `Err` nothing of it stays.
    /// Waits while the queue is full. Not cancel-safe: once queued, it runs even if nobody waits.
    ///
    /// `work` may not end the transaction and should not compute at length: it holds up every writer of this file.
    ///
    /// # Errors
    /// `Full` and `Fault` as they are sorted in [`SqlError`]; `Transient` when the fate is unknown.
    pub async fn write<R, F>(&self, durability: Durability, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Connection) -> Result<R, SqlError> + Send + 'static,
    {
        let (job, answered) = Write::new(durability, work);
        self.0.jobs.send(Box::new(job)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.inspect_err(|error| self.0.stats.failed(error))
    }

    /// Runs `work` on a reader thread, against one moment of the file: all that was committed before the call is seen.
    ///
    /// # Errors
    /// See [`SqlError`]; writing is refused.
    pub async fn read<R, F>(&self, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Connection) -> Result<R, SqlError> + Send + 'static,
    {
        let permit = Arc::clone(&self.0.reading).acquire_owned().await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        self.0.reads.push(Box::new(move |conn| {
            let result = guarded(|conn| snapshot(conn, work), conn);
            drop(permit);
            // The caller may have gone away.
            drop(answer.send(result));
        }));
        answered.await.map_err(|_| gone())?.inspect_err(|error| self.0.stats.failed(error))
    }

    /// Lets go of the file and waits until its threads have ended, if this is the last clone.
    pub async fn close(self) {
        let ended = self.0.ended.lock().take();
        drop(self);
        if let Some(mut ended) = ended {
            while ended.recv().await.is_some() {}
        }
    }
}

fn gone() -> StoreError {
    StoreError::Transient("the database is being closed".to_owned())
}

/// One read transaction: several statements see the same moment.
fn snapshot<R>(conn: &Connection, work: impl FnOnce(&Connection) -> Result<R, SqlError>) -> Result<R, SqlError> {
    // Left open by a job that panicked.
    if !conn.is_autocommit() {
        conn.execute_batch("rollback")?;
    }
    conn.prepare_cached("begin")?.execute([])?;
    let result = work(conn);
    conn.prepare_cached("rollback")?.execute([])?;
    result
}

fn start(path: &Path, name: &str, conn: Connection, options: &Options) -> Result<Db, OpenReason> {
    let (jobs, queue) = mpsc::channel(options.queue.max(1));
    let (writing, ended) = mpsc::channel(1);
    let (alive, readers) = mpsc::channel(1);
    let reads = Arc::new(Queue::default());
    let stats = Arc::new(DatabaseStats::default());
    let writer = Writer::new(conn, queue, options, Arc::clone(&stats))?;
    let spawn = |title: String, body: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().name(title).spawn(body);
        thread.map(|_| ()).map_err(|e| OpenReason::Unreadable(e.to_string()))
    };
    for number in 1..=options.readers.max(1) {
        let conn = readers::connect(path, options)?;
        let (queue, alive) = (Arc::clone(&reads), alive.clone());
        let read = move || {
            readers::run(&conn, &queue);
            drop(conn);
            drop(alive);
        };
        spawn(format!("{name}-reader-{number}"), Box::new(read))?;
    }
    let write = move || {
        writer.run(readers);
        drop(writing);
    };
    spawn(format!("{name}-writer"), Box::new(write))?;
    let reading = Arc::new(Semaphore::new(READS));
    let ended = parking_lot::Mutex::new(Some(ended));
    Ok(Db(Arc::new(Inner { path: path.to_owned(), jobs, reads, reading, stats, ended })))
}
