//! Who wants sagas: asks for them until shown their end, cancels some, and remembers everything shown.

use std::sync::Arc;

use saga_core::protocol::{Cancel, Start};
use saga_core::{Json, Name, SagaKey};
use saga_runtime::Watermark;
use saga_runtime::wire::{self, Inbound};
use saga_runtime::{Bus, Message};

use super::Sim;
use super::bus::SimBus;
use super::laws::Laws;

/// The customers' consumer group.
pub const GROUP: &str = "customer";

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Which saga.
    pub key: SagaKey,
    /// On which topic it is asked for.
    pub topic: Name,
    /// How much of everything.
    pub input: Json,
    /// When, in ms from the beginning.
    pub at: u64,
    /// How often it is asked for again, in ms.
    pub every: u64,
    /// When it is not wanted any more.
    pub cancel: Option<u64>,
}

impl Wish {
    /// Any wish for this saga.
    pub fn draw(sim: &Sim, key: SagaKey, topic: Name) -> Self {
        let input = Json::of(&(1 + sim.below(4))).unwrap_or_default();
        let (at, every) = (sim.below(10_000), 2_000 + sim.below(10_000));
        let cancel = sim.chance(350).then(|| at + sim.below(6_000));
        Self { key, topic, input, at, every, cancel }
    }

    /// The record that asks for it.
    pub fn start(&self) -> Message {
        wire::start_message(&self.topic, &Start { saga: self.key.clone(), input: self.input.clone() })
    }

    /// The record that takes it back.
    pub fn cancel(&self) -> Message {
        let (actor, reason) = ("customer".to_owned(), "changed my mind".to_owned());
        wire::cancel_message(&self.topic, &Cancel { saga: self.key.clone(), actor, reason })
    }
}

/// Asks until the end was shown.
pub async fn ask(sim: Arc<Sim>, bus: SimBus, laws: Arc<Laws>, wish: Wish) {
    sim.sleep(wish.at).await;
    while !laws.shown_to_the_end(&wish.key) {
        // What fails is asked for again later anyway.
        let _ = bus.publish(vec![wish.start()]).await;
        sim.sleep(wish.every).await;
    }
}

/// Says up to where it will never ask again, over and over: everything up to there was shown to the end.
pub async fn promise(sim: Arc<Sim>, bus: SimBus, laws: Arc<Laws>, topic: Name, mut keys: Vec<SagaKey>) {
    keys.sort();
    loop {
        sim.sleep(1_000 + sim.below(5_000)).await;
        let ended = keys.iter().take_while(|key| laws.shown_to_the_end(key));
        if let Some(SagaKey { definition, id }) = ended.last() {
            let mark = Watermark { definition: definition.clone(), up_to: *id };
            let _ = bus.publish(vec![wire::forget_message(&topic, &mark)]).await;
            sim.count("promises");
        }
    }
}

/// The bus delivers again what was said long ago: a topic that was read from its beginning once more.
pub async fn echo(sim: Arc<Sim>, bus: SimBus, laws: Arc<Laws>) {
    loop {
        sim.sleep(500 + sim.below(3_000)).await;
        if let Some(message) = laws.said(&sim) {
            sim.count("echoes");
            bus.deliver_again(&message);
        }
    }
}

/// Cancels, if at all.
pub async fn regret(sim: Arc<Sim>, bus: SimBus, wish: Wish) {
    let Some(at) = wish.cancel else { return };
    sim.sleep(at).await;
    let _ = bus.publish(vec![wish.cancel()]).await;
}

/// Takes in results.
pub async fn watch(bus: SimBus, laws: Arc<Laws>, sim: Arc<Sim>, topics: Vec<Name>) {
    let mut subscription = loop {
        match bus.subscribe(GROUP, &topics).await {
            Ok(subscription) => break subscription,
            Err(_) => sim.sleep(50).await,
        }
    };
    loop {
        let Ok(deliveries) = subscription.next(100).await else {
            sim.sleep(10).await;
            continue;
        };
        for delivery in deliveries {
            match wire::parse(&delivery.message) {
                Ok(Inbound::Result { definition, event }) => {
                    laws.shown(&SagaKey { definition, id: event.saga_id }, &event);
                }
                other => sim.broken(format!("not a result: {other:?}")),
            }
        }
        let _ = subscription.commit().await;
    }
}
