//! The bus on a real broker passes the port's suite; what only Kafka has is tested here.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use saga_adapters::kafka::{Created, KafkaBus, LARGEST_LETTER, LARGEST_RECORD, Options, TopicPlan};
use saga_core::Name;
use saga_runtime::bus::{Assignment, Bus as _, Membership, Message, Subscription};
use saga_runtime::delivery::{dead_letter, dead_letter_topic};
use saga_runtime::wire;
use testkit::conformance::bus::BusUnderTest;
use testkit::conformance::{Fixture, until, within};
use testkit::kafka::{broker, names};

fn options() -> Options {
    Options { prefix: "shop-".to_owned(), ..Options::new(broker(), "test") }
}

fn bus() -> KafkaBus {
    KafkaBus::new(options()).unwrap()
}

fn plan(name: &Name, partitions: u32) -> TopicPlan {
    let largest = if name.as_str().ends_with(".dlq") { LARGEST_LETTER } else { LARGEST_RECORD };
    TopicPlan { name: name.clone(), partitions, replication: 1, retention_ms: None, largest }
}

async fn with_topics(partitions: u32) -> (KafkaBus, [Name; 2]) {
    let (bus, topics) = (bus(), names::<2>());
    until("topics can be made", || async {
        bus.create(&topics.iter().map(|name| plan(name, partitions)).collect::<Vec<_>>()).await.is_ok()
    })
    .await;
    (bus, topics)
}

fn message(topic: &Name, key: u64, payload: &str) -> Message {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Message { topic: topic.clone(), key: key.to_string().into(), headers: vec![].into(), payload }
}

mod the_bus {
    use super::*;

    async fn make() -> Fixture<BusUnderTest> {
        let (bus, topics) = with_topics(4).await;
        Fixture::new(BusUnderTest { bus: Arc::new(bus), topics, unknown: "not-there".into() })
    }

