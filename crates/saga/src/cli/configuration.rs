//! `saga config …`: what is in force, and whether it is lawful.

use super::output::Output;
use crate::args::{Common, ConfigCommand, UpArgs};
use crate::config::{Config, DEFAULTS};

/// Runs the verb.
pub(super) fn run(command: &ConfigCommand, common: &Common, up: &UpArgs, output: &Output) -> anyhow::Result<()> {
    if let ConfigCommand::Print { defaults: true } = command {
        output.text(DEFAULTS);
        return Ok(());
    }
    let config = Config::load(common, up)?;
    let definitions = crate::up::definitions(&config)?;
    match command {
        ConfigCommand::Print { .. } if output.json => output.value(&config.value()?),
        ConfigCommand::Print { .. } => output.text(&config.print()?),
        ConfigCommand::Check => {
            for definition in definitions.all() {
                output.text(&saga_core::render::definition_text(&definition));
            }
            output.note("the configuration is lawful");
        }
    }
    Ok(())
}
