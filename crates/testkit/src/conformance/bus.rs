//! The bus: at least once, in order per key, to every group, to one member of each.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use saga_core::Name;
use saga_runtime::bus::{Bus, BusError, Headers, Message, Peek, Peeked, Subscription};

use super::within;

/// A bus with two empty topics, and one name that is no topic.
pub struct BusUnderTest {
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// Two topics that exist.
    pub topics: [Name; 2],
    /// A topic that does not.
    pub unknown: Name,
}

/// Makes a test of every case.
#[macro_export]
macro_rules! bus_conformance {
    ($make:expr) => {
        $crate::conformance_tests!(bus, $make;
            records_arrive_whole,
            records_of_a_key_keep_their_order,
            every_group_gets_every_record,
            a_group_s_members_share_the_records_and_keep_the_order_of_keys,
            what_is_not_committed_comes_again,
            what_is_committed_does_not_come_again,
            m14_of_what_was_taken_only_what_was_committed_is_over,
            no_more_than_asked_for_is_returned_at_once,
            waiting_can_be_given_up_without_losing_a_record,
            an_unknown_topic_is_an_error,
            records_can_be_looked_at_without_being_taken,
            looking_goes_back_page_by_page_and_by_key,
        );
    };
}

fn message(topic: &Name, key: &str, payload: &str) -> Message {
    let (key, payload) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(payload.as_bytes()));
    Message { topic: topic.clone(), key, headers: Headers::default(), payload }
}

/// Receives and commits until there are `count` records.
async fn receive(subscription: &mut Box<dyn Subscription>, count: usize) -> Vec<Message> {
    let mut received = Vec::new();
    while received.len() < count {
        let batch = within("a record", subscription.next(100)).await.unwrap();
        assert!(!batch.is_empty(), "`next` waits for a record");
        received.extend(batch.into_iter().map(|d| d.message));
        subscription.commit().await.unwrap();
    }
    received
}

fn number(message: &Message) -> usize {
    std::str::from_utf8(&message.payload).unwrap().parse().unwrap()
}

/// Payloads by key, in the order of arrival.
fn by_key(messages: impl IntoIterator<Item = Message>) -> HashMap<Bytes, Vec<usize>> {
    let mut keys: HashMap<Bytes, Vec<usize>> = HashMap::new();
    for message in messages {
        let number = number(&message);
        keys.entry(message.key).or_default().push(number);
    }
    keys
}

/// Topic, key, headers and payload, also those that are not text.
pub async fn records_arrive_whole(world: &BusUnderTest) {
    let topics = &world.topics;
    let mut subscription = world.bus.subscribe("group", topics).await.unwrap();
    let sent = Message {
        topic: topics[1].clone(),
        key: Bytes::from_static(b"7"),
        headers: vec![("name".into(), Bytes::from_static(b"value")), ("bytes".into(), Bytes::from_static(&[0, 255]))]
            .into(),
        payload: Bytes::from_static(&[0, 159, 146, 150]),
    };
    world.bus.publish(vec![sent.clone()]).await.unwrap();
    let received = within("the record", subscription.next(10)).await.unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].message, sent);
    assert_eq!(received[0].position.topic, topics[1]);
}

/// Whatever else is between them.
pub async fn records_of_a_key_keep_their_order(world: &BusUnderTest) {
    let topic = &world.topics[0];
    let mut subscription = world.bus.subscribe("group", std::slice::from_ref(topic)).await.unwrap();
    for number in 0..200 {
        let batch = ["a", "b", "c"].map(|key| message(topic, key, &number.to_string()));
        world.bus.publish(batch.into()).await.unwrap();
    }
    let keys = by_key(receive(&mut subscription, 600).await);
    assert_eq!(keys.len(), 3);
    for (key, numbers) in keys {
        assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "{key:?}");
    }
}

/// Groups do not take from each other.
pub async fn every_group_gets_every_record(world: &BusUnderTest) {
    let topic = std::slice::from_ref(&world.topics[0]);
    let mut one = world.bus.subscribe("one", topic).await.unwrap();
    let mut two = world.bus.subscribe("two", topic).await.unwrap();
    world.bus.publish((0..50).map(|n| message(&topic[0], "k", &n.to_string())).collect()).await.unwrap();
    for subscription in [&mut one, &mut two] {
        assert_eq!(receive(subscription, 50).await.len(), 50);
    }
}

/// No key is with two members at once. While members come, a record may arrive twice; what is new is in order.
pub async fn a_group_s_members_share_the_records_and_keep_the_order_of_keys(world: &BusUnderTest) {
    let topic = std::slice::from_ref(&world.topics[0]);
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let mut members = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut member = world.bus.subscribe("group", topic).await.unwrap();
        let sender = sender.clone();
        members.spawn(async move {
            while let Ok(batch) = member.next(7).await {
                for delivery in batch {
                    sender.send(delivery.message).unwrap();
                    // The others get their turn while this one has not committed.
                    tokio::task::yield_now().await;
                }
                member.commit().await.unwrap();
            }
        });
    }
    for number in 0..60 {
        let batch = (0..10).map(|key| message(&topic[0], &key.to_string(), &number.to_string()));
        world.bus.publish(batch.collect()).await.unwrap();
    }
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    while all.len() < 600 {
        let message = within("a record", received.recv()).await.unwrap();
        if seen.insert((message.key.clone(), message.payload.clone())) {
            all.push(message);
        }
    }
    for (key, numbers) in by_key(all) {
        assert_eq!(numbers, (0..60).collect::<Vec<_>>(), "{key:?}");
    }
    members.shutdown().await;
}

