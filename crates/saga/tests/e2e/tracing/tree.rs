//! A purchase's trace as a tree: which spans belong to it, whether they hang together, and how many there are of each.

use std::collections::BTreeMap;

use super::collector::Told;

/// The spans of a purchase's trace.
pub fn trace_of(spans: &[Told], purchase: u64) -> Vec<Told> {
    let id = purchase.to_string();
    let names = ["saga.id", "messaging.message.conversation_id"];
    let is_its = |span: &&Told| names.iter().any(|name| span.attributes.get(*name) == Some(&id));
    let Some(found) = spans.iter().find(is_its) else { return Vec::new() };
    spans.iter().filter(|span| span.trace == found.trace).cloned().collect()
}

/// Whether the saga has been told, and the last result has been read.
pub fn whole(spans: &[Told], purchase: u64) -> bool {
    let trace = trace_of(spans, purchase);
    let count = |name: &str| trace.iter().filter(|span| span.name == name).count();
    count("saga purchase") > 0 && count("process purchase-result") >= count("send purchase-result")
}

/// Whether every process has told its part of a purchase that was declined.
pub fn is_complete(spans: &[Told], purchase: u64) -> bool {
    let trace = trace_of(spans, purchase);
    let counts = counts(&trace);
    let has_parent = |span: &Told| span.parent.is_empty() || trace.iter().any(|other| other.id == span.parent);
    whole(spans, purchase)
        && trace.iter().all(has_parent)
        && COMPENSATED.iter().all(|(name, count)| counts.get(name).is_some_and(|found| found >= count))
}

/// One tree: a root, and everything below it.
pub fn connected(trace: &[Told]) {
    let names: Vec<&str> = trace.iter().map(|span| span.name.as_str()).collect();
    let roots: Vec<&Told> = trace.iter().filter(|span| span.parent.is_empty()).collect();
    assert_eq!(roots.len(), 1, "{names:?}");
    assert_eq!(roots[0].name, "POST /api/v1/purchases");
    for span in trace {
        let above = trace.iter().any(|other| other.id == span.parent);
        assert!(above || span.parent.is_empty(), "{} hangs in the air; there are {names:?}", span.name);
        assert!(span.end >= span.start, "{span:?}");
    }
}

pub fn counts(trace: &[Told]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    trace.iter().for_each(|span| *counts.entry(span.name.as_str()).or_insert(0) += 1);
    counts
}

/// What a purchase that is declined consists of, without its results.
const COMPENSATED: [(&str, usize); 27] = [
    ("POST /api/v1/purchases", 1),
    ("send purchase", 1),
    ("process purchase", 1),
    ("saga purchase", 1),
    ("update-product-inventory do", 1),
    ("create-order do", 1),
    ("create-payment do", 1),
    ("create-order undo", 1),
    ("update-product-inventory undo", 1),
    ("send update-product-inventory", 1),
    ("send create-order", 1),
    ("send create-payment", 1),
    ("send rollback-order", 1),
    ("send rollback-product-inventory", 1),
    ("process update-product-inventory", 1),
    ("process create-order", 1),
    ("process create-payment", 1),
    ("process rollback-order", 1),
    ("process rollback-product-inventory", 1),
    ("transaction product", 2),
    ("transaction order", 2),
    ("transaction payment", 1),
    ("send reply", 5),
    ("process reply", 5),
    ("transaction orchestrator", 6),
    ("send purchase-result", 0),
    ("process purchase-result", 0),
];

pub fn assert_compensated(trace: &[Told], database: &str) {
    connected(trace);
    let counts = counts(trace);
    for (name, count) in COMPENSATED {
        let found = counts.get(name).copied().unwrap_or(0);
        assert!(if count == 0 { found > 5 } else { found == count }, "{found} times {name}: {counts:?}");
    }
    let one = |name: &str| trace.iter().find(|span| span.name == name).unwrap();
    assert_eq!(one("saga purchase").attributes["saga.status"], "COMPENSATED");
    assert_eq!(one("saga purchase").attributes["saga.reason"], "payment_declined");
    assert!(one("create-payment do").failed);
    assert_eq!(one("create-payment do").attributes["saga.outcome"], "payment_declined");
    assert_eq!(one("process create-payment").attributes["saga.outcome"], "refused");
    assert_eq!(one("transaction payment").attributes["db.system.name"], database);
    assert_eq!(one("process create-order").attributes["messaging.destination.name"], "create-order");
    assert_eq!(one("POST /api/v1/purchases").attributes["http.response.status_code"], "202");
}
