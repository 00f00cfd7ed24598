//! `saga sagas bulk`: one order for many sagas, told before it is given.

use serde_json::{Map, Value, json};

use super::output::Output;
use super::{Place, text};
use crate::args::{BulkArgs, Filters};

const PATH: &str = "/admin/sagas/bulk";

/// Runs the verb: without `--yes` it only tells which sagas it would be.
pub(super) async fn run(args: BulkArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let admin = place.admin(&args.remote)?;
    let mut body = json!({
        "verb": args.verb.as_str(), "filter": filter(&args.filters, &args.ids), "reason": args.reason, "dry_run": true,
    });
    if let Some(status) = args.status {
        body["status"] = status.as_str().into();
    }
    let expected = match args.expect {
        Some(expected) => expected,
        None => {
            let dry = admin.post(PATH, &body).await?;
            if !args.yes {
                tell(&dry, output);
                return Ok(());
            }
            dry["matched"].as_u64().unwrap_or_default()
        }
    };
    body["dry_run"] = false.into();
    body["expect_count"] = expected.into();
    let answer = admin.post(PATH, &body).await?;
    if output.json {
        output.value(&answer);
        return Ok(());
    }
    let [matched, applied, refused] = ["matched", "applied", "refused_count"].map(|name| text(&answer[name]));
    output.line(&format!("{applied} of {matched} done, {refused} refused"));
    let row = |item: &Value| ["id", "definition", "code", "detail"].map(|name| text(&item[name])).to_vec();
    let rows: Vec<_> = answer["refused"].as_array().into_iter().flatten().map(row).collect();
    if !rows.is_empty() {
        output.table(&["ID", "DEFINITION", "CODE", "WHY"], &rows);
    }
    Ok(())
}

fn filter(filters: &Filters, ids: &[u64]) -> Value {
    let Filters { state, definition, step, older_than, started_after, started_before } = filters;
    let own = |text: &Option<String>| text.clone().map(Value::from);
    let all = [
        ("state", own(state)),
        ("definition", own(definition)),
        ("step", own(step)),
        ("older_than", older_than.map(|age| age.as_secs().into())),
        ("started_after", own(started_after)),
        ("started_before", own(started_before)),
        ("ids", (!ids.is_empty()).then(|| ids.into())),
    ];
    let given = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}

fn tell(dry: &Value, output: &Output) {
    if output.json {
        return output.value(dry);
    }
    let columns = ["id", "definition", "status", "awaiting", "version", "updated_at"];
    let row = |item: &Value| columns.map(|name| text(&item[name])).to_vec();
    let rows: Vec<_> = dry["sample"].as_array().into_iter().flatten().map(row).collect();
    output.table(&["ID", "DEFINITION", "STATUS", "AWAITING", "VERSION", "CHANGED"], &rows);
    let matched = text(&dry["matched"]);
    output.note(&format!("{matched} sagas match; nothing was done: give the same with --yes --expect {matched}"));
}
