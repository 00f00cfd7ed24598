//! Dead letters: kept whole, listed, re-driven once, purged.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use std::sync::Arc;

use bytes::Bytes;
use saga_core::Name;
use saga_runtime::bus::{Bus, Delivery, Message, Position};
use saga_runtime::dead_letters::{DeadLetter, DeadLetters, Which, redrive};
use saga_runtime::delivery::dead_letter;
use saga_runtime::wire::Poison;

use super::{until, within};

/// Two empty topics, and the letters that die on them.
pub struct DeadLettersUnderTest {
    /// Where letters are published.
    pub bus: Arc<dyn Bus>,
    /// Where they are kept.
    pub letters: Arc<dyn DeadLetters>,
    /// Two topics that exist.
    pub topics: [Name; 2],
}

/// Makes a test of every case.
#[macro_export]
macro_rules! dead_letters_conformance {
    ($make:expr) => {
        $crate::conformance_tests!(dead_letters, $make;
            a_letter_is_kept_whole_with_its_reason,
            letters_are_listed_oldest_first_in_pages,
            m09_re_driving_twice_delivers_once,
            all_of_a_topic_can_be_re_driven,
            purging_takes_what_was_named_and_nothing_else,
            the_oldest_are_forgotten_first_and_none_that_is_younger,
        );
    };
}

