//! The bus: a queue per group, and the weather between publishing and arriving.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use saga_core::Name;
use saga_runtime::dead_letters::{DeadLetter, SUFFIX};
use saga_runtime::{Bus, BusError, Delivery, Message, Position, Subscription};
use tokio::sync::Notify;

use super::Sim;
use super::laws::Laws;

/// More messages than any lawful world has.
const STORM: u64 = 20_000;

/// Names a message in the trace.
pub fn label(message: &Message) -> String {
    let part = |name| message.header(name).unwrap_or_default();
    let attempt = message.header("attempt").map(|a| format!(" #{a}")).unwrap_or_default();
    format!("{} {}/{}{attempt}", message.topic, part("ce_source"), part("ce_id"))
}

#[derive(Default)]
struct Group {
    topics: Vec<Name>,
    /// By the moment of arrival, then by number.
    queue: BTreeMap<(u64, u64), Delivery>,
    /// Returned by `next`, not yet committed.
    uncommitted: Vec<Delivery>,
    /// When the last record of a key arrives: the next one arrives after it.
    last: BTreeMap<Bytes, u64>,
    /// Whoever joined last and lives has the records; the others wait.
    members: BTreeMap<u64, Arc<Notify>>,
    joined: u64,
}

/// Loses, doubles, delays and shuffles as the weather says.
#[derive(Clone)]
pub struct SimBus {
    sim: Arc<Sim>,
    laws: Arc<Laws>,
    state: Arc<Mutex<State>>,
}

/// What becomes of a record in a world that is told by hand.
#[derive(Clone, Debug)]
pub enum Fate {
    /// What the weather says.
    Weather,
    /// It never arrives.
    Lost,
    /// It arrives twice.
    Doubled,
    /// It arrives so many ms later, and lets others pass.
    Late(u64),
    /// Its publisher hangs until this rings.
    Held(Arc<Notify>),
}

type Tap = Box<dyn FnMut(&Message) -> Fate + Send>;

#[derive(Default)]
struct State {
    tap: Option<Tap>,
    groups: BTreeMap<String, Group>,
    offset: u64,
    published: u64,
    letters: Vec<Message>,
}

impl SimBus {
    /// A bus whose groups exist from the beginning, subscribed or not.
    pub fn new(sim: Arc<Sim>, laws: Arc<Laws>, groups: impl IntoIterator<Item = (String, Vec<Name>)>) -> Self {
        let groups = groups.into_iter().map(|(name, topics)| (name, Group { topics, ..Group::default() })).collect();
        Self { sim, laws, state: Arc::new(Mutex::new(State { groups, ..State::default() })) }
    }

    /// Forgets everything: it lived in the process that died.
    pub fn wipe(&self) {
        for group in self.state.lock().groups.values_mut() {
            group.queue.clear();
            group.uncommitted.clear();
        }
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.state.lock().groups.values().all(|g| g.queue.is_empty() && g.uncommitted.is_empty())
    }

    /// An operator sends every dead letter again.
    pub fn redrive(&self) {
        let letters = std::mem::take(&mut self.state.lock().letters);
        for letter in letters {
            let original = DeadLetter::from_message(0, letter).original();
            self.sim.note(|| format!("redriven: {}", label(&original)));
            self.sim.count("redriven");
            self.enqueue(&original, &Fate::Weather);
        }
    }

    /// Decides the fate of every record from here on.
    pub fn tap(&self, fate: impl FnMut(&Message) -> Fate + Send + 'static) {
        self.state.lock().tap = Some(Box::new(fate));
    }

    /// Messages that beget messages without end would be a storm.
    fn count_message(&self) {
        let mut state = self.state.lock();
        state.published += 1;
        if state.published == STORM {
            self.sim.broken(format!("{STORM} messages for a handful of sagas"));
        }
    }

    /// A record that was published before arrives once more, whoever has read it.
    pub fn deliver_again(&self, message: &Message) {
        let fate = self.fate(message);
        if !matches!(fate, Fate::Held(_)) {
            self.sim.note(|| format!("again {}", label(message)));
            self.enqueue(message, &fate);
        }
    }

    fn fate(&self, message: &Message) -> Fate {
        self.state.lock().tap.as_mut().map_or(Fate::Weather, |tap| tap(message))
    }

    fn enqueue(&self, message: &Message, fate: &Fate) {
        let weather = self.sim.weather();
        let mut state = self.state.lock();
        if message.topic.as_str().ends_with(SUFFIX) {
            state.letters.push(message.clone());
        }
        let State { groups, offset, .. } = &mut *state;
        for group in groups.values_mut().filter(|g| g.topics.contains(&message.topic)) {
            if matches!(fate, Fate::Lost) || self.sim.chance(weather.loss) {
                self.sim.count("lost");
                self.sim.note(|| format!("  lost: {}", label(message)));
                continue;
            }
            let twice = matches!(fate, Fate::Doubled) || self.sim.chance(weather.duplicate);
            for _ in 0..=u8::from(twice) {
                *offset += 1;
                let ready = self.arrival(group, message, fate);
                let position = Position { topic: message.topic.clone(), partition: 0, offset: *offset };
                group.queue.insert((ready, *offset), Delivery { position, message: message.clone() });
            }
            if twice {
                self.sim.count("doubled");
            }
            group.ring();
        }
    }

