//! One event stream per account: how its purchases ended. Reconnects, and resumes where it was.

use std::rc::Rc;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::Run;
use super::tally::End;
use crate::remote::Connection;
use chassis::sse::Lines;

const EVENTS: &str = "/api/v1/purchases/events?terminal=true";
/// Before a broken stream is opened again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long all streams may take to open.
const OPENING: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Told<'t> {
    purchase_id: u64,
    status: &'t str,
}

/// Listens for one account until the run has ended.
pub(crate) async fn listen(run: Rc<Run>, user: usize) {
    let mut connection = Connection::new(&run.endpoint);
    let mut last_id = String::new();
    loop {
        tokio::select! {
            () = run.ended.cancelled() => return,
            () = once(&run, user, &mut connection, &mut last_id) => {}
        }
        tokio::select! {
            () = run.ended.cancelled() => return,
            () = sleep(PAUSE) => {}
        }
    }
}

/// One connection's life. Whatever ends it, the next one resumes.
async fn once(run: &Rc<Run>, user: usize, connection: &mut Connection, last_id: &mut String) {
    let account = &run.market.users[user];
    let bearer = account.bearer();
    let resume: Vec<(&'static str, String)> = match last_id.is_empty() {
        true => Vec::new(),
        false => vec![("last-event-id", last_id.clone())],
    };
    let mut lines = Lines::default();
    let open = std::cell::Cell::new(false);
    let opened = || {
        open.set(true);
        run.tally.borrow_mut().streams += 1;
    };
    let chunk = |bytes: &[u8]| {
        let now = Instant::now();
        let mut tally = run.tally.borrow_mut();
        lines.feed(bytes, |event| {
            if !event.id.is_empty() {
                event.id.clone_into(last_id);
            }
            let Ok(told) = serde_json::from_str::<Told<'_>>(event.data) else { return };
            let end = if told.status == "SUCCESS" { End::Completed } else { End::Compensated };
            tally.ended(told.purchase_id, end, now);
        });
        true
    };
    let ended = connection.stream(EVENTS, Some(&bearer), &resume, opened, chunk).await;
    if open.get() {
        run.tally.borrow_mut().streams -= 1;
    }
    if matches!(ended, Ok(StatusCode::UNAUTHORIZED) | Ok(StatusCode::OK)) {
        // Also a stream that the token's expiry has ended; a fresh token is needed either way. What fails is tried again.
        drop(account.renew(connection, &bearer).await);
    }
}

/// Waits until the shop says that it is ready.
pub(crate) async fn wait_ready(run: &Run) -> anyhow::Result<()> {
    let mut connection = Connection::new(&run.endpoint);
    let end = Instant::now() + OPENING;
    loop {
        let answer = connection.send(Method::GET, "/readyz", None, Bytes::new()).await;
        match answer {
            // A shop behind an edge may not show its health.
            Ok(answer) if answer.status != StatusCode::SERVICE_UNAVAILABLE => return Ok(()),
            Ok(_) if Instant::now() > end => bail!("{} is not ready", run.endpoint),
            Err(error) if Instant::now() > end => return Err(error),
            _ => sleep(PAUSE).await,
        }
    }
}

/// Waits until every account's stream is open, so that no end is missed.
pub(crate) async fn wait_open(run: &Run) -> anyhow::Result<()> {
    let end = Instant::now() + OPENING;
    while run.tally.borrow().streams < run.market.users.len() {
        if Instant::now() > end {
            let open = run.tally.borrow().streams;
            bail!("only {open} of {} event streams could be opened", run.market.users.len());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
