//! `saga dlq …`: records that could not be handled.

use serde_json::{Value, json};

use super::output::Output;
use super::sagas::{Query, encoded};
use super::{Place, pages, text};
use crate::args::{DlqCommand, LettersArgs};
use crate::remote::Admin;

/// Runs the verb.
pub(super) async fn run(command: DlqCommand, place: &Place, output: &Output) -> anyhow::Result<()> {
    match command {
        DlqCommand::List { topic: None, remote, .. } => topics(&place.admin(&remote)?, output).await,
        DlqCommand::List { topic: Some(topic), limit, page_token, remote } => {
            letters(&place.admin(&remote)?, &topic, (limit, page_token), output).await
        }
        DlqCommand::Show { topic, id, remote } => {
            let letter = place.admin(&remote)?.get(&format!("/admin/dlq/{}/{id}", encoded(&topic))).await?;
            show(&letter, output);
            Ok(())
        }
        DlqCommand::Redrive(args) => choose("redrive", "redriven", args, place, output).await,
        DlqCommand::Purge(args) => choose("purge", "purged", args, place, output).await,
    }
}

async fn topics(admin: &Admin, output: &Output) -> anyhow::Result<()> {
    let answer = admin.get("/admin/dlq").await?;
    if output.json {
        output.value(&answer);
        return Ok(());
    }
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    if items.is_empty() {
        output.note("there are no dead letters");
        return Ok(());
    }
    let row = |item: &Value| ["topic", "count", "oldest_at"].map(|name| text(&item[name])).to_vec();
    output.table(&["TOPIC", "LETTERS", "OLDEST"], &items.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

async fn letters(
    admin: &Admin,
    topic: &str,
    (limit, from): (u32, Option<String>),
    output: &Output,
) -> anyhow::Result<()> {
    let path = format!("/admin/dlq/{}", encoded(topic));
    let (items, next) = pages(admin, &Query::default(), &path, limit, from).await?;
    if output.json {
        output.value(&super::list(items, next.as_ref()));
        return Ok(());
    }
    let row = |item: &Value| ["id", "at", "attempts", "key", "reason"].map(|name| text(&item[name])).to_vec();
    output.table(&["ID", "GIVEN UP", "ATTEMPTS", "KEY", "REASON"], &items.iter().map(row).collect::<Vec<_>>());
    super::more(next.as_ref(), output);
    Ok(())
}

fn show(letter: &Value, output: &Output) {
    if output.json {
        return output.value(letter);
    }
    for name in ["topic", "id", "partition", "offset", "at", "attempts", "reason", "key"] {
        output.line(&format!("{name:<10} {}", text(&letter[name])));
    }
    for (name, value) in letter["headers"].as_object().into_iter().flatten() {
        output.line(&format!("{name:<10} {}", text(value)));
    }
    output.line("");
    output.line(&text(&letter["payload"]));
}

async fn choose(verb: &str, done: &str, args: LettersArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let mut body = json!({ "reason": args.reason });
    if !args.all {
        body["ids"] = args.ids.into();
    }
    let path = format!("/admin/dlq/{}/{verb}", encoded(&args.topic));
    let answer = place.admin(&args.remote)?.post(&path, &body).await?;
    if output.json {
        output.value(&answer);
    } else {
        output.line(&format!("{} {done}", text(&answer[done])));
    }
    Ok(())
}
