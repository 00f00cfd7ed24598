//! What was counted. A purchase is *pending* from its 202 to its terminal event, wherever that is learned.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::mix::Kind;

/// Kinds of error that are told apart; the rest are counted together.
const ERROR_KINDS: usize = 32;

/// How a purchase ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Completed,
    Compensated,
}

/// A purchase that was acknowledged and has not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    /// When it was due.
    pub(crate) due: Instant,
    /// Whose: an index of the market's users.
    pub(crate) user: usize,
    /// How it is meant to end.
    pub(crate) kind: Kind,
}

/// The counts.
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) completed: u64,
    pub(crate) compensated: u64,
    /// Ended otherwise than the mix meant.
    pub(crate) unexpected: u64,
    /// 429 and 503 answers; each was tried again after its `Retry-After`.
    pub(crate) busy: u64,
    /// Posts that got no lawful answer.
    pub(crate) errors: u64,
    pub(crate) error_kinds: BTreeMap<String, u64>,
    /// Ends that were not told by a stream but asked for.
    pub(crate) swept: u64,
    pub(crate) pending: HashMap<u64, Pending>,
    /// Ends that were told before the 202 was read.
    early: HashMap<u64, (End, Instant)>,
    /// From due to terminal, in µs.
    pub(crate) e2e: Histogram<u64>,
    /// From due to 202, in µs.
    pub(crate) accept: Histogram<u64>,
    /// Streams that are open.
    pub(crate) streams: usize,
    pub(crate) last_end: Option<Instant>,
}

impl Default for Tally {
    fn default() -> Self {
        // One µs to an hour at three digits.
        let histogram = || Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("lawful bounds");
        Self {
            accepted: 0,
            completed: 0,
            compensated: 0,
            unexpected: 0,
            busy: 0,
            errors: 0,
            error_kinds: BTreeMap::new(),
            swept: 0,
            pending: HashMap::new(),
            early: HashMap::new(),
            e2e: histogram(),
            accept: histogram(),
            streams: 0,
            last_end: None,
        }
    }
}

impl Tally {
    /// A 202.
    pub(crate) fn accepted(&mut self, id: u64, pending: Pending, now: Instant) {
        self.accepted += 1;
        self.accept.saturating_record(micros(now - pending.due));
        match self.early.remove(&id) {
            Some((end, at)) => self.end(pending, end, Some(at)),
            None => drop(self.pending.insert(id, pending)),
        }
    }

    /// A terminal event from a stream.
    pub(crate) fn ended(&mut self, id: u64, end: End, now: Instant) {
        match self.pending.remove(&id) {
            Some(pending) => self.end(pending, end, Some(now)),
            None => drop(self.early.insert(id, (end, now))),
        }
    }

    /// A terminal state that was asked for. Its moment is not known, so it has no latency.
    pub(crate) fn found(&mut self, id: u64, end: End) {
        if let Some(pending) = self.pending.remove(&id) {
            self.swept += 1;
            self.end(pending, end, None);
        }
    }

    fn end(&mut self, pending: Pending, end: End, at: Option<Instant>) {
        if let Some(at) = at {
            self.e2e.saturating_record(micros(at - pending.due));
        }
        let meant = match pending.kind {
            Kind::Ok => End::Completed,
            Kind::Stock | Kind::Declined => End::Compensated,
        };
        self.unexpected += u64::from(end != meant);
        match end {
            End::Completed => self.completed += 1,
            End::Compensated => self.compensated += 1,
        }
        self.last_end = Some(at.unwrap_or_else(Instant::now).max(self.last_end.unwrap_or(pending.due)));
    }

    /// A post without a lawful answer.
    pub(crate) fn error(&mut self, kind: String) {
        self.errors += 1;
        let known = self.error_kinds.len() < ERROR_KINDS || self.error_kinds.contains_key(&kind);
        *self.error_kinds.entry(if known { kind } else { "other".to_owned() }).or_default() += 1;
    }

    /// Purchases that have ended.
    pub(crate) fn done(&self) -> u64 {
        self.completed + self.compensated
    }

    /// A line for people, and what it counted from.
    pub(crate) fn progress(&self, elapsed: Duration, (accepted, done): (u64, u64)) -> (String, (u64, u64)) {
        let line = format!(
            "{:>4} s  accepted {} (+{}/s)  ended {} (+{}/s)  on their way {}  busy {}  errors {}  p50 {:.1} ms  p99 {:.1} ms",
            elapsed.as_secs(),
            self.accepted,
            self.accepted - accepted,
            self.done(),
            self.done() - done,
            self.pending.len(),
            self.busy,
            self.errors,
            quantile_ms(&self.e2e, 0.5),
            quantile_ms(&self.e2e, 0.99),
        );
        (line, (self.accepted, self.done()))
    }
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// A quantile in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a latency of an hour has 32 bits of µs")]
pub(crate) fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pending(kind: Kind) -> Pending {
        Pending { due: Instant::now(), user: 0, kind }
    }

    #[test]
    fn an_end_that_is_told_before_the_202_counts_once() {
        let mut tally = Tally::default();
        let purchase = pending(Kind::Ok);
        tally.ended(7, End::Completed, purchase.due + 5 * MS);
        assert_eq!(tally.done(), 0);
        tally.accepted(7, purchase, purchase.due + 10 * MS);
        assert_eq!((tally.accepted, tally.completed, tally.pending.len()), (1, 1, 0));
        // Its latency ends with the event, not with the 202.
        assert!((4.9..5.1).contains(&quantile_ms(&tally.e2e, 0.5)));
    }

    #[test]
    fn latency_counts_from_the_moment_a_purchase_was_due() {
        let mut tally = Tally::default();
        let purchase = pending(Kind::Ok);
        tally.accepted(1, purchase, purchase.due + 2_000 * MS);
        assert!(quantile_ms(&tally.accept, 0.5) > 1_990.0);
    }

    #[test]
    fn an_end_that_the_mix_did_not_mean_is_told() {
        let mut tally = Tally::default();
        let purchase = pending(Kind::Declined);
        tally.accepted(1, purchase, purchase.due + MS);
        tally.ended(1, End::Completed, purchase.due + 2 * MS);
        assert_eq!((tally.completed, tally.unexpected), (1, 1));
    }

    #[test]
    fn what_is_swept_has_no_latency() {
        let mut tally = Tally::default();
        let purchase = pending(Kind::Stock);
        tally.accepted(1, purchase, purchase.due + MS);
        tally.found(1, End::Compensated);
        tally.found(1, End::Compensated);
        assert_eq!((tally.compensated, tally.swept, tally.unexpected, tally.e2e.len()), (1, 1, 0, 0));
    }
}
