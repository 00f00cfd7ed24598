//! The participant loop: commands in, one transaction, replies out, then the offsets.
//!
//! One record never harms its neighbours: what cannot be parsed becomes a dead letter at once; when a batch fails or
//! panics, each command is tried alone, and one that keeps failing becomes a dead letter while the rest goes on. So does
//! one that wants its reply on a topic that nobody made.

mod traced;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use saga_core::protocol::{Command, Reply, Work};
use saga_core::{Name, Op};
use tokio_util::sync::CancellationToken;

use crate::barrier::BarrierKey;
use crate::bus::{Bus, Delivery, Message};
use crate::clock::Clock;
use crate::crash;
use crate::delivery::{LoopOptions, Published, dead_letter, log_dead_letter, pause, publish_unless, subscribe};
use crate::pace::Pace;
use crate::retention::{Watermark, Watermarks, remove_forgotten};
use crate::stats::{Group, Stats};
use crate::store::StoreError;
use crate::trace::Tracer;
use crate::wire::{self, Inbound, Poison};
use traced::Batch;

/// A service's side of a saga: what it does and undoes.
#[async_trait]
pub trait Participant: Send + Sync + 'static {
    /// The consumer group: the service's name.
    fn group(&self) -> &str;

    /// The topics that carry its commands.
    fn topics(&self) -> Vec<Name>;

    /// One batch, one transaction: barrier, effects and stored replies, all durable on return.
    /// Answers one reply per command, in order; none for what its watermarks cover and its barrier does not know.
    ///
    /// # Errors
    /// The whole transaction was rolled back (or, for `Transient`, its fate is unknown and the barrier will tell).
    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError>;

    /// Where its watermarks are kept, beside its barrier. `None`: it keeps its barrier rows for ever, which is as safe.
    fn watermarks(&self) -> Option<Arc<dyn Watermarks>> {
        None
    }
}

/// Shared participants are participants.
#[async_trait]
impl<P: Participant + ?Sized> Participant for Arc<P> {
    fn group(&self) -> &str {
        (**self).group()
    }

    fn topics(&self) -> Vec<Name> {
        (**self).topics()
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        (**self).handle(batch).await
    }

    fn watermarks(&self) -> Option<Arc<dyn Watermarks>> {
        (**self).watermarks()
    }
}

/// What a loop needs from outside.
#[derive(Clone)]
pub struct LoopContext {
    /// Where messages come from and go to.
    pub bus: Arc<dyn Bus>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Ends the loop between two units of work.
    pub stop: CancellationToken,
    /// What it saw.
    pub stats: Arc<Stats>,
    /// How it behaves.
    pub options: LoopOptions,
    /// Where spans go.
    pub tracer: Tracer,
}

/// Runs a participant until it is stopped, and removes what it may forget. A unit of work in progress is finished first.
pub async fn run_participant(context: LoopContext, participant: Arc<dyn Participant>) {
    let watermarks = participant.watermarks();
    let removing = async {
        if let Some(watermarks) = watermarks {
            remove_forgotten(&context, watermarks).await;
        }
        std::future::pending::<()>().await;
    };
    // The end of the work is the end of the removal, wherever it is: what it has not removed it will find again.
    tokio::select! {
        biased;
        () = work(context.clone(), participant) => {}
        () = removing => {}
    }
}

async fn work(context: LoopContext, participant: Arc<dyn Participant>) {
    let LoopContext { bus, clock, stop, options, .. } = &context;
    let (group, topics) = (participant.group(), participant.topics());
    let Some(mut subscription) = subscribe(&**bus, &**clock, group, &topics, stop, *options).await else { return };
    let counted = context.stats.groups.of(group);
    let mut failures = 0;
    let mut pace = Pace::new(options.pace, options.batch);
    loop {
        if !pace.turn(&**clock, stop).await {
            return;
        }
        let arrived = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            arrived = subscription.next(options.batch) => arrived,
        };
        let deliveries = match arrived {
            Ok(deliveries) => deliveries,
            Err(crate::BusError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, group, "receiving failed; trying again");
                if pause(&**clock, stop, *options, &mut failures).await {
                    continue;
                }
                return;
            }
        };
        failures = 0;
        pace.begin(&**clock, deliveries.len());
        crash::point(group, "fetched");
        let mut traced = Batch::of(&context, &deliveries);
        let Some(answers) = unit(&context, &*participant, &counted, deliveries, &mut traced).await else { return };
        if !answers.publish(&context, &counted).await {
            return;
        }
        traced.record(&context, group);
        crash::point(group, "published");
        if let Err(error) = subscription.commit().await {
            tracing::warn!(%error, group, "committing the offsets failed; the batch will be delivered again");
        }
    }
}

