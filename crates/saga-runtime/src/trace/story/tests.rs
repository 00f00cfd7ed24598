#![allow(clippy::unwrap_used, reason = "tests")]

use saga_core::protocol::Refusal;
use saga_core::{Json, results};

use super::*;

const DEFINITION: &str = "
saga: trip
version: 1
deadline: 5m
timeout: 10s
retry: { initial: 200ms, factor: 2, max: 30s }
undo_retry: { initial: 200ms, factor: 2, max: 30s, attempts: 15 }
topics: { start: trip, reply: trip-reply, result: trip-result }
steps:
  - { step: hotel, kind: compensatable, do: book-hotel, undo: free-hotel }
  - { step: pay, kind: pivot, do: pay, undo: pay-back }
";

fn name(text: &str) -> Name {
    Name::new(text)
}

fn compensated() -> Vec<Vec<Event>> {
    let reason = Refusal::new("payment_declined", "the card of Mrs Smith is no good");
    vec![
        vec![
            Event::Started { definition_version: 1, input: Json::null(), deadline: None, trace: None, at: 10 },
            Event::StepStarted { step: name("hotel"), due: 1_000, at: 10 },
        ],
        vec![Event::StepRepeated { step: name("hotel"), op: Op::Do, attempt: 2, due: 2_000, at: 20 }],
        vec![
            Event::StepCompleted { step: name("hotel"), output: Json::null(), work: None, at: 30 },
            Event::StepStarted { step: name("pay"), due: 3_000, at: 30 },
        ],
        vec![
            Event::StepRefused { step: name("pay"), refusal: reason.clone(), work: None, at: 40 },
            Event::CompensationBegun { reason, at: 40 },
            Event::UndoStarted { step: name("hotel"), due: 4_000, at: 40 },
        ],
        vec![Event::StepUndone { step: name("hotel"), work: None, at: 50 }, Event::Compensated { at: 50 }],
    ]
}

#[test]
fn a_compensated_saga_is_one_tree_with_every_attempt_and_tells_no_customers_secrets() {
    let context = TraceContext { trace: 7, span: 9, sampled: true };
    let (definition, key) = (Definition::from_yaml(DEFINITION).unwrap(), SagaKey::new("trip", 5));
    let history = compensated();
    let told = results(&key, history.iter().map(Vec::as_slice)).unwrap();
    let spans = tell(context, &definition, &key, &history, &told);
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let root = of("saga trip")[0];
    assert_eq!((root.parent, root.start, root.end), (9, 10_000_000, 50_000_000));
    let hotel = of("hotel do")[0];
    assert_eq!((hotel.parent, hotel.start, hotel.end), (root.context.span, 10_000_000, 30_000_000));
    let sent: Vec<_> = of("send book-hotel").iter().map(|span| (span.parent, span.start, span.end)).collect();
    let below = hotel.context.span;
    assert_eq!(sent, [(below, 10_000_000, 20_000_000), (below, 20_000_000, 30_000_000)]);
    assert_eq!(of("pay do")[0].error.as_deref(), Some("payment_declined"));
    assert_eq!(of("hotel undo").len() + of("send free-hotel").len() + of("send pay").len(), 3);
    assert_eq!(of("send trip-result").len(), told.len());
    for span in &spans {
        let parent = spans.iter().any(|other| other.context.span == span.parent);
        assert!(parent || span.parent == 9, "{} hangs in the air", span.name);
        assert!(!format!("{span:?}").contains("Smith"), "{span:?}");
    }
    let mut ids: Vec<u64> = spans.iter().map(|span| span.context.span).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "no id twice");
    assert_eq!(tell(context, &definition, &key, &history, &told), spans, "the same story each time");
}
