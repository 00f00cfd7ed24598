//! `saga doctor`: what is wrong with an installation, and how to mend it.

use serde_json::json;

use super::Verdict;
use super::output::Output;
use crate::args::{Common, Remote, UpArgs};
use crate::config::Config;
use crate::doctor::{Finding, Level, gather, judge};

/// Runs the verb.
pub(super) async fn run(common: &Common, up: &UpArgs, remote: &Remote, output: &Output) -> anyhow::Result<Verdict> {
    let findings = match Config::load(common, up) {
        Ok(config) => judge::judge(&gather(config, remote).await),
        // Where it cannot be read nobody knows what else to look at.
        Err(error) => vec![Finding::problem(
            "config",
            error.to_string(),
            "nothing starts, and nothing else can be looked at",
            "correct what it names; `saga config print --defaults` shows every key",
        )],
    };
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    if output.json {
        output.value(&json!({ "problems": problems, "warnings": warnings, "findings": findings }));
    } else {
        for finding in &findings {
            output.line(&format!("{:<8} {:<16} {}", finding.level.as_str(), finding.subject, finding.what));
            if finding.level != Level::Ok {
                output.line(&format!("{:<8} {:<16}   why: {}", "", "", finding.why));
                output.line(&format!("{:<8} {:<16}   do:  {}", "", "", finding.fix));
            }
        }
        output.line(&format!("{problems} problems, {warnings} warnings, {} looked at", findings.len()));
    }
    Ok(if problems == 0 { Verdict::Fine } else { Verdict::Ill })
}
