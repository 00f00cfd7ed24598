//! `saga load`: runs the generator, prints what it measured.

use super::output::Output;
use super::{Place, Verdict};
use crate::args::{LoadArgs, Remote};
use crate::remote::RunFile;

/// Runs the verb. The verdict is about soundness (nothing lost, nothing unexpected, books balance), not about speed.
pub(super) async fn run(args: LoadArgs, place: &Place, output: &Output) -> anyhow::Result<Verdict> {
    let operators = match crate::config::admin_url() {
        Some(_) => Some(place.admin(&Remote::default())?),
        None => None,
    };
    let report = crate::load::run(args, RunFile::read(&place.data)?, operators, output).await?;
    if output.json {
        output.value(&serde_json::to_value(&report)?);
    } else {
        output.line(&report.to_string());
    }
    Ok(if report.sound() { Verdict::Fine } else { Verdict::Unbalanced })
}
