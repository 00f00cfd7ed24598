//! The command line, as types. What each word means is in its help text, which is the documentation.
//!
//! Parsing only: nothing here opens a file or a socket.

mod failures;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use failures::{FailuresArgs, FailuresCommand, StepRule};

use crate::up::roles::ServiceRole;

mod desk;
mod sagas;

pub use desk::{
    AuditArgs, BulkArgs, BulkVerb, CountsArgs, DefinitionsArgs, Filters, ManArgs, OverviewArgs, TopicsArgs,
    TopicsCommand,
};

pub use sagas::{Resolution, SagaArgs, SagasCommand, SteerArgs};

/// A shop built as six services around a saga engine. Without a command it starts the shop.
#[derive(Parser, Debug)]
#[command(name = "saga", version, about, max_term_width = 120)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
    /// For `saga` without a command.
    #[command(flatten)]
    pub up: UpArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What every command takes.
#[derive(Args, Debug, Clone, Default)]
pub struct Common {
    /// The folder with the databases [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A configuration file (TOML); `saga config print` shows every key
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
}

/// How the shop listens.
#[derive(Args, Debug, Clone, Default)]
pub struct UpArgs {
    /// Where customers connect [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where the services' gRPC listens [default: the port after --listen]
    #[arg(long, value_name = "ADDR")]
    pub internal_listen: Option<SocketAddr>,
    /// Where operators connect [default: the second port after --listen]
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<SocketAddr>,
}

impl UpArgs {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.listen.is_none() && self.internal_listen.is_none() && self.admin_listen.is_none()
    }

    /// What was said here, or there.
    pub fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            internal_listen: self.internal_listen.or(other.internal_listen),
            admin_listen: self.admin_listen.or(other.admin_listen),
        }
    }
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start the whole shop in this process (the same as no command)
    Up(UpArgs),
    /// Start some of the services in this process; the others run elsewhere
    Serve {
        /// Which
        #[arg(required = true, value_enum)]
        roles: Vec<ServiceRole>,
        /// Addresses.
        #[command(flatten)]
        up: UpArgs,
    },
    /// Make the topics, and bring every database up to date
    Migrate,
    /// The shop at a glance: how many sagas, how fast, who carries them out
    Overview(OverviewArgs),
    /// What the orchestrator's loops have counted since they started
    Stats(Remote),
    /// The kinds of sagas that there are, or one of them with its steps
    Definitions(DefinitionsArgs),
    /// Look at sagas and steer them
    #[command(subcommand)]
    Sagas(SagasCommand),
    /// Records that could not be handled
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Who ordered what, why, and how it ended
    Audit(AuditArgs),
    /// How far each consumer group has read the topics; the topics and what is in them
    Topics(TopicsArgs),
    /// How those who carry out the steps are
    Participants(Remote),
    /// Check the books of every database against each other; exits with 3 if they do not balance
    Check(CheckArgs),
    /// Say what is wrong with an installation and how to mend it; exits with 1 if something does not work
    Doctor(Remote),
    /// Copy the data folder as it is at one moment, also while a shop runs on it: docs/operations.md
    Backup {
        /// A new folder
        dir: PathBuf,
    },
    /// Put a running shop under load, measure, and check the books afterwards
    Load(LoadArgs),
    /// Make things go wrong on purpose, where the configuration enables it: docs/failures.md
    #[command(subcommand)]
    Failures(FailuresCommand),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Accounts with rights
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Ask a running shop whether it is ready; exits with 1 if not
    Healthcheck(Remote),
    /// Print the `OpenAPI` document of the shop's API
    Openapi {
        /// That of the operators' API instead
        #[arg(long)]
        admin: bool,
    },
    /// Print the manual page, or write one for each verb
    Man(ManArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Where the admin listener of a running shop is.
#[derive(Args, Debug, Clone, Default)]
pub struct Remote {
    /// The admin listener [default: SAGA_ADMIN_URL, or from the data folder's run.json]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// A file with the bearer token for it [default: from run.json; or SAGA_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// `saga dlq …`
#[derive(Subcommand, Debug)]
pub enum DlqCommand {
    /// The topics that have dead letters, or one topic's letters
    List {
        /// The topic
        topic: Option<String>,
        /// At most this many letters
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Go on where an earlier list ended (its `next_page_token`)
        #[arg(long, value_name = "TOKEN", requires = "topic")]
        page_token: Option<String>,
        /// Where.
        #[command(flatten)]
        remote: Remote,
    },
    /// One letter with its headers and bytes
    Show {
        /// The topic
        topic: String,
        /// The letter's id
        id: u64,
        /// Where.
        #[command(flatten)]
        remote: Remote,
    },
    /// Send letters to the topic they came from
    Redrive(LettersArgs),
    /// Throw letters away
    Purge(LettersArgs),
}

/// Which letters, and why.
#[derive(Args, Debug)]
pub struct LettersArgs {
    /// The topic
    pub topic: String,
    /// Only these
    #[arg(long = "id", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<u64>,
    /// All of the topic's
    #[arg(long)]
    pub all: bool,
    /// Why, for the log
    #[arg(long)]
    pub reason: String,
    /// Where.
    #[command(flatten)]
    pub remote: Remote,
}

/// `saga check`
#[derive(Args, Debug, Clone, Default)]
pub struct CheckArgs {
    /// Nothing may be on its way any more (after the shop came to rest)
    #[arg(long)]
    pub settled: bool,
    /// At least this many purchases must have completed
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub expect_completed: u64,
    /// At least this many purchases must have been compensated
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub expect_compensated: u64,
    /// Ask this shop for every product, too: none that is in the database may be unknown to its caches and filter
    #[arg(long, value_name = "URL", conflicts_with = "url")]
    pub shop: Option<String>,
    /// Let the orchestrator with this admin listener read them [default: this process reads the databases itself]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// A file with the bearer token for it [default: from run.json; or SAGA_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE", requires = "url")]
    pub token_file: Option<PathBuf>,
}

/// `saga load`
#[derive(Args, Debug, Clone)]
pub struct LoadArgs {
    /// The shop's public address
    #[arg(long, env = "SAGA_SHOP", default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// Connections that post purchases; without --rate each posts again as soon as it has its answer
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// How long purchases are posted, like 30s, 5m
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub duration: Duration,
    /// Stop after this many purchases
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Open loop: purchases a second, whatever the answers take; latency counts from the moment each was due
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Shares of purchases that succeed, find no stock, and are declined at payment
    #[arg(long, default_value = "ok=90,stock=5,declined=5")]
    pub mix: crate::load::Mix,
    /// Lines of a purchase
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub lines: u32,
    /// Products to choose from
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub products: u32,
    /// Accounts that buy [default: one per client, at most 32]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub users: Option<u32>,
    /// Which amounts the payment gateway declines: those that end in these digits
    #[arg(long, default_value = "13")]
    pub declined_digits: String,
    /// The shop's currency
    #[arg(long, default_value = "VND")]
    pub currency: String,
    /// Give up when nothing has ended for this long after the last purchase was posted
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub settle: Duration,
    /// An administrator who makes the products [default: the token in the data folder, or the first account]
    #[arg(long, requires = "admin_password_file")]
    pub admin_email: Option<String>,
    /// A file with the administrator's password
    #[arg(long, value_name = "FILE", requires = "admin_email")]
    pub admin_password_file: Option<PathBuf>,
    /// Do not check the books at the end
    #[arg(long)]
    pub no_check: bool,
    /// Load a shop on another machine, which must be yours
    #[arg(long)]
    pub allow_remote: bool,
    /// Seeds the order of the mix
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// `saga config …`
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Read the configuration and the definition files; say what is wrong
    Check,
    /// Print the configuration in force, or the commented defaults
    Print {
        /// The commented default file: the documentation of every key
        #[arg(long)]
        defaults: bool,
    },
}

/// `saga admin …`
#[derive(Subcommand, Debug)]
pub enum AdminCommand {
    /// Make an account with rights; asks for the password on standard input
    Create {
        /// The account's e-mail address
        #[arg(long)]
        email: String,
        /// What it may do
        #[arg(long, value_enum, default_value_t = Role::Admin)]
        role: Role,
        /// Read the password from the first line of this file
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Why; it stands in the audit log
        #[arg(long)]
        reason: String,
        /// Where: the account service's admin listener.
        #[command(flatten)]
        remote: Remote,
    },
}

/// What an account may do.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Look at sagas.
    Viewer,
    /// That, and steer them.
    Operator,
    /// That, and change the catalogue and roles.
    Admin,
}

impl Role {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "VIEWER",
            Self::Operator => "OPERATOR",
            Self::Admin => "ADMIN",
        }
    }
}

