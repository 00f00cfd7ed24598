//! How those who carry out the steps are: from how far they have read, what is outstanding with them, and what this
//! process saw of their answers.

use std::collections::{BTreeMap, BTreeSet};

use saga_core::{Definition, Millis, Name, Op};
use saga_runtime::bus::GroupReading;
use saga_runtime::store::Awaited;
use saga_runtime::{Definitions, Stats};

/// A command that has been out for longer than this shows a participant that is slow.
pub const SLOW: Millis = 5_000;
/// And for longer than this, one that says nothing any more.
pub const SILENT: Millis = 60_000;
/// More records than this wait only for one that is slow.
pub const MANY: u64 = 1_000;

/// How a participant is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It answers.
    Ok,
    /// It answers late.
    Slow,
    /// It is asked and does not answer, or nobody is there to.
    Silent,
    /// It is not asked.
    Idle,
}

impl Health {
    /// `ok`, `slow`, `silent`, `idle`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Idle => "idle",
        }
    }
}

/// A participant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParticipantReport {
    /// Its consumer group.
    pub group: String,
    /// The topics of its commands.
    pub topics: BTreeSet<Name>,
    /// What its members call themselves.
    pub members: Vec<String>,
    /// Records that wait for it.
    pub waiting: u64,
    /// Sagas that await its answer, and no human.
    pub in_flight: u64,
    /// How long the one of them has been unchanged that has for longest, in ms.
    pub oldest_outstanding_ms: Option<u64>,
    /// When this process last took an answer of its, in ms since the epoch.
    pub last_reply_at: Option<Millis>,
    /// Commands that this process sent it, again and again included.
    pub attempts: u64,
    /// Commands that it did not answer in time.
    pub timeouts: u64,
    /// Commands that it refused.
    pub refusals: u64,
}

impl ParticipantReport {
    /// How it is.
    pub fn health(&self) -> Health {
        let oldest = self.oldest_outstanding_ms.unwrap_or_default();
        let nobody = self.members.is_empty();
        match (self.in_flight, self.waiting) {
            (0, 0) => Health::Idle,
            _ if nobody || (self.in_flight > 0 && oldest >= SILENT) => Health::Silent,
            _ if self.waiting > MANY || oldest >= SLOW => Health::Slow,
            _ => Health::Ok,
        }
    }
}

/// Every group that reads commands, by name.
pub fn participants(
    definitions: &Definitions,
    reading: &[GroupReading],
    awaited: &[Awaited],
    stats: &Stats,
    now: Millis,
) -> Vec<ParticipantReport> {
    let topics = command_topics(definitions);
    let group = |group: &GroupReading| {
        let places: Vec<_> =
            group.places.iter().filter(|place| topics.values().any(|topic| *topic == place.topic)).collect();
        let mut report = ParticipantReport {
            group: group.group.clone(),
            topics: places.iter().map(|place| place.topic.clone()).collect(),
            members: group.members.clone(),
            waiting: places.iter().map(|place| place.waiting).sum(),
            in_flight: 0,
            oldest_outstanding_ms: None,
            last_reply_at: None,
            attempts: 0,
            timeouts: 0,
            refusals: 0,
        };
        outstanding(&mut report, &topics, awaited, now);
        seen(&mut report, &topics, stats);
        report
    };
    let mut all: Vec<ParticipantReport> =
        reading.iter().map(group).filter(|report| !report.topics.is_empty()).collect();
    all.sort_by(|a, b| a.group.cmp(&b.group));
    all
}

/// Definition, step and op to the topic, whichever version says so.
type Topics = BTreeMap<(Name, Name, Op), Name>;

fn command_topics(definitions: &Definitions) -> Topics {
    let mut topics = BTreeMap::new();
    for definition in definitions.all() {
        let definition: &Definition = &definition;
        for step in &definition.steps {
            let of = |op| (definition.name.clone(), step.name.clone(), op);
            topics.insert(of(Op::Do), step.action.clone());
            topics.extend(step.undo.clone().map(|undo| (of(Op::Undo), undo)));
        }
    }
    topics
}

