#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use saga_core::Name;

use super::*;

fn event(seq: u32, step: &str, status: ResultStatus, at: Millis) -> ResultEvent {
    let reason =
        matches!(status, ResultStatus::Failed).then(|| Refusal::new("payment_declined", "no\nmoney \"at\" all"));
    ResultEvent { saga_id: 5, seq, step: Name::new(step), status, terminal: step == "purchase", reason, at }
}

/// A happy purchase of four steps.
fn happy() -> Vec<ResultEvent> {
    let mut events = Vec::new();
    for step in ["update-product-inventory", "create-order", "create-payment", "confirm-order"] {
        for status in [ResultStatus::Execute, ResultStatus::Success] {
            let seq = u32::try_from(events.len()).unwrap() + 1;
            events.push(event(seq, step, status, 1_795_435_200_000 + u64::from(seq) * 3));
        }
    }
    events.push(event(9, "purchase", ResultStatus::Success, 1_795_435_200_030));
    events
}

fn stored(text: &str) -> Vec<ResultEvent> {
    let event = |entry: Entry<'_>| ResultEvent {
        saga_id: 5,
        seq: entry.seq,
        step: Name::new(entry.step),
        status: entry.status,
        terminal: entry.terminal,
        reason: entry.reason,
        at: entry.at,
    };
    parse(text).unwrap().into_iter().map(event).collect()
}

#[test]
fn a_purchase_of_four_steps_keeps_the_length_of_its_row() {
    let mut text = empty();
    assert!(parse(&text).unwrap().is_empty());
    let before = text.len();
    for event in happy() {
        append(&mut text, std::slice::from_ref(&event)).unwrap();
        assert_eq!(text.len(), before, "{text}");
    }
    assert_eq!(stored(&text), happy());
}

#[test]
fn an_event_leaves_as_one_of_a_whatwg_stream() {
    let frame = Entry::from(&event(3, "create-payment", ResultStatus::Failed, 0)).frame(5);
    let text = std::str::from_utf8(&frame).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("id: 3"));
    assert_eq!(lines.next(), Some("event: create-payment.failed"));
    let data = lines.next().unwrap().strip_prefix("data: ").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["purchase_id"], 5);
    assert_eq!(data["status"], "FAILED");
    assert_eq!(data["reason"]["detail"], "no\nmoney \"at\" all");
    assert_eq!(data["occurred_at"].as_str().unwrap().get(..10), Some("1970-01-01"));
    assert!(data.get("terminal").is_none());
    assert!(text.ends_with("\n\n") && text.matches("\n\n").count() == 1);
}

#[test]
fn what_no_engine_makes_is_not_lawful() {
    let lawful = |event: &ResultEvent| is_lawful(event, "purchase");
    assert!(happy().iter().all(lawful));
    let good = event(1, "create-order", ResultStatus::Execute, 1);
    assert!(!lawful(&ResultEvent { seq: 0, ..good.clone() }));
    assert!(!lawful(&ResultEvent { terminal: true, ..good.clone() }));
    assert!(!lawful(&ResultEvent { at: u64::MAX, ..good.clone() }));
    for step in ["", "a b", "a\nid: 99", "é", "#0", &"x".repeat(101)] {
        assert!(!lawful(&ResultEvent { step: Name::new(step), ..good.clone() }), "{step:?}");
    }
}

#[test]
fn a_row_that_nobody_here_wrote_is_an_error_and_not_a_panic() {
    for text in ["x", "a E", "a E x", "a Q 1", "#7 E 1", "#x E 1", "a E -1", "a E 1 {", "a E 1\nb S -99"] {
        assert!(parse(text).is_err(), "{text:?}");
        assert!(append(&mut text.to_owned(), &happy()).is_err(), "{text:?}");
    }
}

fn events() -> impl Strategy<Value = Vec<ResultEvent>> {
    use ResultStatus::{Execute, Failed, Rollback, RollbackFailed, Success};
    let step = prop::sample::select(vec!["a", "b-1", "0", "42", "long.name_of-a-step"]);
    let status = prop::sample::select(vec![Execute, Success, Failed, Rollback, RollbackFailed]);
    let reason = prop::option::of((".{0,20}", ".{0,40}"));
    let one = (step, status, reason, 0_u64..1 << 60, any::<bool>());
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let numbered = all.into_iter().zip(1..);
        numbered
            .map(|((step, status, reason, at, terminal), seq)| ResultEvent {
                saga_id: 5,
                seq,
                step: Name::new(step),
                status,
                terminal,
                reason: reason.map(|(code, detail)| Refusal::new(code, detail)),
                at,
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn whatever_is_stored_comes_back_however_it_was_cut(events in events(), cut in 0_usize..30) {
        let (first, second) = events.split_at(cut.min(events.len()));
        let mut text = empty();
        append(&mut text, first).unwrap();
        append(&mut text, second).unwrap();
        prop_assert_eq!(stored(&text), events);
    }

    #[test]
    fn reading_never_panics(text in "[#a-z0-9ESFRX! {}\\n-]{0,60}") {
        let _ = parse(&text);
        let _ = append(&mut text.clone(), &happy());
    }
}
