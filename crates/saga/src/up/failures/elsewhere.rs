//! The processes elsewhere that run participants: the orchestrator's process sees and switches them by their own admin API, with the
//! token of whoever asks. So each of them decides by itself who may do it, and nobody's rights are lent to anybody.
//!
//! Promised: one that does not answer holds nobody up for longer than [`ANSWER_WITHIN`] and is named with what was wrong. Not
//! promised: that a process which starts later is told what was set before.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use super::wire::{FailuresBody, FailuresView, ProcessView, Unreached};
use crate::config::{Config, ConfigError};
use crate::remote::{Admin, Endpoint};
use crate::up::roles::ServiceRole;

/// Of those processes alone: none of them asks others in turn.
const PATH: &str = "/admin/failures?here=true";
/// For a name to be looked up, and for an answer. A person waits for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Where they are.
#[derive(Clone, Debug, Default)]
pub(in crate::up) struct Elsewhere(Vec<Endpoint>);

/// What each of them says, or why it says nothing.
pub(super) type Answers = (Vec<ProcessView>, Vec<Unreached>);

impl Elsewhere {
    /// As the settings say. All processes may have the same ones: only the orchestrator's speaks for others.
    ///
    /// # Errors
    /// The first that is no address.
    pub(in crate::up) fn of(config: &Config, roles: &BTreeSet<ServiceRole>) -> Result<Self, ConfigError> {
        let all = Self::new(&config.failures.elsewhere)?;
        Ok(if roles.contains(&ServiceRole::Orchestrator) { all } else { Self::default() })
    }

