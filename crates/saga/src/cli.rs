//! The verbs: what the command line asks for, done by the library, told in words or JSON.
//!
//! Exit codes: 0 it worked · 1 it did not · 2 the command line or the configuration is wrong · 3 the books do not balance.

mod admin;
mod audit;
mod backup;
mod bulk;
mod check;
mod configuration;
mod definitions;
mod dlq;
mod doctor;
mod failures;
mod load;
mod man;
mod migrate;
pub mod output;
mod overview;
#[cfg(test)]
mod parity;
mod participants;
mod sagas;
mod topics;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;

use crate::args::{Cli, Command, Remote};
use crate::config::{Config, ConfigError};
use crate::remote::{Admin, RunFile};
use crate::up::documents;
use crate::up::roles::ALL;
use output::Output;

/// It did not work.
const FAILURE: u8 = 1;
/// The command line or the configuration is wrong (clap's own code, too).
const USAGE: u8 = 2;
/// The books do not balance, or a run was not sound.
const UNBALANCED: u8 = 3;

/// Items on one page of the admin API.
const PAGE: u32 = 200;

/// How a verb that ran ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// As it should.
    Fine,
    /// The shop is not ready.
    NotReady,
    /// Something is wrong with the installation.
    Ill,
    /// Something is wrong in the books.
    Unbalanced,
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.common.json);
    match dispatch(cli, &output) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::NotReady | Verdict::Ill) => ExitCode::from(FAILURE),
        Ok(Verdict::Unbalanced) => ExitCode::from(UNBALANCED),
        Err(error) => {
            output.note(&format!("saga: {error:#}"));
            ExitCode::from(if error.is::<ConfigError>() { USAGE } else { FAILURE })
        }
    }
}

fn dispatch(cli: Cli, output: &Output) -> anyhow::Result<Verdict> {
    let Cli { common, up, command } = cli;
    if let Some(command) = &command
        && !matches!(command, Command::Up(_) | Command::Serve { .. })
        && !up.is_empty()
    {
        Cli::command()
            .error(
                clap::error::ErrorKind::ArgumentConflict,
                "--listen and its like belong to `saga up` and `saga serve`",
            )
            .exit();
    }
    let all = || ALL.into();
    let (up, roles, command) = match command {
        None => (up, all(), None),
        Some(Command::Up(more)) => (more.or(up), all(), None),
        Some(Command::Serve { roles, up: more }) => (more.or(up), roles.into_iter().collect(), None),
        Some(command) => (up, all(), Some(command)),
    };
    if let Some(Command::Completions { shell }) = command {
        // Standard output may be closed before the end; the generator would panic at it.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "saga", &mut script);
        output.text(&String::from_utf8(script)?);
        return Ok(Verdict::Fine);
    }
    if let Some(Command::Openapi { admin }) = command {
        let document = if admin { documents::admin()? } else { documents::public()? };
        output.value(&document);
        return Ok(Verdict::Fine);
    }
    if let Some(Command::Man(args)) = command {
        return man::run(&args, output).map(|()| Verdict::Fine);
    }
    if let Some(Command::Config(command)) = command {
        return configuration::run(&command, &common, &up, output).map(|()| Verdict::Fine);
    }
    if let Some(Command::Doctor(remote)) = command {
        return client_runtime()?.block_on(doctor::run(&common, &up, &remote, output));
    }
    let config = Config::load(&common, &up)?;
    match command {
        None => crate::up::run(config, roles, output).map(|()| Verdict::Fine),
        Some(command) => client_runtime()?.block_on(run(command, config, output)),
    }
}

/// One thread: what talks to a shop must leave the machine to it.
fn client_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn run(command: Command, config: Config, output: &Output) -> anyhow::Result<Verdict> {
    let place = Place { data: config.data.clone() };
    match command {
        Command::Overview(args) => overview::run(&args, &place, output).await?,
        Command::Stats(remote) => overview::stats(&remote, &place, output).await?,
        Command::Definitions(args) => definitions::run(&args, &place, output).await?,
        Command::Sagas(command) => sagas::run(command, &place, output).await?,
        Command::Dlq(command) => dlq::run(command, &place, output).await?,
        Command::Topics(args) => topics::run(args, &place, output).await?,
        Command::Failures(command) => failures::run(command, &place, output).await?,
        Command::Audit(args) => audit::run(args, &place, output).await?,
        Command::Participants(remote) => participants::run(&remote, &place, output).await?,
        Command::Admin(command) => admin::run(command, &config, &place, output).await?,
        Command::Check(args) => return check::run(&args, &config, &place, output).await,
        Command::Backup { dir } => backup::run(&dir, &config, output).await?,
        Command::Migrate => migrate::run(&config, output).await?,
        Command::Load(args) => return load::run(args, &place, output).await,
        Command::Healthcheck(remote) => return healthcheck(&remote, &place, output).await,
        // Dealt with before.
        Command::Up(_)
        | Command::Serve { .. }
        | Command::Config(_)
        | Command::Doctor(_)
        | Command::Openapi { .. }
        | Command::Man(_)
        | Command::Completions { .. } => {}
    }
    Ok(Verdict::Fine)
}

