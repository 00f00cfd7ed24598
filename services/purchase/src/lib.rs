//! The purchase service: takes a purchase, answers at once, tells how it goes.
//!
//! ```text
//!   POST ─► quote ─► slot ─► row (on disk) ─► 202        start ─► orchestrator
//!   GET, SSE ◄─ row, live ◄─ one transaction a batch ◄─ result events
//! ```
//!
//! Promised: a purchase that was answered with 202 exists once per key and ends; its events are numbered without gaps and
//! the last one is terminal. What it does not know: what any step does. That is the definition's and the participants'.

pub mod admission;
pub mod app;
pub mod audit;
pub mod domain;
pub mod http;
pub mod live;
pub mod outbound;
pub mod promise;
mod quotes;
mod replica;
pub mod results;
pub mod store;

mod consumer;
mod held;
mod metrics;
mod stats;
mod sweeper;

use std::sync::Arc;
use std::time::Duration;

use chassis::ids::IdGen;
use saga_runtime::trace::Tracer;
use saga_runtime::{Bus, Clock, StoreError};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use app::{Catalogue, CatalogueError, Purchases};
pub use domain::Quote;
pub use outbound::Course;
pub use promise::Forget;
pub use stats::Stats;
pub use store::postgres::{PG_SCHEMA, PgStore};
pub use store::sqlite::{SCHEMA, SqliteStore};

use admission::{Admission, Limits};
use consumer::Consumer;
use live::Live;
use outbound::Outbound;
use promise::Promiser;
use store::Store;
use sweeper::{Asks, Pace, Sweeper};

/// Settings of the purchase service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Purchases on their way at once. More fills larger batches and makes each wait longer.
    pub max_in_flight: usize,
    /// Purchases that have not ended, those included that have not moved for long.
    pub max_outstanding: usize,
    /// Requests that may wait for a slot.
    pub max_waiting_requests: usize,
    /// How long a request waits for a slot before it is told to come back, in ms.
    pub admission_wait_ms: u64,
    /// How long the product service may take to quote, in ms.
    pub quote_timeout_ms: u64,
    /// A purchase without news for this long is asked for again, in ms.
    pub stale_after_ms: u64,
    /// A purchase without news for this long gives up its slot, in ms.
    pub park_after_ms: u64,
    /// The progress of a purchase that nobody watches is written down with its end, or at most so long after it is known, in ms.
    /// Not in process.
    pub hold_ms: u64,
    /// Questions about outstanding purchases that may be open at once.
    pub resend_window: usize,
    /// Questions a second, at most, about purchases that do not move: each costs the orchestrator a look at a history.
    pub resend_rate: u32,
    /// Questions a second, at most, after a start, about purchases of which the orchestrator has never heard.
    pub recovery_rate: u32,
    /// Event streams per customer.
    pub streams_per_customer: usize,
    /// Event streams and long polls of all customers.
    pub max_streams: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_in_flight: 2_000,
            max_outstanding: 200_000,
            max_waiting_requests: 2_000,
            admission_wait_ms: 500,
            quote_timeout_ms: 2_000,
            stale_after_ms: 5_000,
            park_after_ms: 60_000,
            hold_ms: 500,
            resend_window: 2_000,
            resend_rate: 500,
            recovery_rate: 20_000,
            streams_per_customer: 10,
            max_streams: 20_000,
        }
    }
}

impl Config {
    fn limits(&self) -> Limits {
        Limits {
            in_flight: self.max_in_flight.max(1),
            outstanding: self.max_outstanding.max(1),
            waiting: self.max_waiting_requests,
            wait: Duration::from_millis(self.admission_wait_ms),
        }
    }

    fn pace(&self) -> Pace {
        Pace {
            stale_after: Duration::from_millis(self.stale_after_ms.max(1)),
            park_after: Duration::from_millis(self.park_after_ms),
            window: self.resend_window,
            rate: self.resend_rate,
            recovery_rate: self.recovery_rate,
        }
    }
}