/// `250ms`, `30s`, `5m`, `2h`.
///
/// # Errors
/// What a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let lawful = || format!("{text:?} is not a duration like 250ms, 30s, 5m or 2h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(lawful)?;
    let number: u64 = text[..digits].parse().map_err(|_| lawful())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(lawful()),
    };
    number.checked_mul(unit).map(Duration::from_millis).ok_or_else(lawful)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_starts_the_shop_and_takes_its_options() {
        let cli = Cli::try_parse_from(["saga", "--data", "d", "--listen", "127.0.0.1:9"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.common.data.unwrap(), PathBuf::from("d"));
        assert_eq!(cli.up.listen.unwrap().port(), 9);
    }

    #[test]
    fn common_options_may_stand_after_the_verb() {
        let cli = Cli::try_parse_from(["saga", "sagas", "list", "--json", "--data", "d"]).unwrap();
        assert!(cli.common.json);
        assert_eq!(cli.common.data.unwrap(), PathBuf::from("d"));
    }

    #[test]
    fn dead_letters_are_never_purged_by_omission() {
        assert!(Cli::try_parse_from(["saga", "dlq", "purge", "reply", "--reason", "x"]).is_err());
        assert!(Cli::try_parse_from(["saga", "dlq", "purge", "reply", "--all", "--reason", "x"]).is_ok());
    }

    #[test]
    fn a_bulk_order_without_yes_is_a_dry_run_and_topics_need_no_verb() {
        let cli = Cli::try_parse_from(["saga", "sagas", "bulk", "retry", "--state", "STUCK", "--reason", "x"]).unwrap();
        let Some(Command::Sagas(SagasCommand::Bulk(bulk))) = cli.command else { panic!("{cli:?}") };
        assert!(!bulk.yes && bulk.expect.is_none());
        let expecting = ["saga", "sagas", "bulk", "retry", "--id", "7", "--reason", "x", "--expect", "1"];
        assert!(Cli::try_parse_from(expecting).is_err(), "without --yes");
        assert!(Cli::try_parse_from(["saga", "topics"]).is_ok());
        assert!(Cli::try_parse_from(["saga", "topics", "messages", "reply", "--from", "3"]).is_err());
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(duration("2h").unwrap(), Duration::from_secs(7200));
        for bad in ["", "5", "s", "5x", "-5s", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