/// Where the shop is that is talked to.
pub(crate) struct Place {
    /// The data folder.
    pub(crate) data: PathBuf,
}

impl Place {
    /// The admin API: by address and token, or of the shop that runs on the data folder.
    pub(crate) fn admin(&self, remote: &Remote) -> anyhow::Result<Admin> {
        let run = RunFile::read(&self.data)?;
        let token = match (&remote.token_file, crate::config::admin_token()) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
                Some(text.trim().to_owned())
            }
            (None, token) => token,
        };
        let url =
            remote.url.clone().or_else(crate::config::admin_url).or_else(|| run.as_ref().map(|run| run.admin.clone()));
        // The local token is for the local shop: it is not sent to an address that somebody typed.
        let local = || run.as_ref().filter(|run| url.as_ref() == Some(&run.admin)).map(|run| run.token.clone());
        let token = token.or_else(local);
        match (&url, token) {
            (Some(url), Some(token)) => Admin::new(url, &token),
            (Some(url), None) => anyhow::bail!("a token is needed for {url}: --token-file or SAGA_ADMIN_TOKEN"),
            (None, _) => anyhow::bail!(
                "no shop runs on {} (there is no run.json): start it, name its folder with --data, or give --url and --token-file",
                self.data.display()
            ),
        }
    }
}

async fn healthcheck(remote: &Remote, place: &Place, output: &Output) -> anyhow::Result<Verdict> {
    let url = match &remote.url {
        Some(url) => url.clone(),
        None => {
            let run = RunFile::read(&place.data)?;
            run.with_context(|| format!("no shop runs on {}; or give --url", place.data.display()))?.public
        }
    };
    let endpoint = crate::remote::Endpoint::parse(&url)?;
    let mut connection = crate::remote::Connection::new(&endpoint);
    let answer = connection.send(hyper::Method::GET, "/readyz?verbose", None, bytes::Bytes::new()).await?;
    let ready = answer.status.is_success();
    let report = String::from_utf8_lossy(&answer.body);
    if output.json {
        output.value(&serde_json::json!({ "ready": ready, "report": report.lines().collect::<Vec<_>>() }));
    } else {
        output.text(&report);
    }
    Ok(if ready { Verdict::Fine } else { Verdict::NotReady })
}

/// Whole pages of a list from `token` on, up to `limit` items; where it goes on, if there are more.
pub(crate) async fn pages(
    admin: &Admin,
    query: &sagas::Query,
    path: &str,
    limit: u32,
    mut token: Option<String>,
) -> anyhow::Result<(Vec<Value>, Option<String>)> {
    let mut items = Vec::new();
    while items.len() < limit as usize {
        let mut page = query.clone();
        page.add("limit", Some(PAGE.min(limit - u32::try_from(items.len()).unwrap_or(limit)).to_string()));
        page.add("page_token", token);
        let answer = admin.get(&format!("{path}{}", page.as_str())).await?;
        items.extend(answer["items"].as_array().cloned().unwrap_or_default());
        token = answer["next_page_token"].as_str().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    Ok((items, token))
}

/// A list as JSON: what a program needs to go on.
pub(crate) fn list(items: Vec<Value>, next: Option<&String>) -> Value {
    serde_json::json!({ "items": items, "more": next.is_some(), "next_page_token": next })
}

/// Tells people how a list goes on.
pub(crate) fn more(next: Option<&String>, output: &Output) {
    if let Some(token) = next {
        output.note(&format!("there are more: --limit, or --page-token {token}"));
    }
}

/// A JSON value as a cell: strings without quotes, nothing for null.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
