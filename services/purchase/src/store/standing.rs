//! How result events and a wish to cancel change a row: the same on every database. Pure.

use saga_core::Name;
use saga_core::protocol::ResultStatus;

use super::{Applied, Group, Row};
use crate::domain::Status;
use crate::results::{self, CorruptResults};

/// What a batch of events needs of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) customer_id: u64,
    pub(super) status: Status,
    pub(super) last_seq: u32,
    pub(super) results: String,
    /// JSON.
    pub(super) reason: Option<String>,
}

/// What is to be written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Change {
    Nothing,
    Progress,
    End,
}

impl Standing {
    /// Applies what follows the last number without a gap. Where the row makes no sense it is left alone.
    pub(super) fn apply(&mut self, group: &Group) -> Result<(Applied, Change), serde_json::Error> {
        let mut next = self.clone();
        let duplicates = group.events.iter().take_while(|event| event.seq <= next.last_seq).count();
        // Ascending and each once: what follows without a gap is a run from here on. Nothing follows the terminal one.
        let mut run = 0;
        for event in &group.events[duplicates..] {
            if event.seq != next.last_seq + 1 || next.status.is_terminal() {
                break;
            }
            next.status = next.status.after(event.status, event.terminal);
            next.last_seq = event.seq;
            if let Some(reason) = &event.reason {
                next.reason = Some(serde_json::to_string(reason)?);
            }
            run += 1;
        }
        let fresh = duplicates..duplicates + run;
        let rest = group.events.len() - fresh.end;
        let ended = next.status.is_terminal() && !self.status.is_terminal();
        let mut change = Change::Nothing;
        if run > 0 {
            if let Err(corrupt) = results::append(&mut next.results, &group.events[fresh.clone()]) {
                return Ok((Applied::Corrupt(corrupt.to_string()), Change::Nothing));
            }
            change = if ended { Change::End } else { Change::Progress };
        }
        let over = next.status.is_terminal();
        let applied = Applied::Known {
            customer_id: next.customer_id,
            status: next.status,
            fresh,
            duplicates: duplicates + if over { rest } else { 0 },
            gap: rest > 0 && !over,
            ended,
        };
        *self = next;
        Ok((applied, change))
    }
}

/// Whether a purchase cannot be cancelled any more: it has ended, or `pivot` has succeeded.
pub(super) fn is_too_late(row: &Row, pivot: Option<&Name>) -> Result<bool, CorruptResults> {
    let entries = results::parse(&row.results)?;
    let decided = |step: &Name| entries.iter().any(|e| *step == e.step && e.status == ResultStatus::Success);
    Ok(row.status.is_terminal() || pivot.is_some_and(decided))
}
