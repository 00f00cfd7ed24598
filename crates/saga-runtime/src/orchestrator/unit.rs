//! One unit of work: load, decide, commit, act.

use std::collections::{HashMap, HashSet};

use saga_core::protocol::{Cancel, Start};
use saga_core::{Decision, Definition, Effect, Input, Millis};
use saga_core::{Rejection, ReplayError, Saga, SagaKey, Verb};
use saga_core::{decide, outstanding, replay};
use tokio::sync::oneshot;

use super::repeat::is_out;
use super::traced::{Traced, sent_by};
use super::{GROUP, OperateError, Orchestrator, OrchestratorError, Request};
use crate::bus::{Delivery, Message};
use crate::crash;
use crate::delivery::{dead_letter, log_dead_letter, pause, publish};
use crate::retention::Watermark;
use crate::store::{CommitError, SagaRow, StoreError, Transition, Written};
use crate::trace::TraceContext;
use crate::trace::units::mark;
use crate::wire::{self, Inbound, Poison};

/// How often a unit is decided anew because a compare-and-set lost, before the rest is left to the next delivery.
const CONFLICT_ROUNDS: usize = 4;

/// What a unit publishes, once its reasons are on disk. A command that went out earlier could be carried out and then
/// be forgotten by a power loss: a cancel that comes before the participant's stored answer would leave its effect behind.
pub(super) struct Out {
    pub(super) messages: Vec<Message>,
    /// When the unit began: how long a command waits is measured from there.
    pub(super) now: Millis,
    pub(super) traced: Traced,
    /// What starters promised never to ask for again.
    pub(super) promises: Vec<Watermark>,
}

impl Out {
    pub(super) fn add(
        &mut self,
        definition: &Definition,
        trace: Option<TraceContext>,
        effects: impl IntoIterator<Item = Effect>,
    ) {
        for effect in effects {
            let mut message = match &effect {
                Effect::SendCommand { topic, command } => wire::sent(wire::command_message(topic, command), self.now),
                Effect::PublishResult(event) => wire::result_message(&definition.result_topic, &definition.name, event),
            };
            if let Some(trace) = trace {
                mark(&mut message, sent_by(trace, definition, &effect));
            }
            self.messages.push(message);
        }
    }
}

type Answer = oneshot::Sender<Result<SagaRow, OperateError>>;

/// One input on its way through the unit.
struct Item {
    key: SagaKey,
    input: Input,
    /// The record that it came in.
    delivery: Option<Delivery>,
    /// Who waits for it.
    answer: Option<Answer>,
    /// A commit with what was decided about it failed, and may have taken place.
    unsure: bool,
    /// It is held against what this unit has read, not against what was kept in memory from units before.
    fresh: bool,
}

impl Item {
    /// In no record, and nobody waits for it.
    fn new(key: SagaKey, input: Input) -> Self {
        Self { key, input, delivery: None, answer: None, unsure: false, fresh: false }
    }
}

/// What one round of deciding came to.
#[derive(Default)]
struct Round {
    transitions: Vec<Transition>,
    /// Index into the items, per transition.
    origin: Vec<usize>,
    decisions: Vec<Decision>,
    /// Why not, by index into the items, of those that somebody waits for.
    rejected: HashMap<usize, Rejection>,
    /// Starts of sagas that exist: their results are published again.
    known: HashSet<SagaKey>,
    /// Refused, but by what was kept in memory: to be read and held against it once more.
    stale: HashSet<usize>,
}

impl Orchestrator {
    /// Handles what has arrived. `false`: stopped before it was finished; nothing is lost, it will be delivered again.
    pub(super) async fn unit(
        &mut self,
        deliveries: Vec<Delivery>,
        requests: Vec<Request>,
        due: Vec<SagaKey>,
    ) -> Result<bool, OrchestratorError> {
        let now = self.context.clock.now();
        let mut out = Out { messages: Vec::new(), now, traced: self.traced(&deliveries), promises: Vec::new() };
        let mut items = self.items(deliveries, requests, &mut out);
        self.wake(due, &mut items, &mut out).await?;
        for _ in 0..CONFLICT_ROUNDS {
            if items.is_empty() {
                break;
            }
            let Some(again) = self.round(items, &mut out).await? else { return Ok(false) };
            items = again;
        }
        for mut item in items {
            // What a reply or a timer was about is read again, and what is still outstanding goes out once more.
            self.doubt(&item.key);
            answer(&mut item, Err(OperateError::Contended));
        }
        self.forget(&mut out).await?;
        let published = self.publish(out.messages).await;
        self.record(out.traced).await;
        Ok(published)
    }

    async fn publish(&self, messages: Vec<Message>) -> bool {
        let context = &self.context;
        publish(&*context.bus, &*context.clock, messages, &context.stop, &context.stats, context.options).await
    }

