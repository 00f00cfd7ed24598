//! The in-process twins pass the ports' suites; what only they promise is tested here.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::sync::Arc;

use parking_lot::Mutex;
use saga_adapters::inproc::{InProcBus, InProcCache, InProcFilter, InProcLock};
use saga_core::Name;
use saga_runtime::bus::{Bus as _, BusError, Message};
use saga_runtime::cache::{Cache, Filter, Lock};
use saga_runtime::dead_letters::DeadLetterSink;
use saga_runtime::{StoreError, SystemClock};
use testkit::conformance::Fixture;
use testkit::conformance::bus::BusUnderTest;

/// Keeps letters in memory.
#[derive(Default)]
struct Letters(Mutex<Vec<Message>>);

#[async_trait::async_trait]
impl DeadLetterSink for Letters {
    async fn bury(&self, messages: Vec<Message>) -> Result<(), StoreError> {
        self.0.lock().extend(messages);
        Ok(())
    }
}

fn new_bus(capacity: usize) -> (InProcBus, Arc<Letters>) {
    let letters = Arc::new(Letters::default());
    let sink = Arc::clone(&letters) as Arc<dyn DeadLetterSink>;
    (InProcBus::new(["one".into(), "two".into()], capacity, sink), letters)
}

fn message(topic: &str, number: u64) -> Message {
    Message {
        topic: topic.into(),
        key: number.to_string().into(),
        headers: vec![].into(),
        payload: number.to_string().into(),
    }
}

mod the_bus {
    use super::*;

    async fn make() -> Fixture<BusUnderTest> {
        let letters = Arc::new(Letters::default());
        let topics = ["one".into(), "two".into()];
        let bus = Arc::new(InProcBus::observable(topics, 10_000, letters, Arc::new(SystemClock)));
        Fixture::new(BusUnderTest { bus, topics: ["one".into(), "two".into()], unknown: "three".into() })
    }

    testkit::bus_conformance!(make);

    #[tokio::test]
    async fn a_groups_members_are_those_that_are_there_now() {
        let (bus, _) = new_bus(10);
        let both = [Name::new("one"), Name::new("two")];
        let first = bus.subscribe("readers", &both).await.unwrap();
        let second = bus.subscribe("readers", &both).await.unwrap();
        bus.publish(vec![message("two", 1)]).await.unwrap();
        let reading = bus.reading().await.unwrap();
        let [readers] = &reading[..] else { panic!("{reading:?}") };
        assert_eq!((&*readers.group, readers.members.len()), ("readers", 2));
        let places = readers.places.iter().map(|place| (place.topic.as_str(), place.waiting));
        assert_eq!(places.collect::<Vec<_>>(), [("one", 0), ("two", 1)]);
        drop(first);
        assert_eq!(bus.reading().await.unwrap()[0].members.len(), 1);
        drop(second);
        assert!(bus.reading().await.unwrap()[0].members.is_empty(), "what waits for nobody is still told");
    }

    #[tokio::test]
    async fn what_finds_its_queue_full_is_dropped_and_counted() {
        let (bus, _) = new_bus(10);
        let one = [Name::new("one")];
        let mut slow = bus.subscribe("slow", &one).await.unwrap();
        let mut quick = bus.subscribe("quick", &one).await.unwrap();
        for number in 0..25 {
            bus.publish(vec![message("one", number)]).await.unwrap();
            assert_eq!(quick.next(10).await.unwrap().len(), 1, "one group's backlog is not the other's");
            quick.commit().await.unwrap();
        }
        let queues = bus.queues();
        assert_eq!(queues.iter().map(|q| (q.waiting, q.dropped)).collect::<Vec<_>>(), [(0, 0), (10, 15)]);
        let first: Vec<_> = slow.next(100).await.unwrap().into_iter().map(|d| d.position.offset).collect();
        assert_eq!(first, (0..10).collect::<Vec<_>>(), "the oldest are kept");
    }

    #[tokio::test]
    async fn what_is_published_before_a_group_is_there_is_not_for_it() {
        let (bus, _) = new_bus(10);
        bus.publish(vec![message("one", 1)]).await.unwrap();
        let mut subscription = bus.subscribe("group", &["one".into()]).await.unwrap();
        bus.publish(vec![message("one", 2)]).await.unwrap();
        assert_eq!(subscription.next(10).await.unwrap()[0].message, message("one", 2));
    }

    #[tokio::test]
    async fn a_group_keeps_its_queue_while_nobody_is_there() {
        let (bus, _) = new_bus(10);
        drop(bus.subscribe("group", &["one".into()]).await.unwrap());
        bus.publish(vec![message("one", 1)]).await.unwrap();
        let mut subscription = bus.subscribe("group", &["one".into()]).await.unwrap();
        assert_eq!(subscription.next(10).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn dead_letters_go_to_the_sink_and_to_nobody_else() {
        let (bus, letters) = new_bus(10);
        let mut subscription = bus.subscribe("group", &["one".into()]).await.unwrap();
        bus.publish(vec![message("one.dlq", 1), message("one", 2)]).await.unwrap();
        assert_eq!(*letters.0.lock(), [message("one.dlq", 1)]);
        assert_eq!(subscription.next(10).await.unwrap().len(), 1);
        assert!(matches!(bus.publish(vec![message("x.dlq", 1)]).await, Err(BusError::UnknownTopic(_))));
    }

    #[tokio::test]
    async fn closing_ends_whoever_waits() {
        let (bus, _) = new_bus(10);
        let mut subscription = bus.subscribe("group", &["one".into()]).await.unwrap();
        let waiting = tokio::spawn(async move { subscription.next(1).await.err() });
        tokio::task::yield_now().await;
        bus.close();
        assert!(matches!(waiting.await.unwrap(), Some(BusError::Closed)));
        assert!(matches!(bus.publish(vec![message("one", 1)]).await, Err(BusError::Closed)));
        assert!(matches!(bus.subscribe("group", &[]).await.err(), Some(BusError::Closed)));
    }
}

mod the_cache {
    use super::*;

    async fn make() -> Fixture<Arc<dyn Cache>> {
        Fixture::new(Arc::new(InProcCache::new(1000, Arc::new(SystemClock))))
    }

    testkit::cache_conformance!(make);
}

mod the_filter {
    use super::*;

    async fn make() -> Fixture<Arc<dyn Filter>> {
        Fixture::new(Arc::new(InProcFilter::default()))
    }

    testkit::filter_conformance!(make);
}

mod the_lock {
    use super::*;

    async fn make() -> Fixture<Arc<dyn Lock>> {
        Fixture::new(Arc::new(InProcLock::new(Arc::new(SystemClock))))
    }

    testkit::lock_conformance!(make);
}
