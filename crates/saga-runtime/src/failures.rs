//! Failures on purpose, for teaching and for tests: a participant that answers *retry* or *unknown*, or stands still.
//!
//! A [`Failing`] participant stands around the real one, and only where failures are enabled: elsewhere there is no trace of
//! it. *Retry* and *unknown* are answered *before* the command reaches the real participant, so its barrier has no row and nothing
//! has happened: the same command comes again later and is handled as if it came for the first time. A command that was handled
//! before (its reply was lost, say) may be answered so, too: its stored reply comes out at the next attempt.
//!
//! *Lost* comes *after* the effect: the participant has done it and has stored its reply, and *unknown* is said in its place. To the
//! orchestrator it looks the same, and the barrier makes it the same: it answers the stored reply when the command comes again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Name, Op};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::barrier::BarrierKey;
use crate::participant::Participant;
use crate::retention::Watermarks;
use crate::store::StoreError;

/// What is to go wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FailurePlan {
    /// By step.
    pub steps: BTreeMap<Name, StepFailures>,
    /// Participants (by their groups) that take no more commands.
    pub stopped: BTreeSet<String>,
}

/// How a step's answers go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepFailures {
    /// The share of commands that is answered *unknown*, 0 to 1.
    pub unknown_rate: f64,
    /// The share of commands that is answered *retry*, 0 to 1; of what is left, `unknown_rate` takes its share.
    pub retry_rate: f64,
    /// The share of commands that are carried out and answered *unknown* all the same, 0 to 1, of what is left by the others.
    pub lost_rate: f64,
    /// Only of these; nothing: of both.
    pub op: Option<Op>,
}

/// The switches of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Failures {
    plan: Arc<watch::Sender<FailurePlan>>,
    /// So that no two answers are drawn alike, also for the same command.
    drawn: Arc<AtomicU64>,
}

impl Default for Failures {
    fn default() -> Self {
        Self { plan: Arc::new(watch::Sender::new(FailurePlan::default())), drawn: Arc::default() }
    }
}

impl Failures {
    /// What goes wrong now.
    pub fn plan(&self) -> FailurePlan {
        self.plan.borrow().clone()
    }

    /// From now on goes wrong what is in `plan`, and nothing else.
    pub fn set(&self, plan: FailurePlan) {
        self.plan.send_replace(plan);
    }

    /// How the answers to a command go wrong.
    fn of(&self, command: &Command) -> Option<StepFailures> {
        let step = *self.plan.borrow().steps.get(&command.step)?;
        step.op.is_none_or(|op| op == command.op).then_some(step)
    }

    /// What a command is answered in the place of its participant.
    fn outcome(&self, command: &Command) -> Option<Outcome> {
        let step = self.of(command)?;
        if self.chance() < step.retry_rate {
            return Some(Outcome::Retry("a failure on purpose: try again".into()));
        }
        (self.chance() < step.unknown_rate).then(|| Outcome::Unknown("a failure on purpose: nobody knows".into()))
    }

    /// What is said in the place of what a participant has answered, when that has become of the command for good.
    fn lost(&self, command: &Command, answered: Reply) -> Reply {
        let rate = self.of(command).map_or(0.0, |step| step.lost_rate);
        if rate > 0.0 && answered.outcome.is_final() && self.chance() < rate {
            let outcome = Outcome::Unknown("a failure on purpose: handled, and the answer was lost".into());
            return Reply { outcome, ..answered };
        }
        answered
    }