    /// After the one before it of its key, unless the weather shuffles.
    fn arrival(&self, group: &mut Group, message: &Message, fate: &Fate) -> u64 {
        let (now, weather) = (self.sim.elapsed(), self.sim.weather());
        let delay = if self.sim.chance(weather.late) { self.sim.below(8_000) } else { self.sim.below(3) };
        match fate {
            Fate::Late(ms) => now + ms,
            _ if self.sim.chance(weather.reorder) => now + delay + self.sim.below(3_000),
            _ => {
                let last = group.last.entry(message.key.clone()).or_default();
                *last = (now + delay).max(*last);
                *last
            }
        }
    }
}

#[async_trait]
impl Bus for SimBus {
    async fn reading(&self) -> Result<Vec<saga_runtime::bus::GroupReading>, BusError> {
        Ok(Vec::new()) // nobody looks
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), BusError> {
        self.sim.work().await;
        let fails = self.sim.chance(self.sim.weather().publish_fails);
        let up_to = if fails { self.sim.below(messages.len() as u64 + 1) } else { messages.len() as u64 };
        for (message, _) in messages.iter().zip(0..up_to) {
            let fate = self.fate(message);
            if let Fate::Held(bell) = &fate {
                bell.notified().await;
            }
            self.sim.note(|| format!("publish {}  {}", label(message), String::from_utf8_lossy(&message.payload)));
            self.laws.published(message);
            self.count_message();
            self.enqueue(message, &fate);
        }
        self.sim.work().await;
        if fails {
            self.sim.count("publishing failed");
            return Err(BusError::Unavailable("the weather".into()));
        }
        Ok(())
    }

    async fn subscribe(&self, group: &str, topics: &[Name]) -> Result<Box<dyn Subscription>, BusError> {
        if self.sim.chance(self.sim.weather().bus_fails) {
            return Err(BusError::Unavailable("the weather".into()));
        }
        let now = self.sim.elapsed();
        let mut state = self.state.lock();
        let unknown = || topics.first().cloned().unwrap_or_else(|| Name::new("?"));
        let member = state.groups.get_mut(group).ok_or_else(|| BusError::UnknownTopic(unknown()))?;
        member.redeliver(now);
        member.joined += 1;
        let (generation, bell) = (member.joined, Arc::new(Notify::new()));
        member.members.insert(generation, bell.clone());
        self.sim.note(|| format!("{group}: member {generation} joins"));
        Ok(Box::new(Member { bus: self.clone(), group: group.to_owned(), generation, bell }))
    }
}

impl Group {
    fn ring(&self) {
        if let Some((_, bell)) = self.members.last_key_value() {
            bell.notify_one();
        }
    }

    fn redeliver(&mut self, now: u64) {
        for delivery in self.uncommitted.drain(..) {
            self.queue.insert((now, delivery.position.offset), delivery);
        }
    }

    fn take(&mut self, now: u64, max: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(first) = self.queue.first_entry()
            && first.key().0 <= now
        {
            taken.push(first.remove());
        }
        self.uncommitted.extend(taken.iter().cloned());
        taken
    }
}

struct Member {
    bus: SimBus,
    group: String,
    generation: u64,
    bell: Arc<Notify>,
}

impl Member {
    /// Our group, unless somebody newer has taken our place in it.
    fn with<T>(&self, f: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let mut state = self.bus.state.lock();
        let group = state.groups.get_mut(&self.group)?;
        (group.members.keys().next_back() == Some(&self.generation)).then(|| f(group))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let now = self.bus.sim.elapsed();
        self.with(|g| g.redeliver(now));
        if let Some(group) = self.bus.state.lock().groups.get_mut(&self.group) {
            group.members.remove(&self.generation);
            group.ring();
        }
    }
}

#[async_trait]
impl Subscription for Member {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BusError> {
        let sim = self.bus.sim.clone();
        loop {
            let now = sim.elapsed();
            // One at a time, a few, or all: batches form as they happen.
            let max = max.min([1, 3, usize::MAX][usize::try_from(sim.below(3)).unwrap_or_default()]);
            let Some((taken, next)) = self.with(|g| (g.take(now, max), g.queue.keys().next().map(|k| k.0))) else {
                self.bell.notified().await;
                continue;
            };
            if !taken.is_empty() {
                if sim.chance(sim.weather().bus_fails) {
                    self.with(|g| g.redeliver(now + 1));
                    return Err(BusError::Unavailable("the weather".into()));
                }
                sim.note(|| {
                    let what: Vec<String> = taken.iter().map(|d| label(&d.message)).collect();
                    format!("{} #{} gets {}", self.group, self.generation, what.join(", "))
                });
                return Ok(taken);
            }
            let wait = next.map(|at| at.saturating_sub(now).max(1));
            tokio::select! {
                biased;
                () = self.bell.notified() => {}
                () = sim.sleep(wait.unwrap_or(u64::from(u32::MAX))) => {}
            }
        }
    }

    async fn commit(&mut self) -> Result<(), BusError> {
        self.bus.sim.work().await;
        let now = self.bus.sim.elapsed();
        if self.bus.sim.chance(self.bus.sim.weather().bus_fails) {
            self.with(|g| g.redeliver(now));
            return Err(BusError::Unavailable("the weather".into()));
        }
        self.with(|g| g.uncommitted.clear());
        Ok(())
    }
}
