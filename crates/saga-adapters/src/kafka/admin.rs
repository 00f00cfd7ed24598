//! Topics: whether they are there, making them, and how far each group has read.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Buf as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};
use saga_core::Name;
use saga_runtime::bus::BusError;

use super::{KafkaBus, unavailable};

/// A topic as it is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicPlan {
    /// Its name.
    pub name: Name,
    /// Into how many shares its keys are divided.
    pub partitions: u32,
    /// On how many brokers each record is.
    pub replication: u16,
    /// How long records stay, in ms; `None`: for ever.
    pub retention_ms: Option<u64>,
    /// The largest record that it takes, in bytes.
    pub largest: u32,
}

/// What became of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// It is there now.
    New,
    /// It was there before, with so many partitions.
    Existed(u32),
}

/// How far a group has read a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupLag {
    /// The consumer group.
    pub group: String,
    /// By partition.
    pub partitions: Vec<PartitionLag>,
}

/// How far a group has read a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionLag {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: u32,
    /// The next record that will be written.
    pub end: u64,
    /// Where the group goes on, if it has committed anything.
    pub committed: Option<u64>,
    /// Records that wait.
    pub lag: u64,
}

impl KafkaBus {
    /// The topics that there are.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn topics(&self) -> Result<HashSet<Name>, BusError> {
        Ok(self.partitions().await?.into_keys().collect())
    }

    /// The topics that there are, each with the number of its partitions.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn partitions(&self) -> Result<BTreeMap<Name, u32>, BusError> {
        let (client, limit) = (self.0.producer.client(), self.0.options.request_timeout);
        let ask = move || client.client().fetch_metadata(None, limit).map_err(|error| unavailable(&error));
        let metadata = blocking(ask).await?;
        let count = |topic: &rdkafka::metadata::MetadataTopic| {
            let name = self.0.options.local(topic.name())?;
            Some((Name::new(name), u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX)))
        };
        Ok(metadata.topics().iter().filter_map(count).collect())
    }

    /// Makes the topics that are not there. Those that are stay as they are.
    ///
    /// # Errors
    /// When no broker answers in time, or it refuses; topics before that one may have been made.
    pub async fn create(&self, plans: &[TopicPlan]) -> Result<Vec<(Name, Created)>, BusError> {
        let there = self.partitions().await?;
        let admin: AdminClient<DefaultClientContext> =
            self.0.options.client().create().map_err(|error| unavailable(&error))?;
        let options = AdminOptions::new().operation_timeout(Some(self.0.options.request_timeout));
        let mut created = Vec::new();
        for plan in plans {
            if let Some(partitions) = there.get(&plan.name) {
                created.push((plan.name.clone(), Created::Existed(*partitions)));
                continue;
            }
            let retention = plan.retention_ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string());
            let replication = TopicReplication::Fixed(i32::from(plan.replication));
            let partitions = i32::try_from(plan.partitions).unwrap_or(i32::MAX);
            let name = self.0.options.remote(&plan.name);
            let largest = plan.largest.to_string();
            let topic = NewTopic::new(&name, partitions, replication)
                .set("retention.ms", retention.as_str())
                .set("max.message.bytes", largest.as_str());
            let answers = admin.create_topics([&topic], &options).await.map_err(|error| unavailable(&error))?;
            for answer in answers {
                match answer {
                    // Somebody was quicker.
                    Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((name, code)) => {
                        return Err(BusError::Unavailable(format!("topic {name} could not be made: {code}")));
                    }
                }
            }
            created.push((plan.name.clone(), Created::New));
        }
        Ok(created)
    }

    /// The groups that there are.
    pub(super) async fn groups(&self) -> Result<Vec<Group>, BusError> {
        let (client, options) = (self.0.producer.client(), self.0.options.clone());
        let ask = move || {
            let listed = client.client().fetch_group_list(None, options.request_timeout);
            let listed = listed.map_err(|error| unavailable(&error))?;
            let group = |group: &rdkafka::groups::GroupInfo| {
                let assigned = group.members().iter().filter_map(|member| assigned_topics(member.assignment()?));
                Some(Group {
                    name: options.local(group.name())?.to_owned(),
                    members: group.members().iter().map(|member| member.client_id().to_owned()).collect(),
                    reads: assigned.flatten().filter_map(|topic| options.local(&topic).map(Name::new)).collect(),
                })
            };
            let mut groups: Vec<Group> = listed.groups().iter().filter_map(group).collect();
            groups.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(groups)
        };
        blocking(ask).await
    }

    /// How far a group has read these topics.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn lag(&self, group: &str, topics: &[Name]) -> Result<GroupLag, BusError> {
        let there = self.partitions().await?;
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..there.get(topic).copied().unwrap_or(0) {
                list.add_partition(&self.0.options.remote(topic), i32::try_from(partition).unwrap_or_default());
            }
        }
        let mut config = self.0.options.client();
        config.set("group.id", format!("{}{group}", self.0.options.prefix)).set("enable.auto.commit", "false");
        let limit = self.0.options.request_timeout;
        let options = self.0.options.clone();
        let ask = move || {
            let consumer: Arc<BaseConsumer> = Arc::new(config.create()?);
            let committed = consumer.committed_offsets(list, limit)?;
            let place = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                let (first, end) = consumer.fetch_watermarks(e.topic(), e.partition(), limit)?;
                let committed = e.offset().to_raw().filter(|offset| *offset >= 0);
                let unsigned = |offset: i64| u64::try_from(offset).unwrap_or_default();
                Ok(PartitionLag {
                    topic: Name::new(options.local(e.topic()).unwrap_or_default()),
                    partition: u32::try_from(e.partition()).unwrap_or_default(),
                    end: unsigned(end),
                    committed: committed.map(unsigned),
                    lag: unsigned(end - committed.unwrap_or(first).max(first)),
                })
            };
            committed.elements().iter().map(place).collect::<Result<Vec<_>, rdkafka::error::KafkaError>>()
        };
        let partitions = blocking(move || ask().map_err(|error| unavailable(&error))).await?;
        Ok(GroupLag { group: group.to_owned(), partitions })
    }

    /// Makes a group that has no members read these topics from their beginning. What it had dealt with comes again, and
    /// must be harmless.
    ///
    /// # Errors
    /// When no broker answers in time, or the group has members.
    pub async fn rewind(&self, group: &str, topics: &[Name]) -> Result<(), BusError> {
        let there = self.partitions().await?;
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..there.get(topic).copied().unwrap_or(0) {
                let partition = i32::try_from(partition).unwrap_or_default();
                let added = list.add_partition_offset(&self.0.options.remote(topic), partition, Offset::Offset(0));
                added.map_err(|error| unavailable(&error))?;
            }
        }
        let mut config = self.0.options.client();
        config.set("group.id", format!("{}{group}", self.0.options.prefix)).set("enable.auto.commit", "false");
        let rewind = move || {
            let consumer: BaseConsumer = config.create()?;
            consumer.commit(&list, CommitMode::Sync)
        };
        blocking(move || rewind().map_err(|error| unavailable(&error))).await
    }
}

