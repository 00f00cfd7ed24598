//! `saga sagas …`: look at sagas, steer them.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::output::Output;
use super::{Place, pages, text};
use crate::args::{CountsArgs, Filters, Remote, SagaArgs, SagasCommand, SteerArgs};
use crate::remote::Admin;

/// Runs the verb.
pub(super) async fn run(command: SagasCommand, place: &Place, output: &Output) -> anyhow::Result<()> {
    match command {
        SagasCommand::List { filters, q, limit, page_token, remote } => {
            let Filters { state, definition, step, older_than, started_after, started_before } = filters;
            let mut query = Query::default();
            query.add("state", state);
            query.add("definition", definition);
            query.add("step", step);
            query.add("older_than", older_than.map(|age| age.as_secs().to_string()));
            query.add("started_after", started_after);
            query.add("started_before", started_before);
            query.add("q", q.map(|id| id.to_string()));
            list(&place.admin(&remote)?, query, (limit, page_token), output).await
        }
        SagasCommand::Counts(args) => counts(args, place, output).await,
        SagasCommand::Messages(args) => messages(&args, place, output).await,
        SagasCommand::Bulk(args) => super::bulk::run(args, place, output).await,
        SagasCommand::Show(args) => show(&args, place, output).await,
        SagasCommand::Watch(args) => watch(&args, place, output).await,
        SagasCommand::Retry(steer) => operate("retry", &steer, None, place, output).await,
        SagasCommand::Cancel(steer) => operate("cancel", &steer, None, place, output).await,
        SagasCommand::Skip(steer) => operate("skip", &steer, None, place, output).await,
        SagasCommand::Resolve { steer, status } => {
            operate("resolve", &steer, Some(status.as_str()), place, output).await
        }
    }
}

/// A query string.
#[derive(Clone, Default)]
pub(crate) struct Query(String);

impl Query {
    /// With its question mark, or nothing.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn add(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&encoded(&value));
        }
    }
}

/// Percent-encoded (RFC 3986 §2.3: what is unreserved stays).
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

async fn list(
    admin: &Admin,
    query: Query,
    (limit, from): (u32, Option<String>),
    output: &Output,
) -> anyhow::Result<()> {
    let (items, next) = pages(admin, &query, "/admin/sagas", limit, from).await?;
    if output.json {
        output.value(&super::list(items, next.as_ref()));
        return Ok(());
    }
    let columns = ["id", "definition", "status", "awaiting", "version", "started_at", "updated_at"];
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| columns.iter().map(|name| text(&item[*name])).collect()).collect();
    output.table(&["ID", "DEFINITION", "STATUS", "AWAITING", "VERSION", "STARTED", "CHANGED"], &rows);
    super::more(next.as_ref(), output);
    Ok(())
}

async fn counts(args: CountsArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let CountsArgs { definition, state, remote } = args;
    let mut query = Query::default();
    query.add("definition", definition);
    query.add("state", state);
    let counts = place.admin(&remote)?.get(&format!("/admin/sagas/counts{}", query.0)).await?;
    if output.json {
        output.value(&counts);
        return Ok(());
    }
    let row = |item: &Value| ["definition", "status", "count"].map(|name| text(&item[name])).to_vec();
    let rows: Vec<_> = counts["items"].as_array().into_iter().flatten().map(row).collect();
    output.table(&["DEFINITION", "STATUS", "SAGAS"], &rows);
    let [in_flight, stuck] = ["in_flight", "stuck"].map(|name| text(&counts[name]));
    output.note(&format!("{in_flight} in flight, {stuck} of them stuck; ended ones as of {}", text(&counts["as_of"])));
    Ok(())
}

async fn messages(args: &SagaArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let answer = place.admin(&args.remote)?.get(&path(args, "/messages")).await?;
    if output.json {
        output.value(&answer);
        return Ok(());
    }
    for message in answer["items"].as_array().into_iter().flatten() {
        let [at, direction, topic, payload] = ["at", "direction", "topic", "payload"].map(|name| text(&message[name]));
        output.line(&format!("{at}  {direction:<7}  {topic}"));
        for (name, value) in message["headers"].as_object().into_iter().flatten() {
            output.line(&format!("    {name}: {}", text(value)));
        }
        output.line(&format!("    {payload}"));
    }
    Ok(())
}

fn path(args: &SagaArgs, tail: &str) -> String {
    let mut query = Query::default();
    query.add("definition", Some(args.definition.clone()));
    format!("/admin/sagas/{}{tail}{}", args.id, query.0)
}

async fn show(args: &SagaArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let saga = place.admin(&args.remote)?.get(&path(args, "")).await?;
    print(&saga, output);
    Ok(())
}

fn print(saga: &Value, output: &Output) {
    if output.json {
        return output.value(saga);
    }
    match saga["text"].as_str() {
        Some(timeline) => output.text(timeline),
        // Quarantined: there is no state, only what was written.
        None => {
            output.line(&format!("{}/{} {}", text(&saga["definition"]), saga["id"], text(&saga["status"])));
            for entry in saga["history"].as_array().into_iter().flatten() {
                for line in entry["texts"].as_array().into_iter().flatten() {
                    output.line(&format!("  {}  {}", text(&entry["at"]), text(line)));
                }
            }
        }
    }
}

async fn watch(args: &SagaArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let admin = place.admin(&args.remote)?;
    let each = |data: &str| {
        if output.json {
            return output.line(data);
        }
        let transition: Value = serde_json::from_str(data).unwrap_or_default();
        for line in transition["texts"].as_array().into_iter().flatten() {
            output.line(&format!("{:>4}  {}", text(&transition["version"]), text(line)));
        }
    };
    admin.follow(&path(args, "/events"), each).await
}

async fn operate(
    verb: &str,
    steer: &SteerArgs,
    status: Option<&str>,
    place: &Place,
    output: &Output,
) -> anyhow::Result<()> {
    let mut body = json!({ "reason": steer.reason });
    if let Some(version) = steer.version {
        body["version"] = version.into();
    }
    if let Some(status) = status {
        body["status"] = status.into();
    }
    let remote: &Remote = &steer.saga.remote;
    let row =
        place.admin(remote)?.post(&path(&steer.saga, &format!("/{verb}")), &body).await.context(verb.to_owned())?;
    if output.json {
        output.value(&row);
    } else {
        let (id, status, version) = (text(&row["id"]), text(&row["status"]), text(&row["version"]));
        output.line(&format!("{id} is {status}, version {version}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_carries_whatever_was_typed() {
        let mut query = Query::default();
        query.add("state", Some("RUNNING,STUCK".into()));
        query.add("step", None);
        query.add("definition", Some("a&b=c d".into()));
        assert_eq!(query.0, "?state=RUNNING%2CSTUCK&definition=a%26b%3Dc%20d");
    }
}