    /// Parses records and requests; what is no input becomes a dead letter.
    fn items(&self, deliveries: Vec<Delivery>, requests: Vec<Request>, out: &mut Out) -> Vec<Item> {
        let mut items = Vec::with_capacity(deliveries.len() + requests.len());
        for delivery in deliveries {
            let parsed = wire::parse(&delivery.message).and_then(|inbound| match inbound {
                Inbound::Start(Start { saga: SagaKey { definition, .. }, .. })
                | Inbound::Forget(Watermark { definition, .. })
                    if self.definitions.newest(&definition).is_none() =>
                {
                    Err(Poison::BadHeader { name: "ce_source", value: definition.to_string() })
                }
                Inbound::Forget(mark) => {
                    out.promises.push(mark);
                    Ok(None)
                }
                Inbound::Start(Start { saga, input }) => Ok(Some((saga, Input::Start(input)))),
                Inbound::Cancel(Cancel { saga, actor, reason }) => {
                    Ok(Some((saga, Input::Operator { verb: Verb::Cancel, actor, reason, version: None })))
                }
                Inbound::Reply(reply) => Ok(Some((reply.saga.clone(), Input::Reply(reply)))),
                Inbound::Command(_) => Err(Poison::Misplaced(wire::COMMAND)),
                Inbound::Result { .. } => Err(Poison::Misplaced(wire::RESULT)),
            });
            match parsed {
                Ok(None) => {}
                Ok(Some((key, input))) => {
                    items.push(Item { delivery: Some(delivery), ..Item::new(key, input) });
                }
                Err(poison) => out.messages.push(self.bury(&delivery, &poison)),
            }
        }
        items.extend(
            requests
                .into_iter()
                .map(|Request { key, input, answer }| Item { answer: Some(answer), ..Item::new(key, input) }),
        );
        items
    }

    fn bury(&self, delivery: &Delivery, poison: &Poison) -> Message {
        log_dead_letter(delivery, poison);
        self.context.stats.poisoned.inc();
        dead_letter(delivery, poison, self.context.clock.now())
    }

    /// Due sagas: those taken over have their commands sent again, the others get a timer input.
    async fn wake(&mut self, due: Vec<SagaKey>, items: &mut Vec<Item>, out: &mut Out) -> Result<(), OrchestratorError> {
        let (taken_over, ripe): (Vec<_>, Vec<_>) = due.into_iter().partition(|key| self.recovering.remove(key));
        items.extend(ripe.into_iter().map(|key| Item::new(key, Input::Timer)));
        if !self.load(taken_over.iter()).await? {
            // The store is busy: they stay due.
            let soon = self.context.clock.now() + 100;
            for key in taken_over {
                self.timers.set(&key, Some(soon));
                self.recovering.insert(key);
            }
            return Ok(());
        }
        let now = self.context.clock.now();
        for key in taken_over {
            let Some(saga) = self.cache.get(&key) else { continue };
            self.timers.follow(saga, now);
            if let Some(definition) = self.definitions.version(&key.definition, saga.definition_version) {
                let effects = outstanding(definition, saga);
                self.context.stats.recovered.add(effects.len() as u64);
                out.add(definition, self.trace_of(saga), effects);
            }
        }
        Ok(())
    }

