//! When a saga's commands were sent, how long they waited and how long they ran: bars on one line of time.

use super::course::{Course, Part, State};
use crate::words::{self, Badge};

const WIDTH: u32 = 1140;
const LABEL: u32 = 210;
const ROW: u32 = 26;
const TOP: u32 = 26;
const RIGHT: u32 = 70;
/// A bar of nothing can be seen, too.
const THIN: u32 = 3;
/// Marks along the top.
const TICKS: u64 = 4;

#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rows: Vec<Row>,
    pub(super) ticks: Vec<Tick>,
    /// Whether participants have told how long commands waited.
    pub(super) has_queues: bool,
}

/// A command.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) label: String,
    pub(super) badge: Badge,
    /// Where the text stands.
    pub(super) text_y: u32,
    pub(super) bar_y: u32,
    pub(super) x: u32,
    pub(super) width: u32,
    /// Of which at the left: waiting.
    pub(super) queue_width: u32,
    /// Later sendings.
    pub(super) again: Vec<u32>,
    pub(super) took_x: u32,
    pub(super) took: String,
    /// For the table.
    pub(super) sent: String,
    pub(super) ended: String,
    pub(super) attempts: usize,
    pub(super) queue: String,
    pub(super) run: String,
    pub(super) detail: String,
    pub(super) output: String,
}

#[derive(Debug)]
pub(super) struct Tick {
    pub(super) x: u32,
    pub(super) text: String,
}

impl Timeline {
    /// `now` ends what has not ended.
    pub(super) fn of(course: &Course, now: u64) -> Self {
        let begun = course.begun.unwrap_or(now);
        let mut parts: Vec<(String, &Part, Badge)> = Vec::new();
        for step in &course.steps {
            if !step.forth.sent.is_empty() {
                parts.push((format!("do {}", step.name), &step.forth, step.forth.state.forth()));
            }
        }
        let mut back: Vec<_> = course.steps.iter().filter(|step| !step.back.sent.is_empty()).collect();
        back.sort_by_key(|step| step.back.sent.first().copied());
        // Sent in the same millisecond: from the right.
        for step in back {
            parts.push((format!("undo {}", step.name), &step.back, step.back.state.back()));
        }
        let open = parts.iter().any(|(_, part, _)| part.ended.is_none());
        let end = if open { now.max(course.last) } else { course.last }.max(begun + 1);
        let scale = Scale { begun, span: end - begun };
        let rows: Vec<Row> = (0_u32..).zip(parts).map(|(at, part)| row(&scale, at, part, end)).collect();
        let ticks = (0..=TICKS).map(|tick| {
            let at = scale.span * tick / TICKS;
            Tick { x: scale.x(begun + at), text: words::span(at) }
        });
        Self {
            width: WIDTH,
            height: TOP + ROW * u32::try_from(rows.len()).unwrap_or(0) + 4,
            has_queues: rows.iter().any(|row| !row.queue.is_empty()),
            ticks: ticks.collect(),
            rows,
        }
    }
}

struct Scale {
    begun: u64,
    span: u64,
}

impl Scale {
    fn x(&self, at: u64) -> u32 {
        LABEL + self.width(at.saturating_sub(self.begun))
    }

    fn width(&self, ms: u64) -> u32 {
        let room = u64::from(WIDTH - LABEL - RIGHT);
        u32::try_from(ms.min(self.span).saturating_mul(room) / self.span).unwrap_or(0)
    }
}

fn row(scale: &Scale, at: u32, (label, part, badge): (String, &Part, Badge), end: u64) -> Row {
    let first = part.sent.first().copied().unwrap_or(scale.begun);
    let last = part.ended.unwrap_or(end).max(first);
    let x = scale.x(first);
    let width = scale.width(last - first).max(THIN);
    let queue_width = part.queue_ms.map_or(0, |ms| scale.width(ms)).min(width);
    let top = TOP + at * ROW;
    let span = |ms: Option<u64>| ms.map(words::span).unwrap_or_default();
    let open = if part.ended.is_none() && part.state != State::Waiting { " so far" } else { "" };
    Row {
        label,
        badge,
        text_y: top + 16,
        bar_y: top + 5,
        x,
        width,
        queue_width,
        again: part.sent.iter().skip(1).map(|sent| scale.x(*sent)).collect(),
        took_x: x + width + 6,
        took: words::span(last - first),
        sent: words::clock(first),
        ended: part.ended.map_or_else(|| format!("—{open}"), words::clock),
        attempts: part.attempts(),
        queue: span(part.queue_ms),
        run: span(part.run_ms),
        detail: match part.due {
            Some(due) if part.state == State::Delayed => format!("{} (next at {})", part.detail, words::clock(due)),
            _ => part.detail.clone(),
        },
        output: part.output.as_ref().map(words::pretty).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::course::tests::declined;
    use super::*;

    #[test]
    fn bars_stand_where_their_commands_were_out() {
        let (saga, definition) = declined();
        let timeline = Timeline::of(&Course::of(&saga, Some(&definition)), 260);
        let labels: Vec<_> = timeline.rows.iter().map(|row| row.label.as_str()).collect();
        assert_eq!(labels, ["do stock", "do pay", "undo stock"]);
        // 160 ms are as wide as there is room: what took 10 ms begins at the left, the repeat after 110 ms is marked.
        let room = WIDTH - LABEL - RIGHT;
        assert_eq!((timeline.rows[0].x, timeline.rows[0].width), (LABEL, room * 10 / 160));
        assert_eq!(timeline.rows[1].again, [LABEL + room * 110 / 160]);
        assert_eq!(timeline.rows[2].took, "30 ms", "still out");
        assert!(timeline.has_queues && timeline.rows[0].queue == "3 ms" && timeline.rows[0].run == "5 ms");
    }

    #[test]
    fn a_saga_without_any_step_has_a_line_without_bars() {
        assert!(Timeline::of(&Course::default(), 5).rows.is_empty());
    }
}
