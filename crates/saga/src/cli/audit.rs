//! `saga audit`: who ordered what.

use serde_json::Value;

use super::output::Output;
use super::sagas::Query;
use super::{Place, pages, text};
use crate::args::AuditArgs;

/// Runs the verb.
pub(super) async fn run(args: AuditArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let AuditArgs { actor, action, target, limit, page_token, remote } = args;
    let mut query = Query::default();
    query.add("actor", actor);
    query.add("action", action);
    query.add("target", target);
    let (items, next) = pages(&place.admin(&remote)?, &query, "/admin/audit", limit, page_token).await?;
    if output.json {
        output.value(&super::list(items, next.as_ref()));
        return Ok(());
    }
    let columns = ["at", "actor", "action", "target", "outcome", "reason"];
    let row = |item: &Value| columns.map(|name| text(&item[name])).to_vec();
    let rows: Vec<_> = items.iter().map(row).collect();
    output.table(&["AT", "ACTOR", "ACTION", "TARGET", "OUTCOME", "REASON"], &rows);
    super::more(next.as_ref(), output);
    Ok(())
}
