//! What a customer can do: buy, look, wait, cancel.
//!
//! Promised: what [`place`](Purchases::place) answered exists, on disk, once per idempotency key; it will end. A request
//! that goes away in the middle leaves either a whole purchase or none, and no slot behind.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chassis::ids::IdGen;
use contracts::purchase::PurchaseInput;
use saga_core::{Json, Millis};
use saga_runtime::trace::units::transaction;
use saga_runtime::trace::{self, Kind, Span, TraceContext, Tracer};
use saga_runtime::{Clock, StoreError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Stats;
use crate::admission::{Admission, Permit, Refused};
use crate::domain::{Cart, CartError, Quote};
use crate::live::Live;
use crate::outbound::{Course, Outbound, Traced};
use crate::store::{Cancelled, Keyed, NewPurchase, Placed, Row, Store};

/// Prices, as the product service knows them. The composition root plugs it in.
#[async_trait]
pub trait Catalogue: Send + Sync + 'static {
    /// The prices of these products (ids ascending, each once), in any order; a product that does not exist is left out.
    ///
    /// # Errors
    /// When it cannot be told now.
    async fn quote(&self, product_ids: &[u64]) -> Result<Vec<Quote>, CatalogueError>;
}

/// Why no price could be told.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CatalogueError {
    /// Try again.
    #[error("the catalogue is not available: {0}")]
    Unavailable(String),
    /// A bug or corruption there.
    #[error("the catalogue failed: {0}")]
    Fault(String),
}

/// Why a purchase was not accepted. Nothing was written, unless the store says that it may have been.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The request is wrong.
    #[error(transparent)]
    Cart(#[from] CartError),
    /// The key came with another request before.
    #[error("this Idempotency-Key was used with another request")]
    KeyReused,
    /// Too much is going on.
    #[error("no purchase can be taken now")]
    Refused(Refused),
    /// See [`CatalogueError`].
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A purchase that was accepted, now or before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Its id.
    pub id: u64,
    /// Whether the key had been used: the answer is the first one again.
    pub replayed: bool,
}

