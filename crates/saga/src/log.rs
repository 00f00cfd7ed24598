//! The log, to standard error: lines in a bounded queue, a thread that writes them, and nobody who waits for it.
//!
//! ```text
//!   event ─► line ─► queue (full: dropped, counted) ─► thread ─► standard error
//! ```
//!
//! Promised: whoever does not read standard error costs lines, never a purchase; how many were lost is said as soon as there is
//! room again. Of other people's crates nothing finer than `info` is written, whatever the filter says: their debug lines hold
//! parameters of SQL and headers of requests. Nobody here logs a password, a token or a body.

use std::io::{IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, TrySendError, channel, sync_channel,
};
use std::time::Duration;

use anyhow::Context as _;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, filter};

use crate::config::{Log, LogFormat};

/// Lines that wait for standard error: some megabytes at most, and more than any start or storm of errors writes at once.
const WAITING: usize = 8_192;
/// The last lines of a process get this long; a pipe that nobody reads must not keep it.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);
/// Between two tries to get the last word into a full queue.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Whose events may be finer than `info`.
const OURS: [&str; 13] = [
    "saga",
    "saga_core",
    "saga_runtime",
    "saga_adapters",
    "chassis",
    "contracts",
    "console",
    "account",
    "product",
    "order",
    "payment",
    "purchase",
    "orchestrator",
];

/// What goes through the queue.
enum Line {
    Text(Vec<u8>),
    /// Everything before it is to be written; then an answer.
    Flush(Sender<()>),
}

/// Takes lines and never waits. Cheap to clone.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

/// One line that is being formatted.
struct Draft<'l> {
    lines: &'l Lines,
    text: Vec<u8>,
}

impl<'l> MakeWriter<'l> for Lines {
    type Writer = Draft<'l>;

    fn make_writer(&'l self) -> Draft<'l> {
        Draft { lines: self, text: Vec::new() }
    }
}

impl Write for Draft<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() && self.lines.queue.try_send(Line::Text(std::mem::take(&mut self.text))).is_err() {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The log of a process. Dropped at its end, it writes what still waits; not for long.
pub(crate) struct Logging(Lines);

impl Drop for Logging {
    fn drop(&mut self) {
        let (done, written) = channel();
        let mut word = Line::Flush(done);
        let mut left = WRITTEN_WITHIN;
        while let Err(TrySendError::Full(back)) = self.0.queue.try_send(word) {
            // Nothing is ever sent to it: only a pause.
            let (_keep, pause) = channel::<()>();
            if left.is_zero() || !matches!(pause.recv_timeout(TRY_EVERY), Err(RecvTimeoutError::Timeout)) {
                return;
            }
            left = left.saturating_sub(TRY_EVERY);
            word = back;
        }
        _ = written.recv_timeout(left.max(TRY_EVERY));
    }
}

/// Installs the log of this process.
///
/// # Errors
/// A filter that is none; or there is a log already.
pub(crate) fn install(config: &Log) -> anyhow::Result<Logging> {
    let filter = EnvFilter::try_new(&config.filter).with_context(|| format!("log.filter {:?}", config.filter))?;
    let lines = start(std::io::stderr(), tracing::dispatcher::has_been_set)?;
    let builder = tracing_subscriber::registry().with(filter).with(filter::filter_fn(may_be_written));
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone());
    let installed = match config.format {
        LogFormat::Text => builder.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => builder.with(layer.json().flatten_event(true)).try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("logging cannot be installed: {error}"))?;
    // The standard hook writes to standard error itself, and would wait there.
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload().downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("without a message");
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panicked: {text}");
    }));
    Ok(Logging(lines))
}

/// Ours as the filter says; of the others only what is meant for whoever runs the process.
fn may_be_written(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || OURS.contains(&event.target().split(':').next().unwrap_or_default())
}

/// Starts the thread that writes.
fn start(to: impl Write + Send + 'static, may_tell: fn() -> bool) -> std::io::Result<Lines> {
    let (queue, lines) = sync_channel(WAITING);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&lines, &counted, to, may_tell))?;
    Ok(Lines { queue, dropped })
}

/// Writes until nobody can send any more. What was lost is told when all that waited is written, not in between.
fn write(lines: &Receiver<Line>, dropped: &AtomicU64, mut to: impl Write, may_tell: fn() -> bool) {
    let mut told = 0;
    loop {
        let line = match lines.try_recv() {
            Err(TryRecvError::Empty) => {
                let lost = dropped.load(Ordering::Relaxed);
                if lost > told && may_tell() {
                    tracing::warn!(lost = lost - told, "lines of the log were dropped: standard error was not read");
                    told = lost;
                }
                lines.recv().ok()
            }
            line => line.ok(),
        };
        match line {
            // A reader that has gone away is no reason to end.
            Some(Line::Text(text)) => _ = to.write_all(&text),
            Some(Line::Flush(done)) => {
                _ = to.flush();
                _ = done.send(());
            }
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Barrier;

    use parking_lot::Mutex;

    use super::*;

    /// Takes the first line in hand and does not let go before it is told to.
    struct Stuck {
        barrier: Arc<Barrier>,
        waits: bool,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if std::mem::take(&mut self.waits) {
                self.barrier.wait();
                self.barrier.wait();
            }
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_finds_the_queue_full_is_dropped_and_counted_and_the_rest_is_written_in_order() {
        let (barrier, written) = (Arc::new(Barrier::new(2)), Arc::new(Mutex::new(Vec::new())));
        let stuck = Stuck { barrier: Arc::clone(&barrier), waits: true, written: Arc::clone(&written) };
        let lines = start(stuck, || false).unwrap();
        let say = |text: String| lines.make_writer().write_all(text.as_bytes()).unwrap();
        say("first\n".to_owned());
        barrier.wait();
        for n in 0..WAITING + 10 {
            say(format!("{n}\n"));
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 10);
        barrier.wait();
        let (done, flushed) = channel();
        lines.queue.send(Line::Flush(done)).unwrap();
        flushed.recv().unwrap();
        let written = String::from_utf8(written.lock().clone()).unwrap();
        assert_eq!(written.lines().count(), WAITING + 1);
        assert!(written.starts_with("first\n0\n1\n"));
        drop(Logging(lines));
    }
}