/// What a unit of work has to publish.
#[derive(Default)]
struct Answers {
    /// Dead letters, then replies.
    messages: Vec<Message>,
    letters: usize,
    commands: Vec<(Delivery, Command)>,
}

impl Answers {
    fn bury(&mut self, context: &LoopContext, counted: &Group, delivery: &Delivery, poison: &Poison) {
        log_dead_letter(delivery, poison);
        context.stats.poisoned.inc();
        counted.poisoned.inc();
        self.messages.insert(self.letters, dead_letter(delivery, poison, context.clock.now()));
        self.letters += 1;
    }

    /// Publishes all. `false`: stopped before that.
    async fn publish(mut self, context: &LoopContext, counted: &Group) -> bool {
        let LoopContext { bus, clock, stop, stats, options, .. } = context;
        loop {
            let replies = &self.messages[self.letters..];
            let hopeless = |topic: &Name| replies.iter().any(|reply| reply.topic == *topic);
            match publish_unless(&**bus, &**clock, &self.messages, stop, stats, *options, hopeless).await {
                Published::All => return true,
                Published::Stopped => return false,
                Published::Nowhere(topic) => self.bury_those_for(context, counted, &topic),
            }
        }
    }

    /// Their answers are stored: when the topic is there one day, the commands' next sending brings them.
    fn bury_those_for(&mut self, context: &LoopContext, counted: &Group, topic: &Name) {
        let replies = self.messages.split_off(self.letters);
        let detail = format!("the answer cannot be given: there is no topic {topic}");
        let poison = Poison::Unhandled { attempts: context.options.poison_after, detail };
        let commands = std::mem::take(&mut self.commands);
        for (delivery, _) in commands.iter().filter(|(_, command)| command.reply_to == *topic) {
            self.bury(context, counted, delivery, &poison);
        }
        self.messages.extend(replies.into_iter().filter(|reply| reply.topic != *topic));
        self.commands = commands;
    }
}

/// One unit of work: the replies and dead letters to publish. `None`: stopped before it could be finished.
async fn unit(
    context: &LoopContext,
    participant: &dyn Participant,
    counted: &Group,
    deliveries: Vec<Delivery>,
    traced: &mut Batch,
) -> Option<Answers> {
    let mut commands = Vec::with_capacity(deliveries.len());
    let mut answers = Answers::default();
    let now = context.clock.now();
    for delivery in deliveries {
        let poison = match wire::parse(&delivery.message) {
            Ok(Inbound::Command(command)) => {
                if let Some(sent_at) = wire::sent_at(&delivery.message) {
                    context.stats.sagas.taken_up(&command, sent_at, now);
                }
                commands.push((delivery, command));
                continue;
            }
            Ok(Inbound::Start(_)) => Poison::Misplaced(wire::START),
            Ok(Inbound::Cancel(_)) => Poison::Misplaced(wire::CANCEL),
            Ok(Inbound::Reply(_)) => Poison::Misplaced(wire::REPLY),
            Ok(Inbound::Result { .. }) => Poison::Misplaced(wire::RESULT),
            Ok(Inbound::Forget(mark)) => {
                forget(participant, mark).await;
                continue;
            }
            Err(poison) => poison,
        };
        answers.bury(context, counted, &delivery, &poison);
    }
    let batch: Vec<Command> = commands.iter().map(|(_, command)| command.clone()).collect();
    if !batch.is_empty() {
        counted.batch.observe(batch.len() as u64);
    }
    let mut replies = Vec::with_capacity(batch.len());
    traced.begun(context);
    match attempt(context, participant, counted, batch).await? {
        Ok(all) => replies = all,
        Err(detail) => {
            if commands.len() > 1 {
                tracing::warn!(detail, count = commands.len(), "a batch failed; trying each command alone");
            }
            for (delivery, command) in &commands {
                match alone(context, participant, counted, command).await? {
                    Ok(reply) => replies.extend(reply),
                    Err(poison) => answers.bury(context, counted, delivery, &poison),
                }
            }
        }
    }
    traced.committed(context);
    let topics = commands.iter().map(|(_, c)| ((&c.saga, &c.step, c.op), &c.reply_to));
    let topics: std::collections::HashMap<_, _> = topics.collect();
    answers.messages.extend(replies.iter().filter_map(|reply| {
        let topic = topics.get(&(&reply.saga, &reply.step, reply.op))?;
        let mut message = wire::reply_message(topic, reply);
        traced.answered(context, topic, reply, &mut message);
        Some(message)
    }));
    answers.commands = commands;
    Some(answers)
}

