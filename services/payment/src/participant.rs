//! The payment service's side of the purchase saga: nothing is charged twice, nothing stays charged after an undo.
//!
//! The gateway is outside every transaction, so its calls stand around them:
//!
//! ```text
//!   do     settled? ─► charge(key) ─► [ barrier · payment row · reply ]    blocked by an undo? void(key), then reply
//!   undo   [ block the do ] ─► void(key) ─► [ barrier · row VOIDED · reply ]
//! ```
//!
//! A crash anywhere is redelivery: the gateway is idempotent by key, the barrier by command. A do and an undo that race
//! meet at the barrier's primary key: either the do's transaction is first, and the undo voids what it charged; or the
//! block is first, and the do finds itself blocked and voids its own charge. A do whose undo has been here already
//! charges nothing: that is seen before the gateway is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contracts::purchase::PurchaseInput;
use contracts::topics;
use futures_util::StreamExt as _;
use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Name, Op, SagaKey};
use saga_runtime::barrier::UNDONE_BEFORE_DO;
use saga_runtime::{Clock, Participant, StoreError, Watermarks};

use crate::domain::{Status, due};
use crate::gateway::{Charge, Charged, Gateway};
use crate::stats::Stats;
use crate::store::Store;

/// Charges on their way to the gateway at once.
const CONCURRENT: usize = 64;
/// A gateway that has not answered by then does not hold up the others' payments: what it did is unknown, and asked for
/// again. Longer than any lawful answer takes; a command that waits for it has been sent again meanwhile.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// Charges, and gives back.
pub struct PaymentParticipant {
    store: Arc<dyn Store>,
    gateway: Arc<dyn Gateway>,
    clock: Arc<dyn Clock>,
    stats: Arc<Stats>,
}

impl PaymentParticipant {
    /// Over a store and a gateway.
    pub fn new(store: Arc<dyn Store>, gateway: Arc<dyn Gateway>, clock: Arc<dyn Clock>, stats: Arc<Stats>) -> Self {
        Self { store, gateway, clock, stats }
    }

    async fn charge_all(&self, wanted: Vec<(u64, Charge)>) -> HashMap<u64, Charged> {
        let silent = || Charged::Unknown("the gateway does not answer".to_owned());
        let asked = wanted.into_iter().map(|(id, charge)| async move {
            (id, self.in_time(self.gateway.charge(charge)).await.unwrap_or_else(silent))
        });
        futures_util::stream::iter(asked).buffer_unordered(CONCURRENT).collect().await
    }

    async fn give_back(&self, key: &str) -> Result<(), String> {
        let silent = || Err("the gateway does not answer".to_owned());
        self.in_time(self.gateway.void(key)).await.unwrap_or_else(silent)
    }

