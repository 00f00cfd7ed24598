//! Spans on their way to a collector, by OTLP: a bounded queue, a task that sends batches, and nothing that anybody waits for.
//!
//! ```text
//!   span ─► queue (full: dropped, counted) ─► batch ─► gRPC or HTTP, TLS if asked ─► collector
//! ```
//!
//! Switched on and set by OpenTelemetry's own `OTEL_…` variables; see `docs/tracing.md`. A collector that is slow or away costs
//! spans, and one line in the log.

mod otlp;
pub mod settings;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use saga_runtime::stats::Counter;
use saga_runtime::trace::{Sink, Span, Tracer};
use saga_runtime::{Clock, SystemClock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use otlp::{Encoder, Transport};
use settings::Settings;

/// The last spans of a process get this long.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
/// A batch that was not taken is offered so often, with doubling pauses, while the queue holds what comes.
const TRIES: u32 = 4;
/// The first of these pauses.
const PAUSE: Duration = Duration::from_millis(250);

/// What became of a process's spans.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// A collector took them.
    pub(crate) exported: Counter,
    /// They were lost.
    pub(crate) dropped: Counter,
    /// Lost, and not yet told of in the log.
    untold: AtomicU64,
}

impl Spans {
    fn lose(&self, count: u64) {
        self.dropped.add(count);
        self.untold.fetch_add(count, Ordering::Relaxed);
    }
}

/// What sends a process's spans; off: nothing.
#[derive(Default)]
pub(crate) struct Telemetry {
    tracer: Tracer,
    spans: Arc<Spans>,
    stop: CancellationToken,
    sending: TaskTracker,
}

impl Telemetry {
    /// As the environment says; `name` is what the process calls itself if that says nothing.
    ///
    /// # Errors
    /// When it says what cannot be done.
    pub(crate) fn start(config: &Config, name: &str) -> anyhow::Result<Self> {
        let settings = Settings::read(name, crate::config::variable).map_err(|error| anyhow::anyhow!(error))?;
        let ignored = settings::ignored(&crate::config::variables("OTEL_"), crate::config::variable);
        if !ignored.is_empty() {
            // Names only: a value may be a secret.
            tracing::warn!(
                variables = ignored.join(" "),
                "these variables of OpenTelemetry are not followed; see docs/tracing.md"
            );
        }
        let Some(settings) = settings else { return Ok(Self::default()) };
        let transport = Transport::new(&settings)?;
        let (queue, spans) = mpsc::channel(settings.queue);
        let counts = Arc::new(Spans::default());
        let (stop, sending) = (CancellationToken::new(), TaskTracker::new());
        tracing::info!(endpoint = settings.endpoint, protocol = ?settings.protocol, "traces are exported");
        let tracer = Tracer::new(Arc::new(Queue { queue, counts: Arc::clone(&counts) }), settings.sampler, seed()?);
        let encoder = Encoder::new(&settings, config);
        let sender = Sender {
            spans,
            counts: Arc::clone(&counts),
            transport,
            encoder,
            settings,
            stop: stop.clone(),
            clock: SystemClock,
            silent: false,
        };
        sending.spawn(sender.run());
        sending.close();
        Ok(Self { tracer, spans: counts, stop, sending })
    }

    /// Where spans go.
    pub(crate) fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// What became of them so far.
    pub(crate) fn spans(&self) -> Arc<Spans> {
        Arc::clone(&self.spans)
    }

    /// Sends what is there; not for long.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.sending.close();
        if tokio::time::timeout(CLOSED_WITHIN, self.sending.wait()).await.is_err() {
            tracing::warn!("the last traces were not taken by the collector in time");
        }
    }
}

/// Where a process's span ids begin.
#[expect(clippy::disallowed_methods, reason = "no id of a row: it only has to differ between processes")]
fn seed() -> anyhow::Result<u64> {
    getrandom::u64().map_err(|error| anyhow::anyhow!("no randomness: {error}"))
}

struct Queue {
    queue: mpsc::Sender<Span>,
    counts: Arc<Spans>,
}

impl Sink for Queue {
    fn record(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.counts.lose(1);
        }
    }
}

struct Sender {
    spans: mpsc::Receiver<Span>,
    counts: Arc<Spans>,
    transport: Transport,
    encoder: Encoder,
    settings: Settings,
    stop: CancellationToken,
    clock: SystemClock,
    /// Whether it has been said that spans are lost: once, until all is well again.
    silent: bool,
}

impl Sender {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.settings.batch);
        let mut due = None;
        loop {
            let room = self.settings.batch - batch.len();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = wait(self.clock, due) => {
                    self.send(&mut batch).await;
                    due = None;
                }
                count = self.spans.recv_many(&mut batch, room) => {
                    if count == 0 {
                        break;
                    }
                    if due.is_none() {
                        due = Some(self.clock.now() + self.settings.delay_ms);
                    }
                    if batch.len() == self.settings.batch {
                        self.send(&mut batch).await;
                        due = None;
                    }
                }
            }
        }
        self.spans.close();
        loop {
            let room = self.settings.batch - batch.len();
            let more = self.spans.try_recv().ok();
            let done = more.is_none();
            batch.extend(more);
            if !batch.is_empty() && (done || room == 1) {
                self.send(&mut batch).await;
            }
            if done {
                return;
            }
        }
    }

    /// Sends a batch, or loses it.
    async fn send(&mut self, batch: &mut Vec<Span>) {
        let count = batch.len() as u64;
        let request = self.encoder.encode(batch.drain(..));
        for attempt in 0..TRIES {
            match self.transport.send(request.clone()).await {
                Ok(()) => {
                    self.counts.exported.add(count);
                    return self.sent();
                }
                Err(error) => {
                    let last = attempt + 1 == TRIES || !error.passes || self.stop.is_cancelled();
                    self.failed(&error.detail);
                    if last {
                        self.counts.lose(count);
                        return;
                    }
                    tokio::select! {
                        () = self.stop.cancelled() => {}
                        () = self.clock.sleep(PAUSE * 2_u32.pow(attempt)) => {}
                    }
                }
            }
        }
    }

    fn sent(&mut self) {
        let lost = self.counts.untold.swap(0, Ordering::Relaxed);
        match (self.silent, lost) {
            (false, 0) => {}
            (true, 0) => {
                tracing::info!("the collector takes traces again");
                self.silent = false;
            }
            (true, lost) => {
                tracing::info!(lost, "the collector takes traces again; some spans were lost");
                self.silent = false;
            }
            (false, lost) => {
                tracing::warn!(lost, "spans were dropped: more come than the collector takes; see OTEL_TRACES_SAMPLER");
                self.silent = true;
            }
        }
    }

    fn failed(&mut self, error: &str) {
        if !self.silent {
            let endpoint = &self.settings.endpoint;
            tracing::warn!(
                endpoint,
                error,
                "traces cannot be exported; the shop goes on, spans are lost until they can"
            );
            self.silent = true;
        }
    }
}

async fn wait(clock: SystemClock, due: Option<u64>) {
    match due {
        Some(due) => clock.sleep_until(due).await,
        None => std::future::pending().await,
    }
}
