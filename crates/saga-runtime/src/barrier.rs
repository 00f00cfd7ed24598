//! The barrier: a command has one effect and one answer, however often and in whatever order it arrives.
//!
//! ```text
//!              no do row yet           do row (any)            undo row
//!   do         effect, store           stored answer           stored answer (the undo wrote a do row)
//!   undo       do row := blocked,      effect, store           stored answer
//!              undo row := done
//! ```
//!
//! That covers the three anomalies: a duplicate, an undo without a do (empty compensation), and a do that arrives
//! after its undo (hanging). This module is pure; a store loads the rows of a batch, calls [`run`], and writes the
//! new rows **in the same transaction as the effects**. What makes it safe between replicas is the rows' primary key.

use std::collections::HashMap;

use saga_core::protocol::{Command, Outcome, Reply};
use saga_core::{Name, Op, SagaKey};

use crate::retention::Marks;

/// The code with which a do is refused that arrives after its undo.
pub const UNDONE_BEFORE_DO: &str = "undone_before_do";

/// Identity of a command.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BarrierKey {
    /// The saga that asks.
    pub saga: SagaKey,
    /// The step's name.
    pub step: Name,
    /// Do or undo.
    pub op: Op,
}

impl BarrierKey {
    /// The identity of `command`.
    pub fn of(command: &Command) -> Self {
        Self { saga: command.saga.clone(), step: command.step.clone(), op: command.op }
    }

    /// The identity of the command that `reply` answers.
    pub fn answered_by(reply: &Reply) -> Self {
        Self { saga: reply.saga.clone(), step: reply.step.clone(), op: reply.op }
    }

    fn with(&self, op: Op) -> Self {
        Self { op, ..self.clone() }
    }
}

/// A command that has been answered, and its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BarrierRow {
    /// Which command.
    pub key: BarrierKey,
    /// Its final outcome.
    pub outcome: Outcome,
}

/// What a batch came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Barrier {
    /// One per command, in the batch's order; none for what is forgotten.
    pub replies: Vec<Reply>,
    /// To be inserted in the effects' transaction.
    pub new_rows: Vec<BarrierRow>,
}

