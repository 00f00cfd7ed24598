//! Looking at records without taking them: a consumer that is assigned to partitions joins no group and commits nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use saga_core::Name;
use saga_runtime::bus::{BusError, Headers, Message, PartitionExtent, Peek, Peeked, PeekedRecord, TopicExtent};
use saga_runtime::wire::header_name;
use tokio::time::Instant;

use super::admin::blocking;
use super::{KafkaBus, unavailable};

/// How long a look may take. What was found until then is shown.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most bytes that are read for one look.
const LARGEST: usize = 8 << 20;
/// Records of a partition that are read for one look at a key.
const SCANNED: u64 = 5_000;

/// A partition's records from `low` up to, without it, `high`; `begin` is the first that there is.
#[derive(Clone, Copy)]
struct Stretch {
    begin: u64,
    low: u64,
    high: u64,
}

impl KafkaBus {
    fn onlooker(&self) -> ClientConfig {
        let mut config = self.0.options.client();
        // The client wants a name of a group before it lets itself be assigned. It is never joined.
        config
            .set("group.id", format!("{}onlooker", self.0.options.prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", "4096");
        config
    }

    pub(super) async fn look_at_extents(&self) -> Result<Vec<TopicExtent>, BusError> {
        let (there, config, options) = (self.partitions().await?, self.onlooker(), self.0.options.clone());
        let ask = move || {
            let consumer: BaseConsumer = config.create()?;
            let mut all = Vec::new();
            for (topic, count) in there {
                let remote = options.remote(&topic);
                let partitions = (0..count).map(|partition| {
                    let (begin, end) = watermarks(&consumer, &remote, partition, options.request_timeout)?;
                    Ok(PartitionExtent { partition, begin, end })
                });
                let partitions = partitions.collect::<Result<Vec<_>, KafkaError>>()?;
                all.push(TopicExtent { topic, partitions });
            }
            Ok(all)
        };
        blocking(move || ask().map_err(|error: KafkaError| unavailable(&error))).await
    }

    pub(super) async fn look_at_records(&self, peek: Peek) -> Result<Peeked, BusError> {
        let there = self.partitions().await?;
        let count = *there.get(&peek.topic).ok_or_else(|| BusError::UnknownTopic(peek.topic.clone()))?;
        let partitions: Vec<u32> = (0..count).filter(|p| peek.partition.is_none_or(|only| only == *p)).collect();
        let (config, remote) = (self.onlooker(), self.0.options.remote(&peek.topic).into_owned());
        let limit = self.0.options.request_timeout;
        blocking(move || read(&config, &remote, &partitions, &peek, limit).map_err(|error| unavailable(&error))).await
    }
}

fn watermarks(consumer: &BaseConsumer, topic: &str, partition: u32, limit: Duration) -> Result<(u64, u64), KafkaError> {
    let (begin, end) = consumer.fetch_watermarks(topic, number(partition), limit)?;
    let unsigned = |offset: i64| u64::try_from(offset).unwrap_or_default();
    Ok((unsigned(begin), unsigned(end)))
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

#[expect(clippy::disallowed_methods, reason = "a limit on a real wait")]
fn read(
    config: &ClientConfig,
    topic: &str,
    partitions: &[u32],
    peek: &Peek,
    limit: Duration,
) -> Result<Peeked, KafkaError> {
    let consumer: BaseConsumer = config.create()?;
    let mut stretches = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    let scanned = if peek.key.is_some() { SCANNED } else { peek.limit as u64 };
    for &partition in partitions {
        let (begin, end) = watermarks(&consumer, topic, partition, limit)?;
        let high = peek.from.map_or(end, |from| end.min(from.saturating_add(1)));
        let low = high.saturating_sub(scanned).max(begin);
        if low < high {
            list.add_partition_offset(
                topic,
                number(partition),
                Offset::Offset(i64::try_from(low).unwrap_or(i64::MAX)),
            )?;
            stretches.insert(partition, Stretch { begin, low, high });
        }
    }
    let all = stretches.clone();
    consumer.assign(&list)?;
    let until = Instant::now() + PATIENCE;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while !stretches.is_empty() && bytes < LARGEST && Instant::now() < until {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let record = taken(&peek.topic, &message);
                let Some(stretch) = stretches.get(&record.partition).copied() else { continue };
                if record.offset + 1 >= stretch.high {
                    stretches.remove(&record.partition);
                }
                let wanted = peek.key.as_ref().is_none_or(|key| record.message.key == *key);
                if wanted && record.offset < stretch.high {
                    bytes += record.message.payload.len();
                    records.push(record);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                u32::try_from(partition).ok().and_then(|partition| stretches.remove(&partition));
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                // It tries again by itself.
                Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => {}
                _ => return Err(error),
            },
        }
    }
    consumer.unassign()?;
    records.sort_by_key(|record| std::cmp::Reverse((record.at, record.offset)));
    let more = records.len() > peek.limit;
    records.truncate(peek.limit);
    Ok(Peeked { next_from: next(peek, &all, &records, more), records, kept_since: None })
}

/// Where the next look at the one partition goes on.
fn next(peek: &Peek, all: &BTreeMap<u32, Stretch>, records: &[PeekedRecord], more: bool) -> Option<u64> {
    let stretch = all.get(&peek.partition?)?;
    let lowest = if more { records.iter().map(|record| record.offset).min()? } else { stretch.low };
    lowest.checked_sub(1).filter(|from| *from >= stretch.begin)
}

fn taken(topic: &Name, message: &BorrowedMessage<'_>) -> PeekedRecord {
    let bytes = |bytes: Option<&[u8]>| bytes::Bytes::copy_from_slice(bytes.unwrap_or_default());
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header_name(header.key), bytes(header.value))).collect::<Headers>()
    });
    PeekedRecord {
        partition: u32::try_from(message.partition()).unwrap_or_default(),
        offset: u64::try_from(message.offset()).unwrap_or_default(),
        at: message.timestamp().to_millis().and_then(|at| u64::try_from(at).ok()),
        message: Message {
            topic: topic.clone(),
            key: bytes(message.key()),
            headers: headers.unwrap_or_default(),
            payload: bytes(message.payload()),
        },
    }
}
