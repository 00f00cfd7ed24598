//! `saga admin …`: accounts with rights, through the running shop or, if none runs, on its folder.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::Place;
use super::output::Output;
use crate::args::{AdminCommand, Role};
use crate::config::Config;
use crate::remote::{Admin, RunFile};

/// Runs the verb.
pub(super) async fn run(command: AdminCommand, config: &Config, place: &Place, output: &Output) -> anyhow::Result<()> {
    let AdminCommand::Create { email, role, password_file, reason, remote } = command;
    let password = password(password_file.as_deref(), output)?;
    let admin = match (&remote.url, RunFile::read(&place.data)?) {
        (Some(_), _) => Some(place.admin(&remote)?),
        (None, run) => run.map(|run| Admin::new(&run.admin, &run.token)).transpose()?,
    };
    match admin {
        Some(admin) => {
            let body = json!({ "email": email, "password": password, "role": role.as_str(), "reason": reason });
            admin.post("/admin/accounts", &body).await?;
        }
        None => {
            let rights = match role {
                Role::Viewer => chassis::auth::Role::Viewer,
                Role::Operator => chassis::auth::Role::Operator,
                Role::Admin => chassis::auth::Role::Admin,
            };
            crate::up::create_account(config, &email, password, (rights, role.as_str()), reason).await?;
        }
    }
    if output.json {
        output.value(&json!({ "email": email, "role": role.as_str() }));
    } else {
        output.line(&format!("{email} is {} now; an account that was there keeps its password", role.as_str()));
    }
    Ok(())
}

/// From the file, or the first line of standard input. Never from the command line: that is seen by everybody.
fn password(file: Option<&Path>, output: &Output) -> anyhow::Result<String> {
    let line = match file {
        Some(path) => {
            let whole = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            whole.lines().next().unwrap_or_default().to_owned()
        }
        None => {
            if std::io::stdin().is_terminal() {
                output.note("The password (8 to 128 characters; it is shown as you type):");
            }
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    let length = line.chars().count();
    ensure!((8..=128).contains(&length), "the password must have 8 to 128 characters; this one has {length}");
    Ok(line)
}
