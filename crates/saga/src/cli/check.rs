//! `saga check`: reads every file and database beside a running shop, or of one that is at rest.

use anyhow::Context as _;

use super::Verdict;
use super::output::Output;
use crate::args::CheckArgs;
use crate::check::rules::Wanted;
use crate::config::Config;

/// Runs the verb.
pub(super) async fn run(args: &CheckArgs, config: &Config, output: &Output) -> anyhow::Result<Verdict> {
    let wanted =
        Wanted { settled: args.settled, completed: args.expect_completed, compensated: args.expect_compensated };
    let report = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || crate::check::check(&config, wanted)).await?
    };
    let report = report.context("the books cannot be read")?;
    if output.json {
        output.value(&serde_json::to_value(&report)?);
    } else {
        output.line(&report.text());
    }
    Ok(if report.violations == 0 { Verdict::Fine } else { Verdict::Unbalanced })
}
