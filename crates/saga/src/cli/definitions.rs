//! `saga definitions`: the kinds of sagas that there are.

use anyhow::ensure;
use serde_json::{Value, json};

use super::output::Output;
use super::{Place, text};
use crate::args::DefinitionsArgs;

/// Runs the verb.
pub(super) async fn run(args: &DefinitionsArgs, place: &Place, output: &Output) -> anyhow::Result<()> {
    let answer = place.admin(&args.remote)?.get("/admin/definitions").await?;
    let mut items = answer["items"].as_array().cloned().unwrap_or_default();
    if let Some(name) = &args.name {
        let known: Vec<String> = items.iter().map(|item| text(&item["name"])).collect();
        items.retain(|item| item["name"] == name.as_str());
        ensure!(!items.is_empty(), "there is no definition {name}; there are {}", known.join(", "));
    }
    if output.json {
        output.value(&json!({ "items": items }));
    } else if args.name.is_some() {
        items.iter().for_each(|item| output.line(text(&item["text"]).trim_end()));
    } else {
        output.table(&["NAME", "VERSION", "DEADLINE MS", "STEPS"], &items.iter().map(row).collect::<Vec<_>>());
    }
    Ok(())
}

fn row(item: &Value) -> Vec<String> {
    let steps = item["steps"].as_array().into_iter().flatten().map(|step| text(&step["name"]));
    let [name, version, deadline] = ["name", "version", "deadline_ms"].map(|cell| text(&item[cell]));
    vec![name, version, deadline, steps.collect::<Vec<_>>().join(" ")]
}