    /// Brings sagas into the cache. `false`: the store could not, try later.
    async fn load<'k>(&mut self, keys: impl Iterator<Item = &'k SagaKey>) -> Result<bool, OrchestratorError> {
        let mut seen = HashSet::new();
        let missing: Vec<SagaKey> =
            keys.filter(|k| self.cache.get(k).is_none() && seen.insert((*k).clone())).cloned().collect();
        if missing.is_empty() {
            return Ok(true);
        }
        let histories = match self.store.histories(missing.clone()).await {
            Ok(histories) => histories,
            Err(StoreError::Fault(detail)) => return Err(StoreError::Fault(detail).into()),
            Err(error) => {
                tracing::warn!(%error, "loading sagas failed; trying again");
                self.context.stats.retried_units.inc();
                return Ok(false);
            }
        };
        for (key, history) in missing.iter().zip(histories) {
            if history.is_empty() {
                continue;
            }
            match replay(key, history.iter().map(Vec::as_slice)) {
                Ok(saga) => {
                    self.quarantined.remove(key);
                    self.cache.put(saga);
                }
                Err(error) => self.quarantine(key, &error),
            }
        }
        Ok(true)
    }

    /// Decides and commits once. Answers the items that lost a compare-and-set; `None`: stopped.
    async fn round(&mut self, mut items: Vec<Item>, out: &mut Out) -> Result<Option<Vec<Item>>, OrchestratorError> {
        let mut failures = 0;
        loop {
            // A start is tried as a new saga without looking: almost always it is one.
            for item in &mut items {
                item.fresh |= self.cache.get(&item.key).is_none();
            }
            let known = items.iter().filter(|i| !matches!(i.input, Input::Start(_))).map(|i| &i.key);
            let known: Vec<SagaKey> = known.cloned().collect();
            if self.load(known.iter()).await? {
                let mut round = self.decide_all(&items, out);
                let transitions = std::mem::take(&mut round.transitions);
                let written = match transitions.is_empty() {
                    true => Ok(Vec::new()),
                    false => out.traced.timed(&self.context, self.commit(transitions)).await,
                };
                match written {
                    Ok(written) => return self.settle(items, round, &written, out).await.map(Some),
                    Err(CommitError::Fenced(owner)) => {
                        self.context.stats.fenced.inc();
                        return Err(OrchestratorError::Fenced(owner));
                    }
                    Err(CommitError::Store(StoreError::Fault(detail))) => {
                        return Err(StoreError::Fault(detail).into());
                    }
                    Err(CommitError::Store(error)) => {
                        // Its fate is unknown: forget what we believed and decide again from the rows.
                        tracing::warn!(%error, "a commit failed; trying again");
                        self.context.stats.retried_units.inc();
                        for (at, item) in items.iter_mut().enumerate() {
                            item.unsure |= round.origin.contains(&at);
                            self.doubt(&item.key);
                        }
                    }
                }
            }
            let context = &self.context;
            if !pause(&*context.clock, &context.stop, context.options, &mut failures).await {
                return Ok(None);
            }
        }
    }

    fn quarantine(&mut self, key: &SagaKey, error: &ReplayError) {
        if self.quarantined.insert(key.clone()) {
            tracing::error!(%key, saga_id = key.id, %error, "saga quarantined: its history cannot go on; see `saga sagas show`");
            self.context.stats.quarantined.inc();
        }
    }

    /// What we know of a saga may be wrong, or may not have been acted on: read it again and send what is outstanding.
    fn doubt(&mut self, key: &SagaKey) {
        self.cache.remove(key);
        self.recovering.insert(key.clone());
        self.timers.set(key, Some(self.context.clock.now()));
    }

    async fn commit(&self, transitions: Vec<Transition>) -> Result<Vec<Written>, CommitError> {
        self.context.stats.commits.inc();
        let ends = transitions.iter().any(|transition| transition.row.status.is_terminal());
        crash::point(GROUP, "before_commit");
        let written = self.store.commit(self.owner, transitions).await;
        crash::point(GROUP, if ends { "ended" } else { "committed" });
        written
    }

    fn decide_all(&mut self, items: &[Item], out: &mut Out) -> Round {
        let now = self.context.clock.now();
        let mut round = Round::default();
        // Several inputs of one saga in a unit: each sees what the one before it decided.
        let mut latest: HashMap<&SagaKey, usize> = HashMap::new();
        for (at, item) in items.iter().enumerate() {
            let saga = match latest.get(&item.key) {
                Some(&decided) => Some(&round.decisions[decided].next),
                None => self.cache.get(&item.key),
            };
            let definition = match saga {
                Some(saga) => self.definitions.version(&item.key.definition, saga.definition_version),
                None => self.definitions.newest(&item.key.definition),
            };
            let decided = match definition {
                Some(definition) => decide(definition, &item.key, saga, item.input.clone(), now),
                None => Err(Rejection::UnknownSaga(item.key.clone())),
            };
            match decided {
                Ok(decision) => {
                    let decision = self.carry(item.delivery.as_ref(), decision);
                    latest.insert(&item.key, round.decisions.len());
                    round.transitions.push(Transition { row: row_of(&decision.next), events: decision.events.clone() });
                    round.origin.push(at);
                    round.decisions.push(decision);
                }
                // An operator's verb may have been carried out by another loop, which has told this one nothing: what
                // follows from it is no more to be refused than what came before it.
                Err(rejection) if !item.fresh && rejection.depends_on_where_it_stands() => {
                    round.stale.insert(at);
                }
                Err(rejection) => {
                    let saga = saga.cloned();
                    self.reject(item, saga.as_ref(), &rejection, now, &mut round, out);
                    if item.answer.is_some() {
                        round.rejected.insert(at, rejection);
                    }
                }
            }
        }
        round
    }

    /// Nothing changes. A duplicate may mean that our message was lost, so what is committed is sent again.
    fn reject(
        &mut self,
        item: &Item,
        saga: Option<&Saga>,
        rejection: &Rejection,
        now: Millis,
        round: &mut Round,
        out: &mut Out,
    ) {
        let stats = &self.context.stats;
        match rejection {
            Rejection::Exists(key) => {
                stats.duplicate_starts.inc();
                round.known.insert(key.clone());
            }
            Rejection::UnknownSaga(_) => stats.unknown_sagas.inc(),
            Rejection::UnknownStep { .. } => {
                let poison = Poison::Unhandled { attempts: 1, detail: rejection.to_string() };
                match (&item.delivery, saga) {
                    (Some(delivery), _) => out.messages.push(self.bury(delivery, &poison)),
                    (None, Some(saga)) => self.patrol.leave_alone(saga),
                    (None, None) => {}
                }
            }
            Rejection::NotAwaited { step, op } => {
                stats.late_replies.inc();
                // An answer to what is out shows that it was not lost. Sent again it would bring the same answer again:
                // without end, where that is the stored refusal of a step that is stuck.
                saga.into_iter().filter(|s| !is_out(s, step, *op)).for_each(|saga| self.repeat_if_old(saga, out));
            }
            Rejection::NothingDue => {
                let next = saga.and_then(|saga| saga.wake_after(now));
                // Where it is in doubt what is out, that is looked at first.
                if !self.recovering.contains(&item.key) {
                    self.timers.set(&item.key, next);
                }
                if let Some(saga) = saga.filter(|saga| saga.wake_at() != next) {
                    self.patrol.leave_alone(saga);
                }
            }
            Rejection::Corrupt(error) => self.quarantine(&item.key, error),
            Rejection::StaleVersion { .. }
            | Rejection::TooLate { .. }
            | Rejection::NotStuck { .. }
            | Rejection::UnderWay { .. }
            | Rejection::NotTerminal { .. } => {}
        }
    }

    /// After the commit: caches, timers, answers, and what to publish. Answers the items that lost.
    async fn settle(
        &mut self,
        items: Vec<Item>,
        round: Round,
        written: &[Written],
        out: &mut Out,
    ) -> Result<Vec<Item>, OrchestratorError> {
        let mut outcome: HashMap<usize, Result<SagaRow, ()>> = HashMap::new();
        let mut lost: HashSet<SagaKey> = HashSet::new();
        let now = self.context.clock.now();
        for ((decision, at), written) in round.decisions.into_iter().zip(round.origin).zip(written) {
            let key = &items[at].key;
            if *written == Written::Conflict {
                self.context.stats.conflicts.inc();
                self.cache.remove(key);
                self.patrol.moved(key);
                lost.insert(key.clone());
                outcome.insert(at, Err(()));
                continue;
            }
            outcome.insert(at, Ok(row_of(&decision.next)));
            self.count(&decision);
            self.recovering.remove(key);
            self.patrol.moved(key);
            self.timers.follow(&decision.next, now);
            let definition = self.definitions.version(&key.definition, decision.next.definition_version);
            if let Some(definition) = definition {
                let before = self.cache.get(key);
                self.context.stats.sagas.decided(definition, before, &decision.next, &decision.events);
                out.add(definition, self.trace_of(&decision.next), decision.effects);
            }
            if decision.next.status.is_terminal() {
                out.traced.ended(&decision.next);
                self.cache.remove(key);
            } else {
                self.cache.put(decision.next);
            }
        }
        let (mut known, mut rejected) = (round.known, round.rejected);
        let mut again = Vec::new();
        for (at, mut item) in items.into_iter().enumerate() {
            if round.stale.contains(&at) {
                self.cache.remove(&item.key);
                again.push(Item { fresh: true, ..item });
                continue;
            }
            match outcome.remove(&at) {
                Some(Err(())) if matches!(item.input, Input::Start(_)) => {
                    self.context.stats.duplicate_starts.inc();
                    known.insert(item.key);
                }
                Some(Err(())) => again.push(item),
                Some(Ok(row)) => answer(&mut item, Ok(row)),
                None => match rejected.remove(&at) {
                    // What it was held against, the decision before it, was never written.
                    None if lost.contains(&item.key) && item.input == Input::Timer => again.push(item),
                    Some(_) if lost.contains(&item.key) => again.push(item),
                    Some(rejection) => answer(&mut item, Err(rejection.into())),
                    None => {}
                },
            }
        }
        self.republish(known, out).await;
        Ok(again)
    }
}

fn answer(item: &mut Item, result: Result<SagaRow, OperateError>) {
    if let Some(sender) = item.answer.take() {
        let unsure = item.unsure;
        let result = result.map_err(|error| if unsure { OperateError::Unsure(Box::new(error)) } else { error });
        // Whoever asked may have gone; the verb stands either way.
        let _ = sender.send(result);
    }
}

fn row_of(saga: &Saga) -> SagaRow {
    SagaRow {
        key: saga.key.clone(),
        definition_version: saga.definition_version,
        version: saga.version,
        status: saga.status,
        awaiting: saga.awaited().map(|(step, op)| format!("{step}.{op}")).unwrap_or_default(),
        wake_at: saga.wake_at(),
        started_at: saga.started_at,
        updated_at: saga.updated_at,
    }
}
