//! Result events in, one transaction, news out, then the offsets.
//!
//! ```text
//!   batch ─► parse ─► held until due ─► group by purchase ─► one derivable transaction ─► live, slots ─► commit
//! ```
//!
//! Applied is only what follows the row's last number: duplicates change nothing, a gap makes the sweeper ask
//! the orchestrator for everything again. One event never harms its neighbours: what is not lawful, or is about a purchase
//! that does not exist, becomes a dead letter.

use std::sync::Arc;
use std::time::Duration;

use saga_core::protocol::ResultEvent;
use saga_runtime::delivery::{dead_letter, log_dead_letter};
use saga_runtime::pace::Pace;
use saga_runtime::trace::Tracer;
use saga_runtime::trace::units::{Handled, Took};
use saga_runtime::wire::{self, Inbound, Poison};
use saga_runtime::{Bus, BusError, Clock, Delivery, Message, StoreError, Subscription};
use tokio_util::sync::CancellationToken;

use crate::Stats;
use crate::admission::Admission;
use crate::held::{Heard, Held};
use crate::live::{Live, News};
use crate::outbound::Course;
use crate::replica::Replica;
use crate::results::is_lawful;
use crate::store::{Applied, Group, Store, grouped};
use crate::sweeper::Asks;

/// The consumer group of a shop with one purchase service.
const GROUP: &str = "purchase";
/// Events taken in at once; with those that were held, a transaction has some thousands of them at most. An event costs
/// some ten microseconds, and as long a POST waits for the writer.
const BATCH: usize = 512;
/// How often one purchase's events may fail before they become dead letters.
const POISON_AFTER: u32 = 5;
/// The first wait after a failure that time can heal; it doubles up to sixty-four times this.
const PAUSE: Duration = Duration::from_millis(50);

/// The loop and what it needs.
pub(crate) struct Consumer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) course: Course,
    pub(crate) tracer: Tracer,
    pub(crate) live: Arc<Live>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) asks: Arc<Asks>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) stop: CancellationToken,
    pub(crate) replica: Option<Replica>,
    /// How long the next batch may fill; see `saga_runtime::pace`.
    pub(crate) pace: Duration,
    /// How long at most the results of a purchase that nobody watches may wait for its end.
    pub(crate) patience: Duration,
}

