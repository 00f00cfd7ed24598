//! The result of a run, for programs and for people.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::Run;
use super::tally::quantile_ms;

/// What a run measured. Rates: accepted over the time of posting; completed and compensated over the time until the last
/// purchase was terminal. Latencies count from the moment a purchase was due.
#[derive(Debug, Serialize)]
pub struct Report {
    /// 202 answers a second.
    pub accepted_per_s: f64,
    /// Purchases that ended COMPLETED, a second.
    pub completed_per_s: f64,
    /// Purchases that ended COMPENSATED, a second.
    pub compensated_per_s: f64,
    /// Due to terminal.
    pub e2e_p50_ms: f64,
    /// Due to terminal.
    pub e2e_p99_ms: f64,
    /// Due to terminal.
    pub e2e_max_ms: f64,
    /// Due to 202.
    pub accept_p50_ms: f64,
    /// Due to 202.
    pub accept_p99_ms: f64,
    /// Posts without a lawful answer.
    pub errors: u64,
    /// Acknowledged, and not terminal in the end.
    pub lost: u64,
    /// Ended otherwise than the mix meant.
    pub unexpected: u64,
    /// 202 answers.
    pub accepted: u64,
    /// Purchases that ended COMPLETED.
    pub completed: u64,
    /// Purchases that ended COMPENSATED.
    pub compensated: u64,
    /// 429 and 503 answers.
    pub busy: u64,
    /// Ends that no stream told; they have no latency.
    pub swept: u64,
    /// How long was posted.
    pub posting_s: f64,
    /// From the first post to the last end.
    pub total_s: f64,
    /// Connections.
    pub clients: u32,
    /// What went wrong, how often.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub error_kinds: BTreeMap<String, u64>,
    /// What `saga check` said, if it could be asked.
    pub check: Option<Value>,
}

impl Report {
    pub(crate) fn of(run: &Run, posting: Duration) -> Self {
        let tally = run.tally.borrow();
        let total = tally.last_end.map_or(posting, |last| last - run.schedule.start);
        let rate = |count: u64, over: Duration| round(as_f64(count) / over.as_secs_f64().max(0.001));
        Self {
            accepted_per_s: rate(tally.accepted, posting),
            completed_per_s: rate(tally.completed, total),
            compensated_per_s: rate(tally.compensated, total),
            e2e_p50_ms: quantile_ms(&tally.e2e, 0.5),
            e2e_p99_ms: quantile_ms(&tally.e2e, 0.99),
            e2e_max_ms: quantile_ms(&tally.e2e, 1.0),
            accept_p50_ms: quantile_ms(&tally.accept, 0.5),
            accept_p99_ms: quantile_ms(&tally.accept, 0.99),
            errors: tally.errors,
            lost: tally.pending.len() as u64,
            unexpected: tally.unexpected,
            accepted: tally.accepted,
            completed: tally.completed,
            compensated: tally.compensated,
            busy: tally.busy,
            swept: tally.swept,
            posting_s: round(posting.as_secs_f64()),
            total_s: round(total.as_secs_f64()),
            clients: run.args.clients,
            error_kinds: tally.error_kinds.clone(),
            check: None,
        }
    }

    /// Whether the books balance, as far as they were checked.
    pub fn balanced(&self) -> bool {
        self.check.as_ref().is_none_or(|check| check["violations"] == 0)
    }

    /// Whether nothing was lost and every purchase ended as it was meant to.
    pub fn sound(&self) -> bool {
        self.lost == 0 && self.unexpected == 0 && self.accepted > 0 && self.balanced()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accepted      {:>10}  {:>9.1}/s over {:.1} s",
            self.accepted, self.accepted_per_s, self.posting_s
        )?;
        writeln!(
            f,
            "completed     {:>10}  {:>9.1}/s over {:.1} s",
            self.completed, self.completed_per_s, self.total_s
        )?;
        writeln!(f, "compensated   {:>10}  {:>9.1}/s", self.compensated, self.compensated_per_s)?;
        let (p50, p99, max) = (self.e2e_p50_ms, self.e2e_p99_ms, self.e2e_max_ms);
        writeln!(f, "to the end    p50 {p50:.1} ms   p99 {p99:.1} ms   max {max:.1} ms")?;
        writeln!(f, "to the 202    p50 {:.1} ms   p99 {:.1} ms", self.accept_p50_ms, self.accept_p99_ms)?;
        writeln!(f, "lost          {:>10}", self.lost)?;
        writeln!(f, "unexpected    {:>10}", self.unexpected)?;
        writeln!(
            f,
            "errors        {:>10}   busy answers {}   asked for at the end {}",
            self.errors, self.busy, self.swept
        )?;
        for (kind, count) in &self.error_kinds {
            writeln!(f, "  {count} × {kind}")?;
        }
        match &self.check {
            None => write!(f, "books         not checked"),
            Some(check) if check["violations"] == 0 => write!(f, "books         balance"),
            Some(check) => {
                write!(f, "books         DO NOT BALANCE: {} violations; see `saga check`", check["violations"])
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
