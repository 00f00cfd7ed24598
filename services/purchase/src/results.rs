//! A purchase's result events as they stand in its row, and as they leave for streams.
//!
//! ```text
//!   update-product-inventory E 1795435200000      step, status letter, ms since the epoch
//!   #0 S 4                                         step of line 0 again, ms since the line before
//!   create-payment F 11 {"code":…,"detail":…}      why, where there is a why
//!   purchase R! 9                                  "!": the terminal one
//! ```
//!
//! The line number is the sequence number. Text, because it is read in a database by people; short, because every purchase
//! keeps one for ever; padded with empty lines to a usual length, because rows that grow leave holes in their pages
//! (measured: a tenth of the file).

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use chassis::time::rfc3339;
use saga_core::Millis;
use saga_core::protocol::{Refusal, ResultEvent, ResultStatus};
use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;

use crate::http::{ReasonView, StepStatus};

/// What four steps and an end take up.
const USUAL_LENGTH: usize = 160;

/// A row whose text nobody here wrote.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("line {line} of the results cannot be read: {text:?}")]
pub struct CorruptResults {
    line: usize,
    text: String,
}

/// One event, without what its place tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry<'t> {
    /// Counts from 1.
    pub seq: u32,
    /// The step's name; in the terminal one the definition's.
    pub step: &'t str,
    /// How it stands.
    pub status: ResultStatus,
    /// Whether it is the last one.
    pub terminal: bool,
    /// Why, where there is a why.
    pub reason: Option<Refusal>,
    /// When, in ms since the epoch.
    pub at: Millis,
}

/// The text of a purchase without any event.
pub fn empty() -> String {
    let mut text = String::new();
    pad(&mut text);
    text
}

/// Reads a row's text.
///
/// # Errors
/// When a line is not one of ours.
pub fn parse(text: &str) -> Result<Vec<Entry<'_>>, CorruptResults> {
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(10);
    for (line, row) in text.lines().take_while(|row| !row.is_empty()).enumerate() {
        let entry = parse_line(row, &entries);
        entries.push(entry.ok_or_else(|| CorruptResults { line, text: row.chars().take(100).collect() })?);
    }
    Ok(entries)
}