/// A member that goes away gives back what it did not commit, in front of what came later.
pub async fn what_is_not_committed_comes_again(world: &BusUnderTest) {
    let topic = std::slice::from_ref(&world.topics[0]);
    let mut first = world.bus.subscribe("group", topic).await.unwrap();
    world.bus.publish((0..5).map(|n| message(&topic[0], "k", &n.to_string())).collect()).await.unwrap();
    let mut taken = 0;
    while taken < 3 {
        taken += within("records", first.next(3)).await.unwrap().len();
    }
    drop(first);
    let mut second = world.bus.subscribe("group", topic).await.unwrap();
    world.bus.publish(vec![message(&topic[0], "k", "5")]).await.unwrap();
    let keys = by_key(receive(&mut second, 6).await);
    assert_eq!(keys[&b"k"[..]], (0..6).collect::<Vec<_>>());
}

/// A position is never past the first record that is not done, however many were fetched, and whichever of the later
/// ones were done before the crash.
pub async fn m14_of_what_was_taken_only_what_was_committed_is_over(world: &BusUnderTest) {
    let topic = std::slice::from_ref(&world.topics[0]);
    let mut member = world.bus.subscribe("group", topic).await.unwrap();
    world.bus.publish((0..20).map(|n| message(&topic[0], "k", &n.to_string())).collect()).await.unwrap();
    // Twice: the second member crashes in the middle, too.
    let mut done = 0;
    for _ in 0..2 {
        let batch = within("records", member.next(3)).await.unwrap();
        let mut expected = done..20;
        assert!(
            batch.iter().all(|d| number(&d.message) == expected.next().unwrap()),
            "from the first that is not done"
        );
        member.commit().await.unwrap();
        done += batch.len();
        // Of these the last one's effect may be there, and the first one's not: the process dies before it commits.
        assert!(!within("records", member.next(5)).await.unwrap().is_empty());
        drop(member);
        member = world.bus.subscribe("group", topic).await.unwrap();
    }
    let keys = by_key(receive(&mut member, 20 - done).await);
    assert_eq!(keys[&b"k"[..]], (done..20).collect::<Vec<_>>(), "everything that was not finished, and nothing else");
}

/// Also not to the next member.
pub async fn what_is_committed_does_not_come_again(world: &BusUnderTest) {
    let topic = std::slice::from_ref(&world.topics[0]);
    let mut first = world.bus.subscribe("group", topic).await.unwrap();
    world.bus.publish((0..5).map(|n| message(&topic[0], "k", &n.to_string())).collect()).await.unwrap();
    receive(&mut first, 5).await;
    drop(first);
    let mut second = world.bus.subscribe("group", topic).await.unwrap();
    world.bus.publish(vec![message(&topic[0], "k", "5")]).await.unwrap();
    let keys = by_key(receive(&mut second, 1).await);
    assert_eq!(keys[&b"k"[..]], [5]);
}

/// The caller's batch is bounded.
pub async fn no_more_than_asked_for_is_returned_at_once(world: &BusUnderTest) {
    let mut subscription = world.bus.subscribe("group", &world.topics).await.unwrap();
    let both = world.topics.iter().flat_map(|topic| (0..20).map(|n| message(topic, "k", &n.to_string())));
    world.bus.publish(both.collect()).await.unwrap();
    let mut count = 0;
    while count < 40 {
        let batch = within("records", subscription.next(6)).await.unwrap();
        assert!((1..=6).contains(&batch.len()), "{}", batch.len());
        count += batch.len();
        subscription.commit().await.unwrap();
    }
}

/// `next` is cancel-safe.
pub async fn waiting_can_be_given_up_without_losing_a_record(world: &BusUnderTest) {
    let topic = std::slice::from_ref(&world.topics[0]);
    let mut subscription = world.bus.subscribe("group", topic).await.unwrap();
    let mut received = Vec::new();
    for number in 0..20 {
        tokio::select! {
            biased;
            batch = subscription.next(10) => received.extend(batch.unwrap().into_iter().map(|d| d.message)),
            published = world.bus.publish(vec![message(&topic[0], "k", &number.to_string())]) => published.unwrap(),
        }
    }
    let marker = (20..40).map(|n| message(&topic[0], "k", &n.to_string()));
    world.bus.publish(marker.collect()).await.unwrap();
    while received.last().is_none_or(|m: &Message| m.payload != "39") {
        let batch = within("a record", subscription.next(10)).await.unwrap();
        received.extend(batch.into_iter().map(|d| d.message));
    }
    let numbers = &by_key(received)[&b"k"[..]];
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!((20..40).all(|n| numbers.contains(&n)), "{numbers:?}");
}

