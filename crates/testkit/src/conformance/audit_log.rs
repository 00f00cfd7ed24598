//! The audit log: a line an order, whatever becomes of it.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use std::sync::Arc;

use saga_runtime::audit::{AuditEntry, AuditFilter, AuditLine, AuditLog, BEGUN, DONE};

type Log = Arc<dyn AuditLog>;

/// Makes a test of every case.
#[macro_export]
macro_rules! audit_log_conformance {
    ($make:expr) => {
        $crate::conformance_tests!(audit_log, $make;
            a_line_says_what_was_wanted_and_how_it_ended,
            a_line_ends_once,
            a_line_is_withdrawn_only_before_its_end_and_its_id_never_comes_again,
            lines_are_found_by_who_what_and_whereto,
            lines_page_newest_first_without_gap_or_repetition,
        );
    };
}

fn entry(actor: &str, action: &str, target: &str) -> AuditEntry {
    AuditEntry {
        at: 1_700_000_000_000,
        actor: actor.to_owned(),
        action: action.to_owned(),
        target: target.to_owned(),
        reason: "ö \"quoted\" '; drop table audit; --".to_owned(),
        details: "{}".to_owned(),
    }
}

async fn list(log: &Log, filter: AuditFilter) -> Vec<AuditLine> {
    log.list(AuditFilter { limit: 100, ..filter }).await.unwrap()
}

/// To the last field; before its end it says that it has begun.
pub async fn a_line_says_what_was_wanted_and_how_it_ended(log: &Log) {
    let wanted = entry("account 7", "saga.retry", "purchase/9");
    let id = log.begin(wanted.clone()).await.unwrap();
    let begun = || AuditLine { id, entry: wanted.clone(), outcome: BEGUN.to_owned() };
    assert_eq!(list(log, AuditFilter::default()).await, [begun()]);
    log.end(id, DONE.to_owned(), r#"{"version":3}"#.to_owned()).await.unwrap();
    let ended = AuditEntry { details: r#"{"version":3}"#.to_owned(), ..wanted.clone() };
    assert_eq!(
        list(log, AuditFilter::default()).await,
        [AuditLine { entry: ended, outcome: DONE.to_owned(), ..begun() }]
    );
}

/// What happened does not change afterwards.
pub async fn a_line_ends_once(log: &Log) {
    let id = log.begin(entry("local", "dlq.purge", "reply")).await.unwrap();
    let other = log.begin(entry("local", "dlq.purge", "reply")).await.unwrap();
    log.end(id, "failed: internal_error".to_owned(), "{}".to_owned()).await.unwrap();
    log.end(id, DONE.to_owned(), "[]".to_owned()).await.unwrap();
    log.end(id + 1_000, DONE.to_owned(), "[]".to_owned()).await.unwrap();
    let outcomes: Vec<_> = list(log, AuditFilter::default()).await.into_iter().map(|l| (l.id, l.outcome)).collect();
    assert_eq!(outcomes, [(other, BEGUN.to_owned()), (id, "failed: internal_error".to_owned())]);
}

/// What came to nothing leaves nothing; what has ended stays.
pub async fn a_line_is_withdrawn_only_before_its_end_and_its_id_never_comes_again(log: &Log) {
    let done = log.begin(entry("local", "saga.retry", "purchase/1")).await.unwrap();
    let late = log.begin(entry("local", "saga.retry", "purchase/1")).await.unwrap();
    log.end(done, DONE.to_owned(), "{}".to_owned()).await.unwrap();
    for id in [done, late, late, late + 1_000] {
        log.withdraw(id).await.unwrap();
    }
    log.end(late, DONE.to_owned(), "{}".to_owned()).await.unwrap();
    let lines: Vec<_> = list(log, AuditFilter::default()).await.into_iter().map(|l| (l.id, l.outcome)).collect();
    assert_eq!(lines, [(done, DONE.to_owned())]);
    assert!(log.begin(entry("local", "saga.retry", "purchase/1")).await.unwrap() > late, "a page token names it");
}

/// All conditions hold together.
pub async fn lines_are_found_by_who_what_and_whereto(log: &Log) {
    let lines = [
        entry("account 1", "saga.retry", "purchase/1"),
        entry("account 1", "saga.cancel", "purchase/2"),
        entry("account 2", "saga.retry", "purchase/2"),
    ];
    let mut ids = Vec::new();
    for line in lines {
        ids.push(log.begin(line).await.unwrap());
    }
    let found = |actor: Option<&str>, action: Option<&str>, target: Option<&str>| {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let filter = AuditFilter { actor: own(actor), action: own(action), target: own(target), ..Default::default() };
        async { list(log, filter).await.into_iter().map(|line| line.id).collect::<Vec<u64>>() }
    };
    assert_eq!(found(None, None, None).await, [ids[2], ids[1], ids[0]]);
    assert_eq!(found(Some("account 1"), None, None).await, [ids[1], ids[0]]);
    assert_eq!(found(None, Some("saga.retry"), None).await, [ids[2], ids[0]]);
    assert_eq!(found(None, None, Some("purchase/2")).await, [ids[2], ids[1]]);
    assert_eq!(found(Some("account 1"), Some("saga.retry"), None).await, [ids[0]]);
    assert_eq!(found(Some("account"), None, None).await, [0_u64; 0]);
}

/// By id, so that new lines shift nothing.
pub async fn lines_page_newest_first_without_gap_or_repetition(log: &Log) {
    for _ in 0..12 {
        log.begin(entry("local", "saga.skip", "purchase/1")).await.unwrap();
    }
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = log.list(AuditFilter { before, limit: 5, ..AuditFilter::default() }).await.unwrap();
        assert!(page.len() <= 5);
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        found.extend(page.into_iter().map(|line| line.id));
        log.begin(entry("local", "saga.skip", "purchase/2")).await.unwrap();
    }
    assert_eq!(found.len(), 12);
    assert!(found.is_sorted_by(|a, b| a > b));
}
