//! What customers see of their payments, and the sandbox that decides them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod desk;

use std::sync::Arc;

use chassis::auth::Role;
use desk::{ALICE, AMOUNT, BOB, Desk, Mood, code, command, input, pay, undo};
use payment::{Sandbox, SandboxConfig};
use saga_core::Op;
use saga_core::protocol::{Command, Reply};
use serde_json::json;
use testkit::client::ask;

/// Sends charges of these amounts (sagas 1, 2, …) through the sandbox.
async fn sandbox(desk: &Desk, config: SandboxConfig, amounts: &[i64]) -> Vec<Reply> {
    config.check().unwrap();
    let participant = desk.behind(Arc::new(Sandbox::new(config, desk.clock.clone())));
    let charge = |(n, amount): (usize, &i64)| command(Op::Do, &input(n as u64 + 1, ALICE, *amount));
    participant.handle(amounts.iter().enumerate().map(charge).collect()).await.unwrap()
}

fn codes(replies: &[Reply]) -> Vec<&str> {
    replies.iter().map(|reply| code(&reply.outcome)).collect()
}

#[tokio::test]
async fn the_sandbox_declines_amounts_that_end_in_13() {
    let desk = Desk::open();
    let replies = sandbox(&desk, SandboxConfig::default(), &[13, 1_013, 130, 31, 1_300, 0, 113]).await;
    let (yes, no) = ("done", "payment_declined");
    assert_eq!(codes(&replies), [no, no, yes, yes, yes, yes, no]);
    assert_eq!((desk.status(1).await, desk.status(3).await), ("DECLINED", "CAPTURED"));
}

#[tokio::test]
async fn the_sandbox_declines_above_its_limit_and_not_at_it() {
    let desk = Desk::open();
    let config = SandboxConfig { decline_above: 1_000, decline_endings: vec![], ..SandboxConfig::default() };
    let replies = sandbox(&desk, config, &[999, 1_000, 1_001, 13]).await;
    assert_eq!(codes(&replies), ["done", "done", "payment_declined", "done"]);
}

#[tokio::test]
async fn the_sandbox_declines_about_its_rate_and_the_same_charges_each_time() {
    let rate = |decline_rate: f64| SandboxConfig { decline_rate, ..SandboxConfig::default() };
    let amounts = vec![100; 400];
    let first = sandbox(&Desk::open(), rate(0.25), &amounts).await;
    let declined = codes(&first).iter().filter(|code| **code == "payment_declined").count();
    assert!((60..140).contains(&declined), "{declined} of 400");
    assert_eq!(sandbox(&Desk::open(), rate(0.25), &amounts).await, first, "without a memory, the same answers");
    let (fresh, charge) = (Desk::open(), |saga| command(Op::Do, &input(saga, ALICE, 100)));
    let participant = fresh.behind(Arc::new(Sandbox::new(rate(0.25), fresh.clock.clone())));
    let later = (1..=400).map(|saga| Command { attempt: 7, ..charge(saga) }).collect();
    assert_eq!(codes(&participant.handle(later).await.unwrap()), codes(&first), "whichever attempt asks");
    assert!(codes(&sandbox(&Desk::open(), rate(0.0), &amounts).await).iter().all(|code| *code == "done"));
    assert!(codes(&sandbox(&Desk::open(), rate(1.0), &amounts).await).iter().all(|code| *code == "payment_declined"));
}

#[tokio::test]
async fn s03_a_sandbox_that_fails_half_the_time_charges_everybody_in_the_end() {
    let desk = Desk::open();
    let config = SandboxConfig { retry_rate: 0.3, unknown_rate: 0.3, ..SandboxConfig::default() };
    let participant = desk.behind(Arc::new(Sandbox::new(config, desk.clock.clone())));
    let mut waiting: Vec<_> = (1..=100).map(pay).collect();
    let mut rounds = 0;
    while !waiting.is_empty() {
        rounds += 1;
        assert!(rounds < 50, "{} are still not answered", waiting.len());
        let replies = participant.handle(waiting.clone()).await.unwrap();
        let open = waiting.into_iter().zip(replies).filter(|(_, reply)| !reply.outcome.is_final());
        waiting = open.map(|(command, _)| Command { attempt: command.attempt + 1, ..command }).collect();
    }
    assert!(rounds > 2, "it did fail");
    assert!(desk.payments().await.iter().all(|payment| payment.status.as_str() == "CAPTURED"));
    assert_eq!(desk.payments().await.len(), 100);
}

