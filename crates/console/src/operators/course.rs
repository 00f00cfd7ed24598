//! What became of each step of a saga, there and back: a fold over its history, as the admin API tells it. Pure.
//!
//! What a newer orchestrator writes and this fold does not know is passed over; its text is in the history in any case.

use serde_json::Value;

use crate::words::Badge;

/// A saga's steps and how long all of it took.
#[derive(Default, Debug)]
pub(super) struct Course {
    pub(super) steps: Vec<Step>,
    /// In ms since the epoch.
    pub(super) begun: Option<u64>,
    /// The last event's moment.
    pub(super) last: u64,
}

/// A step.
#[derive(Clone, Default, Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) after: Vec<String>,
    /// Whether it can be taken back at all.
    pub(super) undoable: bool,
    pub(super) forth: Part,
    pub(super) back: Part,
}

/// What became of a command.
#[derive(Clone, Default, Debug)]
pub(super) struct Part {
    pub(super) state: State,
    /// Every sending, in ms since the epoch.
    pub(super) sent: Vec<u64>,
    pub(super) ended: Option<u64>,
    /// Why, where it is not simply done.
    pub(super) detail: String,
    /// What it told when it was done.
    pub(super) output: Option<Value>,
    /// How long the last command waited at the participant, and how long it ran there, in ms.
    pub(super) queue_ms: Option<u64>,
    pub(super) run_ms: Option<u64>,
    /// When it is sent again.
    pub(super) due: Option<u64>,
}

/// How a command stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum State {
    #[default]
    Waiting,
    Out,
    Delayed,
    Done,
    Refused,
    Stuck,
    Skipped,
}

impl State {
    /// How a do is shown.
    pub(super) fn forth(self) -> Badge {
        let (class, icon, word) = match self {
            State::Waiting => ("idle", "○", "waiting"),
            State::Out => ("busy", "▶", "sent"),
            State::Delayed => ("warn", "↻", "tried again"),
            State::Done => ("good", "✓", "done"),
            State::Refused => ("bad", "✕", "refused"),
            State::Stuck => ("bad", "!", "stuck"),
            State::Skipped => ("warn", "»", "skipped"),
        };
        Badge { class, icon, word }
    }

    /// How an undo is shown.
    pub(super) fn back(self) -> Badge {
        match self {
            State::Waiting => Badge { class: "idle", icon: "·", word: "not needed" },
            State::Out => Badge { class: "back", icon: "◀", word: "sent" },
            State::Done => Badge { class: "undone", icon: "↺", word: "undone" },
            other => other.forth(),
        }
    }
}

impl Course {
    /// Of what `GET /admin/sagas/{id}` tells, and the steps of its definition, in their order.
    pub(super) fn of(saga: &Value, definition: Option<&Value>) -> Self {
        let mut course = Self::default();
        for step in definition.and_then(|d| d["steps"].as_array()).into_iter().flatten() {
            course.steps.push(Step {
                name: text(step, "name"),
                kind: text(step, "kind"),
                after: strings(&step["after"]),
                undoable: step["undo"].is_string(),
                ..Step::default()
            });
        }
        for transition in saga["history"].as_array().into_iter().flatten() {
            for event in transition["events"].as_array().into_iter().flatten() {
                if let Some((kind, told)) = event.as_object().and_then(|event| event.iter().next()) {
                    course.fold(kind, told);
                }
            }
        }
        for told in saga["steps"].as_array().into_iter().flatten() {
            course.complete(told);
        }
        course
    }

    /// What the API knows beyond the history: kinds, order, and how long commands waited and ran.
    fn complete(&mut self, told: &Value) {
        let name = text(told, "name");
        let step = self.step(&name);
        if step.kind.is_empty() {
            step.kind = text(told, "kind");
            step.after = strings(&told["after"]);
        }
        for (part, told) in [(&mut step.forth, &told["do"]), (&mut step.back, &told["undo"])] {
            part.queue_ms = told["queue_ms"].as_u64();
            part.run_ms = told["run_ms"].as_u64();
            step.undoable = step.undoable || told.is_object();
        }
    }

    fn step(&mut self, name: &str) -> &mut Step {
        let at = self.steps.iter().position(|step| step.name == name).unwrap_or_else(|| {
            self.steps.push(Step { name: name.to_owned(), ..Step::default() });
            self.steps.len() - 1
        });
        &mut self.steps[at]
    }

    fn part(&mut self, told: &Value) -> &mut Part {
        let back = told["op"] == "undo";
        let step = self.step(told["step"].as_str().unwrap_or("?"));
        if back { &mut step.back } else { &mut step.forth }
    }

