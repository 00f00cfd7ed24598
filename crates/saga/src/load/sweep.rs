//! After the last post: wait for the streams, then ask for what they did not tell.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::Run;
use super::tally::End;
use crate::cli::output::Output;
use crate::remote::Connection;

/// How often the counts are looked at. It bounds nothing that is measured: ends have their own moments.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Without an end for this long, what is pending is asked for.
const ASK_AFTER: Duration = Duration::from_secs(2);
/// Between two rounds of asking.
const ASK_EVERY: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Purchase {
    status: String,
}

/// Returns when nothing is pending, or when nothing has ended for as long as `--settle` says.
pub(crate) async fn settle(run: &Rc<Run>, output: &Output) {
    let mut seen = (run.tally.borrow().done(), Instant::now());
    let mut asked = Instant::now();
    loop {
        let (done, pending) = {
            let tally = run.tally.borrow();
            (tally.done(), tally.pending.len())
        };
        if pending == 0 {
            return;
        }
        let now = Instant::now();
        if done > seen.0 {
            seen = (done, now);
        }
        if now - seen.1 > run.args.settle {
            output.clear_status();
            output.note(&format!("{pending} purchases have not ended; giving up"));
            return;
        }
        if now - seen.1 > ASK_AFTER && now - asked > ASK_EVERY {
            ask(run).await;
            asked = Instant::now();
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Asks for every pending purchase, one after the other, on one connection.
async fn ask(run: &Rc<Run>) {
    let pending: Vec<(u64, usize)> = run.tally.borrow().pending.iter().map(|(id, p)| (*id, p.user)).collect();
    let mut connection = Connection::new(&run.endpoint);
    for (id, user) in pending {
        let account = &run.market.users[user];
        let path = format!("/api/v1/purchases/{id}");
        let bearer = account.bearer();
        // The shop may be restarting: the next round asks again.
        let Ok(answer) = connection.send(Method::GET, &path, Some(&bearer), Bytes::new()).await else { return };
        if answer.status == StatusCode::UNAUTHORIZED {
            drop(account.renew(&mut connection, &bearer).await);
        }
        let Ok(purchase) = serde_json::from_slice::<Purchase>(&answer.body) else { continue };
        match purchase.status.as_str() {
            "COMPLETED" => run.tally.borrow_mut().found(id, End::Completed),
            "COMPENSATED" => run.tally.borrow_mut().found(id, End::Compensated),
            _ => {}
        }
    }
}
