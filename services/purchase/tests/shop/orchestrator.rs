//! An orchestrator that follows a script: numbered result events, and all of them again when a purchase is started again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use saga_adapters::inproc::InProcBus;
use saga_core::Name;
use saga_core::protocol::{Refusal, ResultEvent, ResultStatus};
use saga_runtime::wire::{self, Inbound};
use saga_runtime::{Bus, Message};

use ResultStatus::{Execute, Failed, Rollback, Success};

/// What happens to a purchase that is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Script {
    /// All four steps.
    Complete,
    /// The payment is declined.
    Decline,
    /// Nothing until the test says so.
    Hold,
    /// Starts are lost.
    Deaf,
}

#[derive(Default)]
struct State {
    script: Option<Script>,
    /// Published so far.
    published: HashMap<u64, Vec<ResultEvent>>,
    starts: Vec<u64>,
    cancels: Vec<(u64, String, String)>,
}

#[derive(Clone)]
pub struct Orchestrator {
    bus: InProcBus,
    state: Arc<Mutex<State>>,
}

impl Orchestrator {
    pub async fn start(bus: InProcBus, script: Script) -> Self {
        let state = Arc::new(Mutex::new(State { script: Some(script), ..State::default() }));
        let orchestrator = Self { bus: bus.clone(), state };
        let mut inbox = bus.subscribe("orchestrator", &[Name::new(contracts::topics::PURCHASE)]).await.unwrap();
        let running = orchestrator.clone();
        tokio::spawn(async move {
            while let Ok(deliveries) = inbox.next(64).await {
                for delivery in deliveries {
                    running.take(&delivery.message).await;
                }
                inbox.commit().await.unwrap();
            }
        });
        orchestrator
    }

    async fn take(&self, message: &Message) {
        match wire::parse(message).unwrap() {
            Inbound::Start(start) => {
                let id = start.saga.id;
                let input: contracts::purchase::PurchaseInput = start.input.parse().unwrap();
                assert_eq!((input.purchase_id, input.total()), (id, Some(input.amount)));
                let (known, script) = {
                    let mut state = self.state.lock();
                    let script = state.script.unwrap();
                    if script == Script::Deaf {
                        return;
                    }
                    state.starts.push(id);
                    (state.published.get(&id).cloned(), script)
                };
                match (known, script) {
                    (Some(events), _) => self.publish(&events).await,
                    (None, Script::Complete) => self.emit(id, &completed(id)).await,
                    (None, Script::Decline) => self.emit(id, &declined(id)).await,
                    (None, Script::Hold | Script::Deaf) => _ = self.state.lock().published.insert(id, Vec::new()),
                }
            }
            Inbound::Cancel(cancel) => self.state.lock().cancels.push((cancel.saga.id, cancel.actor, cancel.reason)),
            other => panic!("{other:?}"),
        }
    }

    pub fn follow(&self, script: Script) {
        self.state.lock().script = Some(script);
    }

    pub fn starts(&self) -> Vec<u64> {
        self.state.lock().starts.clone()
    }

    pub fn cancels(&self) -> Vec<(u64, String, String)> {
        self.state.lock().cancels.clone()
    }

    /// These happen now, one message after the other.
    pub async fn emit(&self, id: u64, events: &[ResultEvent]) {
        self.state.lock().published.entry(id).or_default().extend_from_slice(events);
        self.publish(events).await;
    }

    /// These happen now, and their messages are lost.
    pub fn emit_and_lose(&self, id: u64, events: &[ResultEvent]) {
        self.state.lock().published.entry(id).or_default().extend_from_slice(events);
    }

    pub async fn publish(&self, events: &[ResultEvent]) {
        for event in events {
            self.bus.publish(vec![message(event)]).await.unwrap();
        }
    }

    pub async fn publish_raw(&self, message: Message) {
        self.bus.publish(vec![message]).await.unwrap();
    }
}

pub fn message(event: &ResultEvent) -> Message {
    wire::result_message(&Name::new(contracts::topics::PURCHASE_RESULT), &Name::new("purchase"), event)
}

fn numbered(id: u64, steps: &[(&str, ResultStatus)]) -> Vec<ResultEvent> {
    let declined = || Refusal::new("payment_declined", "the card was declined");
    let event = |(&(step, status), seq): (&(&str, ResultStatus), u32)| {
        let terminal = step == "purchase";
        let bad = status == Failed || (terminal && status == Rollback);
        let reason = bad.then(declined);
        ResultEvent {
            saga_id: id,
            seq,
            step: Name::new(step),
            status,
            terminal,
            reason,
            at: 1_795_435_200_000 + u64::from(seq),
        }
    };
    steps.iter().zip(1..).map(event).collect()
}

const STOCK: &str = "update-product-inventory";

/// All nine events of a purchase that succeeds.
pub fn completed(id: u64) -> Vec<ResultEvent> {
    let mut steps = Vec::new();
    for step in [STOCK, "create-order", "create-payment", "confirm-order"] {
        steps.extend([(step, Execute), (step, Success)]);
    }
    steps.push(("purchase", Success));
    numbered(id, &steps)
}

/// All nine events of a purchase whose payment is declined.
pub fn declined(id: u64) -> Vec<ResultEvent> {
    let steps = [
        (STOCK, Execute),
        (STOCK, Success),
        ("create-order", Execute),
        ("create-order", Success),
        ("create-payment", Execute),
        ("create-payment", Failed),
        ("create-order", Rollback),
        (STOCK, Rollback),
        ("purchase", Rollback),
    ];
    numbered(id, &steps)
}
