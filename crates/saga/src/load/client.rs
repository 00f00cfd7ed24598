//! One client: posts, reads its 202, posts again.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::tally::Pending;
use super::{Run, mix, retry_after};
use crate::remote::{Answer, Connection};

/// Where purchases are posted.
const PURCHASES: &str = "/api/v1/purchases";
/// After an error: the shop may be restarting.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct Client {
    run: Rc<Run>,
    user: usize,
    connection: Connection,
}

#[derive(Deserialize)]
struct Accepted {
    id: u64,
}

impl Client {
    pub(crate) fn new(run: Rc<Run>, number: usize) -> Self {
        let connection = Connection::new(&run.endpoint);
        let user = number % run.market.users.len();
        Self { run, user, connection }
    }

    /// Posts what is due, one after the other, until nothing more is.
    pub(crate) async fn post_all(mut self) {
        while let Some((number, due)) = self.run.schedule.next() {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            self.post(number, due).await;
        }
    }

    /// One purchase; again while the shop is busy, until the run's end.
    async fn post(&mut self, number: u64, due: Instant) {
        let random = mix::scramble(self.run.args.seed, number);
        let kind = self.run.args.mix.pick(random);
        let body = self.run.market.body(kind, random);
        loop {
            let answer = self.send(body.clone()).await;
            let now = Instant::now();
            match answer {
                Ok(answer) if answer.status == StatusCode::ACCEPTED => {
                    let mut tally = self.run.tally.borrow_mut();
                    match serde_json::from_slice::<Accepted>(&answer.body) {
                        Ok(accepted) => tally.accepted(accepted.id, Pending { due, user: self.user, kind }, now),
                        Err(error) => tally.error(format!("202 without an id: {error}")),
                    }
                    return;
                }
                Ok(answer) if is_busy(&answer) => {
                    self.run.tally.borrow_mut().busy += 1;
                    retry_after(&self.run, answer.retry_after()).await;
                    if now >= self.run.schedule.end {
                        return;
                    }
                }
                Ok(answer) => {
                    let detail = answer.json().map_or_else(|e| e.to_string(), |_| answer.status.to_string());
                    self.run.tally.borrow_mut().error(detail);
                    return sleep(PAUSE).await;
                }
                Err(error) => {
                    self.run.tally.borrow_mut().error(format!("{error:#}"));
                    return sleep(PAUSE).await;
                }
            }
        }
    }

    /// One answer; a token that has expired is renewed first.
    async fn send(&mut self, body: Bytes) -> anyhow::Result<Answer> {
        let run = Rc::clone(&self.run);
        let user = &run.market.users[self.user];
        let bearer = user.bearer();
        let answer = self.connection.send(Method::POST, PURCHASES, Some(&bearer), body.clone()).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        user.renew(&mut self.connection, &bearer).await?;
        self.connection.send(Method::POST, PURCHASES, Some(&user.bearer()), body).await
    }
}

/// Both say `Retry-After`.
pub(crate) fn is_busy(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}
