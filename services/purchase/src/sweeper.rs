//! Whatever is outstanding is asked for again: starts that were never heard of, results that went missing, cancels.
//!
//! A start that is sent again is harmless: it makes the orchestrator publish all results of that purchase again. So one
//! question serves every loss. Questions are paced by their answers: at most a window of them is open, so that a
//! hundred thousand purchases after a crash are asked for as fast as the orchestrator takes them, not faster.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use saga_core::Millis;
use saga_runtime::{Bus, Clock, Message, StoreError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Stats;
use crate::admission::Admission;
use crate::domain::Status;
use crate::outbound::Course;
use crate::store::{Idle, Outstanding, Store};

/// Rows read at a time: some hundred kilobytes.
const PAGE: u32 = 500;
/// Questions in one publish.
const CHUNK: usize = 100;
/// The same purchase is not asked for at once more often than this, whatever goes missing.
const AT_ONCE_EVERY: Millis = 250;
/// The longest wait between two questions about the same purchase is the first one times two to this.
const MAX_DOUBLINGS: u8 = 6;
/// A question without an answer for this long was lost (or its answer was): it no longer holds a place in the window.
const ANSWERED_WITHIN: Millis = 2_000;
/// How long an idempotency key is kept.
const KEYS_KEPT: Millis = 48 * 60 * 60 * 1_000;
/// Keys looked at in one transaction.
const KEYS: u32 = 1_000;
/// Such transactions in a pass.
const BITES: usize = 50;

/// How outstanding purchases are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// A purchase without news for this long is asked for.
    pub(crate) stale_after: Duration,
    /// A purchase without news for this long gives up its slot.
    pub(crate) park_after: Duration,
    /// Questions that may be open at once.
    pub(crate) window: usize,
    /// Questions a second at most.
    pub(crate) rate: u32,
    /// The same, for what the orchestrator has never heard of.
    pub(crate) recovery_rate: u32,
}

/// A question that was asked.
#[derive(Clone, Copy, Debug)]
struct Ask {
    at: Millis,
    times: u8,
    open: bool,
}

/// What has been asked for, and what is to be asked for at once. Shared with the consumer.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    state: Mutex<State>,
    any: AtomicBool,
    wake: Notify,
    answered: Notify,
}

#[derive(Debug, Default)]
struct State {
    asked: HashMap<u64, Ask>,
    open: usize,
    at_once: Vec<u64>,
}

impl Asks {
    /// Something of this purchase went missing.
    pub(crate) fn at_once(&self, id: u64) {
        self.state.lock().at_once.push(id);
        self.wake.notify_one();
    }

    /// News of these arrived; of those it was the last.
    pub(crate) fn heard(&self, ids: impl Iterator<Item = u64>, ended: &[u64]) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.lock();
        let open = state.open;
        for id in ids {
            let closed = state.asked.get_mut(&id).is_some_and(|ask| std::mem::take(&mut ask.open));
            state.open -= usize::from(closed);
        }
        for id in ended {
            state.asked.remove(id);
        }
        if state.open < open {
            self.answered.notify_one();
        }
        self.any.store(!state.asked.is_empty(), Ordering::Release);
    }

    /// Which of `rows` may be asked for now: the waits between questions grow while nothing moves.
    fn due(&self, rows: Vec<Outstanding>, now: Millis, first_wait: Millis) -> Vec<Outstanding> {
        let state = self.state.lock();
        let due = |row: &Outstanding| match state.asked.get(&row.id) {
            None => true,
            // The clock was set back.
            Some(ask) if ask.at > now => true,
            Some(ask) if row.updated_at > ask.at => now - ask.at >= first_wait,
            Some(ask) => now - ask.at >= first_wait << ask.times.saturating_sub(1).min(MAX_DOUBLINGS),
        };
        rows.into_iter().filter(due).collect()
    }

    fn note(&self, rows: &[Outstanding], now: Millis) {
        let mut state = self.state.lock();
        for row in rows {
            let ask = state.asked.entry(row.id).or_insert(Ask { at: 0, times: 0, open: false });
            let moved = row.updated_at > ask.at;
            *ask = Ask { at: now, times: if moved { 1 } else { ask.times.saturating_add(1) }, open: ask.open };
            if !std::mem::replace(&mut ask.open, true) {
                state.open += 1;
            }
        }
        self.any.store(true, Ordering::Release);
    }

    /// What the bus did not take was no question, and it may not have taken those before either: the next one comes after the
    /// first wait again.
    fn take_back(&self, rows: &[Outstanding]) {
        let mut state = self.state.lock();
        for row in rows {
            if let Some(ask) = state.asked.get_mut(&row.id) {
                ask.times = 0;
                let closed = std::mem::take(&mut ask.open);
                state.open -= usize::from(closed);
            }
        }
    }

    /// Questions without an answer for so long were lost: they no longer hold a place in the window.
    fn expire(&self, before: Millis) {
        let mut state = self.state.lock();
        let mut closed = 0;
        for ask in state.asked.values_mut().filter(|ask| ask.open && ask.at <= before) {
            ask.open = false;
            closed += 1;
        }
        state.open -= closed;
    }

    fn open(&self) -> usize {
        self.state.lock().open
    }

    fn take_at_once(&self, now: Millis) -> Vec<u64> {
        let mut state = self.state.lock();
        let mut ids = std::mem::take(&mut state.at_once);
        ids.sort_unstable();
        ids.dedup();
        let recent = |id: &u64| {
            let asked = state.asked.get(id).map(|ask| ask.at);
            asked.is_some_and(|at| at <= now && now - at < AT_ONCE_EVERY)
        };
        ids.retain(|id| !recent(id));
        ids
    }
}

