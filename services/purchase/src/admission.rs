//! Admission: how many purchases may be on their way at once, so that the backlog is bounded and does not grow with the run.
//!
//! A purchase takes a slot before it is written and gives it back when it ends. Somebody who comes while all are taken
//! waits for a moment, then is told to come back. A purchase that has not moved for long is *parked*: a thousand
//! purchases that wait for a human must not close the shop. Parked ones count towards a second, far larger bound.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use saga_runtime::Clock;
use tokio::sync::Semaphore;

/// How much is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Purchases on their way.
    pub in_flight: usize,
    /// Purchases that have not ended, parked ones included.
    pub outstanding: usize,
    /// Requests that may wait for a slot.
    pub waiting: usize,
    /// How long.
    pub wait: Duration,
}

/// Why a request is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// All slots are taken: come back in a second.
    Busy,
    /// Very many purchases do not end: something behind this service is down.
    Backlog,
}

/// The slots.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    slots: Semaphore,
    waiting: AtomicUsize,
    outstanding: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Slots that are owed: more was in flight at the start than there are slots.
    debt: usize,
    /// Not ended, and not holding a slot.
    parked: HashSet<u64>,
}

impl Admission {
    /// Slots of which some are taken: by what was in flight when the process started.
    pub fn new(limits: Limits, in_flight: usize) -> Arc<Self> {
        let free = limits.in_flight.saturating_sub(in_flight);
        let debt = in_flight.saturating_sub(limits.in_flight);
        Arc::new(Self {
            limits,
            slots: Semaphore::new(free.min(Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            outstanding: AtomicUsize::new(in_flight),
            state: Mutex::new(State { debt, parked: HashSet::new() }),
        })
    }

    /// Takes a slot, at once or after a bounded wait. Cancel-safe.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    pub async fn admit(self: &Arc<Self>, clock: &dyn Clock) -> Result<Permit, Refused> {
        match self.try_admit() {
            Err(Refused::Busy) => {}
            decided => return decided,
        }
        let _waiting = Waiting::enter(self).ok_or(Refused::Busy)?;
        tokio::select! {
            biased;
            slot = self.slots.acquire() => {
                slot.map_err(|_| Refused::Busy)?.forget();
                Ok(Permit { admission: Arc::clone(self), held: true })
            }
            () = clock.sleep(self.limits.wait) => Err(Refused::Busy),
        }
    }

    /// Takes a slot if one is free now.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    pub fn try_admit(self: &Arc<Self>) -> Result<Permit, Refused> {
        if self.outstanding.load(Ordering::Relaxed) >= self.limits.outstanding {
            return Err(Refused::Backlog);
        }
        self.slots.try_acquire().map_err(|_| Refused::Busy)?.forget();
        Ok(Permit { admission: Arc::clone(self), held: true })
    }

    /// These purchases have ended: their slots are free.
    pub fn ended(&self, ids: &[u64]) {
        if ids.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let holding =
            if state.parked.is_empty() { ids.len() } else { ids.iter().filter(|id| !state.parked.remove(id)).count() };
        self.free(&mut state, holding);
        drop(state);
        let less = |now: usize| Some(now.saturating_sub(ids.len()));
        // The closure always answers Some.
        let _ = self.outstanding.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// A purchase has not moved for long: it no longer holds a slot.
    pub fn park(&self, id: u64) {
        let mut state = self.state.lock();
        if state.parked.insert(id) {
            self.free(&mut state, 1);
        }
    }

    /// Purchases that have not ended.
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Those of them that hold no slot because they do not move.
    pub fn parked(&self) -> usize {
        self.state.lock().parked.len()
    }

    /// Slots that are free now.
    pub fn free_slots(&self) -> usize {
        self.slots.available_permits()
    }

    fn free(&self, state: &mut State, count: usize) {
        let paid = state.debt.min(count);
        state.debt -= paid;
        // A write whose fate was unknown may give its slot back twice; there are never more slots than there were.
        let missing = self.limits.in_flight.saturating_sub(self.slots.available_permits());
        self.slots.add_permits((count - paid).min(missing));
    }
}

/// A slot. Given back when dropped, unless the purchase was written.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    held: bool,
}

impl Permit {
    /// The purchase is on disk: the slot is its own until it ends.
    pub fn keep(mut self) {
        self.held = false;
        self.admission.outstanding.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held {
            let mut state = self.admission.state.lock();
            self.admission.free(&mut state, 1);
        }
    }
}

/// One of the requests that wait.
struct Waiting<'a>(&'a Admission);

impl<'a> Waiting<'a> {
    fn enter(admission: &'a Admission) -> Option<Self> {
        if admission.waiting.fetch_add(1, Ordering::Relaxed) < admission.limits.waiting {
            return Some(Self(admission));
        }
        admission.waiting.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