    testkit::bus_conformance!(make);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_once_and_left_as_they_are() {
    let (bus, [topic, other]) = with_topics(3).await;
    let [new] = names();
    let made = bus.create(&[plan(&topic, 12), plan(&new, 2)]).await.unwrap();
    assert_eq!(made, [(topic.clone(), Created::Existed(3)), (new.clone(), Created::New)]);
    until("the new topic is seen", || async { bus.partitions().await.unwrap().get(&new) == Some(&2) }).await;
    assert_eq!(bus.partitions().await.unwrap()[&other], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_records_wait_for_company_and_a_few_do_not() {
    const LINGER: Duration = Duration::from_secs(2);
    let (bus, [topic, _]) = with_topics(1).await;
    let patient = KafkaBus::new(Options { linger: LINGER, ..options() }).unwrap();
    let mut sent = Vec::new();
    let mut took = Vec::new();
    // The first of each kind also opens connections.
    for size in [1, 5, 4, 9, 1] {
        let payloads: Vec<String> = (0..size).map(|n| format!("{}-{n}", took.len())).collect();
        let batch = payloads.iter().map(|payload| message(&topic, 1, payload)).collect();
        sent.extend(payloads);
        let started = std::time::Instant::now();
        patient.publish(batch).await.unwrap();
        took.push(started.elapsed());
    }
    assert!(took[2] < LINGER / 2 && took[4] < LINGER / 2, "a few go out at once: {took:?}");
    assert!(took[3] > LINGER / 2, "many linger: {took:?}");
    let mut reader = bus.subscribe("readers", &[topic]).await.unwrap();
    let mut read = Vec::new();
    while read.len() < sent.len() {
        let arrived = within("records", reader.next(100)).await.unwrap();
        read.extend(arrived.into_iter().map(|delivery| String::from_utf8(delivery.message.payload.to_vec()).unwrap()));
    }
    assert_eq!(read, sent, "whichever way they went, in the order in which they were sent");
}

/// The threads that hear acknowledgements, each with the ns that it has run.
fn listeners() -> BTreeMap<String, u64> {
    let read = |thread: &std::path::Path, what: &str| std::fs::read_to_string(thread.join(what)).unwrap_or_default();
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let ours = threads.filter(|thread| read(thread, "comm").trim() == "kafka-acks");
    let ran = |thread: &std::path::Path| read(thread, "schedstat").split(' ').next().and_then(|ns| ns.parse().ok());
    ours.filter_map(|thread| Some((thread.to_str()?.to_owned(), ran(&thread)?))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_nothing_is_sent_through_costs_next_to_nothing_and_goes_when_it_is_not_held_any_more() {
    let others = listeners();
    let bus = KafkaBus::new(Options { linger: Duration::from_millis(1), ..options() }).unwrap();
    // They start, and connect.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = listeners();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ended = listeners();
    let ran = |(thread, before): (&String, &u64)| Some((thread.clone(), ended.get(thread)? - before));
    let new: BTreeMap<String, u64> =
        begun.iter().filter(|(thread, _)| !others.contains_key(*thread)).filter_map(ran).collect();
    assert!(new.len() >= 2, "one that lingers, one that does not: {new:?}");
    // Among them may be those of other tests, which do send.
    assert!(*new.values().min().unwrap() < 4_000_000, "ns of two seconds: {new:?}");
    drop(bus);
    until("the threads have ended", || async { new.keys().filter(|t| !listeners().contains_key(*t)).count() >= 2 })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_tells_what_waits_for_a_group() {
    let (bus, [topic, _]) = with_topics(2).await;
    let topics = [topic.clone()];
    bus.publish((0..30).map(|key| message(&topic, key, "x")).collect()).await.unwrap();
    let waiting = |bus: KafkaBus, topics: [Name; 1]| async move {
        bus.lag("readers", &topics).await.unwrap().partitions.iter().map(|p| p.lag).sum::<u64>()
    };
    assert_eq!(waiting(bus.clone(), topics.clone()).await, 30);
    let mut reader = bus.subscribe("readers", &topics).await.unwrap();
    let mut read = 0;
    while read < 30 {
        read += within("records", reader.next(100)).await.unwrap().len();
    }
    assert_eq!(waiting(bus.clone(), topics.clone()).await, 30, "nothing is committed yet");
    let readers = bus.reading().await.unwrap().into_iter().find(|group| group.group == "readers").unwrap();
    let shown: u64 = readers.places.iter().map(|place| place.waiting).sum();
    assert_eq!((readers.places.len(), shown), (2, 30), "nor has it to be, to be shown");
    reader.commit().await.unwrap();
    until("the offsets are committed", || async { waiting(bus.clone(), topics.clone()).await == 0 }).await;
    let groups = bus.reading().await.unwrap();
    let readers = groups.iter().find(|group| group.group == "readers").unwrap();
    assert_eq!((readers.members.as_slice(), readers.places.len()), (&["test".to_owned()][..], 2), "{groups:?}");
    assert!(readers.places.iter().all(|place| place.waiting == 0 && place.topic == topic));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_bus_has_left_its_groups() {
    let (bus, [topic, _]) = with_topics(1).await;
    let topics = [topic.clone()];
    let other = self::bus();
    let mut first = bus.subscribe("group", &topics).await.unwrap();
    bus.publish(vec![message(&topic, 1, "a")]).await.unwrap();
    assert_eq!(within("the record", first.next(10)).await.unwrap().len(), 1);
    first.commit().await.unwrap();
    drop(first);
    within("the good-bye", bus.close()).await;
    let mut second = other.subscribe("group", &topics).await.unwrap();
    other.publish(vec![message(&topic, 1, "b")]).await.unwrap();
    let started = std::time::Instant::now();
    let next = within("the next record", second.next(10)).await.unwrap();
    assert_eq!(next[0].message.payload, "b", "what was committed does not come again");
    assert!(started.elapsed().as_secs() < 5, "nobody waited for a session to expire: {:?}", started.elapsed());
}

/// A member and the partitions it drives.
struct Driver {
    membership: Box<dyn Membership>,
    driven: BTreeMap<u32, Box<dyn Subscription>>,
}

impl Driver {
    async fn join(bus: &KafkaBus, topics: &[Name]) -> Self {
        Self { membership: bus.join("drivers", topics).await.unwrap(), driven: BTreeMap::new() }
    }

    /// The next change; what it was.
    async fn change(&mut self) -> String {
        let assignment = within("a change", self.membership.next()).await.unwrap();
        let told = format!("{assignment:?}");
        self.took(assignment);
        told
    }

    fn took(&mut self, assignment: Assignment) {
        match assignment {
            Assignment::Assigned { partition, subscription } => {
                self.driven.insert(partition, subscription);
            }
            Assignment::Revoked { partition } => {
                self.driven.remove(&partition);
            }
        }
    }

    fn partitions(&self) -> BTreeSet<u32> {
        self.driven.keys().copied().collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_of_all_topics_is_driven_by_one_member_and_changes_hands() {
    let (bus, topics) = with_topics(4).await;
    let mut first = Driver::join(&bus, &topics).await;
    while first.driven.len() < 4 {
        first.change().await;
    }
    // One key's records of both topics come to the same loop.
    bus.publish(topics.iter().map(|topic| message(topic, 7, "x")).collect()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let nexts = first.driven.iter_mut().map(|(partition, subscription)| {
            Box::pin(async move { (*partition, subscription.next(10).await.unwrap()) })
        });
        let ((partition, arrived), _, _) = within("records", futures_util::future::select_all(nexts)).await;
        seen.extend(arrived.iter().map(|_| partition));
        first.driven.get_mut(&partition).unwrap().commit().await.unwrap();
    }
    assert_eq!(seen[0], seen[1], "both topics' records of a key are in one partition");
    // A second member takes half; what the first keeps it keeps without a new reader.
    let mut second = Driver::join(&bus, &topics).await;
    let mut told = vec![first.change().await, first.change().await];
    while second.driven.len() < 2 {
        second.change().await;
    }
    told.retain(|change| !change.starts_with("Revoked"));
    assert!(told.is_empty(), "the first member was only told of what it lost: {told:?}");
    assert!(first.partitions().is_disjoint(&second.partitions()));
    assert_eq!(first.driven.len() + second.driven.len(), 4);
    // When it leaves, the first has all again.
    drop(second);
    while first.driven.len() < 4 {
        first.change().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m12_a_partition_that_waits_for_its_loop_goes_on_after_the_group_is_balanced_anew() {
    // More than is kept for a loop: the partition is paused.
    const MANY: u64 = 9_000;
    let (bus, topics) = with_topics(1).await;
    let mut first = Driver::join(&bus, &topics).await;
    first.change().await;
    bus.publish((0..MANY).map(|number| message(&topics[0], 7, &number.to_string())).collect()).await.unwrap();
    let mut taken = BTreeSet::new();
    for round in 1..=3 {
        take(&mut first, &mut taken, round * 500).await;
        // Another member comes and goes; whoever it is, the only partition is with the first again at the end.
        let second = self::bus();
        let mut other = Driver::join(&second, &topics).await;
        until("both are members", || async {
            let groups = bus.reading().await.unwrap();
            groups.iter().any(|group| group.group == "drivers" && group.members.len() == 2)
        })
        .await;
        other.driven.clear();
        drop(other);
        within("the good-bye", second.close()).await;
    }
    take(&mut first, &mut taken, MANY).await;
    assert!(taken.iter().copied().eq(0..MANY), "every record arrived");
}

/// Takes records of the only partition until there are so many.
async fn take(driver: &mut Driver, taken: &mut BTreeSet<u64>, count: u64) {
    while (taken.len() as u64) < count {
        let Some(subscription) = driver.driven.get_mut(&0) else {
            driver.change().await;
            continue;
        };
        tokio::select! {
            arrived = within("records", subscription.next(250)) => {
                // A reader whose partition went away says so: the next one brings the rest.
                let Ok(arrived) = arrived else {
                    driver.driven.remove(&0);
                    continue;
                };
                taken.extend(arrived.iter().map(|d| std::str::from_utf8(&d.message.payload).unwrap().parse::<u64>().unwrap()));
                subscription.commit().await.unwrap();
            }
            change = driver.membership.next() => driver.took(change.unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m07_the_largest_record_that_anybody_can_send_can_be_buried() {
    let [topic] = names();
    let letters = dead_letter_topic(&topic);
    let bus = bus();
    until("topics can be made", || async { bus.create(&[plan(&topic, 1), plan(&letters, 1)]).await.is_ok() }).await;
    let mut reader = bus.subscribe("large", std::slice::from_ref(&topic)).await.unwrap();
    // Nearly all of what the topic takes; the rest is for the record's own frame.
    let huge = Message { payload: vec![b'x'; LARGEST_RECORD as usize - 150].into(), ..message(&topic, 7, "") };
    within("an acknowledgement", bus.publish(vec![huge])).await.unwrap();
    let arrived = within("the record", reader.next(1)).await.unwrap();
    let poison = wire::parse(&arrived[0].message).unwrap_err();
    within("the letter's", bus.publish(vec![dead_letter(&arrived[0], &poison, 0)])).await.unwrap();
}

/// Brokers that can be told to fail; they know no admin requests, so topics are made beside.
mod errors_of_brokers {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use saga_runtime::BusError;

    use super::*;

    fn cluster(topic: &Name) -> (MockCluster<'static, DefaultProducerContext>, KafkaBus) {
        let cluster = MockCluster::new(3).unwrap();
        cluster.create_topic(topic.as_str(), 2, 3).unwrap();
        let options =
            Options { delivery_timeout: Duration::from_secs(3), ..Options::new(cluster.bootstrap_servers(), "t") };
        let bus = KafkaBus::new(options).unwrap();
        (cluster, bus)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_passes_is_waited_for_and_each_record_arrives_once() {
        let [topic] = names();
        let (cluster, bus) = cluster(&topic);
        let mut reader = bus.subscribe("group", std::slice::from_ref(&topic)).await.unwrap();
        use RDKafkaRespErr::{
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS as TOO_FEW, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as ELSEWHERE,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as LATE,
        };
        cluster.request_errors(RDKafkaApiKey::Produce, &[TOO_FEW, ELSEWHERE, LATE]);
        // One at a time: the client takes a later batch that was written as proof of an earlier one that timed out, for
        // brokers refuse gaps in its sequence. These don't, and the earlier one would be lost.
        for key in 0..20 {
            within("the acknowledgement", bus.publish(vec![message(&topic, key, "x")])).await.unwrap();
        }
        let mut arrived = 0;
        while arrived < 20 {
            arrived += within("the records", reader.next(100)).await.unwrap().len();
        }
        bus.publish(vec![message(&topic, 1, "last")]).await.unwrap();
        let last = within("the last record", reader.next(100)).await.unwrap();
        assert_eq!((last.len(), &last[0].message.payload[..]), (1, &b"last"[..]), "nothing came twice");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn brokers_that_are_gone_are_an_error_in_time_and_no_end() {
        let [topic] = names();
        let (cluster, bus) = cluster(&topic);
        bus.publish(vec![message(&topic, 1, "before")]).await.unwrap();
        (1..=3).for_each(|broker| cluster.broker_down(broker).unwrap());
        let failed = within("an answer", bus.publish(vec![message(&topic, 1, "lost")])).await;
        assert!(matches!(failed, Err(BusError::Unavailable(_))), "{failed:?}");
        (1..=3).for_each(|broker| cluster.broker_up(broker).unwrap());
        until("it goes on", || async { bus.publish(vec![message(&topic, 1, "after")]).await.is_ok() }).await;
    }
}