    fn new(urls: &[String]) -> Result<Self, ConfigError> {
        let wrong = |error: anyhow::Error| ConfigError::Value {
            key: "failures.elsewhere".to_owned(),
            detail: error.to_string(),
        };
        urls.iter().map(|url| Endpoint::parse(url).map_err(wrong)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What goes wrong in each of them.
    pub(super) async fn look(&self, bearer: &str) -> Answers {
        let (processes, lost) = self.processes().await;
        let asked = processes.into_iter().map(|process| async move {
            let answer = ask(&process, bearer, |admin| async move { admin.get(PATH).await }).await;
            (process.to_string(), answer)
        });
        sorted(join_all(asked).await, lost)
    }

    /// Sets in each of `there`, as [`look`](Self::look) found them, what of `body` is its own.
    pub(super) async fn set(&self, bearer: &str, body: &FailuresBody, there: &[ProcessView]) -> Answers {
        let order = |process: &ProcessView| {
            let endpoint = Endpoint::parse(&process.url).ok()?;
            Some((endpoint, serde_json::to_value(body.share(&process.choices)).ok()?))
        };
        let told = there.iter().filter_map(order).map(|(process, order)| async move {
            let answer = ask(&process, bearer, |admin| async move { admin.put(PATH, &order).await }).await;
            (process.to_string(), answer)
        });
        sorted(join_all(told).await, Vec::new())
    }

    /// Each process once: a name may stand for several, as those of replicas in Docker do.
    async fn processes(&self) -> (Vec<Endpoint>, Vec<Unreached>) {
        let looked = self.0.iter().map(|named| async move { (named, within(named.each()).await) });
        let (mut found, mut lost): (Vec<Endpoint>, Vec<Unreached>) = (Vec::new(), Vec::new());
        for (named, answer) in join_all(looked).await {
            match answer {
                Ok(all) => found.extend(all),
                Err(problem) => lost.push(Unreached { url: named.to_string(), problem }),
            }
        }
        found.sort_by_key(ToString::to_string);
        found.dedup();
        (found, lost)
    }
}

fn sorted(answers: Vec<(String, Result<Value, String>)>, mut lost: Vec<Unreached>) -> Answers {
    let mut processes = Vec::new();
    for (url, answer) in answers {
        let view = answer.and_then(|value| {
            serde_json::from_value::<FailuresView>(value).map_err(|error| format!("an answer of another kind: {error}"))
        });
        match view {
            Ok(FailuresView { enabled: true, gateway, steps, stopped, choices, .. }) => {
                processes.push(ProcessView { url, gateway, steps, stopped, choices });
            }
            Ok(_) => lost.push(Unreached { url, problem: super::NOT_ENABLED.to_owned() }),
            Err(problem) => lost.push(Unreached { url, problem }),
        }
    }
    (processes, lost)
}

async fn ask<F>(process: &Endpoint, bearer: &str, call: impl FnOnce(Admin) -> F) -> Result<Value, String>
where
    F: Future<Output = anyhow::Result<Value>>,
{
    let admin = Admin::new(&process.to_string(), bearer).map_err(|error| format!("{error:#}"))?;
    within(call(admin)).await
}

async fn within<T>(work: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER_WITHIN, work).await {
        Ok(answer) => answer.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use std::sync::Arc;

    use super::super::wire::{Choices, Scope};
    use super::super::{Board, Desk, Prepared};
    use super::*;
    use chassis::health::Health;
    use chassis::problem::Code;
    use saga_runtime::SystemClock;

    /// A process that answers every request the same, or takes it and says nothing; its address.
    async fn process(answer: Option<Value>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0_u8; 4_096];
                let _ = stream.read(&mut request).await;
                let Some(answer) = &answer else { std::future::pending().await };
                let body = answer.to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(head.as_bytes()).await;
            }
        };
        tokio::spawn(serve);
        url
    }

    fn view(enabled: bool, participant: &str) -> Value {
        json!({
            "enabled": enabled, "gateway": { "decline_rate": 0.0, "latency_ms": 0 }, "steps": {}, "stopped": [],
            "choices": { "steps": [], "participants": [participant] }, "a later version's": true,
        })
    }

    #[tokio::test]
    async fn processes_that_are_gone_silent_off_or_something_else_are_named_and_the_others_are_heard() {
        let good = process(Some(view(true, "order"))).await;
        let silent = process(None).await;
        let off = process(Some(view(false, "payment"))).await;
        let other = process(Some(json!([1]))).await;
        let gone = "http://127.0.0.1:1".to_owned();
        let all = [&good, &silent, &off, &other, &gone].map(Clone::clone);
        let begun = tokio::time::Instant::now();
        let (found, lost) = Elsewhere::new(&all).unwrap().look("a token").await;
        assert!(begun.elapsed() < ANSWER_WITHIN + Duration::from_secs(1), "asked one after the other");
        assert_eq!(found.iter().map(|one| &one.url).collect::<Vec<_>>(), [&good]);
        let problem = |url: &str| lost.iter().find(|one| one.url == url).unwrap().problem.clone();
        for (url, words) in
            [(&silent, "within 2 s"), (&off, "failures.enabled"), (&other, "another kind"), (&gone, "refused")]
        {
            assert!(problem(url).contains(words), "{url}: {}", problem(url));
        }
    }

    #[tokio::test]
    async fn a_name_stands_for_each_of_its_addresses_once_and_what_is_no_address_is_refused() {
        let twice = ["http://localhost:7".to_owned(), "http://127.0.0.1:7".to_owned()];
        let (found, lost) = Elsewhere::new(&twice).unwrap().processes().await;
        assert_eq!(
            (found.iter().map(ToString::to_string).collect::<Vec<_>>(), lost.len()),
            (vec![twice[1].clone()], 0)
        );
        let wrong = Elsewhere::new(&["https://order:9002".to_owned()]).unwrap_err().to_string();
        assert!(wrong.contains("failures.elsewhere") && wrong.contains("https"), "{wrong}");
    }

    /// An orchestrator's, which has no switches of its own.
    fn desk(elsewhere: &[&String]) -> Desk {
        let all: Vec<String> = elsewhere.iter().map(|url| (*url).clone()).collect();
        Desk {
            board: Board::new(false, &Health::default()),
            elsewhere: Elsewhere::new(&all).unwrap(),
            audit: None,
            clock: Arc::new(SystemClock),
            ordering: Arc::default(),
        }
    }

    #[tokio::test]
    async fn an_order_that_can_be_given_nowhere_is_refused_and_one_for_what_is_so_changes_nothing() {
        let off = process(Some(view(false, "payment"))).await;
        let on = process(Some(view(true, "order"))).await;
        let gone = "http://127.0.0.1:1".to_owned();
        let end = json!({ "enabled": false, "reason": "enough" });
        let stop = json!({ "stopped": ["order"], "reason": "to see" });
        let given = async |elsewhere: &[&String], order: &Value| {
            let order: FailuresBody = serde_json::from_value(order.clone()).unwrap();
            desk(elsewhere).prepare(Scope::default(), "a token", &order).await
        };
        for order in [&end, &stop] {
            for (elsewhere, code) in [
                (&[&off, &off][..], Code::Conflict),
                (&[&gone][..], Code::DependencyUnavailable),
                (&[&off, &gone][..], Code::DependencyUnavailable),
            ] {
                let refused = given(elsewhere, order).await.err().map(|problem| problem.code);
                assert_eq!(refused, Some(code), "{elsewhere:?}: {order}");
            }
        }
        // One in which nothing can be switched on is off. Of one that does not answer nobody knows.
        for (elsewhere, order, is_so) in
            [(&[&on, &off][..], &end, true), (&[&on, &gone][..], &end, false), (&[&on][..], &stop, false)]
        {
            let found = given(elsewhere, order).await.unwrap();
            assert_eq!(matches!(found, Prepared::IsSo(_)), is_so, "{elsewhere:?}: {order}");
        }
    }

    #[test]
    fn processes_that_differ_are_shown_by_the_worst_of_them() {
        let process = |url: &str, value: Value| {
            let FailuresView { gateway, steps, stopped, choices, .. } = serde_json::from_value(value).unwrap();
            ProcessView { url: url.to_owned(), gateway, steps, stopped, choices }
        };
        let one = json!({ "gateway": { "decline_rate": 0.5 }, "steps": { "take": { "retry_rate": 0.5, "op": "do" } },
            "stopped": ["shelf"], "choices": { "steps": ["take"], "participants": ["shelf"] } });
        let two = json!({ "steps": { "take": { "unknown_rate": 0.1, "op": "undo" } },
            "choices": { "steps": ["pay"], "participants": ["till"] } });
        let all = FailuresView::of(vec![process("a", one), process("b", two)], Vec::new());
        let Choices { steps, participants } = &all.choices;
        assert_eq!((steps.join(" "), participants.join(" ")), ("pay take".into(), "shelf till".into()));
        let take = &all.steps["take"];
        assert_eq!((take.retry_rate, take.unknown_rate, take.op), (0.5, 0.1, None));
        assert_eq!((all.gateway.decline_rate, all.stopped.join(" ")), (0.5, "shelf".to_owned()));
    }
}