    /// The next of a fixed row of numbers in [0, 1) that look thrown (SplitMix64).
    fn chance(&self) -> f64 {
        let mut x = self.drawn.fetch_add(1, Ordering::Relaxed).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((x ^ (x >> 31)) >> 32).unwrap_or_default();
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

/// A participant that fails as it is told.
pub struct Failing {
    inner: Arc<dyn Participant>,
    failures: Failures,
    stop: CancellationToken,
}

impl Failing {
    /// Around a participant, until `stop`.
    pub fn new(inner: Arc<dyn Participant>, failures: Failures, stop: CancellationToken) -> Self {
        Self { inner, failures, stop }
    }

    /// Waits while this participant is stopped. What arrived stays in hand: it is neither handled nor read past.
    async fn running(&self) -> Result<(), StoreError> {
        let mut plan = self.failures.plan.subscribe();
        tokio::select! {
            biased;
            // The sender is ours: it is not gone.
            _ = plan.wait_for(|plan| !plan.stopped.contains(self.inner.group())) => Ok(()),
            () = self.stop.cancelled() => {
                Err(StoreError::Transient("the participant is stopped on purpose, and now the process ends".to_owned()))
            }
        }
    }
}

#[async_trait]
impl Participant for Failing {
    fn group(&self) -> &str {
        self.inner.group()
    }

    fn topics(&self) -> Vec<Name> {
        self.inner.topics()
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.running().await?;
        let made_up: Vec<Option<Outcome>> = batch.iter().map(|command| self.failures.outcome(command)).collect();
        let asked = batch.iter().zip(&made_up).filter(|(_, made_up)| made_up.is_none());
        let asked: Vec<Command> = asked.map(|(command, _)| command.clone()).collect();
        let answered = if asked.is_empty() { Vec::new() } else { self.inner.handle(asked).await? };
        // What is forgotten has no reply.
        let mut answered = answered.into_iter().peekable();
        let replies = batch.iter().zip(made_up).filter_map(|(command, made_up)| match made_up {
            Some(outcome) => Some(command.reply(outcome)),
            None => answered
                .next_if(|reply| BarrierKey::answered_by(reply) == BarrierKey::of(command))
                .map(|reply| self.failures.lost(command, reply)),
        });
        Ok(replies.collect())
    }

    fn watermarks(&self) -> Option<Arc<dyn Watermarks>> {
        self.inner.watermarks()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use parking_lot::Mutex;
    use saga_core::{Json, SagaKey};

    use super::*;

    #[derive(Default)]
    struct Honest(Mutex<Vec<u64>>);

    #[async_trait]
    impl Participant for Honest {
        fn group(&self) -> &str {
            "honest"
        }

        fn topics(&self) -> Vec<Name> {
            vec!["take".into()]
        }

        async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
            self.0.lock().extend(batch.iter().map(|command| command.saga.id));
            Ok(batch.iter().map(|command| command.reply(Outcome::done())).collect())
        }
    }

    fn command(id: u64, step: &str, op: Op) -> Command {
        Command {
            saga: SagaKey::new("purchase", id),
            definition_version: 1,
            step: step.into(),
            op,
            attempt: 1,
            input: Json::null(),
            outputs: vec![],
            reason: None,
            reply_to: "reply".into(),
        }
    }

    fn failing() -> (Arc<Honest>, Failures, CancellationToken, Arc<Failing>) {
        let (honest, failures, stop) = (Arc::new(Honest::default()), Failures::default(), CancellationToken::new());
        let failing = Failing::new(honest.clone(), failures.clone(), stop.clone());
        (honest, failures, stop, Arc::new(failing))
    }

    fn plan(step: &str, failures: StepFailures) -> FailurePlan {
        FailurePlan { steps: [(step.into(), failures)].into(), ..FailurePlan::default() }
    }

    #[tokio::test]
    async fn only_what_is_to_fail_fails_and_never_reaches_the_participant() {
        let (honest, failures, _, failing) = failing();
        failures.set(plan("take", StepFailures { retry_rate: 1.0, op: Some(Op::Do), ..StepFailures::default() }));
        let batch = [(1, "take", Op::Do), (2, "give", Op::Do), (3, "take", Op::Undo)];
        let replies = failing.handle(batch.map(|(id, step, op)| command(id, step, op)).into()).await.unwrap();
        assert_eq!(replies.iter().map(|r| r.saga.id).collect::<Vec<_>>(), [1, 2, 3], "in the batch's order");
        assert!(matches!(replies[0].outcome, Outcome::Retry(_)));
        assert!(replies[1..].iter().all(|reply| reply.outcome == Outcome::done()));
        assert_eq!(*honest.0.lock(), [2, 3]);
    }

    #[tokio::test]
    async fn what_is_lost_was_handled_and_only_its_answer_is_missing() {
        let (honest, failures, _, failing) = failing();
        failures.set(plan("take", StepFailures { lost_rate: 1.0, op: Some(Op::Do), ..StepFailures::default() }));
        let batch = [(1, "take", Op::Do), (2, "give", Op::Do), (3, "take", Op::Undo)];
        let replies = failing.handle(batch.map(|(id, step, op)| command(id, step, op)).into()).await.unwrap();
        assert_eq!(*honest.0.lock(), [1, 2, 3], "all of them reached it");
        assert!(matches!(&replies[0].outcome, Outcome::Unknown(why) if why.contains("lost")), "{replies:?}");
        assert!(replies[1..].iter().all(|reply| reply.outcome == Outcome::done()), "{replies:?}");
    }

    #[tokio::test]
    async fn a_rate_is_a_share_also_of_the_same_command() {
        let (honest, failures, _, failing) = failing();
        failures.set(plan("take", StepFailures { unknown_rate: 0.25, ..StepFailures::default() }));
        for _ in 0..1_000 {
            failing.handle(vec![command(1, "take", Op::Do)]).await.unwrap();
        }
        let through = honest.0.lock().len();
        assert!((700..800).contains(&through), "{through} of 1,000 at a rate of a quarter");
    }

    #[tokio::test]
    async fn a_stopped_participant_holds_what_it_has_until_it_runs_again_or_the_process_ends() {
        let (honest, failures, stop, failing) = failing();
        failures.set(FailurePlan { stopped: ["honest".to_owned()].into(), ..FailurePlan::default() });
        let mut held = std::pin::pin!(failing.handle(vec![command(1, "take", Op::Do)]));
        assert!(futures_util::poll!(&mut held).is_pending());
        assert!(honest.0.lock().is_empty());
        failures.set(FailurePlan::default());
        assert_eq!(held.await.unwrap().len(), 1);

        failures.set(FailurePlan { stopped: ["honest".to_owned()].into(), ..FailurePlan::default() });
        stop.cancel();
        let ended = failing.handle(vec![command(2, "take", Op::Do)]).await;
        assert!(matches!(ended, Err(StoreError::Transient(_))), "{ended:?}");
        assert_eq!(*honest.0.lock(), [1]);
    }
}
