//! A saga's steps as a picture: boxes from left to right in the order in which they depend on each other, the way there above,
//! the way back below. Here is where everything stands; the template draws it.
//!
//! ```text
//!   do     [stock]──►[order]──►[pay]──►[confirm]
//!             ▲         ▲
//!   undo   [stock]◄──[order]
//! ```

use super::course::{Course, State, Step};
use crate::words::Badge;

const WIDTH: u32 = 212;
const HEIGHT: u32 = 62;
const GAP: u32 = 40;
const ROW_GAP: u32 = 16;
/// Left of everything: the names of the lanes.
const LANE: u32 = 52;
const MARGIN: u32 = 6;
/// Between the lanes.
const BETWEEN: u32 = 34;
/// Characters that fit into a box.
const FITS: usize = 25;

/// The picture.
#[derive(Debug)]
pub(super) struct Diagram {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) boxes: Vec<Boxed>,
    pub(super) arrows: Vec<Arrow>,
    /// Where the lanes' names stand; the second only where there is a way back.
    pub(super) lane_do: u32,
    pub(super) lane_undo: Option<u32>,
    /// The same in a sentence.
    pub(super) said: String,
}

/// A command.
#[derive(Debug)]
pub(super) struct Boxed {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) name: String,
    pub(super) whole: String,
    pub(super) kind: String,
    /// How it stands with it; a definition alone does not say.
    pub(super) badge: Option<Badge>,
    pub(super) attempts: usize,
    /// Where the texts begin.
    pub(super) left: u32,
    pub(super) line1: u32,
    pub(super) line2: u32,
    pub(super) line3: u32,
    pub(super) pivot: bool,
}

/// From box to box.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) path: String,
    pub(super) class: &'static str,
}

/// What is drawn of a saga; of a definition alone every undo there may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    Saga,
    Definition,
}

pub(super) const BOX_WIDTH: u32 = WIDTH;
pub(super) const BOX_HEIGHT: u32 = HEIGHT;

impl Diagram {
    pub(super) fn of(course: &Course, shows: Shows) -> Self {
        let places = places(&course.steps);
        let (columns, rows) = places.iter().fold((0, 0), |(c, r), (column, row)| (c.max(column + 1), r.max(row + 1)));
        let lane_height = rows * HEIGHT + rows.saturating_sub(1) * ROW_GAP;
        let has_back = match shows {
            Shows::Saga => course.goes_back(),
            Shows::Definition => course.steps.iter().any(|step| step.undoable),
        };
        let undo_top = MARGIN + lane_height + BETWEEN;
        let at = |(column, row): (u32, u32), top: u32| (LANE + column * (WIDTH + GAP), top + row * (HEIGHT + ROW_GAP));
        let (mut boxes, mut arrows) = (Vec::new(), Vec::new());
        for (step, place) in course.steps.iter().zip(&places) {
            let here = at(*place, MARGIN);
            let stands = |badge: Badge| (shows == Shows::Saga).then_some(badge);
            boxes.push(boxed(step, here, stands(step.forth.state.forth()), step.forth.attempts()));
            for before in &step.after {
                let Some(from) = course.steps.iter().position(|other| other.name == *before) else { continue };
                let class = if step.forth.state == State::Waiting { "arrow" } else { "arrow went" };
                arrows.push(forward(at(places[from], MARGIN), here, class));
            }
            let back = match shows {
                Shows::Saga => step.back.state != State::Waiting,
                Shows::Definition => step.undoable,
            };
            if has_back && back {
                let below = at(*place, undo_top);
                boxes.push(boxed(step, below, stands(step.back.state.back()), step.back.attempts()));
                arrows.push(turn(here, below));
            }
        }
        if shows == Shows::Saga {
            arrows.extend(ways_back(course, &places, |place| at(place, undo_top)));
        }
        let bottom = if has_back { undo_top + lane_height } else { MARGIN + lane_height };
        Self {
            width: LANE + columns * WIDTH + columns.saturating_sub(1) * GAP + MARGIN,
            height: bottom + MARGIN,
            boxes,
            arrows,
            lane_do: MARGIN + 20,
            lane_undo: has_back.then_some(undo_top + 20),
            said: said(course, shows),
        }
    }
}

/// Column and row of each step: a step stands right of everything it waits for.
fn places(steps: &[Step]) -> Vec<(u32, u32)> {
    let mut columns: Vec<u32> = vec![0; steps.len()];
    // A definition is checked to have no circles; as many rounds as steps reach the end of any chain.
    for _ in 0..steps.len() {
        for (at, step) in steps.iter().enumerate() {
            let before = step.after.iter().filter_map(|name| steps.iter().position(|other| other.name == *name));
            columns[at] = before.map(|before| columns[before] + 1).max().unwrap_or(0).min(steps.len() as u32);
        }
    }
    let mut used = vec![0_u32; steps.len() + 2];
    columns
        .into_iter()
        .map(|column| {
            let row = used[column as usize];
            used[column as usize] += 1;
            (column, row)
        })
        .collect()
}

