//! `saga man`: manual pages, made of the same words as `--help`.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::output::Output;
use crate::args::{Cli, ManArgs};

/// Prints the first page, or writes all of them.
pub(super) fn run(args: &ManArgs, output: &Output) -> anyhow::Result<()> {
    let mut cli = Cli::command();
    // Names the pages and what they refer to: `saga-sagas-list`.
    cli.build();
    let Some(folder) = &args.out else {
        output.text(&page(cli)?);
        return Ok(());
    };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let count = write(cli, folder)?;
    output.note(&format!("{count} pages in {}", folder.display()));
    Ok(())
}

fn page(command: clap::Command) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command).render(&mut bytes)?;
    Ok(String::from_utf8(bytes)?)
}

/// A page for a verb and for each below it; how many.
fn write(command: clap::Command, folder: &Path) -> anyhow::Result<usize> {
    let mut count = 1;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        count += write(below.clone(), folder)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let path = folder.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?).with_context(|| path.display().to_string())?;
    Ok(count)
}
