//! `saga check`: reads every file beside a running shop, or of one that is at rest.

use anyhow::Context as _;

use super::Verdict;
use super::output::Output;
use crate::args::CheckArgs;
use crate::check::rules::Wanted;
use crate::config::Config;

/// Runs the verb.
pub(super) fn run(args: &CheckArgs, config: &Config, output: &Output) -> anyhow::Result<Verdict> {
    let wanted =
        Wanted { settled: args.settled, completed: args.expect_completed, compensated: args.expect_compensated };
    let report = crate::check::check(&config.data, wanted).context("the books cannot be read")?;
    if output.json {
        output.value(&serde_json::to_value(&report)?);
    } else {
        output.line(&report.text());
    }
    Ok(if report.violations == 0 { Verdict::Fine } else { Verdict::Unbalanced })
}