    async fn in_time<T>(&self, asked: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            answer = asked => Some(answer),
            () = self.clock.sleep(ANSWERS_WITHIN) => None,
        }
    }

    async fn dos(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let settled = self.store.settled(batch.clone()).await?;
        // Also those that are settled: an earlier delivery may have charged, and crashed before it could say so.
        let asked: HashMap<u64, String> = batch.iter().filter_map(charge_of).map(|(id, c)| (id, c.key)).collect();
        let open = batch.iter().zip(&settled).filter(|(_, settled)| !**settled);
        let wanted: Vec<(u64, Charge)> = open.filter_map(|(command, _)| charge_of(command)).collect();
        let charged = self.charge_all(wanted.clone()).await;
        let mut replies = self.store.charge(batch.clone(), charged, self.clock.now()).await?;
        if replies.len() < batch.len() {
            self.give_back_the_forgotten(&batch, &settled, &replies).await?;
        }
        for reply in &mut replies {
            let blocked = matches!(&reply.outcome, Outcome::Refused(r) if r.code == UNDONE_BEFORE_DO);
            if let Some(key) = asked.get(&reply.saga.id).filter(|_| blocked)
                && let Err(detail) = self.give_back(key).await
            {
                // It must not be forgotten: the command comes again and finds itself blocked again.
                return Err(StoreError::Transient(format!("a charge could not be given back: {detail}")));
            }
        }
        self.stats.captured(&wanted, &replies);
        Ok(replies)
    }

    /// Between our look and our transaction a saga ended and was forgotten: whoever slept so long may have charged what
    /// was given back meanwhile. What stands as captured was charged once, under the same key.
    async fn give_back_the_forgotten(
        &self,
        batch: &[Command],
        settled: &[bool],
        replies: &[Reply],
    ) -> Result<(), StoreError> {
        let unanswered = |c: &Command| !replies.iter().any(|reply| reply.saga == c.saga && reply.step == c.step);
        let open = batch.iter().zip(settled).filter(|(command, settled)| !**settled && unanswered(command));
        for (command, _) in open {
            let Some((id, charge)) = charge_of(command) else { continue };
            let customer_id = command.input.parse::<PurchaseInput>().map(|input| input.customer_id).unwrap_or_default();
            let found = self.store.find(id, customer_id).await?;
            if found.is_none_or(|payment| payment.status != Status::Captured)
                && let Err(detail) = self.give_back(&charge.key).await
            {
                return Err(StoreError::Transient(format!("a charge could not be given back: {detail}")));
            }
        }
        Ok(())
    }

    async fn undos(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let charged = self.store.block(batch.clone(), self.clock.now()).await?;
        let (mut given_back, mut replies) = (Vec::with_capacity(batch.len()), Vec::new());
        let voided: Vec<(u64, Charge)> =
            batch.iter().zip(&charged).filter(|(_, charged)| **charged).filter_map(|(c, _)| charge_of(c)).collect();
        for (command, charged) in batch.into_iter().zip(charged) {
            match if charged { self.give_back(&key(&command.saga)).await } else { Ok(()) } {
                Ok(()) => given_back.push(command),
                Err(detail) => replies.push(command.reply(Outcome::Retry(detail))),
            }
        }
        replies.extend(self.store.void(given_back, self.clock.now()).await?);
        self.stats.refunded(&voided, &replies);
        Ok(replies)
    }
}

/// Names a charge at the gateway.
fn key(saga: &SagaKey) -> String {
    format!("{}-{}", saga.definition, saga.id)
}

/// What a do wants charged; `None` where the store will refuse it anyway.
fn charge_of(command: &Command) -> Option<(u64, Charge)> {
    let input: PurchaseInput = command.input.parse().ok()?;
    due(command.saga.id, &input).ok()?;
    let PurchaseInput { amount, currency_code, .. } = input;
    Some((command.saga.id, Charge { key: key(&command.saga), amount, currency_code, attempt: command.attempt }))
}

#[async_trait]
impl Participant for PaymentParticipant {
    fn group(&self) -> &str {
        "payment"
    }

    fn topics(&self) -> Vec<Name> {
        [topics::CREATE_PAYMENT, topics::ROLLBACK_PAYMENT].map(Name::new).to_vec()
    }

    fn watermarks(&self) -> Option<Arc<dyn Watermarks>> {
        Some(self.store.watermarks())
    }

    async fn handle(&self, batch: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let order: Vec<(SagaKey, Op)> = batch.iter().map(|c| (c.saga.clone(), c.op)).collect();
        let (dos, undos): (Vec<Command>, Vec<Command>) = batch.into_iter().partition(|c| c.op == Op::Do);
        let mut replies = if dos.is_empty() { Vec::new() } else { self.dos(dos).await? };
        if !undos.is_empty() {
            replies.extend(self.undos(undos).await?);
        }
        if replies.iter().zip(&order).all(|(reply, (saga, op))| reply.saga == *saga && reply.op == *op) {
            return Ok(replies);
        }
        // Back into the batch's order; a command that stands there twice has two replies.
        let mut ordered = Vec::with_capacity(replies.len());
        for (saga, op) in &order {
            if let Some(at) = replies.iter().position(|reply| reply.saga == *saga && reply.op == *op) {
                ordered.push(replies.remove(at));
            }
        }
        Ok(ordered)
    }
}
