//! Writes an edge's configuration: arguments in, files out.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use edge::{Layout, Replicas, Table};

/// Writes the edge's configuration from the route table.
#[derive(Parser)]
#[command(name = "edge", version, about, max_term_width = 120)]
struct Cli {
    /// The route table
    #[arg(long, global = true, value_name = "FILE", default_value = "deploy/routes.yaml")]
    routes: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// HAProxy's, on standard output or into a file
    Haproxy {
        #[command(flatten)]
        place: Layouts,
        /// Into this file
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Traefik's two files, into a folder
    Traefik {
        #[command(flatten)]
        place: Layouts,
        /// Into this folder: traefik.yaml, dynamic.yaml
        #[arg(long, short, value_name = "DIR")]
        out: PathBuf,
    },
    /// All three for deploy/compose.yaml, where they are committed
    Compose {
        /// Its replicas
        #[arg(long, value_name = "FILE", default_value = "deploy/replicas.yaml")]
        replicas: PathBuf,
        /// Into this folder
        #[arg(long, short, value_name = "DIR", default_value = "deploy/generated")]
        out: PathBuf,
    },
}

#[derive(Args)]
struct Layouts {
    /// One process of a service and its two listeners; again for each
    #[arg(long = "replica", value_name = "SERVICE=PUBLIC/INTERNAL")]
    replica: Vec<String>,
    /// The same as a YAML or JSON file: {service: [[public, internal], …]}
    #[arg(long, value_name = "FILE")]
    replicas: Option<PathBuf>,
    /// Where customers connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    web: String,
    /// Where services connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001")]
    internal: String,
    /// Where operators see the edge
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    dashboard: String,
    /// No limits per client address: for load tests from one machine
    #[arg(long)]
    no_client_limits: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even this cannot be said, the exit code says it.
            drop(writeln!(std::io::stderr(), "edge: {error}"));
            ExitCode::FAILURE
        }
    }
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn run(cli: Cli) -> Outcome<()> {
    let mut table = Table::parse(&read(&cli.routes)?)?;
    match cli.command {
        Command::Haproxy { place, out } => {
            let layout = layout(&mut table, place)?;
            let text = file(&table, &layout, "haproxy.cfg")?;
            match out {
                Some(path) => write(&path, &text)?,
                None => std::io::stdout().lock().write_all(text.as_bytes())?,
            }
        }
        Command::Traefik { place, out } => {
            let layout = layout(&mut table, place)?;
            for name in ["traefik.yaml", "dynamic.yaml"] {
                write(&out.join(name), &file(&table, &layout, name)?)?;
            }
        }
        Command::Compose { replicas, out } => {
            let layout = Layout::compose(Replicas::parse(&read(&replicas)?)?);
            for file in edge::generate(&table, &layout)? {
                write(&out.join(file.name), &file.text)?;
            }
        }
    }
    Ok(())
}

fn layout(table: &mut Table, place: Layouts) -> Outcome<Layout> {
    let mut replicas = match &place.replicas {
        Some(path) => Replicas::parse(&read(path)?)?,
        None => Replicas::default(),
    };
    for one in &place.replica {
        replicas.add(one)?;
    }
    if place.no_client_limits {
        table.without_client_limits();
    }
    Ok(Layout { web: place.web, internal: place.internal, dashboard: place.dashboard, replicas })
}

fn file(table: &Table, layout: &Layout, name: &str) -> Outcome<String> {
    let files = edge::generate(table, layout)?;
    Ok(files.into_iter().find(|file| file.name == name).map(|file| file.text).unwrap_or_default())
}

fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}
