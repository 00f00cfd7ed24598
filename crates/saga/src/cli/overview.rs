//! `saga overview`: the shop at a glance; `saga stats`: what its loops counted.

use serde_json::Value;

use super::output::Output;
use super::{Place, participants, text};
use crate::args::{OverviewArgs, Remote};

/// Runs `saga overview`. A watch goes on until somebody ends it: a stream of the server's ends after ten minutes, and another begins.
pub(super) async fn run(args: &OverviewArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let admin = place.admin(&args.remote)?;
    if !args.watch {
        show(&admin.get("/admin/overview").await?, output);
        return Ok(());
    }
    loop {
        let each = |data: &str| match serde_json::from_str(data) {
            Ok(now) => show(&now, output),
            Err(error) => output.note(&format!("not to be understood: {error}")),
        };
        admin.follow("/admin/overview/events", each).await?;
        // Ends here if the shop has gone away.
        admin.get("/admin/overview").await?;
    }
}

fn show(now: &Value, output: &Output) {
    if output.json {
        return output.value(now);
    }
    let word = |name: &str| text(&now[name]);
    let (rates, latency) = (&now["rates"], &now["latency_ms"]);
    output.line(&format!(
        "{}  saga {}, {}, up {} s",
        word("as_of"),
        word("version"),
        word("profile"),
        word("uptime_s")
    ));
    output.line(&format!(
        "in flight {}, {} of them stuck; the oldest since {}",
        word("in_flight"),
        word("stuck"),
        now["oldest_in_flight_at"].as_str().unwrap_or("-"),
    ));
    let [started, completed, compensated, from] =
        ["started", "completed", "compensated", "from"].map(|name| text(&rates[name]));
    output.line(&format!("a second: {started} started, {completed} completed, {compensated} compensated (by {from})"));
    if latency.is_object() {
        output.line(&format!(
            "from start to end: half within {} ms, 99 % within {}",
            text(&latency["p50"]),
            text(&latency["p99"])
        ));
    }
    output.line(&format!("dead letters {}, records that wait {}", word("dead_letters"), word("lag")));
    let row = |item: &Value| ["definition", "status", "count"].map(|name| text(&item[name])).to_vec();
    let rows: Vec<_> = now["counts"].as_array().into_iter().flatten().map(row).collect();
    output.table(&["DEFINITION", "STATUS", "SAGAS"], &rows);
    participants::table(&now["participants"], output);
}

/// Runs `saga stats`.
pub(super) async fn stats(remote: &Remote, place: &Place, output: &Output) -> anyhow::Result<()> {
    let counts = place.admin(remote)?.get("/admin/stats").await?;
    if output.json {
        output.value(&counts);
        return Ok(());
    }
    let rows = counts.as_object().into_iter().flatten().map(|(name, count)| vec![name.clone(), text(count)]);
    output.table(&["WHAT", "COUNT"], &rows.collect::<Vec<_>>());
    Ok(())
}
