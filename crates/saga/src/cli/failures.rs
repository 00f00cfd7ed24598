//! `saga failures …`: what goes wrong on purpose.

use anyhow::ensure;
use serde_json::{Map, Value, json};

use super::output::Output;
use super::{Place, text};
use crate::args::{FailuresArgs, FailuresCommand};

fn path(here: bool) -> &'static str {
    if here { "/admin/failures?here=true" } else { "/admin/failures" }
}

/// Runs the verb. An order that not every process could be given did not wholly work.
pub(super) async fn run(command: FailuresCommand, place: &Place, output: &Output) -> anyhow::Result<()> {
    let (now, ordered) = match command {
        FailuresCommand::Show { here, remote } => (place.admin(&remote)?.get(path(here)).await?, false),
        FailuresCommand::Set(args) => (place.admin(&args.remote)?.put(path(args.here), &body(&args)).await?, true),
        FailuresCommand::Clear { reason, here, remote } => {
            let order = json!({ "enabled": false, "reason": reason });
            (place.admin(&remote)?.put(path(here), &order).await?, true)
        }
    };
    if output.json {
        output.value(&now);
    } else {
        show(&now, output);
    }
    let unreached: Vec<String> = now["unreached"].as_array().into_iter().flatten().map(lost).collect();
    ensure!(!ordered || unreached.is_empty(), "not known to have reached {}", unreached.join(", nor "));
    Ok(())
}

fn lost(one: &Value) -> String {
    format!("{} ({})", text(&one["url"]), text(&one["problem"]))
}

fn body(args: &FailuresArgs) -> Value {
    let step = |rule: &crate::args::StepRule| {
        let mut rates = json!({ "unknown_rate": rule.unknown, "retry_rate": rule.retry, "lost_rate": rule.lost });
        if let Some(op) = rule.op {
            rates["op"] = op.into();
        }
        (rule.step.clone(), rates)
    };
    json!({
        "gateway": { "decline_rate": args.decline, "latency_ms": args.latency.as_millis() as u64 },
        "steps": args.steps.iter().map(step).collect::<Map<_, _>>(),
        "stopped": args.stopped,
        "reason": args.reason,
    })
}

fn show(now: &Value, output: &Output) {
    for one in now["unreached"].as_array().into_iter().flatten() {
        output.note(&format!("not reached: {}", lost(one)));
    }
    if now["enabled"] != true {
        return output.line("not enabled (failures.enabled in the configuration); nothing goes wrong on purpose");
    }
    let gateway = &now["gateway"];
    output.line(&format!(
        "gateway   declines {}, answers {} ms later",
        text(&gateway["decline_rate"]),
        text(&gateway["latency_ms"])
    ));
    for (step, rates) in now["steps"].as_object().into_iter().flatten() {
        let op = rates["op"].as_str().map_or_else(String::new, |op| format!(" ({op} only)"));
        let [unknown, retry, lost] = ["unknown_rate", "retry_rate", "lost_rate"].map(|rate| text(&rates[rate]));
        output.line(&format!("step      {step}: unknown {unknown}, retry {retry}, lost {lost}{op}"));
    }
    for name in now["stopped"].as_array().into_iter().flatten() {
        output.line(&format!("stopped   {}", text(name)));
    }
    for process in now["processes"].as_array().into_iter().flatten() {
        let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(" ");
        let steps: Vec<&String> = process["steps"].as_object().into_iter().flatten().map(|(step, _)| step).collect();
        output.line(&format!(
            "process   {}: has {}; fails {steps:?}; stopped [{}]; gateway declines {}, {} ms",
            text(&process["url"]),
            list(&process["choices"]["participants"]),
            list(&process["stopped"]),
            text(&process["gateway"]["decline_rate"]),
            text(&process["gateway"]["latency_ms"]),
        ));
    }
}
