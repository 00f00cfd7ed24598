//! The handle to one database: sessions, single statements, transactions in two packets.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use futures_util::future::join_all;
use saga_runtime::{Clock as _, StoreError, SystemClock};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::PgError;
use super::query::Query;
use crate::stats::DatabaseStats;

const BEGIN: &str = "begin";
const LAZY: &str = "set local synchronous_commit = off";
const COMMIT: &str = "commit";

/// For reads of everything.
const LONG: Duration = Duration::from_secs(3600);

/// One database and its sessions. Cheap to clone.
#[derive(Clone)]
pub struct Pg(Arc<Inner>);

pub(super) struct Inner {
    /// For people, without a password.
    pub(super) address: String,
    pub(super) pool: Pool,
    /// The server is given up after this.
    pub(super) limit: Duration,
    pub(super) lazy_commits: bool,
    pub(super) pace: Duration,
    pub(super) stats: Arc<DatabaseStats>,
}

impl std::fmt::Debug for Pg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pg").field(&self.0.address).finish()
    }
}

impl Pg {
    pub(super) fn of(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Which database, without its password.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Whether commits may be lazy at all: if not, everything that is committed is on disk.
    pub fn has_lazy_commits(&self) -> bool {
        self.0.lazy_commits
    }

    /// Sessions that are in use, and at most.
    pub fn sessions(&self) -> (usize, usize) {
        let status = self.0.pool.status();
        (status.size.saturating_sub(status.available), status.max_size)
    }

    /// How far apart commits of groups begin.
    pub fn pace(&self) -> Duration {
        self.0.pace
    }

    /// Callers that wait for a session.
    pub fn waiting(&self) -> usize {
        self.0.pool.status().waiting
    }

    /// What it did so far.
    pub fn stats(&self) -> &DatabaseStats {
        &self.0.stats
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(Query::new("select 1")).await?;
        Ok(())
    }

    /// One statement, which is a transaction of its own.
    ///
    /// # Errors
    /// `Transient` when its fate is unknown; the others: it changed nothing.
    pub async fn run(&self, query: Query<'_>) -> Result<Vec<Row>, PgError> {
        if query.lazy && self.0.lazy_commits {
            return Ok(self.all(vec![query]).await?.pop().unwrap_or_default());
        }
        let session = self.session().await?;
        let mut rows = session.pipeline(&[], &[query], &[]).await?;
        Ok(rows.pop().unwrap_or_default())
    }

    /// One statement that changes nothing: asked once more when the session was lost.
    ///
    /// # Errors
    /// As the second try says.
    pub async fn read(&self, query: Query<'_>) -> Result<Vec<Row>, PgError> {
        let queries = [query];
        for _ in 0..2 {
            let session = self.session().await?;
            match session.pipeline(&[], &queries, &[]).await {
                Ok(mut rows) => return Ok(rows.pop().unwrap_or_default()),
                Err(error) if error.lost_the_session() => {}
                Err(error) => return Err(error),
            }
        }
        Err(PgError::Transient("the server closed the session, twice".to_owned()))
    }

    /// Several statements as one transaction, in one packet. Answers the rows of each.
    ///
    /// # Errors
    /// Nothing of it stays; for `Transient` it may have been committed.
    pub async fn all(&self, queries: Vec<Query<'_>>) -> Result<Vec<Vec<Row>>, PgError> {
        let mut session = self.session().await?;
        session.open = true;
        let (begin, rest): (&[&str], _) =
            if self.is_lazy(&queries) { (&[BEGIN, LAZY], &[COMMIT]) } else { (&[BEGIN], &[COMMIT]) };
        let result = session.pipeline(begin, &queries, rest).await;
        session.settle(result.is_ok()).await;
        result
    }

    /// Begins a transaction with these statements, in one packet. Answers the rows of each.
    ///
    /// # Errors
    /// There is no transaction then.
    pub async fn begin(&self, queries: Vec<Query<'_>>) -> Result<(Tx, Vec<Vec<Row>>), PgError> {
        let mut session = self.session().await?;
        session.open = true;
        match session.pipeline(&[BEGIN], &queries, &[]).await {
            Ok(rows) => Ok((Tx { session, lazy_commits: self.0.lazy_commits }, rows)),
            Err(error) => {
                session.settle(false).await;
                Err(error)
            }
        }
    }

    /// A transaction of another kind, for long reads: nobody is given up for being slow.
    pub(super) async fn begin_with(&self, begin: &[&'static str], queries: Vec<Query<'_>>) -> Result<Tx, PgError> {
        let mut session = self.session().await?;
        session.open = true;
        session.limit = LONG;
        session.pipeline(begin, &queries, &[]).await?;
        Ok(Tx { session, lazy_commits: false })
    }

    /// Ends the sessions as they come back; whoever asks for one from now on is refused.
    pub async fn close(self) {
        self.0.pool.close();
    }

    fn is_lazy(&self, queries: &[Query<'_>]) -> bool {
        self.0.lazy_commits && queries.last().is_some_and(|query| query.lazy)
    }

    async fn session(&self) -> Result<Session, PgError> {
        let stats = Arc::clone(&self.0.stats);
        let begun = SystemClock.nanos();
        let object = self.0.pool.get().await.map_err(PgError::from);
        stats.waited.observe_between(begun, SystemClock.nanos());
        let object = object.inspect_err(|error| error.count(&stats))?;
        Ok(Session { object: Some(object), limit: self.0.limit, open: false, lost: AtomicBool::new(false), stats })
    }
}

/// An open transaction. Dropped without an end, it takes its session with it: the server rolls back.
pub struct Tx {
    session: Session,
    lazy_commits: bool,
}

impl Tx {
    /// More statements, in one packet. Answers the rows of each.
    ///
    /// # Errors
    /// The transaction can only be dropped or rolled back then.
    pub async fn also(&self, queries: Vec<Query<'_>>) -> Result<Vec<Vec<Row>>, PgError> {
        self.session.pipeline(&[], &queries, &[]).await
    }

    /// The last statements and the commit, in one packet. Answers the rows of each.
    ///
    /// # Errors
    /// Nothing of the transaction stays; for `Transient` it may have been committed.
    pub async fn commit(mut self, queries: Vec<Query<'_>>) -> Result<Vec<Vec<Row>>, PgError> {
        let lazy = self.lazy_commits && queries.last().is_some_and(|query| query.lazy);
        let result = if lazy {
            self.session.pipeline(&[LAZY], &queries, &[COMMIT]).await
        } else {
            self.session.pipeline(&[], &queries, &[COMMIT]).await
        };
        self.session.settle(result.is_ok()).await;
        result
    }

    /// A statement without values or answer, whose text is not worth keeping.
    pub(super) async fn say(&self, sql: &str) -> Result<(), PgError> {
        Ok(self.session.client()?.batch_execute(sql).await?)
    }

    /// The same, with an answer.
    pub(super) async fn ask(&self, sql: &str) -> Result<Vec<Row>, PgError> {
        Ok(self.session.client()?.query(sql, &[]).await?)
    }

    /// Takes everything back and gives the session back.
    pub async fn roll_back(mut self) {
        self.session.settle(false).await;
    }
}

/// A session on loan.
struct Session {
    /// `None` only while it is dropped.
    object: Option<Object>,
    limit: Duration,
    /// In a transaction: not to be given back as it is.
    open: bool,
    /// The server has ended it, or owes an answer: not to be given back at all.
    lost: AtomicBool,
    stats: Arc<DatabaseStats>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(object) = self.object.take_if(|_| self.open || *self.lost.get_mut()) {
            drop(Object::take(object));
        }
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>, tokio_postgres::Error>> + Send + 'a>>;

impl Session {
    fn client(&self) -> Result<&Object, PgError> {
        self.object.as_ref().ok_or_else(|| PgError::fault("the session is gone"))
    }

    /// Sends everything at once and waits for all answers. The first error is the one that counts: those after it only
    /// say that the transaction is broken.
    async fn pipeline(
        &self,
        before: &[&'static str],
        queries: &[Query<'_>],
        after: &[&'static str],
    ) -> Result<Vec<Vec<Row>>, PgError> {
        let hangs = || PgError::Transient(format!("the server has not answered for {:?}", self.limit));
        let begun = SystemClock.nanos();
        let answered = tokio::time::timeout(self.limit, self.send(before, queries, after)).await;
        self.stats.transaction.observe_between(begun, SystemClock.nanos());
        let is_lost = answered.as_ref().map_or(true, |result| result.as_ref().is_err_and(PgError::lost_the_session));
        if is_lost {
            self.lost.store(true, Ordering::Relaxed);
        }
        answered.unwrap_or_else(|_| Err(hangs())).inspect_err(|error| error.count(&self.stats))
    }

    async fn send(
        &self,
        before: &[&'static str],
        queries: &[Query<'_>],
        after: &[&'static str],
    ) -> Result<Vec<Vec<Row>>, PgError> {
        let client = self.client()?;
        // Prepared first, all of them: or the commit would overtake a statement that is prepared for the first time.
        let mut prepared = Vec::with_capacity(queries.len());
        for query in queries {
            let values: Vec<&(dyn ToSql + Sync)> = query.values.iter().map(|value| &**value as _).collect();
            prepared.push((client.prepare_cached(&query.sql).await?, values));
        }
        let simple = |sql: &'static str| -> Answer<'_> {
            Box::pin(async move { client.batch_execute(sql).await.map(|()| Vec::new()) })
        };
        let mut answers: Vec<Answer<'_>> = before.iter().map(|sql| simple(sql)).collect();
        answers.extend(
            prepared.iter().map(|(statement, values)| -> Answer<'_> { Box::pin(client.query(statement, values)) }),
        );
        answers.extend(after.iter().map(|sql| simple(sql)));
        // Polled in this order, and each sends on its first poll.
        let all: Vec<Vec<Row>> = join_all(answers).await.into_iter().collect::<Result<_, _>>()?;
        Ok(all.into_iter().skip(before.len()).take(queries.len()).collect())
    }

    /// After the end of a transaction. One that failed is rolled back (mostly it already is); if that fails too, the
    /// session is not given back.
    async fn settle(&mut self, ended_well: bool) {
        let lost = self.lost.load(Ordering::Relaxed);
        if ended_well || (!lost && self.pipeline(&[], &[], &["rollback"]).await.is_ok()) {
            self.open = false;
        }
    }
}
