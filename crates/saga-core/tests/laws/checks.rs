//! What a definition may not be, each with what the person who wrote it is told; and that file and builder are one.

use saga_core::Definition;

use crate::definitions::purchase;

const PURCHASE: &str = include_str!("../../../../services/orchestrator/definitions/purchase.yaml");

/// Three lawful steps, and where a wrong one goes.
fn refused(yaml: &str) -> String {
    Definition::from_yaml(yaml).expect_err(yaml).to_string()
}

#[test]
fn the_purchase_saga_is_the_same_in_its_file_and_in_code() {
    let mut file = Definition::from_yaml(PURCHASE).unwrap();
    let mut code = purchase();
    assert_eq!(file.steps.last().unwrap().retry.attempts, 50, "said in the file only");
    for definition in [&mut file, &mut code] {
        for step in &mut definition.steps {
            step.retry.attempts = 0;
        }
    }
    assert_eq!(file, code);
}

#[test]
fn every_broken_rule_is_told_with_its_place_and_what_to_do() {
    let steps = |steps: &str| format!("saga: trip\nversion: 1\nsteps:\n{steps}");
    let a = "  - { step: a, kind: compensatable, undo: un-a }\n";
    let cases = [
        ("saga: trip\nversion: 0\nsteps: [{ step: a, undo: b }]".to_owned(), "version: must be 1 or more"),
        ("saga: trip\nversion: 1\nsteps: []".to_owned(), "steps: a saga needs at least one step"),
        ("saga: Trip\nversion: 1\nsteps: [{ step: a, undo: b }]".to_owned(), "saga: \"Trip\" is not a lawful name"),
        (steps("  - { step: 'a b', undo: c }\n"), "step: \"a b\" is not a lawful name"),
        (steps("  - { step: a, do: 'A!', undo: c }\n"), "step a: do: \"A!\" is not a lawful name"),
        (steps(&format!("{a}{a}")), "step a: the name is used twice"),
        (
            steps("  - { step: a, kind: pivot }\n  - { step: b, kind: pivot }\n"),
            "step b: a saga has at most one pivot, and a is one",
        ),
        (
            steps("  - { step: a, kind: pivot }\n  - { step: b, undo: c }\n"),
            "step b: nothing compensatable can come after a",
        ),
        (
            steps(&format!("{a}  - {{ step: b, undo: c, after: [] }}\n  - {{ step: p, kind: pivot, after: [a] }}\n")),
            "step p: the pivot must come after every compensatable step, but not after b",
        ),
        (
            steps(&format!("{a}  - {{ step: r, kind: retriable, after: [] }}\n")),
            "step r: a retriable step must come after a, which can still refuse",
        ),
        (steps("  - { step: a, kind: compensatable }\n"), "step a: a compensatable step needs an `undo`"),
        (steps("  - { step: a, kind: retriable, undo: b }\n"), "step a: a retriable step is never undone"),
        (steps("  - { step: a, undo: b, after: [z] }\n"), "step a: `after` names \"z\", which is not a step"),
        (steps("  - { step: a, undo: b, after: [a] }\n"), "step a: it waits for itself"),
        (
            steps("  - { step: a, undo: b, after: [c] }\n  - { step: c, undo: d, after: [a] }\n"),
            "step a: it waits for itself",
        ),
        (steps("  - { step: a, undo: b, timeout: soon }\n"), "step a: timeout: \"soon\" is not a duration"),
        (steps("  - { step: a, undo: b, timeout: 0s }\n"), "step a: timeout: \"0s\" is out of range"),
        (steps("  - { step: a, undo: b, timeout: 99999999h }\n"), "step a: timeout: \"99999999h\" is out of range"),
        (
            steps("  - { step: a, undo: b, retry: { factor: 0.5 } }\n"),
            "step a: retry.factor: must be between 1 and 100",
        ),
        (
            steps("  - { step: a, undo: b, retry: { initial: 2m, max: 1m } }\n"),
            "step a: retry: `initial` must not be more than `max`",
        ),
        (
            format!("{}deadline: 5m\n", steps("  - { step: r, kind: retriable }\n")),
            "deadline: after the pivot a saga only goes forward",
        ),
        (steps("  - { step: a, undo: b, untilt: 5 }\n"), "untilt"),
        (format!("{}versoin: 2\n", steps(a)), "versoin"),
        ("this is no definition".to_owned(), "cannot be read"),
    ];
    for (yaml, message) in cases {
        let told = refused(&yaml);
        assert!(told.contains(message), "{yaml}\nis told: {told}\nand not: {message}");
    }
}

#[test]
fn what_is_not_said_has_a_default() {
    let definition = Definition::from_yaml("saga: trip\nversion: 1\nsteps: [{ step: a, undo: un-a }]").unwrap();
    let step = &definition.steps[0];
    assert_eq!(
        (step.action.as_str(), step.timeout, step.retry.attempts, step.undo_retry.attempts),
        ("a", 10_000, 0, 15)
    );
    let topics = [&definition.start_topic, &definition.reply_topic, &definition.result_topic];
    assert_eq!(topics.map(|topic| topic.as_str()), ["trip", "reply", "trip-result"]);
}
