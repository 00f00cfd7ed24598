//! Many worlds, each from its seed.

use std::sync::atomic::{AtomicU64, Ordering};

use testkit::sim::{self, Report, Tally};

/// Worlds of a normal run; `SIM_WORLDS` asks for more.
const WORLDS: u64 = 3_000;

/// A simulation in which these never happen proves nothing.
const MUST_HAPPEN: &[&str] = &[
    "COMPLETED",
    "COMPENSATED",
    "STUCK",
    "COMPENSATION_STUCK",
    "clock jumps",
    "conflicts",
    "crashes",
    "dead letters",
    "disk was full",
    "doubled",
    "duplicate_starts",
    "empty compensations",
    "fenced",
    "gateway did not answer",
    "hanging charges given back",
    "late_replies",
    "lost",
    "neighbours killed",
    "operator's verbs",
    "operators who were not sure, and it was done",
    "participant faults",
    "participants killed",
    "participants replaced",
    "power losses",
    "publishing failed",
    "recovered",
    "redriven",
    "repeated",
    "store was busy",
    "verbs elsewhere",
];

/// Forgetful worlds of a normal run.
const FORGETFUL: u64 = 400;

/// The same for worlds that forget.
const MUST_BE_FORGOTTEN: &[&str] = &[
    "barrier rows removed",
    "echoes",
    "commands of what was removed",
    "late_starts",
    "power losses",
    "promises",
    "sagas removed",
    "starts of what was removed",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn replay(seed: u64) -> String {
    format!("SIM_SEED={seed} cargo test -p testkit --test simulation -- one_seed --nocapture")
}

/// Runs worlds on all cores until one is unlawful. Answers what they saw and, per unlawful world, its seed and report.
fn run_many(first: u64, count: u64, world: fn(u64, bool) -> Report) -> (Tally, Vec<(u64, Report)>) {
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let work = || {
        let (mut tally, mut bad) = (Tally::new(), Vec::new());
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count || failed.load(Ordering::Relaxed) >= 5 {
                return (tally, bad);
            }
            let seed = first + at;
            let report = world(seed, false);
            for (what, n) in &report.tally {
                *tally.entry(what).or_default() += n;
            }
            if !report.broken.is_empty() {
                failed.fetch_add(1, Ordering::Relaxed);
                bad.push((seed, report));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let parts: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    let (mut tally, mut bad) = (Tally::new(), Vec::new());
    for (part, failures) in parts {
        part.into_iter().for_each(|(what, n)| *tally.entry(what).or_default() += n);
        bad.extend(failures);
    }
    bad.sort_by_key(|(seed, _)| *seed);
    (tally, bad)
}

#[test]
fn every_law_holds_in_every_world() {
    let (tally, bad) = run_many(number("SIM_FIRST").unwrap_or(0), number("SIM_WORLDS").unwrap_or(WORLDS), sim::run);
    println!("{tally:#?}");
    let told: Vec<String> = bad
        .iter()
        .map(|(seed, report)| format!("seed {seed}: {}\n  replay: {}", report.broken[0], replay(*seed)))
        .collect();
    assert!(told.is_empty(), "\n{}", told.join("\n"));
    for what in MUST_HAPPEN {
        assert!(tally.get(what).is_some_and(|n| *n > 0), "no world had: {what}");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..40 {
        let (first, second) = (sim::run(seed, true), sim::run(seed, true));
        assert!(first.trace.len() > 20, "seed {seed}: {} lines", first.trace.len());
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.tally, second.tally, "seed {seed}");
    }
    assert_ne!(sim::run(0, true).trace, sim::run(1, true).trace);
}

/// Nothing is started, or has an effect, a second time, though everything that knew of it is gone.
#[test]
fn worlds_that_forget_are_lawful() {
    let (first, worlds) = (number("SIM_FIRST").unwrap_or(0), number("SIM_WORLDS").unwrap_or(FORGETFUL));
    let (tally, bad) = run_many(first, worlds, sim::run_forgetful);
    println!("{tally:#?}");
    let told: Vec<String> = bad
        .iter()
        .map(|(seed, report)| {
            format!("seed {seed}: {}\n    SIM_FORGETFUL=1 {}", report.broken.join("\n"), replay(*seed))
        })
        .collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    for what in MUST_BE_FORGOTTEN {
        assert!(worlds < FORGETFUL || tally.get(what).is_some_and(|n| *n > 0), "no world had: {what}");
    }
}

/// Not a test of its own: the trace of the world in `SIM_SEED`.
#[test]
fn one_seed() {
    let Some(seed) = number("SIM_SEED") else { return };
    let world = if number("SIM_FORGETFUL").is_some() { sim::run_forgetful } else { sim::run };
    let report = world(seed, true);
    println!("{}", report.trace.join("\n"));
    assert!(report.broken.is_empty(), "seed {seed}:\n{}", report.broken.join("\n"));
}
