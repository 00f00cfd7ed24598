//! Lawful definitions of every shape: chains and graphs, with and without a pivot, several branches at once.

use proptest::prelude::*;
use saga_core::Definition;
use saga_core::definition::{Builder, Kind};
use saga_core::retry::RetryPolicy;

/// What the generator chose; a definition follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Per compensatable step, a bit set of the earlier ones that it waits for; `None`: the one before it.
    compensatables: Vec<Option<u8>>,
    /// Whether there is a pivot, and whether it can be voided.
    pivot: Option<bool>,
    /// Per retriable step the same as for the compensatable ones.
    retriables: Vec<Option<u8>>,
    /// Of do and undo; 0: for ever.
    attempts: (u32, u32),
    deadline: bool,
    /// Writes the steps in the file from the last to the first.
    backwards: bool,
}

/// The deadline of definitions that have one, in ms.
pub(crate) const DEADLINE: u64 = 3_600_000;

impl Shape {
    /// Builds it.
    pub(crate) fn definition(&self) -> Definition {
        let mut steps: Vec<(String, Kind, Vec<String>)> = Vec::new();
        for (at, after) in self.compensatables.iter().enumerate() {
            steps.push((format!("c{at}"), Kind::Compensatable, names("c", at, *after)));
        }
        let all: Vec<String> = steps.iter().map(|(name, ..)| name.clone()).collect();
        if self.pivot.is_some() {
            steps.push(("pivot".into(), Kind::Pivot, all.clone()));
        }
        for (at, after) in self.retriables.iter().enumerate() {
            let mut before = if self.pivot.is_some() { vec!["pivot".to_owned()] } else { all.clone() };
            before.extend(names("r", at, *after));
            steps.push((format!("r{at}"), Kind::Retriable, before));
        }
        if self.backwards {
            steps.reverse();
        }
        let policy = |attempts| RetryPolicy { initial: 100, factor: 2.0, max: 1_000, attempts };
        let mut builder =
            Definition::builder("law", 1).timeout(1_000).retry(policy(self.attempts.0), policy(self.attempts.1));
        if self.deadline && steps.iter().any(|(_, kind, _)| *kind != Kind::Retriable) {
            builder = builder.deadline(DEADLINE);
        }
        steps.into_iter().fold(builder, |b, step| self.add(b, &step)).build().unwrap()
    }

    fn add(&self, builder: Builder, (name, kind, after): &(String, Kind, Vec<String>)) -> Builder {
        let (action, undo) = (format!("{name}.do"), format!("{name}.undo"));
        let after: Vec<&str> = after.iter().map(String::as_str).collect();
        let builder = match kind {
            Kind::Compensatable => builder.compensatable(name, &action, &undo),
            Kind::Pivot => builder.pivot(name, &action, self.pivot.unwrap_or(false).then_some(undo.as_str())),
            Kind::Retriable => builder.retriable(name, &action),
        };
        builder.after(&after)
    }
}

fn names(prefix: &str, at: usize, chosen: Option<u8>) -> Vec<String> {
    let wanted = |earlier: &usize| match chosen {
        Some(bits) => bits & (1 << earlier) != 0,
        None => earlier + 1 == at,
    };
    (0..at).filter(wanted).map(|earlier| format!("{prefix}{earlier}")).collect()
}

prop_compose! {
    /// Any lawful shape.
    pub(crate) fn shapes()(
        compensatables in prop::collection::vec(prop::option::weighted(0.6, any::<u8>()), 0..6),
        pivot in prop::option::of(any::<bool>()),
        retriables in prop::collection::vec(prop::option::weighted(0.6, any::<u8>()), 0..3),
        attempts in (0u32..4, 0u32..4),
        deadline in any::<bool>(),
        backwards in any::<bool>(),
    ) -> Shape {
        let empty = compensatables.is_empty() && pivot.is_none() && retriables.is_empty();
        let compensatables = if empty { vec![None] } else { compensatables };
        Shape { compensatables, pivot, retriables, attempts, deadline, backwards }
    }
}

/// Any lawful definition.
pub(crate) fn definitions() -> impl Strategy<Value = Definition> {
    shapes().prop_map(|shape| shape.definition())
}

/// Any lawful definition whose commands are repeated for ever: whatever the weather, no human is needed.
pub(crate) fn patient_definitions() -> impl Strategy<Value = Definition> {
    shapes().prop_map(|shape| Shape { attempts: (0, 0), ..shape }.definition())
}

/// The purchase saga of the specification, by hand.
pub(crate) fn purchase() -> Definition {
    Definition::builder("purchase", 1)
        .deadline(300_000)
        .topics("purchase", "reply", "purchase-result")
        .compensatable("update-product-inventory", "update-product-inventory", "rollback-product-inventory")
        .compensatable("create-order", "create-order", "rollback-order")
        .pivot("create-payment", "create-payment", Some("rollback-payment"))
        .retriable("confirm-order", "confirm-order")
        .build()
        .unwrap()
}