#[test]
fn o01_settings_of_the_sandbox_that_cannot_be_are_named() {
    let wrong = [
        (SandboxConfig { decline_rate: -0.1, ..SandboxConfig::default() }, "decline_rate"),
        (SandboxConfig { retry_rate: 1.1, ..SandboxConfig::default() }, "retry_rate"),
        (SandboxConfig { unknown_rate: f64::NAN, ..SandboxConfig::default() }, "unknown_rate"),
        (SandboxConfig { decline_endings: vec![String::new()], ..SandboxConfig::default() }, "decline_endings"),
        (SandboxConfig { decline_endings: vec!["1x".into()], ..SandboxConfig::default() }, "decline_endings"),
        (SandboxConfig { decline_above: -1, ..SandboxConfig::default() }, "decline_above"),
    ];
    for (config, name) in wrong {
        let error = config.check().unwrap_err();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_payment_is_shown_as_the_original_showed_it() {
    let desk = Desk::open();
    desk.outcome(pay(5)).await;
    let answer = desk.get(ALICE, "/payments/5").await;
    let wanted = json!({
        "id": 5, "customer_id": ALICE, "amount": AMOUNT, "currency_code": "VND", "status": "CAPTURED",
        "created_at": "2026-01-01T00:00:00.000Z",
    });
    assert_eq!((answer.status, answer.body), (200, wanted));
}

#[tokio::test]
async fn declined_and_voided_payments_are_shown_as_what_they_are() {
    let desk = Desk::open();
    desk.bank.will(&[Mood::Declines]);
    desk.outcome(pay(5)).await;
    desk.handle(vec![pay(6), undo(6)]).await;
    assert_eq!(desk.get(ALICE, "/payments/5").await.body["status"], "DECLINED");
    assert_eq!(desk.get(ALICE, "/payments/6").await.body["status"], "VOIDED");
    let desk = desk.restart().await;
    assert_eq!(desk.get(ALICE, "/payments").await.ids("id"), [6, 5]);
}

#[tokio::test]
async fn a38_somebody_elses_payment_is_not_there_not_even_for_an_admin() {
    let desk = Desk::open();
    desk.outcome(pay(5)).await;
    for who in [(BOB, Role::Customer), (BOB, Role::Operator), (1, Role::Admin)] {
        let answer = ask(&desk.router, Some(who), "GET", "/payments/5", None).await;
        let missing = ask(&desk.router, Some(who), "GET", "/payments/6", None).await;
        assert_eq!(answer.code(), (404, "not_found"), "{who:?}");
        assert_eq!(answer.body["detail"], missing.body["detail"]);
        assert!(ask(&desk.router, Some(who), "GET", "/payments", None).await.ids("id").is_empty());
    }
    for path in ["/payments", "/payments/5"] {
        assert_eq!(ask(&desk.router, None, "GET", path, None).await.code(), (401, "unauthenticated"));
    }
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(&desk.router, Some((1, Role::Admin)), method, "/payments/5", Some(json!({}))).await;
        assert_eq!(answer.code(), (405, "method_not_allowed"), "{method}");
    }
}

#[tokio::test]
async fn a_list_shows_the_own_payments_newest_first_page_by_page() {
    let desk = Desk::open();
    let of = |saga: u64| command(Op::Do, &input(saga, if saga.is_multiple_of(3) { BOB } else { ALICE }, 100));
    desk.handle((1..=20).map(of).collect()).await;
    let (mut seen, mut path) = (Vec::new(), "/payments?limit=5".to_owned());
    loop {
        let page = desk.get(ALICE, &path).await;
        seen.extend(page.ids("id"));
        let Some(token) = page.body["next_page_token"].as_str() else { break };
        path = format!("/payments?limit=5&page_token={token}");
    }
    assert_eq!(seen, (1..=20).rev().filter(|id| id % 3 != 0).collect::<Vec<u64>>());
    assert_eq!(desk.get(ALICE, "/payments?limit=0").await.code(), (422, "validation_error"));
}