/// What the service needs from outside.
#[derive(Clone)]
pub struct Deps {
    /// Where purchases are kept.
    pub store: Arc<dyn Store>,
    /// Who knows the prices.
    pub catalogue: Arc<dyn Catalogue>,
    /// Where starts go and results come from.
    pub bus: Arc<dyn Bus>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where spans go.
    pub tracer: Tracer,
    /// Names new purchases.
    pub ids: Arc<IdGen>,
    /// What is to be known of the saga's definition.
    pub course: Course,
    /// Where the loops and the writes run; a shutdown waits for it.
    pub tasks: TaskTracker,
    /// Ends loops, streams and long polls.
    pub stop: CancellationToken,
    /// How long the next batch of results may fill; see `saga_runtime::pace`.
    pub pace: Duration,
    /// The same of the next question to the catalogue: a customer waits for it.
    pub quotes: Duration,
    /// Whether results of purchases that nobody watches are held ([`Config::hold_ms`]).
    pub hold: bool,
    /// Where several share the work: this one's number, by which its ids are made.
    pub replica: Option<u16>,
    /// Which sagas may be forgotten; `None`: none ever.
    pub forget: Option<Forget>,
}

/// What the service is made of.
pub struct Service {
    /// The routes, to be nested under `/api/v1`.
    pub router: axum::Router,
    /// The use cases behind them.
    pub purchases: Purchases,
}

/// Builds the service and starts its loops on `deps.tasks`: results in, starts out, what is outstanding asked for again.
/// The orchestrator should be listening by then; if it is not, the first questions are asked again seconds later.
///
/// # Errors
/// When the store cannot say what is in flight.
pub async fn build(config: &Config, deps: Deps) -> Result<Service, StoreError> {
    let Deps { store, catalogue, bus, clock, tracer, ids, course, tasks, stop, pace, quotes, hold, replica, forget } =
        deps;
    let since = clock.now();
    // Whose purchases hold slots here after a restart: all, where there is only one to have accepted them.
    let in_flight = if replica.is_none() { store.count_in_flight().await? } else { 0 };
    tracing::info!(in_flight, "purchases in flight");
    let admission = Admission::new(config.limits(), usize::try_from(in_flight).unwrap_or(usize::MAX));
    let catalogue = quotes::together(catalogue, quotes, Arc::clone(&clock), &tasks, stop.clone());
    let (outbound, queue) = Outbound::new();
    let (live, asks, stats) = (Arc::new(Live::default()), Arc::new(Asks::default()), Arc::new(Stats::default()));
    tasks.spawn(queue.run(Arc::clone(&bus), Arc::clone(&clock), stop.clone()));
    let consumer = Consumer {
        store: Arc::clone(&store),
        bus: Arc::clone(&bus),
        clock: Arc::clone(&clock),
        course: course.clone(),
        tracer: tracer.clone(),
        live: Arc::clone(&live),
        admission: Arc::clone(&admission),
        asks: Arc::clone(&asks),
        stats: Arc::clone(&stats),
        stop: stop.clone(),
        replica: replica.map(replica::Replica::new),
        pace,
        patience: if hold { Duration::from_millis(config.hold_ms) } else { Duration::ZERO },
    };
    // Listening begins before the first question is asked, or its answer would be missed.
    if let Some(subscription) = consumer.subscribe().await {
        tasks.spawn(consumer.run(subscription));
    }
    if let Some(forget) = forget {
        let promiser = Promiser {
            store: Arc::clone(&store),
            bus: Arc::clone(&bus),
            clock: Arc::clone(&clock),
            course: course.clone(),
            stop: stop.clone(),
            forget,
        };
        tasks.spawn(promiser.run());
    }
    let sweeper = Sweeper {
        store: Arc::clone(&store),
        bus,
        clock: Arc::clone(&clock),
        course: course.clone(),
        admission: Arc::clone(&admission),
        asks,
        stats: Arc::clone(&stats),
        stop: stop.clone(),
        pace: config.pace(),
        since,
    };
    tasks.spawn(sweeper.run());
    let patience = app::Patience {
        streams: config.streams_per_customer,
        waiting: config.max_streams,
        quote: Duration::from_millis(config.quote_timeout_ms),
    };
    let purchases = Purchases::new(app::Inner {
        store,
        catalogue,
        admission,
        live,
        outbound,
        clock,
        ids,
        course,
        patience,
        stats,
        tracer,
        tasks,
        stop,
    });
    Ok(Service { router: http::router(purchases.clone()), purchases })
}
