//! Processes: tasks that can be killed at any await, or put to sleep without noticing it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// Lets a process run, or not.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Closed>);

#[derive(Debug, Default)]
struct Closed {
    closed: bool,
    waker: Option<Waker>,
}

impl Gate {
    /// From here on the process does not run: `SIGSTOP`.
    pub fn close(&self) {
        self.0.lock().closed = true;
    }

    /// It goes on where it was: `SIGCONT`.
    pub fn open(&self) {
        let mut state = self.0.lock();
        state.closed = false;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

struct Gated<T> {
    inner: Pin<Box<dyn Future<Output = T> + Send>>,
    gate: Arc<Gate>,
}

impl<T> Future for Gated<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        {
            let mut state = self.gate.0.lock();
            if state.closed {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        self.inner.as_mut().poll(context)
    }
}

/// A running process.
#[derive(Debug)]
pub struct Process<T> {
    gate: Arc<Gate>,
    task: JoinHandle<T>,
}

impl<T: Send + 'static> Process<T> {
    /// Starts one.
    pub fn start(tracker: &TaskTracker, work: impl Future<Output = T> + Send + 'static) -> Self {
        let gate = Arc::new(Gate::default());
        let task = tracker.spawn(Gated { inner: Box::pin(work), gate: gate.clone() });
        Self { gate, task }
    }

    /// Stops it and lets it go on.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether it ended by itself.
    pub fn ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it where it stands and drops its memory: `SIGKILL`. Answers its end if it had ended by itself.
    ///
    /// # Panics
    /// With the process's own panic.
    pub async fn kill(self) -> Option<T> {
        self.task.abort();
        self.join().await
    }

    /// Its end; `None` when it was killed.
    ///
    /// # Panics
    /// With the process's own panic.
    pub async fn join(self) -> Option<T> {
        match self.task.await {
            Ok(end) => Some(end),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }
}
