//! Starts and cancels on their way to the orchestrator.
//!
//! Nothing here is load-bearing: the row is the outbox. What does not get through (queue full, bus down, crash) is
//! sent again by the [`sweeper`](crate::sweeper), so an answer to a customer never waits for the bus.

use std::sync::Arc;

use contracts::purchase::DEFINITION;
use saga_core::protocol::{Cancel, Start};
use saga_core::{Definition, Json, Name, SagaKey};
use saga_runtime::pace::gather;
use saga_runtime::stats::Counter;
use saga_runtime::trace::TraceContext;
use saga_runtime::trace::units::mark;
use saga_runtime::{Bus, BusError, Clock, Message, wire};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use std::time::Duration;

/// Messages that may wait for the bus: a second of a busy shop.
const QUEUE: usize = 4096;
/// Messages in one publish.
const BATCH: usize = 256;
/// The wait after a publish that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// What this service needs to know of the saga's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// Names the definition.
    pub definition: Name,
    /// Where starts and cancels go.
    pub start_topic: Name,
    /// Where result events come from.
    pub result_topic: Name,
    /// Once this step has succeeded, cancelling is too late.
    pub pivot: Option<Name>,
    /// The step that makes the order, for the link.
    pub order: Option<Name>,
    /// The step that makes the payment, for the link.
    pub payment: Option<Name>,
}

impl Course {
    /// Reads what is needed from the definition in force.
    pub fn of(definition: &Definition) -> Self {
        let with_topic = |topic: &str| definition.steps.iter().find(|s| s.action == topic).map(|s| s.name.clone());
        Self {
            definition: definition.name.clone(),
            start_topic: definition.start_topic.clone(),
            result_topic: definition.result_topic.clone(),
            pivot: definition.pivot().map(|at| definition.steps[at].name.clone()),
            order: with_topic(contracts::topics::CREATE_ORDER),
            payment: with_topic(contracts::topics::CREATE_PAYMENT),
        }
    }

    /// The saga of a purchase.
    pub fn saga(&self, id: u64) -> SagaKey {
        SagaKey { definition: self.definition.clone(), id }
    }

    /// Asks to start it, or to publish its results again.
    pub fn start(&self, id: u64, input: Json) -> Message {
        let trace = trace_of(&input);
        let mut message = wire::start_message(&self.start_topic, &Start { saga: self.saga(id), input });
        if let Some(trace) = trace {
            mark(&mut message, self.sending(trace, id));
        }
        message
    }

    /// The span by which a start is sent, however often that is.
    pub(crate) fn sending(&self, trace: TraceContext, id: u64) -> TraceContext {
        trace.about(&[self.start_topic.as_str(), &id.to_string()])
    }

    /// Asks to cancel it.
    pub fn cancel(&self, id: u64, customer_id: u64, reason: String) -> Message {
        let cancel = Cancel { saga: self.saga(id), actor: format!("customer {customer_id}"), reason };
        wire::cancel_message(&self.start_topic, &cancel)
    }
}

/// A saga's input that says which trace it belongs to: kept in the purchase's row, it outlives this process.
#[derive(Serialize)]
pub(crate) struct Traced<T> {
    #[serde(flatten)]
    pub(crate) input: T,
    pub(crate) traceparent: String,
}

#[derive(Deserialize)]
struct Marked {
    traceparent: String,
}

/// What [`Traced`] says, if it was written with a trace that is kept.
pub(crate) fn trace_of(input: &Json) -> Option<TraceContext> {
    // No text in an input comes from a customer, so almost always this is all there is to do.
    if !input.as_str().contains("\"traceparent\"") {
        return None;
    }
    let Marked { traceparent } = input.parse().ok()?;
    TraceContext::parse(&traceparent).filter(|context| context.sampled)
}

impl Default for Course {
    /// The built-in purchase saga.
    fn default() -> Self {
        use contracts::topics::{CREATE_ORDER, CREATE_PAYMENT, PURCHASE, PURCHASE_RESULT};
        Self {
            definition: Name::new(DEFINITION),
            start_topic: Name::new(PURCHASE),
            result_topic: Name::new(PURCHASE_RESULT),
            pivot: Some(Name::new(CREATE_PAYMENT)),
            order: Some(Name::new(CREATE_ORDER)),
            payment: Some(Name::new(CREATE_PAYMENT)),
        }
    }
}

/// Hands messages to the publishing task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    queue: mpsc::Sender<Message>,
    /// Messages left to the sweeper because the queue was full.
    pub left: Arc<Counter>,
}

/// The publishing task's end.
#[derive(Debug)]
pub struct Queue(mpsc::Receiver<Message>);

impl Outbound {
    /// A queue and its end.
    pub fn new() -> (Self, Queue) {
        let (queue, messages) = mpsc::channel(QUEUE);
        (Self { queue, left: Arc::default() }, Queue(messages))
    }

    /// Sends if there is room; otherwise the sweeper will.
    pub fn send(&self, message: Message) {
        if self.queue.try_send(message).is_err() {
            self.left.inc();
        }
    }
}

impl Queue {
    /// Publishes until stopped, in batches of what has come up meanwhile.
    pub async fn run(mut self, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                count = gather(&mut self.0, &mut batch, BATCH) => if count == 0 { return },
                () = stop.cancelled() => return,
            }
            while let Err(error) = bus.publish(batch.clone()).await {
                if matches!(error, BusError::Closed) {
                    return;
                }
                tracing::warn!(%error, count = batch.len(), "publishing starts failed; trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = clock.sleep(PAUSE) => {}
                }
            }
            batch.clear();
        }
    }
}