/// A watermark rises. What cannot be written now is said again in the sender's next sweep.
async fn forget(participant: &dyn Participant, mark: Watermark) {
    let Some(watermarks) = participant.watermarks() else { return };
    if let Err(error) = watermarks.raise(mark.clone()).await {
        tracing::warn!(%error, group = participant.group(), ?mark, "a watermark could not be raised; it will be later");
    }
}

/// How many commands of a batch have no reply because they are forgotten; none, if any of them has none without a reason.
async fn forgotten(participant: &dyn Participant, batch: &[Command], replies: &[Reply]) -> Result<usize, StoreError> {
    let Some(watermarks) = participant.watermarks() else { return Ok(0) };
    // Watermarks only rise: what was covered when the batch was handled is covered now.
    let marks = watermarks.marks().await?;
    let answered: HashSet<BarrierKey> = replies.iter().map(BarrierKey::answered_by).collect();
    let without: Vec<&Command> = batch.iter().filter(|c| !answered.contains(&BarrierKey::of(c))).collect();
    let lawful = without.len() + replies.len() == batch.len() && without.iter().all(|c| marks.covers(&c.saga));
    Ok(if lawful { without.len() } else { 0 })
}

/// One command until it is answered, is found to be forgotten, or has failed too often.
async fn alone(
    context: &LoopContext,
    participant: &dyn Participant,
    counted: &Group,
    command: &Command,
) -> Option<Result<Option<Reply>, Poison>> {
    let mut last = String::new();
    for _ in 0..context.options.poison_after {
        match attempt(context, participant, counted, vec![command.clone()]).await? {
            Ok(replies) => return Some(Ok(replies.into_iter().next())),
            Err(detail) => last = detail,
        }
    }
    Some(Err(Poison::Unhandled { attempts: context.options.poison_after, detail: last }))
}

/// One run of the handler; what time can heal is waited for. `None`: stopped. `Err`: a fault or a panic.
async fn attempt(
    context: &LoopContext,
    participant: &dyn Participant,
    counted: &Group,
    batch: Vec<Command>,
) -> Option<Result<Vec<Reply>, String>> {
    if batch.is_empty() {
        return Some(Ok(Vec::new()));
    }
    let mut failures = 0;
    loop {
        let begun = context.clock.nanos();
        let undoes = batch.iter().any(|command| command.op == Op::Undo);
        crash::point(participant.group(), if undoes { "undo.before_commit" } else { "do.before_commit" });
        let began = context.clock.now();
        let run = AssertUnwindSafe(participant.handle(batch.clone())).catch_unwind().await;
        counted.handling.observe_between(begun, context.clock.nanos());
        // The batch is one transaction: all of its commands took as long as it did.
        let work = Some(Work { began, ms: context.clock.now().saturating_sub(began) });
        crash::point(participant.group(), if undoes { "undo.committed" } else { "do.committed" });
        let run = match run {
            Ok(Ok(replies)) if replies.len() < batch.len() => {
                let late = forgotten(participant, &batch, &replies).await;
                context.stats.late_commands.add(late.as_ref().map_or(0, |late| *late as u64));
                Ok(late.map(|late| (late, replies)))
            }
            other => other.map(|handled| handled.map(|replies| (0, replies))),
        };
        match run {
            Ok(Ok((late, replies))) if replies.len() + late == batch.len() => {
                context.stats.duplicate_commands.add(replies.iter().filter(|reply| reply.repeated).count() as u64);
                return Some(Ok(replies.into_iter().map(|reply| Reply { work, ..reply }).collect()));
            }
            Ok(Ok((_, replies))) => {
                return Some(Err(format!("{} replies for {} commands", replies.len(), batch.len())));
            }
            Ok(Err(StoreError::Fault(detail))) => return Some(Err(detail)),
            Ok(Err(error @ (StoreError::Transient(_) | StoreError::Full(_)))) => {
                tracing::warn!(%error, group = participant.group(), "a batch could not be written; trying again");
                context.stats.retried_units.inc();
                counted.retried.inc();
                if !pause(&*context.clock, &context.stop, context.options, &mut failures).await {
                    return None;
                }
            }
            Err(panic) => return Some(Err(format!("panicked: {}", panic_text(&*panic)))),
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