/// The loop and what it needs.
pub(crate) struct Sweeper {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) course: Course,
    pub(crate) admission: Arc<Admission>,
    pub(crate) asks: Arc<Asks>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) stop: CancellationToken,
    pub(crate) pace: Pace,
    /// When this process began: nothing that happened before it is held against a purchase.
    pub(crate) since: Millis,
}

impl Sweeper {
    /// Looks after what is outstanding until stopped.
    pub(crate) async fn run(self) {
        // What the orchestrator has never heard of waits for nobody else; the rest it resumes by itself.
        self.pass(self.since, true).await;
        loop {
            let began = self.clock.now();
            let wait = self.pace.stale_after / 2;
            let next = began.saturating_add(millis(wait));
            loop {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    () = self.asks.wake.notified() => self.ask_at_once().await,
                    () = self.clock.sleep_until(next) => break,
                }
            }
            let stale = self.clock.now().saturating_sub(millis(self.pace.stale_after));
            self.pass(stale, false).await;
            self.forget_keys().await;
        }
    }

    /// Asks for everything that has not changed since `since`, oldest first.
    async fn pass(&self, since: Millis, unseen: bool) {
        let mut after = 0;
        while !self.stop.is_cancelled() {
            let wanted = Idle { after, since, unseen, now: self.clock.now(), limit: PAGE };
            let rows = match self.store.idle(wanted).await {
                Ok(rows) => rows,
                Err(error) => return warn("looking for outstanding purchases", &error),
            };
            let Some(last) = rows.last() else { return };
            after = last.id;
            let full = rows.len() == PAGE as usize;
            let now = self.clock.now();
            self.park(&rows, now);
            let due = self.asks.due(rows, now, millis(self.pace.stale_after));
            let rate = if unseen { self.pace.recovery_rate } else { self.pace.rate };
            if !self.ask(due, rate).await || !full {
                return;
            }
            self.ask_at_once().await;
        }
    }

    fn park(&self, rows: &[Outstanding], now: Millis) {
        let park_after = millis(self.pace.park_after);
        for row in rows {
            let idle = now.saturating_sub(row.updated_at.max(self.since));
            if row.status == Status::CompensationStuck || idle >= park_after {
                self.admission.park(row.id);
            }
        }
    }

    async fn ask_at_once(&self) {
        let ids = self.asks.take_at_once(self.clock.now());
        if ids.is_empty() {
            return;
        }
        match self.store.outstanding(ids).await {
            Ok(rows) => _ = self.ask(rows, self.pace.rate).await,
            Err(error) => warn("reading outstanding purchases", &error),
        }
    }

    /// Sends starts (and cancels) in chunks, as the window and the rate allow. `false`: stopped, or the bus could not.
    async fn ask(&self, rows: Vec<Outstanding>, rate: u32) -> bool {
        for chunk in rows.chunks(CHUNK) {
            if !self.window().await {
                return false;
            }
            let messages: Vec<Message> = chunk.iter().flat_map(|row| self.questions(row)).collect();
            self.asks.note(chunk, self.clock.now());
            if let Err(error) = self.bus.publish(messages).await {
                tracing::warn!(%error, "asking for outstanding purchases failed; they are asked for again later");
                self.asks.take_back(chunk);
                return false;
            }
            self.stats.asked.add(chunk.len() as u64);
            let pause = Duration::from_secs(1) * u32::try_from(chunk.len()).unwrap_or(1) / rate.max(1);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                () = self.clock.sleep(pause) => {}
            }
        }
        true
    }

    fn questions(&self, row: &Outstanding) -> impl Iterator<Item = Message> {
        let start = self.course.start(row.id, row.input.clone());
        // What is being taken back already needs no cancel.
        let wanted = matches!(row.status, Status::Pending | Status::Running);
        let cancel = row.cancel.as_ref().filter(|_| wanted);
        let cancel = cancel.map(|reason| self.course.cancel(row.id, row.customer_id, reason.clone()));
        [Some(start), cancel].into_iter().flatten()
    }

    /// Waits until another chunk may be asked for. `false`: stopped.
    async fn window(&self) -> bool {
        loop {
            self.asks.expire(self.clock.now().saturating_sub(ANSWERED_WITHIN));
            if self.asks.open() + CHUNK <= self.pace.window.max(CHUNK) {
                return !self.stop.is_cancelled();
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                () = self.asks.answered.notified() => {}
                () = self.clock.sleep(Duration::from_millis(ANSWERED_WITHIN / 4)) => {}
            }
        }
    }

    async fn forget_keys(&self) {
        let before = self.clock.now().saturating_sub(KEYS_KEPT);
        // In bites, so that the writer is not held up; together as fast as keys are made.
        for _ in 0..BITES {
            match self.store.forget_keys(before, KEYS).await {
                Ok(true) if !self.stop.is_cancelled() => {}
                Ok(_) => return,
                Err(error) => return warn("forgetting idempotency keys", &error),
            }
        }
    }
}

fn warn(what: &str, error: &StoreError) {
    tracing::warn!(%error, "{what} failed; trying again later");
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
