//! `saga failures …`: what goes wrong on purpose.

use serde_json::{Map, Value, json};

use super::output::Output;
use super::{Place, text};
use crate::args::{FailuresArgs, FailuresCommand};

const PATH: &str = "/admin/failures";

/// Runs the verb.
pub(super) async fn run(command: FailuresCommand, place: &Place, output: &Output) -> anyhow::Result<()> {
    let now = match command {
        FailuresCommand::Show(remote) => place.admin(&remote)?.get(PATH).await?,
        FailuresCommand::Set(args) => place.admin(&args.remote)?.put(PATH, &body(&args)).await?,
        FailuresCommand::Clear { reason, remote } => {
            place.admin(&remote)?.put(PATH, &json!({ "enabled": false, "reason": reason })).await?
        }
    };
    if output.json {
        output.value(&now);
    } else {
        show(&now, output);
    }
    Ok(())
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
}
