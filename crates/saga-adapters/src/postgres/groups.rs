//! Group commit: what arrives while the last batch is written becomes the next one.

use std::future::Future;
use std::time::Duration;

use saga_runtime::StoreError;
use saga_runtime::pace::{Pace, gather};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Makes batches of single requests. Cheap to clone; ends with its last clone, after what was queued is done.
pub struct Groups<T, R> {
    queue: mpsc::Sender<Waiting<T, R>>,
}

struct Waiting<T, R> {
    item: T,
    answer: oneshot::Sender<Result<R, StoreError>>,
}

impl<T, R> Clone for Groups<T, R> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<T, R> std::fmt::Debug for Groups<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups").finish_non_exhaustive()
    }
}

impl<T, R> Groups<T, R>
where
    T: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    /// `run` writes a batch of at most `limit` as one transaction and answers each in order. They begin apart as
    /// [`saga_runtime::pace`] says, so that under load each has company. Needs a runtime.
    pub fn new<F, Fut>(limit: usize, apart: Duration, run: F) -> Self
    where
        F: Fn(Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<R>, StoreError>> + Send,
    {
        let room = limit.max(1);
        let (queue, mut waiting) = mpsc::channel::<Waiting<T, R>>(room * 4);
        let work = async move {
            let pace = Pace::new(apart, room);
            let mut batch = Vec::with_capacity(room);
            while gather(&mut waiting, &mut batch, room).await > 0 {
                let (begun, together) = (now(), batch.len());
                write(std::mem::take(&mut batch), &run).await;
                pause(pace.rest(together, now() - begun)).await;
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its last sender, and each sender waits for its answer"
        )]
        tokio::spawn(work);
        Self { queue }
    }

    /// Writes one, together with whatever else is waiting. Once queued, it is written even if nobody waits.
    ///
    /// # Errors
    /// As `run` says; a fault is only that of the item that causes it.
    pub async fn put(&self, item: T) -> Result<R, StoreError> {
        let gone = || StoreError::Transient("the database is being closed".to_owned());
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { item, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

#[expect(clippy::disallowed_methods, reason = "an adapter's own pause, measured")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "an adapter's own pause, far shorter than what it saves")]
async fn pause(wait: Duration) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

async fn write<T: Clone, R, F, Fut>(batch: Vec<Waiting<T, R>>, run: &F)
where
    F: Fn(Vec<T>) -> Fut,
    Fut: Future<Output = Result<Vec<R>, StoreError>>,
{
    let items: Vec<T> = batch.iter().map(|waiting| waiting.item.clone()).collect();
    let results = match run(items).await {
        Ok(results) if results.len() == batch.len() => results.into_iter().map(Ok).collect(),
        Ok(results) => {
            let detail = format!("{} answers to {} requests", results.len(), batch.len());
            repeat(&batch, &StoreError::Fault(detail))
        }
        Err(StoreError::Fault(_)) if batch.len() > 1 => {
            let mut results = Vec::with_capacity(batch.len());
            for waiting in &batch {
                let alone = run(vec![waiting.item.clone()]).await;
                let one = alone.and_then(|mut one| one.pop().ok_or_else(|| StoreError::Fault("no answer".to_owned())));
                results.push(one);
            }
            results
        }
        Err(error) => repeat(&batch, &error),
    };
    for (waiting, result) in batch.into_iter().zip(results) {
        // The caller may have gone away; the work is done all the same.
        drop(waiting.answer.send(result));
    }
}

fn repeat<T, R>(batch: &[Waiting<T, R>], error: &StoreError) -> Vec<Result<R, StoreError>> {
    batch.iter().map(|_| Err(error.clone())).collect()
}
