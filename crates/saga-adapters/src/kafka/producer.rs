//! Records out: a whole batch is handed to the client, and answered when the last of it is acknowledged.
//!
//! ```text
//!   many ──► the client that lingers ──► few requests    under load: what a request costs counts
//!   few  ──► the one that does not   ──► at once         a purchase that is alone: each hop is that much sooner
//! ```
//!
//! Whoever publishes in order waits for an answer before the next batch, so that two clients mix up nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use saga_core::Name;
use saga_runtime::bus::{BusError, Message};
use tokio::sync::Notify;

use super::{LARGEST_LETTER, Options, is_unknown_topic, unavailable};

/// No more than this go out at once: what follows from one message, a command and what is told of it.
const FEW: usize = 4;
/// How soon a full queue is tried again.
const FULL_WAIT: Duration = Duration::from_millis(2);
/// How long acknowledgements are waited for at a time, and how long a client that is not needed any more stays at most.
/// Each time the client spins through the last fraction of a millisecond: at its own ten times a second that is half a
/// percent of a core for each, in all processes together a tenth of what a purchase costs at half load.
const LISTEN: Duration = Duration::from_secs(1);

pub(super) type Client = BaseProducer<Reports>;

/// Both clients.
pub(super) struct Producer {
    lingering: Lane,
    /// None: no client lingers.
    prompt: Option<Lane>,
}

/// An idempotent client; made anew should it ever fail for good.
struct Lane {
    options: Options,
    client: RwLock<Arc<Client>>,
}

/// A batch on its way.
#[derive(Default)]
pub(super) struct Batch {
    left: AtomicUsize,
    failed: Mutex<Option<BusError>>,
    done: Notify,
}

impl Batch {
    fn fail(&self, error: BusError) {
        self.failed.lock().get_or_insert(error);
    }

    fn count_down(&self, by: usize) {
        if self.left.fetch_sub(by, Ordering::AcqRel) == by {
            self.done.notify_one();
        }
    }
}

/// Counts the acknowledgements of each batch.
pub(super) struct Reports(Options);

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        if let Err((error, message)) = result {
            batch.fail(match is_unknown_topic(error) {
                true => BusError::UnknownTopic(Name::new(self.0.local(message.topic()).unwrap_or_default())),
                false => unavailable(error),
            });
        }
        batch.count_down(1);
    }
}

impl Producer {
    pub(super) fn new(options: &Options) -> Result<Self, BusError> {
        let prompt = Options { linger: Duration::ZERO, ..options.clone() };
        let prompt = (!options.linger.is_zero()).then(|| Lane::new(prompt)).transpose()?;
        Ok(Self { lingering: Lane::new(options.clone())?, prompt })
    }

    pub(super) fn client(&self) -> Arc<Client> {
        self.lingering.client()
    }

    /// Sends all; answers when all are acknowledged. Given up in between, they go out all the same.
    pub(super) async fn publish(&self, messages: Vec<Message>) -> Result<(), BusError> {
        match &self.prompt {
            Some(prompt) if messages.len() <= FEW => prompt.publish(messages).await,
            _ => self.lingering.publish(messages).await,
        }
    }
}

impl Lane {
    fn new(options: Options) -> Result<Self, BusError> {
        let client = RwLock::new(create(&options)?);
        Ok(Self { options, client })
    }

    fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.read())
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), BusError> {
        if messages.is_empty() {
            return Ok(());
        }
        let client = self.client();
        let batch = Arc::new(Batch { left: AtomicUsize::new(messages.len()), ..Batch::default() });
        for (sent, message) in messages.iter().enumerate() {
            if let Err(error) = enqueue(&client, &self.options.remote(&message.topic), message, &batch).await {
                batch.fail(error);
                batch.count_down(messages.len() - sent);
                break;
            }
        }
        batch.done.notified().await;
        let failed = batch.failed.lock().take();
        match failed {
            None => Ok(()),
            Some(error) => {
                self.replace_if_fatal(&client)?;
                Err(error)
            }
        }
    }

    /// An idempotent producer that lost its sequence says no to everything from then on.
    fn replace_if_fatal(&self, client: &Arc<Client>) -> Result<(), BusError> {
        let Some((code, reason)) = client.client().fatal_error() else { return Ok(()) };
        tracing::warn!(%code, reason, "the Kafka producer failed for good; a new one takes its place");
        let mut current = self.client.write();
        if Arc::ptr_eq(&current, client) {
            *current = create(&self.options)?;
        }
        Ok(())
    }
}

/// A client, and a thread that hears its acknowledgements for as long as it is held.
fn create(options: &Options) -> Result<Arc<Client>, BusError> {
    let client: Arc<Client> = connect(options).map(Arc::new)?;
    let listened = Arc::downgrade(&client);
    let listen = move || {
        while let Some(client) = listened.upgrade() {
            client.poll(LISTEN);
        }
    };
    let thread = std::thread::Builder::new().name("kafka-acks".to_owned()).spawn(listen);
    thread.map_err(|error| BusError::Unavailable(format!("no thread for the Kafka client: {error}")))?;
    Ok(client)
}

fn connect(options: &Options) -> Result<Client, BusError> {
    options
        .client()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", options.delivery_timeout.as_millis().to_string())
        // Batches are made by the loops; what waits longer waits for the batch before it.
        .set("linger.ms", options.linger.as_millis().to_string())
        // Whatever could be received can be buried: what the client itself refused would be tried for ever.
        .set("message.max.bytes", LARGEST_LETTER.to_string())
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "65536")
        .create_with_context(Reports(options.clone()))
        .map_err(|error| BusError::Unavailable(error.to_string()))
}

async fn enqueue(client: &Client, topic: &str, message: &Message, batch: &Arc<Batch>) -> Result<(), BusError> {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
    for (name, value) in &*message.headers {
        headers = headers.insert(Header { key: name, value: Some(&value[..]) });
    }
    let mut record = BaseRecord::with_opaque_to(topic, Arc::clone(batch))
        .key(&message.key[..])
        .payload(&message.payload[..])
        .headers(headers);
    loop {
        match client.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
            Err((error, _)) if is_unknown_topic(&error) => return Err(BusError::UnknownTopic(message.topic.clone())),
            Err((error, _)) => return Err(unavailable(&error)),
        }
        full().await;
    }
}

/// Acknowledgements make room; nothing tells when.
#[expect(clippy::disallowed_methods, reason = "an adapter's own pause, bounded by the delivery timeout")]
async fn full() {
    tokio::time::sleep(FULL_WAIT).await;
}
