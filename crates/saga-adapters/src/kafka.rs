//! The bus on Kafka: the topics, keys, headers and client settings of the protocol document.
//!
//! Promised: `publish` answers when every record is acknowledged by all in-sync replicas; an offset is committed only
//! for what the loop has said it is done with; a topic that is not there is an error, never created silently.
//! Not here: what messages mean, and retries (the loops').

mod admin;
mod member;
mod peek;
mod producer;
mod subscription;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use saga_core::Name;
use saga_runtime::bus::{
    Bus, BusError, GroupReading, Membership, Message, Peek, Peeked, PlaceReading, Subscription, TopicExtent,
};
use tokio_util::task::TaskTracker;

pub use admin::{Created, GroupLag, PartitionLag, TopicPlan};

/// The largest record of a topic, in bytes: a command with the outputs of more than a dozen steps, each as long as
/// [`saga_runtime::wire::MAX_PAYLOAD`] allows.
pub const LARGEST_RECORD: u32 = 4 << 20;
/// The largest dead letter: any record, with the headers that say why.
pub const LARGEST_LETTER: u32 = 5 << 20;

use admin::Group;
use producer::Producer;

/// How to reach a cluster, and how patient to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// What the names of topics and groups begin with on the cluster: several shops can share one. Here they are without it.
    pub prefix: String,
    /// Shown in the broker's logs and metrics.
    pub client_id: String,
    /// How long records wait for company on their way to a broker, where many are sent together.
    pub linger: Duration,
    /// How long a record may wait for its acknowledgement.
    pub delivery_timeout: Duration,
    /// After how long without a heartbeat a member's partitions go to others.
    pub session_timeout: Duration,
    /// How long a question about topics may take.
    pub request_timeout: Duration,
}

impl Options {
    /// Settings for some brokers, with the defaults for the rest.
    pub fn new(brokers: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: String::new(),
            client_id: client_id.into(),
            linger: Duration::ZERO,
            delivery_timeout: Duration::from_secs(30),
            session_timeout: Duration::from_secs(6),
            request_timeout: Duration::from_secs(5),
        }
    }

    /// A topic's name on the cluster.
    fn remote<'n>(&self, topic: &'n Name) -> Cow<'n, str> {
        match self.prefix.as_str() {
            "" => topic.as_str().into(),
            prefix => format!("{prefix}{topic}").into(),
        }
    }

    /// A topic of ours, by its name on the cluster.
    fn local<'n>(&self, remote: &'n str) -> Option<&'n str> {
        remote.strip_prefix(self.prefix.as_str())
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            // Latency: small packets leave at once, and a broker that comes back is found soon.
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("allow.auto.create.topics", "false")
            .set("topic.metadata.refresh.interval.ms", "30000");
        config
    }

    fn consumer(&self, group: &str, assignor: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", format!("{}{group}", self.prefix))
            .set("partition.assignment.strategy", assignor)
            .set("session.timeout.ms", self.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", (self.session_timeout.as_millis() / 3).to_string())
            .set("auto.offset.reset", "earliest")
            // Stored by `commit`, sent in the background and whenever partitions are given back.
            .set("enable.auto.offset.store", "false")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "250")
            .set("fetch.min.bytes", "1")
            // What waits here is bounded; a full queue is looked at again at once, not after a second.
            .set("queued.min.messages", "2000")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.queue.backoff.ms", "10")
            .set("enable.partition.eof", "false");
        config
    }
}

/// The bus. Cheap to clone.
#[derive(Clone)]
pub struct KafkaBus(Arc<Shared>);

struct Shared {
    options: Options,
    producer: Producer,
    /// Topics that were there when they were last looked for.
    known: RwLock<HashSet<Name>>,
    /// Members on their way out of their groups, and those that pump.
    leaving: TaskTracker,
}

impl std::fmt::Debug for KafkaBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KafkaBus").field(&self.0.options.brokers).finish()
    }
}

