//! The writer thread: whatever waits becomes one transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use saga_runtime::{Clock as _, StoreError, SystemClock};
use tokio::sync::{mpsc, oneshot};

use super::error::{SqlError, classify};
use super::options::{Durability, Options};
use crate::stats::DatabaseStats;

/// A unit of writing, with the place for its answer.
pub(super) trait Job: Send {
    fn durability(&self) -> Durability;
    /// Runs it and keeps the result; an error means that its changes shall not stay.
    fn run(&mut self, conn: &Connection) -> Result<(), StoreError>;
    /// Answers: its own failure, or its result if the transaction it was part of is committed.
    fn finish(self: Box<Self>, committed: &Result<(), StoreError>);
}

pub(super) struct Write<F, R> {
    durability: Durability,
    work: Option<F>,
    result: Option<Result<R, StoreError>>,
    answer: oneshot::Sender<Result<R, StoreError>>,
}

impl<F, R> Write<F, R> {
    pub(super) fn new(durability: Durability, work: F) -> (Self, oneshot::Receiver<Result<R, StoreError>>) {
        let (answer, answered) = oneshot::channel();
        (Self { durability, work: Some(work), result: None, answer }, answered)
    }
}

impl<F, R> Job for Write<F, R>
where
    F: FnOnce(&Connection) -> Result<R, SqlError> + Send,
    R: Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let result = guarded(work, conn);
        let told = result.as_ref().map(|_| ()).map_err(StoreError::clone);
        self.result = Some(result);
        told
    }

    fn finish(self: Box<Self>, committed: &Result<(), StoreError>) {
        let result = match (self.result, committed) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(shared)) => Err(shared.clone()),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Fault("the writer skipped this job".to_owned())),
        };
        // The caller may have gone away; the work is done all the same.
        drop(self.answer.send(result));
    }
}

/// Runs `work`; a panic becomes a fault of this unit only.
pub(super) fn guarded<R>(
    work: impl FnOnce(&Connection) -> Result<R, SqlError>,
    conn: &Connection,
) -> Result<R, StoreError> {
    match catch_unwind(AssertUnwindSafe(|| work(conn))) {
        Ok(result) => result.map_err(StoreError::from),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(StoreError::Fault(format!("panic: {}", text.unwrap_or("(no message)"))))
        }
    }
}

/// What the writer thread holds.
pub(super) struct Writer {
    conn: Connection,
    jobs: mpsc::Receiver<Box<dyn Job>>,
    max_batch: usize,
    synchronous: Durability,
    /// Pages in the log, as told at each commit.
    log_pages: Arc<AtomicI32>,
    checkpoint_pages: i32,
    stats: Arc<DatabaseStats>,
}

impl Writer {
    pub(super) fn new(
        mut conn: Connection,
        jobs: mpsc::Receiver<Box<dyn Job>>,
        options: &Options,
        stats: Arc<DatabaseStats>,
    ) -> rusqlite::Result<Self> {
        conn.set_prepared_statement_cache_capacity(super::db::STATEMENTS);
        conn.pragma_update(None, "temp_store", "memory")?;
        conn.pragma_update(None, "cache_size", -i64::from(options.writer_cache_kib))?;
        // Above the size at which the log starts over, so that it is only cut after an unusual growth: a log that is
        // overwritten needs no change to the file's length, which makes each fsync cheaper.
        conn.pragma_update(None, "journal_size_limit", i64::from(options.checkpoint_pages) * 4096 * 4)?;
        if let Some(pages) = options.max_pages {
            conn.pragma_update(None, "max_page_count", pages)?;
        }
        let log_pages = Arc::new(AtomicI32::new(0));
        let told = Arc::clone(&log_pages);
        // Replaces SQLite's own checkpoint in the middle of a commit: ours runs after the answers are out.
        conn.wal_hook(Some(move |_: &mut Wal, pages| {
            told.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        let checkpoint_pages = i32::try_from(options.checkpoint_pages).unwrap_or(i32::MAX);
        let max_batch = options.max_batch.max(1);
        Ok(Self { conn, jobs, max_batch, synchronous: Durability::Durable, log_pages, checkpoint_pages, stats })
    }

    /// Runs until every handle is gone and the queue is empty, then waits for the `readers` (who send nothing) to end:
    /// the last connection to a file copies its log back, and two that close at once leave it to each other.
    pub(super) fn run(mut self, mut readers: mpsc::Receiver<()>) {
        let mut batch = Vec::with_capacity(self.max_batch);
        while let Some(first) = self.jobs.blocking_recv() {
            batch.push(first);
            while batch.len() < self.max_batch
                && let Ok(job) = self.jobs.try_recv()
            {
                batch.push(job);
            }
            let begun = SystemClock.nanos();
            let committed = self.transaction(&mut batch);
            self.stats.transaction.observe_between(begun, SystemClock.nanos());
            self.stats.batch.observe(batch.len() as u64);
            for job in batch.drain(..) {
                job.finish(&committed);
            }
            self.checkpoint_when_due();
        }
        while readers.blocking_recv().is_some() {}
    }

    /// One transaction for the whole batch.
    fn transaction(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let durable = batch.iter().any(|job| job.durability() == Durability::Durable);
        let outcome = self
            .synchronize(if durable { Durability::Durable } else { Durability::Derivable })
            .and_then(|()| self.execute("begin immediate"))
            .and_then(|()| self.jobs(batch))
            .and_then(|kept| self.execute(if kept == 0 { "rollback" } else { "commit" }));
        if outcome.is_err()
            && !self.conn.is_autocommit()
            && let Err(error) = self.execute("rollback")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
        outcome
    }

    /// Runs each job in its own savepoint; tells how many succeeded.
    fn jobs(&self, batch: &mut [Box<dyn Job>]) -> Result<usize, StoreError> {
        // Alone, the transaction itself is the savepoint.
        let alone = batch.len() == 1;
        let mut kept = 0;
        for job in batch {
            if !alone {
                self.execute("savepoint job")?;
            }
            let told = job.run(&self.conn);
            if self.conn.is_autocommit() {
                // Some errors (a full disk is one) make SQLite roll everything back, the neighbours' work too:
                // nobody is told that work is kept which is not.
                return Err(told.err().unwrap_or_else(|| StoreError::Fault("a job ended the transaction".to_owned())));
            }
            match told {
                Ok(()) => kept += 1,
                Err(_) if alone => {}
                Err(_) => self.execute("rollback to job")?,
            }
            if !alone {
                self.execute("release job")?;
            }
        }
        Ok(kept)
    }

    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        let done = self.conn.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        done.map(|_| ()).map_err(|error| classify(&error))
    }

    /// Between transactions only: SQLite ignores it inside one.
    fn synchronize(&mut self, wanted: Durability) -> Result<(), StoreError> {
        if self.synchronous != wanted {
            let level = match wanted {
                Durability::Durable => "pragma synchronous = full",
                Durability::Derivable => "pragma synchronous = normal",
            };
            self.conn.execute_batch(level).map_err(|error| classify(&error))?;
            self.synchronous = wanted;
        }
        Ok(())
    }

    /// Copies the log back so that it can start over.
    fn checkpoint_when_due(&self) {
        if self.log_pages.load(Ordering::Relaxed) < self.checkpoint_pages {
            return;
        }
        // A reader in the middle of something only postpones it; a full disk shows at the next write.
        if let Err(error) = self.conn.execute_batch("pragma wal_checkpoint(passive)") {
            tracing::warn!(%error, "the log could not be copied back; it goes on growing");
        }
    }
}