fn outstanding(report: &mut ParticipantReport, topics: &Topics, awaited: &[Awaited], now: Millis) {
    for Awaited { definition, awaiting, count, oldest_at } in awaited {
        let Some((step, op)) = awaiting.rsplit_once('.') else { continue };
        let op = if op == Op::Undo.as_str() { Op::Undo } else { Op::Do };
        let topic = topics.get(&(definition.clone(), Name::new(step), op));
        if topic.is_some_and(|topic| report.topics.contains(topic)) {
            report.in_flight += count;
            let age = now.saturating_sub(*oldest_at);
            report.oldest_outstanding_ms = report.oldest_outstanding_ms.max(Some(age));
        }
    }
}

fn seen(report: &mut ParticipantReport, topics: &Topics, stats: &Stats) {
    for definition in stats.sagas.all() {
        for step in &definition.steps {
            let topic = topics.get(&(definition.name.clone(), step.step.clone(), step.op));
            if topic.is_some_and(|topic| report.topics.contains(topic)) {
                report.attempts += step.attempts.get();
                report.timeouts += step.timeouts.get();
                report.refusals += step.refused.get();
                report.last_reply_at = report.last_reply_at.max(step.answered_at.get());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use saga_runtime::bus::PlaceReading;

    use super::*;

    const TRIP: &str = "
saga: trip
version: 1
steps:
  - { step: hotel, do: book, undo: cancel }
  - { step: pay, kind: pivot }
";

    fn place(topic: &str, waiting: u64) -> PlaceReading {
        PlaceReading { topic: topic.into(), partition: 0, waiting, end: Some(9) }
    }

    fn reports(waiting: u64, members: &[&str], awaited: &[(&str, u64, Millis)]) -> Vec<ParticipantReport> {
        let definitions = Definitions::new([Definition::from_yaml(TRIP).unwrap()]);
        let members = members.iter().map(|name| (*name).to_owned()).collect();
        let reading = [
            GroupReading { group: "till".into(), members: vec!["t".into()], places: vec![place("pay", 0)] },
            GroupReading { group: "hotels".into(), members, places: vec![place("book", waiting), place("cancel", 0)] },
            GroupReading { group: "orchestrator".into(), members: vec![], places: vec![place("reply", 5)] },
        ];
        let awaited: Vec<Awaited> = awaited
            .iter()
            .map(|(awaiting, count, oldest_at)| {
                let (definition, awaiting) = (Name::new("trip"), (*awaiting).to_owned());
                Awaited { definition, awaiting, count: *count, oldest_at: *oldest_at }
            })
            .collect();
        participants(&definitions, &reading, &awaited, &Stats::of(&definitions), 100_000)
    }

    #[test]
    fn whoever_reads_commands_is_a_participant_with_what_is_outstanding_with_it() {
        let all = reports(3, &["h"], &[("hotel.do", 2, 99_000), ("hotel.undo", 1, 98_000), ("pay.do", 7, 99_900)]);
        let groups: Vec<&str> = all.iter().map(|report| report.group.as_str()).collect();
        assert_eq!(groups, ["hotels", "till"], "not the orchestrator, which reads replies");
        let hotels = &all[0];
        assert_eq!((hotels.waiting, hotels.in_flight, hotels.oldest_outstanding_ms), (3, 3, Some(2_000)));
        assert_eq!(all[1].in_flight, 7);
    }

    #[test]
    fn a_participant_is_idle_ok_slow_or_silent() {
        let health =
            |waiting, members: &[&str], awaited: &[(&str, u64, Millis)]| reports(waiting, members, awaited)[0].health();
        assert_eq!(health(0, &["h"], &[]), Health::Idle);
        assert_eq!(health(0, &[], &[]), Health::Idle, "nobody is asked");
        assert_eq!(health(2, &["h"], &[("hotel.do", 2, 99_000)]), Health::Ok);
        assert_eq!(health(0, &["h"], &[("hotel.do", 2, 100_000 - SLOW)]), Health::Slow);
        assert_eq!(health(MANY + 1, &["h"], &[("hotel.do", 2, 99_999)]), Health::Slow);
        assert_eq!(health(0, &["h"], &[("hotel.do", 2, 100_000 - SILENT)]), Health::Silent);
        assert_eq!(health(1, &[], &[("hotel.do", 1, 99_999)]), Health::Silent, "nobody is there");
    }
}
