//! Random lawful definitions beside the real purchase: chains and graphs, with and without a pivot.

use saga_core::definition::Kind;
use saga_core::retry::RetryPolicy;
use saga_core::{Definition, Name};

use super::Sim;

const PURCHASE: &str = include_str!("../../../../services/orchestrator/definitions/purchase.yaml");

/// The purchase saga as it is shipped.
///
/// # Panics
/// When the shipped file is not lawful.
#[expect(clippy::expect_used, reason = "the shipped file is tested elsewhere")]
pub fn purchase() -> Definition {
    Definition::from_yaml(PURCHASE).expect("the shipped definition")
}

/// The participants of the world.
pub const PARTICIPANTS: [&str; 3] = ["product", "order", "payment"];
/// The one with a gateway.
pub const GATEWAY: usize = 2;

/// Which participant listens on a command topic: by name for the shop's, by prefix for the random ones.
pub fn participant_of(topic: &Name) -> usize {
    let topic = topic.as_str();
    PARTICIPANTS.iter().position(|p| topic.starts_with(p)).unwrap_or_else(|| match topic {
        t if t.contains("payment") => 2,
        t if t.contains("order") => 1,
        _ => 0,
    })
}

/// Any lawful definition of this name.
///
/// # Panics
/// When it is not lawful: a bug in this generator.
#[expect(clippy::expect_used, reason = "the generator makes lawful ones only")]
pub fn any(sim: &Sim, name: &str) -> Definition {
    let steps = shape(sim);
    let policy = |attempts| RetryPolicy { initial: 100, factor: 2.0, max: 3_000, attempts };
    let attempts = |sim: &Sim| *sim.pick(&[0, 2, 4, 15]);
    let mut builder = Definition::builder(name, 1)
        .topics(name, "reply", &format!("{name}-result"))
        .timeout(*sim.pick(&[300, 1_000, 5_000]))
        .retry(policy(attempts(sim)), policy(attempts(sim)));
    if sim.chance(500) && steps.iter().any(|(_, kind, _)| *kind != Kind::Retriable) {
        builder = builder.deadline(*sim.pick(&[500, 3_000, 20_000]));
    }
    for (step, kind, after) in &steps {
        let owner = match kind {
            Kind::Pivot => *sim.pick(&["order", "payment", "payment"]),
            Kind::Compensatable => *sim.pick(&PARTICIPANTS),
            Kind::Retriable => *sim.pick(&["product", "order"]),
        };
        let action = format!("{owner}.{name}.{step}");
        // Do and undo on one topic keep their order; on two they do not.
        let undo = if sim.chance(300) { action.clone() } else { format!("{action}.undo") };
        let added = match kind {
            Kind::Compensatable => builder.compensatable(step, &action, &undo),
            Kind::Pivot => builder.pivot(step, &action, sim.chance(600).then_some(undo.as_str())),
            Kind::Retriable => builder.retriable(step, &action),
        };
        let after: Vec<&str> = after.iter().map(String::as_str).collect();
        builder = added.after(&after);
    }
    builder.build().expect("a lawful definition")
}

/// Names, kinds, and what each waits for.
fn shape(sim: &Sim) -> Vec<(String, Kind, Vec<String>)> {
    let mut steps: Vec<(String, Kind, Vec<String>)> = Vec::new();
    let (compensatables, retriables) = (sim.below(4), sim.below(3));
    let pivot = sim.chance(700) || compensatables + retriables == 0;
    for at in 0..compensatables {
        steps.push((format!("c{at}"), Kind::Compensatable, some(sim, 'c', at)));
    }
    let mut first: Vec<String> = steps.iter().map(|(name, ..)| name.clone()).collect();
    if pivot {
        steps.push(("p".to_owned(), Kind::Pivot, std::mem::take(&mut first)));
        first.push("p".to_owned());
    }
    for at in 0..retriables {
        let mut after = some(sim, 'r', at);
        after.extend(first.iter().cloned());
        steps.push((format!("r{at}"), Kind::Retriable, after));
    }
    steps
}

/// Some of the earlier steps of a kind.
fn some(sim: &Sim, prefix: char, at: u64) -> Vec<String> {
    (0..at).filter(|_| sim.chance(500)).map(|earlier| format!("{prefix}{earlier}")).collect()
}