/// A consumer group.
pub(super) struct Group {
    pub(super) name: String,
    /// What its members call themselves.
    pub(super) members: Vec<String>,
    /// The topics of which a member has partitions.
    pub(super) reads: HashSet<Name>,
}

/// The topics of a member's assignment: a version, then each topic's name with the numbers of its partitions. `None`:
/// that is not what the bytes say.
fn assigned_topics(mut bytes: &[u8]) -> Option<Vec<String>> {
    let _version = bytes.try_get_i16().ok()?;
    let topics = bytes.try_get_i32().ok()?;
    let topic = |_| {
        let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        let partitions = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
        bytes = bytes.get(partitions.checked_mul(4)?..)?;
        String::from_utf8(name.to_vec()).ok()
    };
    (0..topics).map(topic).collect()
}

/// The client's questions block a thread until they are answered.
pub(super) async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.unwrap_or_else(|error| Err(BusError::Unavailable(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_names_its_topics_and_what_is_none_names_nothing() {
        // As Kafka's protocol has it: version 1, two topics, of the first two partitions, no data of its own.
        let assignment = b"\0\x01\0\0\0\x02\0\x05order\0\0\0\x02\0\0\0\0\0\0\0\x07\0\x05reply\0\0\0\0\xff\xff\xff\xff";
        assert_eq!(assigned_topics(assignment).unwrap(), ["order", "reply"]);
        assert_eq!(assigned_topics(b"\0\x01\0\0\0\0"), Some(vec![]));
        for length in 0..36 {
            assert_eq!(assigned_topics(&assignment[..length]), None, "cut after {length}");
        }
        assert_eq!(assigned_topics(b"\0\x01\0\0\0\x01\xff\xff"), None);
    }
}