/// Topics are made on purpose, never by a typing error.
pub async fn an_unknown_topic_is_an_error(world: &BusUnderTest) {
    let BusUnderTest { bus, topics, unknown } = world;
    let mut subscription = bus.subscribe("group", topics).await.unwrap();
    let published = bus.publish(vec![message(&topics[0], "k", "0"), message(unknown, "k", "1")]).await;
    assert!(matches!(published, Err(BusError::UnknownTopic(name)) if name == *unknown));
    let subscribed = bus.subscribe("group", &[topics[0].clone(), unknown.clone()]).await;
    assert!(matches!(subscribed.err(), Some(BusError::UnknownTopic(name)) if name == *unknown));
    bus.publish(vec![message(&topics[0], "k", "2")]).await.unwrap();
    let last = receive(&mut subscription, 1).await.pop().unwrap();
    assert!(last.payload == "2" || last.payload == "0", "the bus goes on");
}

/// Looks until `count` records are there: a bus may keep them only once somebody looks.
async fn look(world: &BusUnderTest, peek: &Peek, count: usize) -> Peeked {
    super::until("the records can be seen", || {
        let peek = peek.clone();
        async move { world.bus.peek(peek).await.is_ok_and(|peeked| peeked.records.len() >= count) }
    })
    .await;
    world.bus.peek(peek.clone()).await.unwrap()
}

fn all_of(topic: &Name) -> Peek {
    Peek { topic: topic.clone(), partition: None, from: None, key: None, limit: 100 }
}

/// Whole, newest first; whoever is in a group gets them all the same.
pub async fn records_can_be_looked_at_without_being_taken(world: &BusUnderTest) {
    let [topic, other] = &world.topics;
    let mut subscription = world.bus.subscribe("group", std::slice::from_ref(topic)).await.unwrap();
    assert_eq!(look(world, &all_of(topic), 0).await.records, []);
    let extents = world.bus.extents().await.unwrap();
    assert!(extents.iter().any(|extent| extent.topic == *other), "{extents:?}");
    assert!(extents.is_sorted_by(|a, b| a.topic < b.topic));
    for number in 0..3 {
        let mut sent = message(topic, "7", &number.to_string());
        sent.headers =
            vec![("name".into(), Bytes::from_static(b"value")), ("bytes".into(), Bytes::from_static(&[0, 255]))].into();
        world.bus.publish(vec![sent]).await.unwrap();
    }
    let peeked = look(world, &all_of(topic), 3).await;
    let payloads: Vec<&[u8]> = peeked.records.iter().map(|record| &record.message.payload[..]).collect();
    assert_eq!(payloads, [b"2", b"1", b"0"]);
    let first = &peeked.records[0];
    assert_eq!((first.message.headers.len(), &first.message.headers[1].1[..]), (2, &[0_u8, 255][..]));
    assert!(first.at.is_some());
    let extents = world.bus.extents().await.unwrap();
    let extent = extents.iter().find(|extent| extent.topic == *topic).unwrap();
    assert_eq!(extent.partitions.iter().map(|place| place.end - place.begin).sum::<u64>(), 3);
    assert_eq!(receive(&mut subscription, 3).await.len(), 3, "nothing was taken");
    assert!(matches!(world.bus.peek(all_of(&world.unknown)).await, Err(BusError::UnknownTopic(_))));
}

/// Without a gap or a repetition.
pub async fn looking_goes_back_page_by_page_and_by_key(world: &BusUnderTest) {
    let [topic, _] = &world.topics;
    let _subscription = world.bus.subscribe("group", std::slice::from_ref(topic)).await.unwrap();
    look(world, &all_of(topic), 0).await;
    for number in 0..25 {
        world.bus.publish(vec![message(topic, "7", &number.to_string()), message(topic, "other", "x")]).await.unwrap();
    }
    let peeked = look(world, &Peek { key: Some(Bytes::from_static(b"7")), ..all_of(topic) }, 25).await;
    assert!(peeked.records.iter().all(|record| &record.message.key[..] == b"7"));
    let numbers = |peeked: &Peeked| by_key(peeked.records.iter().map(|record| record.message.clone()));
    assert_eq!(numbers(&peeked)[&Bytes::from_static(b"7")], (0..25).rev().collect::<Vec<_>>());
    let partition = Some(peeked.records[0].partition);
    let key = Some(Bytes::from_static(b"7"));
    let (mut found, mut from) = (Vec::new(), None);
    loop {
        let page = world.bus.peek(Peek { partition, from, key: key.clone(), limit: 4, ..all_of(topic) }).await.unwrap();
        assert!(page.records.len() <= 4);
        found.extend(numbers(&page).remove(&Bytes::from_static(b"7")).unwrap_or_default());
        from = page.next_from;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(found, (0..25).rev().collect::<Vec<_>>());
}