fn boxed(step: &Step, (x, y): (u32, u32), badge: Option<Badge>, attempts: usize) -> Boxed {
    let short: String = step.name.chars().take(FITS).collect();
    let name = if step.name.chars().count() > FITS { format!("{}…", short.trim_end()) } else { short };
    Boxed {
        x,
        y,
        name,
        whole: step.name.clone(),
        kind: step.kind.clone(),
        badge,
        attempts,
        left: x + 12,
        line1: y + 20,
        line2: y + 37,
        line3: y + 53,
        pivot: step.kind == "pivot",
    }
}

fn forward(from: (u32, u32), to: (u32, u32), class: &'static str) -> Arrow {
    let (x1, y1) = (from.0 + WIDTH, from.1 + HEIGHT / 2);
    let (x2, y2) = (to.0 - 5, to.1 + HEIGHT / 2);
    let middle = (x1 + x2) / 2;
    let path =
        if y1 == y2 { format!("M{x1} {y1}H{x2}") } else { format!("M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}") };
    Arrow { path, class }
}

/// From a do down to its undo.
fn turn(from: (u32, u32), to: (u32, u32)) -> Arrow {
    let x = from.0 + WIDTH / 2;
    Arrow { path: format!("M{x} {}V{}", from.1 + HEIGHT, to.1 - 5), class: "arrow turn" }
}

/// From undo to undo, in the order in which they were sent.
fn ways_back(course: &Course, places: &[(u32, u32)], at: impl Fn((u32, u32)) -> (u32, u32)) -> Vec<Arrow> {
    let mut sent: Vec<(u64, usize)> = course
        .steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| step.back.sent.first().map(|sent| (*sent, index)))
        .collect();
    // Sent in the same millisecond: from the right.
    sent.sort_by_key(|(sent, index)| (*sent, std::cmp::Reverse(*index)));
    let ways = sent.windows(2).map(|pair| {
        let (from, to) = (at(places[pair[0].1]), at(places[pair[1].1]));
        let (y1, y2) = (from.1 + HEIGHT / 2, to.1 + HEIGHT / 2);
        let (x1, x2) = (from.0, to.0 + WIDTH + 5);
        Arrow { path: format!("M{x1} {y1}L{x2} {y2}"), class: "arrow went" }
    });
    ways.collect()
}

fn said(course: &Course, shows: Shows) -> String {
    let step = |step: &Step| match shows {
        Shows::Definition => format!("{} ({})", step.name, step.kind),
        Shows::Saga if step.back.state == State::Waiting => format!("{}: {}", step.name, step.forth.state.forth().word),
        Shows::Saga => {
            format!("{}: {}, undo {}", step.name, step.forth.state.forth().word, step.back.state.back().word)
        }
    };
    course.steps.iter().map(step).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::course::tests::declined;
    use super::*;

    #[test]
    fn steps_stand_right_of_what_they_wait_for_and_parallel_ones_below_each_other() {
        let step = |name: &str, after: &[&str]| Step {
            name: name.to_owned(),
            after: after.iter().map(|name| (*name).to_owned()).collect(),
            ..Step::default()
        };
        let steps = [step("a", &[]), step("b", &["a"]), step("c", &["a"]), step("d", &["b", "c"])];
        assert_eq!(places(&steps), [(0, 0), (1, 0), (1, 1), (2, 0)]);
        // What cannot be (a circle) is drawn, and drawing ends.
        assert_eq!(places(&[step("a", &["b"]), step("b", &["a"])]).len(), 2);
    }

    #[test]
    fn only_what_is_taken_back_stands_in_the_lower_lane() {
        let (saga, definition) = declined();
        let course = Course::of(&saga, Some(&definition));
        let diagram = Diagram::of(&course, Shows::Saga);
        assert_eq!(diagram.boxes.len(), 4, "three there, one back");
        assert!(diagram.said.contains("stock: done, undo sent; pay: refused"), "{}", diagram.said);
        let of_definition = Diagram::of(&Course::of(&serde_json::Value::Null, Some(&definition)), Shows::Definition);
        assert_eq!(of_definition.boxes.len(), 5, "three there, two that could go back");
        assert!(of_definition.boxes.iter().all(|one| one.badge.is_none()), "it waits for nothing");
        assert!(diagram.boxes.iter().all(|one| one.badge.is_some()));
    }
}