fn parse_line<'t>(row: &'t str, before: &[Entry<'t>]) -> Option<Entry<'t>> {
    let mut words = row.splitn(4, ' ');
    let (step, status, at, reason) = (words.next()?, words.next()?, words.next()?, words.next());
    let step = match step.strip_prefix('#') {
        Some(line) => before.get(line.parse::<usize>().ok()?)?.step,
        None => step,
    };
    let (status, terminal) = match status.strip_suffix('!') {
        Some(letter) => (letter, true),
        None => (status, false),
    };
    let at: i64 = at.parse().ok()?;
    let at = match before.last() {
        Some(last) => last.at.checked_add_signed(at)?,
        None => u64::try_from(at).ok()?,
    };
    Some(Entry {
        seq: u32::try_from(before.len()).ok()? + 1,
        step,
        status: from_letter(status)?,
        terminal,
        reason: reason.map(serde_json::from_str).transpose().ok()?,
        at,
    })
}

/// Adds events to a row's text. Their numbers follow the last line's.
///
/// # Errors
/// When the text is not one of ours.
pub fn append(text: &mut String, events: &[ResultEvent]) -> Result<(), CorruptResults> {
    text.truncate(text.trim_end_matches('\n').len());
    let stored = std::mem::take(text);
    let mut entries = parse(&stored)?;
    text.reserve(USUAL_LENGTH.max(stored.len() + 64));
    text.push_str(&stored);
    for event in events {
        if !text.is_empty() {
            text.push('\n');
        }
        match entries.iter().position(|entry| event.step == entry.step) {
            Some(line) => _ = write!(text, "#{line}"),
            None => text.push_str(event.step.as_str()),
        }
        let end = if event.terminal { "!" } else { "" };
        let at = match entries.last() {
            Some(last) => i128::from(event.at) - i128::from(last.at),
            None => i128::from(event.at),
        };
        let _ = write!(text, " {}{end} {at}", letter(event.status));
        if let Some(reason) = &event.reason {
            // A JSON string has no line break in it.
            let _ = write!(text, " {}", serde_json::to_string(reason).unwrap_or_default());
        }
        let seq = u32::try_from(entries.len()).unwrap_or(u32::MAX - 1) + 1;
        entries.push(Entry {
            seq,
            step: event.step.as_str(),
            status: event.status,
            terminal: event.terminal,
            reason: None,
            at: event.at,
        });
    }
    pad(text);
    Ok(())
}

fn pad(text: &mut String) {
    let missing = USUAL_LENGTH.saturating_sub(text.len()).max(1);
    text.extend(std::iter::repeat_n('\n', missing));
}

fn letter(status: ResultStatus) -> char {
    match status {
        ResultStatus::Execute => 'E',
        ResultStatus::Success => 'S',
        ResultStatus::Failed => 'F',
        ResultStatus::Rollback => 'R',
        ResultStatus::RollbackFailed => 'X',
    }
}

fn from_letter(text: &str) -> Option<ResultStatus> {
    Some(match text {
        "E" => ResultStatus::Execute,
        "S" => ResultStatus::Success,
        "F" => ResultStatus::Failed,
        "R" => ResultStatus::Rollback,
        "X" => ResultStatus::RollbackFailed,
        _ => return None,
    })
}

/// Whether an event could have come from an engine: what a stream or a row cannot carry is refused at the door.
pub fn is_lawful(event: &ResultEvent, definition: &str) -> bool {
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let step = event.step.as_str();
    let named = (1..=100).contains(&step.len()) && step.bytes().all(name);
    let end = step == definition && matches!(event.status, ResultStatus::Success | ResultStatus::Rollback);
    // Beyond this a signed difference of two times might not fit.
    named && event.seq > 0 && (end || !event.terminal) && event.at < 1 << 60
}

/// The data of an event in a stream.
#[derive(Serialize, ToSchema)]
#[schema(as = PurchaseEvent, example = json!({
    "purchase_id": 4503599627370500_u64,
    "seq": 2,
    "step": "update-product-inventory",
    "status": "SUCCESS",
    "occurred_at": "2026-11-24T08:00:00.009Z",
}))]
pub(crate) struct EventView<'e> {
    purchase_id: u64,
    /// Counts 1, 2, 3, … without gaps.
    seq: u32,
    /// Of the saga; in the last event the saga itself.
    step: &'e str,
    #[schema(value_type = StepStatus)]
    status: ResultStatus,
    /// Whether it is the last one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    terminal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ReasonView, required = false)]
    reason: Option<&'e Refusal>,
    #[schema(format = DateTime)]
    occurred_at: String,
}

impl<'e> From<&'e ResultEvent> for Entry<'e> {
    fn from(event: &'e ResultEvent) -> Self {
        Self {
            seq: event.seq,
            step: event.step.as_str(),
            status: event.status,
            terminal: event.terminal,
            reason: event.reason.clone(),
            at: event.at,
        }
    }
}

impl Entry<'_> {
    /// Writes the event as one of a WHATWG event stream with this `id`. The same event gives the same bytes, live or replayed.
    pub fn render(&self, purchase_id: u64, id: u64, out: &mut BytesMut) {
        let Self { seq, step, status, terminal, at, .. } = *self;
        let reason = self.reason.as_ref();
        let view = EventView { purchase_id, seq, step, status, terminal, reason, occurred_at: rfc3339(at) };
        let data = serde_json::to_string(&view).unwrap_or_default();
        let kind = status.as_str().to_ascii_lowercase();
        // Writing to memory does not fail.
        let _ = write!(out, "id: {id}\nevent: {step}.{kind}\ndata: {data}\n\n");
    }

    /// The event alone; its `id` is its sequence number.
    pub fn frame(&self, purchase_id: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        self.render(purchase_id, u64::from(self.seq), &mut out);
        out.freeze()
    }
}

#[cfg(test)]
mod tests;