impl Consumer {
    /// Consumes until stopped. A batch in progress is finished first; what is held comes again.
    pub(crate) async fn run(self, mut subscription: Box<dyn Subscription>) {
        let mut failures = 0;
        let mut pace = Pace::new(self.pace, BATCH);
        let mut held = Held::new(self.patience);
        loop {
            if !pace.turn(&*self.clock, &self.stop).await {
                return;
            }
            let ripe = held.left(self.clock.nanos());
            let arrived = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                arrived = subscription.next(BATCH) => arrived,
                () = self.clock.sleep(ripe.unwrap_or_default()), if ripe.is_some() => Ok(Vec::new()),
                () = self.live.somebody_came(), if ripe.is_some() => Ok(Vec::new()),
            };
            match arrived {
                Ok(deliveries) => {
                    failures = 0;
                    // A purchase that is alone is told in nine records.
                    pace.begin_of(&*self.clock, deliveries.iter().map(|delivery| &delivery.message.key));
                    if !self.unit(deliveries, &mut held).await {
                        return;
                    }
                    // Everything that came so far is dealt with, or nothing is said about any of it.
                    if held.is_empty()
                        && let Err(error) = subscription.commit().await
                    {
                        tracing::warn!(%error, "committing the offsets failed; the batch will be delivered again");
                    }
                }
                Err(BusError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "receiving results failed; trying again");
                    if !self.pause(&mut failures).await {
                        return;
                    }
                }
            }
        }
    }

    /// Joins the group, waiting for the bus to be there. `None`: stopped.
    pub(crate) async fn subscribe(&self) -> Option<Box<dyn Subscription>> {
        let topics = [self.course.result_topic.clone()];
        let group = self.replica.as_ref().map_or_else(|| GROUP.to_owned(), Replica::group);
        let mut failures = 0;
        loop {
            match self.bus.subscribe(&group, &topics).await {
                Ok(subscription) => return Some(subscription),
                Err(BusError::Closed) => return None,
                Err(error) => {
                    tracing::warn!(%error, "subscribing to results failed; trying again");
                    if !self.pause(&mut failures).await {
                        return None;
                    }
                }
            }
        }
    }

    /// One batch, and what was held until now. `false`: stopped before it was dealt with.
    async fn unit(&self, deliveries: Vec<Delivery>, held: &mut Held) -> bool {
        let (mut heard, mut poisoned, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        let arrived = self.clock.nanos();
        for delivery in deliveries {
            let handled = Handled::of(&self.tracer, &delivery);
            match self.read(&delivery.message) {
                Ok(event) => {
                    heard.push(event.saga_id);
                    held.hear(Heard { delivery, event, arrived, handled });
                }
                Err(poison) => {
                    dead.push(self.bury(&delivery, &poison));
                    poisoned.extend(handled);
                }
            }
        }
        // However long it is held, its question is answered and holds no place any more.
        self.asks.heard(heard.into_iter(), &[]);
        let due = held.due(arrived, |id| self.live.is_watched(id));
        let Some(transaction) = self.write_down(&due, &mut dead).await else { return false };
        let count = due.len() + poisoned.len();
        let record = |handled: &Handled, from, transaction| {
            let took = Took { from, until: self.clock.nanos(), transaction };
            handled.record(&self.tracer, GROUP, count, took, None);
        };
        for Heard { arrived, handled, .. } in &due {
            handled.iter().for_each(|handled| record(handled, *arrived, Some(transaction)));
        }
        if !self.publish(dead).await {
            return false;
        }
        poisoned.iter().for_each(|handled| record(handled, arrived, None));
        true
    }

    /// One transaction, and what follows from it. When it was, in ns since the epoch; `None`: stopped before that.
    async fn write_down(&self, due: &[Heard], dead: &mut Vec<Message>) -> Option<(u64, u64)> {
        let groups: Arc<[Group]> = grouped(due.iter().map(|heard| heard.event.clone())).into();
        let begun = self.clock.nanos();
        let applied = self.apply(&groups).await?;
        let committed = self.clock.nanos();
        for (group, applied) in groups.iter().zip(&applied) {
            let detail = match applied {
                Applied::Known { .. } => continue,
                Applied::Unknown => {
                    self.stats.unknown.inc();
                    format!("there is no purchase {}", group.id)
                }
                Applied::Corrupt(detail) => {
                    // The letters say which trace.
                    tracing::error!(saga_id = group.id, detail, "results cannot be applied");
                    detail.clone()
                }
            };
            let poison = Poison::Unhandled { attempts: 1, detail };
            let of_group = due.iter().filter(|heard| heard.event.saga_id == group.id);
            dead.extend(of_group.map(|heard| self.bury(&heard.delivery, &poison)));
        }
        self.settle(&groups, &applied, self.clock.now());
        Some((begun, committed))
    }

    fn read(&self, message: &Message) -> Result<ResultEvent, Poison> {
        match wire::parse(message)? {
            Inbound::Result { definition, event } if definition == self.course.definition => {
                if is_lawful(&event, definition.as_str()) {
                    return Ok(event);
                }
                Err(Poison::BadPayload { kind: wire::RESULT, detail: "no engine makes such an event".to_owned() })
            }
            Inbound::Result { .. } => Err(Poison::Misplaced("result of another definition")),
            Inbound::Start(_) => Err(Poison::Misplaced(wire::START)),
            Inbound::Cancel(_) => Err(Poison::Misplaced(wire::CANCEL)),
            Inbound::Command(_) => Err(Poison::Misplaced(wire::COMMAND)),
            Inbound::Reply(_) => Err(Poison::Misplaced(wire::REPLY)),
            Inbound::Forget(_) => Err(Poison::Misplaced(wire::FORGET)),
        }
    }

    fn bury(&self, delivery: &Delivery, poison: &Poison) -> Message {
        log_dead_letter(delivery, poison);
        self.stats.poisoned.inc();
        dead_letter(delivery, poison, self.clock.now())
    }

    /// All groups; when that fails for good, each alone. `None`: stopped.
    async fn apply(&self, groups: &Arc<[Group]>) -> Option<Vec<Applied>> {
        match self.attempt(groups).await? {
            Ok(applied) => Some(applied),
            Err(detail) => {
                tracing::warn!(detail, count = groups.len(), "a batch of results failed; trying each purchase alone");
                let mut all = Vec::with_capacity(groups.len());
                for group in groups.iter() {
                    all.push(self.alone(group).await?);
                }
                Some(all)
            }
        }
    }

    async fn alone(&self, group: &Group) -> Option<Applied> {
        let single: Arc<[Group]> = [group.clone()].into();
        let mut last = String::new();
        for _ in 0..POISON_AFTER {
            match self.attempt(&single).await? {
                Ok(mut applied) if !applied.is_empty() => return Some(applied.remove(0)),
                Ok(_) => "the store gave no answer".clone_into(&mut last),
                Err(detail) => last = detail,
            }
        }
        Some(Applied::Corrupt(last))
    }

    /// One transaction; what time can heal is waited for. `None`: stopped. `Err`: a fault.
    async fn attempt(&self, groups: &Arc<[Group]>) -> Option<Result<Vec<Applied>, String>> {
        if groups.is_empty() {
            return Some(Ok(Vec::new()));
        }
        let mut failures = 0;
        loop {
            match self.store.apply(Arc::clone(groups), self.clock.now()).await {
                Ok(applied) => return Some(Ok(applied)),
                Err(StoreError::Fault(detail)) => return Some(Err(detail)),
                Err(error) => {
                    tracing::warn!(%error, "results could not be written; trying again");
                    if !self.pause(&mut failures).await {
                        return None;
                    }
                }
            }
        }
    }

    /// After the commit: tell who waits, free slots, note gaps.
    fn settle(&self, groups: &[Group], applied: &[Applied], now: saga_core::Millis) {
        let mut news = Vec::with_capacity(groups.len());
        let mut ended_ids = Vec::new();
        for (group, applied) in groups.iter().zip(applied) {
            let Applied::Known { customer_id, status, fresh, duplicates, gap, ended } = applied else { continue };
            let id = group.id;
            self.stats.applied.add(fresh.len() as u64);
            self.stats.duplicates.add(*duplicates as u64);
            if *gap {
                self.stats.gaps.inc();
                self.asks.at_once(id);
            }
            let (untold, ended) = match &self.replica {
                None => (fresh.clone(), *ended),
                Some(replica) => replica.untold(group, fresh, *duplicates),
            };
            if ended {
                self.stats.ended(*status);
                ended_ids.push(id);
            }
            let events = &group.events[untold];
            if !events.is_empty() {
                news.push(News { id, customer_id: *customer_id, events, ended });
            }
        }
        self.asks.heard(groups.iter().map(|group| group.id), &ended_ids);
        self.live.publish(&news, now);
        if let Some(replica) = &self.replica {
            ended_ids.retain(|id| replica.is_own(*id));
        }
        self.admission.ended(&ended_ids);
    }

    /// `false`: stopped.
    async fn publish(&self, dead: Vec<Message>) -> bool {
        let mut failures = 0;
        while !dead.is_empty() {
            match self.bus.publish(dead.clone()).await {
                Ok(()) => return true,
                Err(BusError::Closed) => return false,
                Err(error) => {
                    tracing::warn!(%error, "publishing dead letters failed; trying again");
                    if !self.pause(&mut failures).await {
                        return false;
                    }
                }
            }
        }
        true
    }

    async fn pause(&self, failures: &mut u32) -> bool {
        let wait = PAUSE * 2u32.pow((*failures).min(6));
        *failures += 1;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = self.clock.sleep(wait) => true,
        }
    }
}