    fn fold(&mut self, kind: &str, told: &Value) {
        let at = told["at"].as_u64().unwrap_or(self.last);
        self.begun = self.begun.or(Some(at));
        self.last = self.last.max(at);
        let due = told["due"].as_u64();
        match kind {
            "step_started" => self.step(&text(told, "step")).forth.send(at, due),
            "undo_started" => self.step(&text(told, "step")).back.send(at, due),
            "step_repeated" => self.part(told).send(at, due),
            "step_completed" => {
                let part = &mut self.step(&text(told, "step")).forth;
                part.end(State::Done, at, String::new());
                part.output = told.get("output").filter(|output| !output.is_null()).cloned();
            }
            "step_refused" => {
                let refusal = &told["refusal"];
                let detail = format!("{}: {}", text(refusal, "code"), text(refusal, "detail"));
                self.step(&text(told, "step")).forth.end(State::Refused, at, detail);
            }
            "step_delayed" => {
                let part = self.part(told);
                part.state = State::Delayed;
                part.detail = text(told, "detail");
                part.due = due;
            }
            "step_stuck" => self.part(told).end(State::Stuck, at, text(told, "detail")),
            "step_undone" => self.step(&text(told, "step")).back.end(State::Done, at, String::new()),
            "skipped" => {
                let detail = format!("by {}: {}", text(told, "actor"), text(told, "reason"));
                self.part(told).end(State::Skipped, at, detail);
            }
            _ => {}
        }
    }

    /// How many undos there are to show.
    pub(super) fn goes_back(&self) -> bool {
        self.steps.iter().any(|step| step.back.state != State::Waiting)
    }
}

impl Part {
    fn send(&mut self, at: u64, due: Option<u64>) {
        self.state = State::Out;
        self.sent.push(at);
        self.ended = None;
        self.due = due;
    }

    fn end(&mut self, state: State, at: u64, detail: String) {
        self.state = state;
        self.ended = Some(at);
        self.due = None;
        if !detail.is_empty() {
            self.detail = detail;
        }
    }

    pub(super) fn attempts(&self) -> usize {
        self.sent.len()
    }
}

pub(super) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A purchase that was declined after a repeat, and is being taken back.
    pub(crate) fn declined() -> (Value, Value) {
        let definition = json!({ "steps": [
            { "name": "stock", "kind": "compensatable", "undo": "x", "after": [] },
            { "name": "pay", "kind": "pivot", "undo": "y", "after": ["stock"] },
            { "name": "confirm", "kind": "retriable", "undo": null, "after": ["pay"] },
        ] });
        let saga = json!({
            "history": [
                { "events": [{ "started": { "at": 100 } }, { "step_started": { "step": "stock", "due": 200, "at": 100 } }] },
                { "events": [{ "step_completed": { "step": "stock", "output": { "kept": 1 }, "at": 110 } }, { "step_started": { "step": "pay", "due": 210, "at": 110 } }] },
                { "events": [{ "step_repeated": { "step": "pay", "op": "do", "attempt": 2, "due": 310, "at": 210 } }] },
                { "events": [{ "step_refused": { "step": "pay", "refusal": { "code": "payment_declined", "detail": "no" }, "at": 230 } }, { "compensation_begun": { "at": 230 } }, { "undo_started": { "step": "stock", "due": 330, "at": 230 } }] },
                { "events": [{ "something_new": { "at": 240 } }] },
            ],
            "steps": [{ "name": "stock", "do": { "queue_ms": 3, "run_ms": 5 }, "undo": null }],
        });
        (saga, definition)
    }

    #[test]
    fn a_history_tells_what_became_of_each_step_there_and_back() {
        let (saga, definition) = declined();
        let course = Course::of(&saga, Some(&definition));
        let states: Vec<_> = course.steps.iter().map(|s| (s.name.as_str(), s.forth.state, s.back.state)).collect();
        let expected = [
            ("stock", State::Done, State::Out),
            ("pay", State::Refused, State::Waiting),
            ("confirm", State::Waiting, State::Waiting),
        ];
        assert_eq!(states, expected);
        assert_eq!(
            (course.steps[1].forth.attempts(), course.steps[1].forth.detail.as_str()),
            (2, "payment_declined: no")
        );
        assert_eq!((course.steps[0].forth.queue_ms, course.steps[0].forth.run_ms), (Some(3), Some(5)));
        assert_eq!((course.begun, course.last, course.goes_back()), (Some(100), 240, true));
    }

    #[test]
    fn what_is_stuck_and_skipped_is_told_with_its_reason() {
        let saga = json!({ "history": [{ "events": [
            { "step_started": { "step": "pay", "due": 2, "at": 1 } },
            { "step_delayed": { "step": "pay", "op": "do", "detail": "later", "due": 3, "at": 2 } },
            { "step_stuck": { "step": "pay", "op": "do", "detail": "no answer", "at": 4 } },
        ] }] });
        let course = Course::of(&saga, None);
        assert_eq!((course.steps[0].forth.state, course.steps[0].forth.detail.as_str()), (State::Stuck, "no answer"));
    }
}
