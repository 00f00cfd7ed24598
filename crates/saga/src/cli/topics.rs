//! `saga topics`: how far each consumer group has read.

use serde_json::Value;

use super::output::Output;
use super::{Place, text};
use crate::args::Remote;

/// Runs the verb.
pub(super) async fn run(remote: &Remote, place: &Place, output: &Output) -> anyhow::Result<()> {
    let answer = place.admin(remote)?.get("/admin/topics").await?;
    if output.json {
        output.value(&answer);
        return Ok(());
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for group in list(&answer["items"]) {
        let members: Vec<String> = list(&group["members"]).iter().map(text).collect();
        for place in list(&group["places"]) {
            let cell = |name: &str| text(&place[name]);
            rows.push(vec![
                text(&group["group"]),
                cell("topic"),
                cell("partition"),
                cell("waiting"),
                members.join(" "),
            ]);
        }
    }
    output.table(&["GROUP", "TOPIC", "PARTITION", "WAITING", "MEMBERS"], &rows);
    Ok(())
}