impl KafkaBus {
    /// A bus over a cluster, which need not be there yet. To be called in a tokio runtime.
    ///
    /// # Errors
    /// When the settings are refused by the client.
    pub fn new(options: Options) -> Result<Self, BusError> {
        let producer = Producer::new(&options)?;
        let (known, leaving) = (RwLock::default(), TaskTracker::new());
        Ok(Self(Arc::new(Shared { options, producer, known, leaving })))
    }

    /// Waits until every member that was dropped has left its group, so that others take over at once.
    pub async fn close(&self) {
        self.0.leaving.close();
        self.0.leaving.wait().await;
    }

    fn names(&self, topics: &[Name]) -> subscription::Names {
        subscription::Names::new(topics.iter().map(|topic| (self.0.options.remote(topic).into_owned(), topic.clone())))
    }

    /// Makes sure that topics exist; what is not known is looked for.
    async fn require<'t>(&self, topics: impl Iterator<Item = &'t Name>) -> Result<(), BusError> {
        let missing = |known: &HashSet<Name>, wanted: &HashSet<&'t Name>| {
            wanted.iter().find(|topic| !known.contains(**topic)).map(|topic| (*topic).clone())
        };
        let wanted: HashSet<&Name> = topics.collect();
        if missing(&self.0.known.read(), &wanted).is_none() {
            return Ok(());
        }
        let found = self.topics().await?;
        let missing = missing(&found, &wanted);
        *self.0.known.write() = found;
        missing.map_or(Ok(()), |topic| Err(BusError::UnknownTopic(topic)))
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn publish(&self, messages: Vec<Message>) -> Result<(), BusError> {
        self.require(messages.iter().map(|message| &message.topic)).await?;
        let published = self.0.producer.publish(messages).await;
        if let Err(BusError::UnknownTopic(topic)) = &published {
            self.0.known.write().remove(topic);
        }
        published
    }

    async fn reading(&self) -> Result<Vec<GroupReading>, BusError> {
        let topics: Vec<Name> = self.topics().await?.into_iter().collect();
        let mut groups = Vec::new();
        for Group { name: group, members, mut reads } in self.groups().await? {
            let lag = self.lag(&group, &topics).await?;
            // Records may wait where nothing was ever committed: a topic that is read is read in all its partitions.
            let committed = lag.partitions.iter().filter(|place| place.committed.is_some());
            reads.extend(committed.map(|place| place.topic.clone()));
            let read = lag.partitions.into_iter().filter(|place| reads.contains(&place.topic));
            let place = |p: PartitionLag| PlaceReading {
                topic: p.topic,
                partition: p.partition,
                waiting: p.lag,
                end: Some(p.end),
            };
            groups.push(GroupReading { group, members, places: read.map(place).collect() });
        }
        Ok(groups)
    }

    async fn extents(&self) -> Result<Vec<TopicExtent>, BusError> {
        self.look_at_extents().await
    }

    async fn peek(&self, peek: Peek) -> Result<Peeked, BusError> {
        self.look_at_records(peek).await
    }

    async fn subscribe(&self, group: &str, topics: &[Name]) -> Result<Box<dyn Subscription>, BusError> {
        self.require(topics.iter()).await?;
        let config = self.0.options.consumer(group, "cooperative-sticky");
        Ok(Box::new(subscription::KafkaSubscription::join(&config, self.names(topics), self.0.leaving.clone())?))
    }

    async fn join(&self, group: &str, topics: &[Name]) -> Result<Box<dyn Membership>, BusError> {
        self.require(topics.iter()).await?;
        // By ranges, one partition's records of all topics come to the same member, if the topics have equally many.
        let config = self.0.options.consumer(group, "range");
        Ok(Box::new(member::KafkaMembership::join(&config, self.names(topics), &self.0.leaving)?))
    }
}

/// What the loops are to do about an error: nearly always to try again.
fn unavailable(error: &KafkaError) -> BusError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
            BusError::Unavailable("no broker answers".to_owned())
        }
        _ => BusError::Unavailable(error.to_string()),
    }
}

fn is_unknown_topic(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(error.rdkafka_error_code(), Some(UnknownTopic | UnknownTopicOrPartition | UnknownPartition))
}
