//! `saga topics …`: how far each consumer group has read, which topics there are, and what is in them.

use serde_json::Value;

use super::output::Output;
use super::sagas::{Query, encoded};
use super::{Place, text};
use crate::args::{Remote, TopicsArgs, TopicsCommand};

/// Runs the verb.
pub(super) async fn run(args: TopicsArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    match args.command {
        None => groups(&args.remote, place, output).await,
        Some(TopicsCommand::List(remote)) => topics(&remote, place, output).await,
        Some(TopicsCommand::Messages { topic, partition, from, key, limit, remote }) => {
            let mut query = Query::default();
            query.add("partition", partition.map(|number| number.to_string()));
            query.add("from", from.map(|number| number.to_string()));
            query.add("key", key);
            query.add("limit", Some(limit.to_string()));
            let path = format!("/admin/topics/{}/messages{}", encoded(&topic), query.as_str());
            messages(&place.admin(&remote)?.get(&path).await?, output);
            Ok(())
        }
    }
}

async fn topics(remote: &Remote, place: &Place, output: &Output) -> anyhow::Result<()> {
    let answer = place.admin(remote)?.get("/admin/topics/list").await?;
    if output.json {
        output.value(&answer);
        return Ok(());
    }
    let mut rows = Vec::new();
    for topic in answer["items"].as_array().into_iter().flatten() {
        for partition in topic["partitions"].as_array().into_iter().flatten() {
            let cells = ["partition", "begin", "end"].map(|name| text(&partition[name]));
            rows.push([vec![text(&topic["topic"])], cells.to_vec()].concat());
        }
    }
    output.table(&["TOPIC", "PARTITION", "BEGIN", "END"], &rows);
    Ok(())
}

fn messages(answer: &Value, output: &Output) {
    if output.json {
        return output.value(answer);
    }
    for record in answer["items"].as_array().into_iter().flatten() {
        let [partition, offset, at, key, payload] =
            ["partition", "offset", "at", "key", "payload"].map(|name| text(&record[name]));
        output.line(&format!("{partition}/{offset}  {at}  {key}"));
        for (name, value) in record["headers"].as_object().into_iter().flatten() {
            output.line(&format!("    {name}: {}", text(value)));
        }
        let cut = if record["truncated"] == true { " …" } else { "" };
        output.line(&format!("    {payload}{cut}"));
    }
    if let Some(from) = answer["next_from"].as_u64() {
        output.note(&format!("there are more; --from {from} goes on"));
    } else if let Some(since) = answer["kept_since"].as_str() {
        output.note(&format!("this bus keeps records only while somebody looks: since {since}"));
    }
}

async fn groups(remote: &Remote, place: &Place, output: &Output) -> anyhow::Result<()> {
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
