//! `saga participants`: how those who carry out the steps are.

use serde_json::Value;

use super::output::Output;
use super::{Place, text};
use crate::args::Remote;

/// Runs the verb.
pub(super) async fn run(remote: &Remote, place: &Place, output: &Output) -> anyhow::Result<()> {
    let answer = place.admin(remote)?.get("/admin/participants").await?;
    if output.json {
        output.value(&answer);
        return Ok(());
    }
    table(&answer["items"], output);
    Ok(())
}

/// A line for each.
pub(super) fn table(items: &Value, output: &Output) {
    let columns = ["participant", "state", "waiting", "in_flight", "oldest_outstanding_ms", "timeouts", "refusals"];
    let row = |item: &Value| columns.map(|name| text(&item[name])).to_vec();
    let rows: Vec<_> = items.as_array().into_iter().flatten().map(row).collect();
    let heading = ["PARTICIPANT", "STATE", "WAITING", "IN FLIGHT", "OLDEST MS", "TIMEOUTS", "REFUSALS"];
    output.table(&heading, &rows);
}
