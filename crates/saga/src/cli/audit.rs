//! `saga audit`: who ordered what.

use serde_json::{Value, json};

use super::output::Output;
use super::sagas::Query;
use super::{Place, pages, text};
use crate::args::AuditArgs;

/// Runs the verb.
pub(super) async fn run(args: AuditArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let AuditArgs { actor, action, target, limit, remote } = args;
    let mut query = Query::default();
    query.add("actor", actor);
    query.add("action", action);
    query.add("target", target);
    let (items, more) = pages(&place.admin(&remote)?, &query, "/admin/audit", limit).await?;
    if output.json {
        output.value(&json!({ "items": items, "more": more }));
        return Ok(());
    }
    let columns = ["at", "actor", "action", "target", "outcome", "reason"];
    let row = |item: &Value| columns.map(|name| text(&item[name])).to_vec();
    let rows: Vec<_> = items.iter().map(row).collect();
    output.table(&["AT", "ACTOR", "ACTION", "TARGET", "OUTCOME", "REASON"], &rows);
    Ok(())
}
