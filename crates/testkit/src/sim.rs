//! The simulated world: the real loops of `saga_runtime` over a bus, a disk, a clock and participants that a seed owns.
//!
//! ```text
//!   seed ─► definitions, sagas, weather, disasters ─► run in virtual time ─► lift the weather ─► all quiet? all lawful?
//! ```
//!
//! One thread, one paused clock, one stream of random numbers: the same seed is the same world to the last message.
//! Laws are checked after every commit and every message, not only at the end; the first broken one ends the run with
//! its place in the trace. What is simulated is what the ports do not promise: loss, duplicates, delay, disorder,
//! crashes at every await, power loss with an unsynced suffix, owners that sleep through their deposition.

pub mod bus;
pub mod clock;
pub mod customer;
pub mod definitions;
pub mod disasters;
pub mod gateway;
pub mod laws;
pub mod participant;
pub mod process;
pub mod rng;
pub mod store;
pub mod weather;
pub mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rng::Rng;
use tokio::sync::Notify;
use weather::Weather;

pub use world::World;

/// What a run saw: sums over many runs show that the laws were not checked on nothing.
pub type Tally = BTreeMap<&'static str, u64>;

/// How a run went.
#[derive(Debug)]
pub struct Report {
    /// What it saw.
    pub tally: Tally,
    /// The broken laws; empty in a lawful world.
    pub broken: Vec<String>,
    /// One line an event; empty unless asked for.
    pub trace: Vec<String>,
}

/// Runs the world of a seed to its end.
///
/// # Panics
/// When no runtime can be built.
pub fn run(seed: u64, traced: bool) -> Report {
    within(async move { World::of_seed(seed, traced).live().await })
}

/// The same, with starters that promise, and with everything that was said coming again after all is forgotten.
///
/// # Panics
/// When no runtime can be built.
pub fn run_forgetful(seed: u64, traced: bool) -> Report {
    within(async move {
        let mut world = World::of_seed(seed, traced);
        world.forgetful = true;
        world.live().await
    })
}

/// Runs a future on one thread whose clock stands still while anything can run.
///
/// # Panics
/// When no runtime can be built.
#[expect(clippy::expect_used, reason = "a test tool: without a runtime there is nothing to report")]
pub fn within<T>(world: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime without I/O").block_on(world)
}

/// What everything in the world shares: chance, time, weather, and the record of what happened.
#[derive(Debug)]
pub struct Sim {
    rng: Mutex<Rng>,
    start: tokio::time::Instant,
    /// How bad it is right now.
    pub weather: Mutex<Weather>,
    record: Mutex<Record>,
    traced: bool,
    failed: AtomicBool,
    /// Ordinary work takes less than so many ms.
    pace: u64,
    /// Moments of work until `trip` rings.
    wire: Mutex<Option<u64>>,
    trip: Notify,
}

#[derive(Debug, Default)]
struct Record {
    trace: Vec<String>,
    broken: Vec<String>,
    tally: Tally,
}

impl Sim {
    /// A world's beginning. To be called [`within`].
    #[expect(clippy::disallowed_methods, reason = "virtual time, the simulator's own")]
    pub fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let pace = [4, 4, 30, 200][usize::try_from(rng.below(4)).unwrap_or_default()];
        Self {
            rng: Mutex::new(rng),
            start: tokio::time::Instant::now(),
            weather: Mutex::new(Weather::CALM),
            record: Mutex::new(Record::default()),
            traced,
            failed: AtomicBool::new(false),
            pace,
            wire: Mutex::new(None),
            trip: Notify::new(),
        }
    }

    /// Virtual milliseconds since the beginning.
    pub fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits in virtual time.
    #[expect(clippy::disallowed_methods, reason = "virtual time, the simulator's own")]
    pub async fn sleep(&self, ms: u64) {
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    /// A number below `n` (0 for 0).
    pub fn below(&self, n: u64) -> u64 {
        self.rng.lock().below(n)
    }

    /// Yes in `per_mille` of a thousand cases. Nothing is drawn for what never happens.
    pub fn chance(&self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1_000) < u64::from(per_mille)
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'t, T>(&self, of: &'t [T]) -> &'t T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap_or_default()]
    }

    /// How bad it is right now.
    pub fn weather(&self) -> Weather {
        *self.weather.lock()
    }

    /// A moment of work: mostly none or little, in bad weather sometimes long. Every one is a place to crash.
    pub async fn work(&self) {
        let slow = self.weather().slow;
        let ms = if self.chance(slow) { 20 + self.below(2_000) } else { self.below(self.pace) };
        let tripped = {
            let mut wire = self.wire.lock();
            *wire = wire.and_then(|left| left.checked_sub(1));
            *wire == Some(0)
        };
        if tripped {
            self.trip.notify_one();
        }
        self.sleep(ms.max(u64::from(tripped))).await;
    }

    /// Returns in the middle of somebody's work, after so many moments of it, or after `ms`: for disasters.
    pub async fn tripped(&self, moments: u64, ms: u64) {
        *self.wire.lock() = Some(moments);
        tokio::select! {
            biased;
            () = self.trip.notified() => {}
            () = self.sleep(ms) => {}
        }
        *self.wire.lock() = None;
    }

    /// Counts something.
    pub fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts several.
    pub fn add(&self, what: &'static str, n: u64) {
        *self.record.lock().tally.entry(what).or_default() += n;
    }

    /// Writes a line of the trace, if there is one.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if self.traced {
            let line = format!("{:>9} {}", self.elapsed(), line());
            self.record.lock().trace.push(line);
        }
    }

    /// A law is broken.
    pub fn broken(&self, law: impl Into<String>) {
        let law = format!("at {} ms: {}", self.elapsed(), law.into());
        self.note(|| format!("BROKEN {law}"));
        self.failed.store(true, Ordering::Relaxed);
        self.record.lock().broken.push(law);
    }

    /// Whether a law was broken so far.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The record, taken out.
    pub fn report(&self) -> Report {
        let Record { trace, broken, tally } = std::mem::take(&mut *self.record.lock());
        Report { tally, broken, trace }
    }
}