fn record(topic: &Name, payload: &str) -> Message {
    Message {
        topic: topic.clone(),
        key: Bytes::from_static(b"7"),
        headers: vec![("ce_type".into(), Bytes::from_static(b"odd")), ("raw".into(), Bytes::from_static(&[255, 0]))]
            .into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

impl DeadLettersUnderTest {
    /// Lets records die on a topic.
    async fn bury(&self, topic: &Name, payloads: impl IntoIterator<Item = String>) {
        let before = self.count(topic).await;
        let mut letters = Vec::new();
        for (offset, payload) in (11..).zip(payloads) {
            let position = Position { topic: topic.clone(), partition: 3, offset };
            let delivery = Delivery { position, message: record(topic, &payload) };
            letters.push(dead_letter(&delivery, &Poison::UnknownType("odd".into()), 1_700_000_000_000));
        }
        let after = before + letters.len() as u64;
        self.bus.publish(letters).await.unwrap();
        until("the letters are there", || async { self.count(topic).await == after }).await;
    }

    async fn count(&self, topic: &Name) -> u64 {
        self.letters.topics().await.unwrap().iter().find(|t| t.topic == *topic).map_or(0, |t| t.count)
    }

    async fn list(&self, topic: &Name) -> Vec<DeadLetter> {
        self.letters.list(topic, None, 1000).await.unwrap()
    }
}

fn payloads(letters: &[DeadLetter]) -> Vec<&str> {
    letters.iter().map(|l| std::str::from_utf8(&l.payload).unwrap()).collect()
}

/// Bytes and headers as they came, and what an operator wants to know.
pub async fn a_letter_is_kept_whole_with_its_reason(world: &DeadLettersUnderTest) {
    let topic = &world.topics[0];
    world.bury(topic, ["bad".to_owned()]).await;
    let listed = world.list(topic).await;
    let [letter] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!(letter.original(), record(topic, "bad"));
    assert_eq!((letter.partition, letter.offset, letter.attempts), (3, 11, 1));
    assert_eq!(letter.at, 1_700_000_000_000);
    assert_eq!(letter.reason, Poison::UnknownType("odd".into()).to_string());
    assert_eq!(world.letters.show(topic, letter.id).await.unwrap().as_ref(), Some(letter));
    assert_eq!(world.letters.show(&world.topics[1], letter.id).await.unwrap(), None);
    let topics = world.letters.topics().await.unwrap();
    let counted = topics.iter().find(|t| t.topic == *topic).unwrap();
    assert_eq!((counted.count, counted.oldest_at), (1, letter.at));
}

/// Without gaps or repetition.
pub async fn letters_are_listed_oldest_first_in_pages(world: &DeadLettersUnderTest) {
    let topic = &world.topics[0];
    let numbers: Vec<String> = (0..25).map(|n| n.to_string()).collect();
    world.bury(topic, numbers.clone()).await;
    world.bury(&world.topics[1], ["other".to_owned()]).await;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = world.letters.list(topic, after, 10).await.unwrap();
        assert!(page.len() <= 10);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        all.extend(page);
    }
    assert_eq!(payloads(&all), numbers);
}

/// The second finds nothing.
pub async fn m09_re_driving_twice_delivers_once(world: &DeadLettersUnderTest) {
    let topic = &world.topics[0];
    let mut subscription = world.bus.subscribe("group", std::slice::from_ref(topic)).await.unwrap();
    world.bury(topic, ["bad".to_owned()]).await;
    let ids = || Which::Ids(vec![u64::MAX >> 1]);
    assert_eq!(redrive(&*world.letters, &*world.bus, topic, ids()).await.unwrap(), 0, "no such letter");
    let id = world.list(topic).await[0].id;
    let which = || Which::Ids(vec![id]);
    assert_eq!(redrive(&*world.letters, &*world.bus, topic, which()).await.unwrap(), 1);
    assert_eq!(redrive(&*world.letters, &*world.bus, topic, which()).await.unwrap(), 0);
    world.bus.publish(vec![record(topic, "next")]).await.unwrap();
    let mut received = Vec::new();
    while received.len() < 2 {
        received.extend(within("records", subscription.next(10)).await.unwrap().into_iter().map(|d| d.message));
    }
    assert_eq!(received, [record(topic, "bad"), record(topic, "next")]);
    assert_eq!(world.count(topic).await, 0);
}

/// More than fit one step.
pub async fn all_of_a_topic_can_be_re_driven(world: &DeadLettersUnderTest) {
    let topic = &world.topics[0];
    let mut subscription = world.bus.subscribe("group", std::slice::from_ref(topic)).await.unwrap();
    world.bury(topic, (0..250).map(|n| n.to_string())).await;
    assert_eq!(redrive(&*world.letters, &*world.bus, topic, Which::All).await.unwrap(), 250);
    let mut count = 0;
    while count < 250 {
        count += within("records", subscription.next(100)).await.unwrap().len();
        subscription.commit().await.unwrap();
    }
    assert_eq!(world.count(topic).await, 0);
}

/// Neither other letters nor other topics.
pub async fn purging_takes_what_was_named_and_nothing_else(world: &DeadLettersUnderTest) {
    let [one, two] = &world.topics;
    world.bury(one, ["a", "b", "c"].map(str::to_owned)).await;
    world.bury(two, ["d".to_owned()]).await;
    let ids: Vec<u64> = world.list(one).await.iter().map(|l| l.id).collect();
    let purged = world.letters.purge(one, Which::Ids(vec![ids[0], ids[2], u64::MAX >> 1])).await.unwrap();
    assert_eq!(purged, 2);
    assert_eq!(payloads(&world.list(one).await), ["b"]);
    assert_eq!(world.letters.purge(one, Which::All).await.unwrap(), 1);
    assert_eq!(payloads(&world.list(two).await), ["d"]);
}

/// So many at a time, of all topics.
pub async fn the_oldest_are_forgotten_first_and_none_that_is_younger(world: &DeadLettersUnderTest) {
    let [one, two] = &world.topics;
    world.bury(one, ["a", "b"].map(str::to_owned)).await;
    world.bury(two, ["c".to_owned()]).await;
    let given_up = world.list(one).await[0].at;
    assert_eq!(world.letters.forget(given_up, 10).await.unwrap(), 0, "not before that moment");
    assert_eq!(world.letters.forget(given_up + 1, 1).await.unwrap(), 1);
    assert_eq!(payloads(&world.list(one).await), ["b"]);
    assert_eq!(world.letters.forget(given_up + 1, 10).await.unwrap(), 2);
    assert_eq!(world.letters.topics().await.unwrap().len(), 0);
}
