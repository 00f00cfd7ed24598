//! Records in, as a member of a group whose partitions come and go.
//!
//! The client is only asked between two units of work: partitions are given back when no unit has anything of them in
//! hand, so an orderly change of members delivers twice only what a reader held back uncommitted.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::FutureExt as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, ClientContext};
use saga_core::Name;
use saga_runtime::bus::{BusError, Delivery, Headers, Message, Position, Subscription};
use saga_runtime::wire::header_name;
use tokio_util::task::TaskTracker;

use super::{is_unknown_topic, unavailable};

/// What the values of a record's headers mostly have room in, in bytes.
const HEADERS: usize = 256;

/// Tells the log who has which partitions.
struct Told {
    group: String,
}

impl ClientContext for Told {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, group = self.group, "Kafka consumer");
    }
}

impl ConsumerContext for Told {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        tell(&self.group, rebalance);
    }
}

/// Partitions that change hands, for the log.
pub(super) fn tell(group: &str, rebalance: &Rebalance<'_>) {
    let (what, list) = match rebalance {
        Rebalance::Assign(list) => ("assigned", list),
        Rebalance::Revoke(list) => ("revoked", list),
        Rebalance::Error(error) => return tracing::warn!(%error, group, "the group could not be balanced"),
    };
    let partitions: Vec<String> = list.elements().iter().map(|e| format!("{}/{}", e.topic(), e.partition())).collect();
    tracing::info!(group, ?partitions, "partitions {what}");
}

/// One member.
pub(super) struct KafkaSubscription {
    /// Always there until the drop.
    consumer: Option<StreamConsumer<Told>>,
    names: Names,
    returned: Returned,
    leaving: TaskTracker,
}

impl KafkaSubscription {
    pub(super) fn join(config: &ClientConfig, names: Names, leaving: TaskTracker) -> Result<Self, BusError> {
        let group = config.get("group.id").unwrap_or_default().to_owned();
        let consumer: StreamConsumer<Told> =
            config.create_with_context(Told { group }).map_err(|error| unavailable(&error))?;
        consumer.subscribe(&names.remote()).map_err(|error| unavailable(&error))?;
        Ok(Self { consumer: Some(consumer), names, returned: Returned::default(), leaving })
    }
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BusError> {
        let Self { consumer: Some(consumer), names, returned, .. } = self else { return Err(BusError::Closed) };
        let mut deliveries = Vec::new();
        loop {
            match consumer.recv().await {
                Ok(message) => break deliveries.push(names.delivery(&message)),
                Err(error) => check(&error)?,
            }
        }
        while deliveries.len() < max
            && let Some(Ok(message)) = consumer.recv().now_or_never()
        {
            deliveries.push(names.delivery(&message));
        }
        returned.note(&deliveries);
        Ok(deliveries)
    }

    async fn commit(&mut self) -> Result<(), BusError> {
        let Some(consumer) = &self.consumer else { return Err(BusError::Closed) };
        self.returned.store(consumer, &self.names)
    }
}

impl Drop for KafkaSubscription {
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        // It commits what is stored and says good-bye to the group, which takes a round trip or two.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.leaving.spawn_blocking(move || drop(consumer));
        }
    }
}

/// By topic and partition: the last of the records that were returned and have not been marked as dealt with.
#[derive(Default)]
pub(super) struct Returned(HashMap<(Name, u32), u64>);

impl Returned {
    pub(super) fn note(&mut self, deliveries: &[Delivery]) {
        // The client gives out what it has of one partition before the next one's: looked up once for all of them.
        let together = |one: &Delivery, other: &Delivery| {
            one.position.partition == other.position.partition && one.position.topic == other.position.topic
        };
        for run in deliveries.chunk_by(together) {
            let Some(Delivery { position: Position { topic, partition, offset }, .. }) = run.last() else { continue };
            self.0.insert((topic.clone(), *partition), *offset);
        }
    }

    /// Marks them, and what came before them, as dealt with.
    pub(super) fn store<C: ConsumerContext>(
        &mut self,
        consumer: &StreamConsumer<C>,
        names: &Names,
    ) -> Result<(), BusError> {
        for ((topic, partition), offset) in self.0.drain() {
            let partition = i32::try_from(partition).unwrap_or_default();
            // The client counts the record that was dealt with, not the next one.
            let offset = i64::try_from(offset).unwrap_or_default();
            match consumer.store_offset(names.remote_of(&topic), partition, offset) {
                Ok(()) => {}
                // It went to another member, which gets the records again.
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::State) => {}
                Err(error) => return Err(unavailable(&error)),
            }
        }
        Ok(())
    }
}

/// What `recv` answers instead of a record: mostly news about brokers, after which it goes on by itself.
pub(super) fn check(error: &KafkaError) -> Result<(), BusError> {
    if is_unknown_topic(error) {
        return Err(BusError::Unavailable("a topic is gone: run `saga migrate`".to_owned()));
    }
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::PollExceeded
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::PartitionEOF,
        ) => {
            tracing::debug!(%error, "Kafka consumer");
            Ok(())
        }
        _ => Err(unavailable(error)),
    }
}

/// Topics are met again with every record: their names are made once.
#[derive(Clone)]
pub(super) struct Names {
    /// On the cluster, and here.
    topics: Vec<(String, Name)>,
}

impl Names {
    pub(super) fn new(topics: impl Iterator<Item = (String, Name)>) -> Self {
        Self { topics: topics.collect() }
    }

    /// All, as they are called on the cluster.
    pub(super) fn remote(&self) -> Vec<&str> {
        self.topics.iter().map(|(remote, _)| remote.as_str()).collect()
    }

    /// One, as it is called on the cluster.
    pub(super) fn remote_of<'n>(&'n self, topic: &'n Name) -> &'n str {
        self.topics.iter().find(|(_, name)| name == topic).map_or(topic.as_str(), |(remote, _)| remote.as_str())
    }

    /// One, as it is called here.
    pub(super) fn topic(&self, remote: &str) -> Name {
        let known = self.topics.iter().find(|(name, _)| name == remote);
        known.map_or_else(|| Name::new(remote), |(_, name)| name.clone())
    }

    /// A record, copied out of the client's memory.
    pub(super) fn delivery(&self, message: &BorrowedMessage<'_>) -> Delivery {
        // All parts share one piece of memory.
        let size = message.key_len() + message.payload_len() + HEADERS;
        let mut memory = BytesMut::with_capacity(size);
        let mut bytes = |slice: Option<&[u8]>| {
            memory.extend_from_slice(slice.unwrap_or_default());
            memory.split().freeze()
        };
        let topic = self.topic(message.topic());
        let headers = message.headers().map_or_else(Headers::default, |headers| {
            let mut all = Vec::with_capacity(headers.count());
            all.extend(headers.iter().map(|header| (header_name(header.key), bytes(header.value))));
            all.into()
        });
        let position = Position {
            topic: topic.clone(),
            partition: u32::try_from(message.partition()).unwrap_or_default(),
            offset: u64::try_from(message.offset()).unwrap_or_default(),
        };
        let (key, payload) = (bytes(message.key()), bytes(message.payload()));
        Delivery { position, message: Message { topic, key, headers, payload } }
    }
}
