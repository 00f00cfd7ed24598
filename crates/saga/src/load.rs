//! The load generator: puts a running shop under load through its public API, and counts honestly.
//!
//! Closed loop: each client posts again as soon as it has its 202. Open loop (`--rate`): purchases are due at fixed
//! moments whatever the answers take, and latency counts from the moment each was due, so that a shop that stalls cannot
//! hide it. A purchase counts as completed when its terminal event arrives on its buyer's stream; what the streams did not
//! tell is asked for one by one at the end, and what was acknowledged and never ended is *lost*.
//!
//! One thread, one connection per client, one stream per account: it shares the machine with what it measures.

#![expect(clippy::disallowed_methods, reason = "a client: it measures real time, and its tasks end with its process")]

mod client;
mod mix;
mod report;
mod setup;
mod stream;
mod sweep;
mod tally;

pub use mix::{Kind, Mix};
pub use report::Report;

use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::args::LoadArgs;
use crate::cli::output::Output;
use crate::remote::{Admin, Endpoint, RunFile};
use client::Client;
use setup::Market;
use tally::Tally;

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What all tasks of a run share. One thread, so no locks.
pub(crate) struct Run {
    pub(crate) args: LoadArgs,
    pub(crate) endpoint: Endpoint,
    pub(crate) market: Market,
    pub(crate) tally: std::cell::RefCell<Tally>,
    pub(crate) schedule: Schedule,
    /// No more posts.
    pub(crate) posted: CancellationToken,
    /// No more listening either.
    pub(crate) ended: CancellationToken,
}

/// Who may post, and when.
pub(crate) struct Schedule {
    start: Instant,
    end: Instant,
    gap: Option<f64>,
    next: std::cell::Cell<u64>,
    limit: u64,
}

impl Schedule {
    fn new(args: &LoadArgs, start: Instant) -> Self {
        Self {
            start,
            end: start + args.duration,
            gap: args.rate.map(|rate| 1.0 / rate),
            next: std::cell::Cell::new(0),
            limit: args.count.unwrap_or(u64::MAX),
        }
    }

    /// When the next purchase is due: its number and moment. `None`: no more.
    pub(crate) fn next(&self) -> Option<(u64, Instant)> {
        let number = self.next.get();
        let now = Instant::now();
        let due = match self.gap {
            #[expect(clippy::cast_precision_loss, reason = "a run has far fewer than 2^52 purchases")]
            Some(gap) => self.start + Duration::from_secs_f64(gap * number as f64),
            None => now,
        };
        if number >= self.limit || due >= self.end || now >= self.end {
            return None;
        }
        self.next.set(number + 1);
        Some((number, due))
    }
}

/// Runs the load and tells what happened. `local` is the shop that runs on the data folder; `operators`, where the books
/// can be checked if it is another one.
///
/// # Errors
/// When the run cannot begin: nobody there, no right to make products.
pub async fn run(
    args: LoadArgs,
    local: Option<RunFile>,
    operators: Option<Admin>,
    output: &Output,
) -> anyhow::Result<Report> {
    let endpoint = Endpoint::parse(&args.url)?;
    if !args.allow_remote && !endpoint.is_loopback() {
        anyhow::bail!("{} is not this machine; if it is yours to load, say --allow-remote", args.url);
    }
    let local = local.filter(|run| run.serves(&endpoint));
    let market = setup::open(&args, &endpoint, local.as_ref(), output).await?;
    let local_set = LocalSet::new();
    let mut report = local_set.run_until(drive(args.clone(), endpoint, market, output)).await?;
    if !args.no_check {
        let local = local.map(|local| Admin::new(&local.admin, &local.token)).transpose()?;
        report.check = check(local.or(operators), output).await;
    }
    Ok(report)
}

async fn drive(args: LoadArgs, endpoint: Endpoint, market: Market, output: &Output) -> anyhow::Result<Report> {
    let clients = args.clients;
    let (posted, ended) = (CancellationToken::new(), CancellationToken::new());
    let tally = std::cell::RefCell::new(Tally::default());
    // Replaced below, when the streams are there.
    let schedule = Schedule::new(&args, Instant::now());
    let mut run = Run { args, endpoint, market, tally, schedule, posted, ended };
    stream::wait_ready(&run).await?;
    run.schedule = Schedule::new(&run.args, Instant::now());
    let run = Rc::new(run);
    let streams: Vec<_> = (0..run.market.users.len())
        .map(|user| tokio::task::spawn_local(stream::listen(Rc::clone(&run), user)))
        .collect();
    stream::wait_open(&run).await?;
    let progress = tokio::task::spawn_local(progress(Rc::clone(&run), output.clone()));
    let posters: Vec<_> = (0..clients)
        .map(|number| tokio::task::spawn_local(Client::new(Rc::clone(&run), number as usize).post_all()))
        .collect();
    for poster in posters {
        poster.await?;
    }
    let posting = run.schedule.start.elapsed().min(run.args.duration);
    run.posted.cancel();
    sweep::settle(&run, output).await;
    run.ended.cancel();
    for stream in streams {
        stream.await?;
    }
    progress.await?;
    output.clear_status();
    let report = Report::of(&run, posting);
    Ok(report)
}

async fn progress(run: Rc<Run>, output: Output) {
    let mut last = (0, 0);
    let mut next = Instant::now() + PROGRESS_EVERY;
    loop {
        tokio::select! {
            () = run.ended.cancelled() => return,
            () = sleep_until(next) => {}
        }
        next += PROGRESS_EVERY;
        let (line, now) = run.tally.borrow().progress(run.schedule.start.elapsed(), last);
        last = now;
        output.status(&line);
    }
}

/// Asks the shop to check its books, if this machine may.
async fn check(admin: Option<Admin>, output: &Output) -> Option<serde_json::Value> {
    let Some(admin) = admin else {
        output.note("the books were not checked: the admin listener is not known here (--data, or SAGA_ADMIN_URL)");
        return None;
    };
    output.status("checking the books …");
    let answer = admin.post("/admin/check", &serde_json::json!({})).await;
    output.clear_status();
    match answer {
        Ok(report) => Some(report),
        Err(error) => {
            output.note(&format!("the books were not checked: {error:#}"));
            None
        }
    }
}

/// Waits as long as a `Retry-After` says, at most ten seconds, and not past the end.
pub(crate) async fn retry_after(run: &Run, seconds: Option<u64>) {
    let wait = Duration::from_secs(seconds.unwrap_or(1).clamp(1, 10));
    tokio::select! {
        () = run.posted.cancelled() => {}
        () = sleep(wait) => {}
    }
}