/// The rows that [`run`] wants to see: of every command its own, of an undo its do as well. Without repetition.
pub fn keys_of(batch: &[Command]) -> Vec<BarrierKey> {
    let mut seen = std::collections::HashSet::with_capacity(batch.len() * 2);
    let mut keys = Vec::with_capacity(batch.len() * 2);
    for command in batch {
        let key = BarrierKey::of(command);
        if command.op == Op::Undo {
            let done = key.with(Op::Do);
            if seen.insert(done.clone()) {
                keys.push(done);
            }
        }
        if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    keys
}

/// Runs a batch in order against the rows that exist. `effect` is called at most once per identity.
///
/// A final outcome becomes a row; `Retry` and `Unknown` are answered but not stored, so the next sending tries again.
/// A command without a row whose saga `forgotten` covers has been answered long ago: it has no effect, no row and no
/// reply. `forgotten` must be read after the rows, or with them: what is removed is covered before.
///
/// # Errors
/// The first error of `effect`: the transaction must be rolled back as a whole.
pub fn run<E>(
    batch: &[Command],
    existing: Vec<BarrierRow>,
    forgotten: &Marks,
    mut effect: impl FnMut(&Command) -> Result<Outcome, E>,
) -> Result<Barrier, E> {
    let mut known: HashMap<BarrierKey, Outcome> = existing.into_iter().map(|row| (row.key, row.outcome)).collect();
    let mut barrier = Barrier { replies: Vec::with_capacity(batch.len()), new_rows: Vec::with_capacity(batch.len()) };
    for command in batch {
        let key = BarrierKey::of(command);
        let (outcome, repeated) = match known.get(&key) {
            Some(stored) => (stored.clone(), true),
            None if forgotten.covers(&key.saga) => continue,
            None => {
                let outcome = if command.op == Op::Undo && !known.contains_key(&key.with(Op::Do)) {
                    let blocked = Outcome::refused(UNDONE_BEFORE_DO, "the step was undone before it ran");
                    record(&mut known, &mut barrier.new_rows, key.with(Op::Do), &blocked);
                    Outcome::done()
                } else {
                    effect(command)?
                };
                if outcome.is_final() {
                    record(&mut known, &mut barrier.new_rows, key, &outcome);
                }
                (outcome, false)
            }
        };
        barrier.replies.push(Reply { repeated, ..command.reply(outcome) });
    }
    Ok(barrier)
}

fn record(known: &mut HashMap<BarrierKey, Outcome>, rows: &mut Vec<BarrierRow>, key: BarrierKey, outcome: &Outcome) {
    known.insert(key.clone(), outcome.clone());
    rows.push(BarrierRow { key, outcome: outcome.clone() });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::convert::Infallible;

    use saga_core::Json;

    use super::*;

    fn command(id: u64, op: Op) -> Command {
        Command {
            saga: SagaKey::new("purchase", id),
            definition_version: 1,
            step: "take".into(),
            op,
            attempt: 1,
            input: Json::null(),
            outputs: vec![],
            reason: None,
            reply_to: "reply".into(),
        }
    }

    /// Runs deliveries one batch after the other over one table, counting effects.
    fn deliver(batches: &[Vec<Command>], outcome: &Outcome) -> (Vec<Reply>, Vec<(u64, Op)>) {
        let (mut rows, mut replies, mut effects) = (vec![], vec![], vec![]);
        for batch in batches {
            let out = run(batch, rows.clone(), &Marks::default(), |c| {
                effects.push((c.saga.id, c.op));
                Ok::<_, Infallible>(outcome.clone())
            })
            .unwrap();
            rows.extend(out.new_rows);
            replies.extend(out.replies);
        }
        (replies, effects)
    }

    #[test]
    fn a_duplicate_has_no_second_effect_and_gets_the_stored_reply() {
        let done = Outcome::Done(Json::of(&1).unwrap());
        for batches in [vec![vec![command(1, Op::Do), command(1, Op::Do)]], vec![vec![command(1, Op::Do)]; 2]] {
            let (replies, effects) = deliver(&batches, &done);
            assert_eq!(effects, [(1, Op::Do)]);
            assert_eq!(replies.len(), 2);
            assert!(replies.iter().all(|r| r.outcome == done));
            assert_eq!(replies.iter().map(|r| r.repeated).collect::<Vec<_>>(), [false, true]);
        }
    }

    #[test]
    fn an_undo_without_a_do_has_no_effect_and_blocks_the_late_do() {
        let (replies, effects) =
            deliver(&[vec![command(1, Op::Undo)], vec![command(1, Op::Do), command(1, Op::Undo)]], &Outcome::done());
        assert!(effects.is_empty());
        assert_eq!(replies[0].outcome, Outcome::done());
        assert!(matches!(&replies[1].outcome, Outcome::Refused(r) if r.code == UNDONE_BEFORE_DO));
        assert_eq!(replies[2].outcome, Outcome::done());
    }

    #[test]
    fn an_undo_after_a_do_takes_effect_once() {
        let (_, effects) =
            deliver(&[vec![command(1, Op::Do), command(1, Op::Undo)], vec![command(1, Op::Undo)]], &Outcome::done());
        assert_eq!(effects, [(1, Op::Do), (1, Op::Undo)]);
    }

    #[test]
    fn what_is_not_final_is_not_stored() {
        let retry = Outcome::Retry("busy".into());
        let (_, effects) = deliver(&[vec![command(1, Op::Do)], vec![command(1, Op::Do)]], &retry);
        assert_eq!(effects.len(), 2);
    }

    #[test]
    fn what_is_forgotten_has_no_effect_and_no_answer_and_what_is_still_there_is_answered() {
        let mark = crate::Watermark { definition: "purchase".into(), up_to: 2 };
        let mut of_another = command(1, Op::Do);
        of_another.saga = SagaKey::new("refund", 1);
        let batch = [command(1, Op::Do), command(2, Op::Undo), command(2, Op::Do), command(3, Op::Do), of_another];
        let there = BarrierRow { key: BarrierKey::of(&command(2, Op::Do)), outcome: Outcome::done() };
        let mut effects = vec![];
        let out = run(&batch, vec![there], &Marks::from_iter([mark]), |c| {
            effects.push(c.saga.clone());
            Ok::<_, Infallible>(Outcome::done())
        })
        .unwrap();
        assert_eq!(effects, [SagaKey::new("purchase", 3), SagaKey::new("refund", 1)]);
        let answered: Vec<_> = out.replies.iter().map(|r| (r.saga.id, r.op)).collect();
        assert_eq!(answered, [(2, Op::Do), (3, Op::Do), (1, Op::Do)]);
        assert_eq!(out.new_rows.len(), 2, "a forgotten undo blocks nothing");
    }

    #[test]
    fn sagas_of_two_definitions_with_one_id_never_meet() {
        let mut other = command(1, Op::Do);
        other.saga = SagaKey::new("refund", 1);
        let (_, effects) = deliver(&[vec![command(1, Op::Do), other]], &Outcome::done());
        assert_eq!(effects.len(), 2);
    }
}
