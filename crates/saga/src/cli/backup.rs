//! `saga backup DIR`: a copy of the data folder of a shop that runs or not, as it was at one moment.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use saga_adapters::sqlite::backup::{Copied, Moment};
use saga_adapters::sqlite::{Schema, dead_letters, saga_store};
use saga_runtime::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::output::Output;
use crate::config::Config;
use crate::up::places::{self, Place};
use crate::up::roles::{ALL, ServiceRole};

/// Written last: a folder without it is no whole backup.
const MANIFEST: &str = "backup.json";

/// Runs the verb.
pub(super) async fn run(to: &Path, config: &Config, output: &Output) -> anyhow::Result<()> {
    let (to, config) = (to.to_owned(), config.clone());
    let told = tokio::task::spawn_blocking(move || back_up(&to, &config)).await??;
    if output.json {
        output.value(&told);
    } else {
        for file in told["files"].as_array().into_iter().flatten() {
            output.line(&format!("{:<16} {:>12} bytes", super::text(&file["name"]), super::text(&file["bytes"])));
        }
        output.line(&format!("writers waited {} ms; to restore, start `saga up --data` on a copy", told["held_ms"]));
    }
    Ok(())
}

fn back_up(to: &Path, config: &Config) -> anyhow::Result<Value> {
    let schemas = files(config)?;
    make(to)?;
    let begun = SystemClock.now();
    let moment = Moment::hold(&config.data, &schemas).context("nothing was copied")?;
    let held = SystemClock.now();
    let copied = moment.copy(to).context("the copy is not whole: remove it and try again")?;
    let file = |file: &Copied| json!({ "name": file.name, "bytes": file.bytes });
    let manifest = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "at_ms": held,
        "held_ms": held.saturating_sub(begun),
        "files": copied.iter().map(file).collect::<Vec<_>>(),
    });
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to.join(MANIFEST))?;
        file.write_all(manifest.to_string().as_bytes())?;
        file.sync_all()?;
        // The names, too.
        File::open(to)?.sync_all()
    };
    write().with_context(|| to.join(MANIFEST).display().to_string())?;
    Ok(manifest)
}

/// Every file of the shop.
fn files(config: &Config) -> anyhow::Result<Vec<&'static Schema>> {
    for role in ALL {
        ensure!(
            places::of(config, role)? == Place::File,
            "the rows of the {role} service are in PostgreSQL: docs/operations.md says how to back it up"
        );
    }
    let schema = |role| match role {
        ServiceRole::Account => Some(&account::SCHEMA),
        ServiceRole::Product => Some(&product::SCHEMA),
        ServiceRole::Order => Some(&order::SCHEMA),
        ServiceRole::Payment => Some(&payment::SCHEMA),
        ServiceRole::Purchase => Some(&purchase::SCHEMA),
        ServiceRole::Orchestrator => Some(&saga_store::SCHEMA),
        ServiceRole::Console => None,
    };
    Ok(ALL.into_iter().filter_map(schema).chain([&dead_letters::SCHEMA]).collect())
}

/// A new folder, or an empty one.
fn make(to: &Path) -> anyhow::Result<()> {
    let context = || to.display().to_string();
    if to.is_dir() {
        let empty = std::fs::read_dir(to).with_context(context)?.next().is_none();
        ensure!(empty, "{} is not empty: name a new folder", to.display());
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(to).with_context(context)
}
