//! Retry arithmetic: exponential, capped, full jitter, and pure.
//!
//! Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015) needs a random number. The engine has
//! none, so the jitter is a hash of what is being retried: the same decision comes out when it is taken again.

use serde::{Deserialize, Serialize};

use crate::key::{Millis, Op, SagaKey};

/// When to try again.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Upper bound of the first wait, in ms.
    pub initial: Millis,
    /// By how much the bound grows with each attempt; at least 1.
    pub factor: f64,
    /// The bound never grows over this, in ms.
    pub max: Millis,
    /// How often a command is sent before the saga is parked as stuck; 0: for ever.
    pub attempts: u32,
}

impl RetryPolicy {
    /// Of a do when nothing is said: quickly at first, then every 30 s, for ever.
    pub const DO: Self = Self { initial: 200, factor: 2.0, max: 30_000, attempts: 0 };
    /// Of an undo when nothing is said: about five minutes, then a human is told.
    pub const UNDO: Self = Self { initial: 200, factor: 2.0, max: 30_000, attempts: 15 };

    /// Whether another sending is allowed after `attempt` of them.
    pub fn exhausted(&self, attempt: u32) -> bool {
        self.attempts != 0 && attempt >= self.attempts
    }

    /// How long to wait after sending number `attempt` (from 1), in ms: from 1 up to [`bound`](Self::bound).
    pub fn backoff(&self, saga: &SagaKey, step: &str, op: Op, attempt: u32) -> Millis {
        let bound = self.bound(attempt).max(1);
        1 + hash(saga, step, op, attempt) % bound
    }

    /// The longest wait after sending number `attempt`, in ms.
    pub fn bound(&self, attempt: u32) -> Millis {
        let mut bound = self.initial.min(self.max);
        for _ in 1..attempt.min(64) {
            if bound >= self.max {
                return self.max;
            }
            bound = grow(bound, self.factor).min(self.max);
        }
        bound
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "float-to-int casts saturate, and both sides are positive milliseconds"
)]
fn grow(bound: Millis, factor: f64) -> Millis {
    (bound as f64 * factor.max(1.0)) as Millis
}

/// FNV-1a, then a final mix (`SplitMix64`'s): spread is all that is asked of it.
fn hash(saga: &SagaKey, step: &str, op: Op, attempt: u32) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |bytes: &[u8]| {
        for b in bytes {
            h = (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    eat(saga.definition.as_str().as_bytes());
    eat(&saga.id.to_le_bytes());
    eat(step.as_bytes());
    eat(op.as_str().as_bytes());
    eat(&attempt.to_le_bytes());
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn backoff_stays_within_its_bound_and_the_bound_within_its_cap(
            initial in 0u64..100_000, max in 1u64..1_000_000, factor in 1.0f64..10.0, attempt in 0u32..10_000, id in 0u64..1 << 53,
        ) {
            let policy = RetryPolicy { initial, factor, max, attempts: 0 };
            let wait = policy.backoff(&SagaKey::new("s", id), "step", Op::Do, attempt);
            prop_assert!(policy.bound(attempt) <= max);
            prop_assert!(policy.bound(attempt) <= policy.bound(attempt + 1));
            prop_assert!(wait >= 1 && wait <= policy.bound(attempt).max(1));
        }
    }

    #[test]
    fn jitter_spreads_over_sagas() {
        let policy = RetryPolicy::DO;
        let waits: std::collections::HashSet<_> =
            (0..1000).map(|id| policy.backoff(&SagaKey::new("s", id), "step", Op::Do, 8)).collect();
        assert!(waits.len() > 900, "{} distinct waits", waits.len());
    }
}