/// Limits of what a customer can hold open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Streams per customer.
    pub streams: usize,
    /// Streams and long polls of all customers.
    pub waiting: usize,
    /// How long the catalogue may take.
    pub quote: Duration,
}

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Purchases(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalogue: Arc<dyn Catalogue>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) live: Arc<Live>,
    pub(crate) outbound: Outbound,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<IdGen>,
    pub(crate) course: Course,
    pub(crate) patience: Patience,
    pub(crate) stats: Arc<Stats>,
    pub(crate) tracer: Tracer,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Purchases {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Takes a purchase: quotes it, waits for a slot, writes it with its key, sends it on its way.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub async fn place(&self, customer_id: u64, cart: Cart, key: Option<String>) -> Result<Accepted, PlaceError> {
        let fingerprint = cart.fingerprint();
        let placed = self.try_place(customer_id, &cart, key.clone(), fingerprint).await;
        match (placed, key) {
            // Whatever stands in the way of a new purchase does not stand in the way of an old one: prices change.
            (Err(error), Some(key)) if !matches!(error, PlaceError::KeyReused | PlaceError::Store(_)) => {
                match self.0.store.of_key(customer_id, key).await? {
                    Some(before) => self.replay(before, fingerprint),
                    None => Err(error),
                }
            }
            (placed, _) => placed,
        }
    }

    async fn try_place(
        &self,
        customer_id: u64,
        cart: &Cart,
        key: Option<String>,
        fingerprint: [u8; 16],
    ) -> Result<Accepted, PlaceError> {
        let permit = self.admit(customer_id, key.as_deref()).await?;
        let quotes = self.quote(cart).await?;
        let id = self.0.ids.next();
        let input = cart.priced(id, customer_id, &quotes)?;
        let trace = self.0.tracer.is_on().then(trace::current).flatten();
        let purchase = NewPurchase {
            id,
            customer_id,
            amount: input.amount,
            currency_code: input.currency_code.clone(),
            input: input_of(&input, trace).map_err(|e| StoreError::Fault(e.to_string()))?,
            key,
            fingerprint,
            now: self.0.clock.now(),
        };
        // A task of its own: it does not end in the middle when the customer goes away.
        let written = self.0.tasks.spawn(write(self.clone(), purchase, permit, trace)).await;
        match written.map_err(|e| StoreError::Fault(format!("writing a purchase panicked: {e}")))?? {
            Placed::New => Ok(Accepted { id, replayed: false }),
            Placed::Before(before) => self.replay(before, fingerprint),
        }
    }

    /// A slot; when none is free, a known key need not wait for one.
    async fn admit(&self, customer_id: u64, key: Option<&str>) -> Result<Permit, PlaceError> {
        let Inner { admission, store, clock, stats, .. } = &*self.0;
        if let Ok(permit) = admission.try_admit() {
            return Ok(permit);
        }
        if let Some(key) = key
            && store.of_key(customer_id, key.to_owned()).await?.is_some()
        {
            return Err(PlaceError::Refused(Refused::Busy));
        }
        admission.admit(&**clock).await.map_err(|refused| {
            stats.refused.inc();
            if refused == Refused::Backlog {
                stats.backlog.inc();
            }
            PlaceError::Refused(refused)
        })
    }

    async fn quote(&self, cart: &Cart) -> Result<Vec<Quote>, CatalogueError> {
        let products = cart.products();
        tokio::select! {
            biased;
            quotes = self.0.catalogue.quote(&products) => quotes,
            () = self.0.clock.sleep(self.0.patience.quote) => {
                Err(CatalogueError::Unavailable("it took too long to answer".to_owned()))
            }
        }
    }

    fn replay(&self, before: Keyed, fingerprint: [u8; 16]) -> Result<Accepted, PlaceError> {
        if before.fingerprint != fingerprint {
            return Err(PlaceError::KeyReused);
        }
        self.0.stats.replayed.inc();
        Ok(Accepted { id: before.id, replayed: true })
    }

    /// One purchase of a customer.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn get(&self, customer_id: u64, id: u64) -> Result<Option<Row>, StoreError> {
        self.0.store.get(customer_id, id).await
    }

    /// One purchase, once `enough` holds for it, or as it is when the time is over.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn wait(
        &self,
        customer_id: u64,
        id: u64,
        until: Millis,
        only_end: bool,
        enough: impl Fn(&Row) -> bool + Send,
    ) -> Result<Option<Row>, StoreError> {
        let Inner { live, clock, stop, .. } = &*self.0;
        // Registered before the row is read: what happens between is not missed.
        let (woken, _registration) = live.poll(id, only_end);
        loop {
            let row = self.get(customer_id, id).await?;
            if row.as_ref().is_none_or(|row| row.status.is_terminal() || enough(row)) || clock.now() >= until {
                return Ok(row);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(row),
                () = woken.notified() => {}
                () = clock.sleep_until(until) => return self.get(customer_id, id).await,
            }
        }
    }

    /// A customer's purchases with ids below `before`, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn page(&self, customer_id: u64, before: u64, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.0.store.page(customer_id, before, limit).await
    }

    /// Notes the wish durably and passes it on. The purchase may still complete: the orchestrator decides.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn cancel(&self, customer_id: u64, id: u64, reason: String) -> Result<Cancelled, StoreError> {
        let Inner { store, course, clock, outbound, live, .. } = &*self.0;
        let cancelled = store.cancel(customer_id, id, reason.clone(), course.pivot.clone(), clock.now()).await?;
        if let Cancelled::Accepted(row) = &cancelled {
            // The start goes first, in case the orchestrator has never heard of it.
            let input: Json = serde_json::from_str(&row.input).map_err(|e| StoreError::Fault(e.to_string()))?;
            outbound.send(course.start(id, input));
            outbound.send(course.cancel(id, customer_id, reason));
            live.changed(id);
        }
        Ok(cancelled)
    }

    /// How things stand, in numbers.
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        let Inner { admission, live, stats, outbound, .. } = &*self.0;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut all = stats.all();
        all.extend([
            ("outstanding", count(admission.outstanding())),
            ("parked", count(admission.parked())),
            ("free_slots", count(admission.free_slots())),
            ("waiting", count(live.waiting())),
            ("left_to_sweeper", outbound.left.get()),
        ]);
        all
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }
}

/// Writes a purchase and sends it on its way.
async fn write(
    purchases: Purchases,
    purchase: NewPurchase,
    permit: Permit,
    trace: Option<TraceContext>,
) -> Result<Placed, StoreError> {
    let Inner { store, outbound, course, stats, clock, tracer, .. } = &*purchases.0;
    let begun = trace.map(|_| clock.nanos());
    let (id, input) = (purchase.id, purchase.input.clone());
    saga_runtime::crash::point("purchase", "before_commit");
    let placed = store.place(purchase).await?;
    saga_runtime::crash::point("purchase", "committed");
    if placed == Placed::New {
        permit.keep();
        stats.accepted.inc();
        outbound.send(course.start(id, input));
    }
    if let (Some(trace), Some(begun)) = (trace, begun) {
        let now = clock.nanos();
        tracer.record(transaction(trace, tracer.fresh(), "purchase", begun).until(now));
        if placed == Placed::New {
            let (own, topic) = (course.sending(trace, id), &course.start_topic);
            let span = Span::new(own, trace.span, format!("send {topic}"), Kind::Producer, now);
            tracer.record(span.message("send", topic, &id.to_string()));
        }
    }
    Ok(placed)
}

/// The saga's input; with its trace, if that is kept.
fn input_of(input: &PurchaseInput, trace: Option<TraceContext>) -> Result<Json, serde_json::Error> {
    match trace {
        Some(trace) => Json::of(&Traced { input, traceparent: trace.to_string() }),
        None => Json::of(input),
    }
}
