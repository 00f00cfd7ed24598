//! What the operators' verbs take beyond one saga: filters, bulk orders, the audit log, topics, manual pages.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Remote, Resolution, duration};

/// Which sagas. All conditions hold together.
#[derive(Args, Debug, Clone, Default)]
pub struct Filters {
    /// Only in these states, with commas: RUNNING,COMPENSATING,COMPLETED,COMPENSATED,COMPENSATION_STUCK,STUCK
    #[arg(long)]
    pub state: Option<String>,
    /// Only of this definition
    #[arg(long)]
    pub definition: Option<String>,
    /// Only those that await this step
    #[arg(long)]
    pub step: Option<String>,
    /// Only those that have not moved for this long, like 90s, 15m, 2h
    #[arg(long, value_parser = duration)]
    pub older_than: Option<Duration>,
    /// Only those that started at this moment or later, like 2026-11-25T09:30:00Z
    #[arg(long, value_name = "TIME")]
    pub started_after: Option<String>,
    /// Only those that started before this moment
    #[arg(long, value_name = "TIME")]
    pub started_before: Option<String>,
}

/// `saga sagas counts`
#[derive(Args, Debug)]
pub struct CountsArgs {
    /// Only of this definition
    #[arg(long)]
    pub definition: Option<String>,
    /// Only in these states, with commas
    #[arg(long)]
    pub state: Option<String>,
    /// Where.
    #[command(flatten)]
    pub remote: Remote,
}

/// `saga overview`
#[derive(Args, Debug)]
pub struct OverviewArgs {
    /// Again every second, for as long as it is looked at
    #[arg(long)]
    pub watch: bool,
    /// Where.
    #[command(flatten)]
    pub remote: Remote,
}

/// `saga definitions`
#[derive(Args, Debug)]
pub struct DefinitionsArgs {
    /// Only this one, in every version, with its steps
    pub name: Option<String>,
    /// Where.
    #[command(flatten)]
    pub remote: Remote,
}

/// What is done to many sagas.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkVerb {
    /// Try stuck steps again now.
    Retry,
    /// Take everything back, where the pivot is not done.
    Cancel,
    /// Declare stuck steps dealt with.
    Skip,
    /// End stuck sagas by hand.
    Resolve,
}

impl BulkVerb {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Skip => "skip",
            Self::Resolve => "resolve",
        }
    }
}

/// `saga sagas bulk`
#[derive(Args, Debug)]
pub struct BulkArgs {
    /// What to do
    #[arg(value_enum)]
    pub verb: BulkVerb,
    /// Which sagas.
    #[command(flatten)]
    pub filters: Filters,
    /// Only these
    #[arg(long = "id", value_name = "ID")]
    pub ids: Vec<u64>,
    /// How they ended in truth; for `resolve`
    #[arg(long, value_enum)]
    pub status: Option<Resolution>,
    /// Why; it is kept in each saga's history
    #[arg(long)]
    pub reason: String,
    /// Do it; without this it is only told which sagas it would be
    #[arg(long)]
    pub yes: bool,
    /// With --yes: only if so many sagas match (from a dry run) [default: as many as match right before]
    #[arg(long, value_name = "N", requires = "yes")]
    pub expect: Option<u64>,
    /// Where.
    #[command(flatten)]
    pub remote: Remote,
}

/// `saga audit`
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// Only by this actor, like "account 123" or local
    #[arg(long)]
    pub actor: Option<String>,
    /// Only this action, like saga.retry, sagas.bulk, dlq.purge
    #[arg(long)]
    pub action: Option<String>,
    /// Only to this target, like purchase/123
    #[arg(long)]
    pub target: Option<String>,
    /// At most this many lines
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Go on where an earlier list ended (its `next_page_token`)
    #[arg(long, value_name = "TOKEN")]
    pub page_token: Option<String>,
    /// Where.
    #[command(flatten)]
    pub remote: Remote,
}

/// `saga topics`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TopicsArgs {
    /// Where.
    #[command(flatten)]
    pub remote: Remote,
    /// What of them.
    #[command(subcommand)]
    pub command: Option<TopicsCommand>,
}

/// `saga topics …`
#[derive(Subcommand, Debug)]
pub enum TopicsCommand {
    /// The topics that there are, with the records that can be looked at
    List(Remote),
    /// Records of a topic, the newest first; nothing is taken
    Messages {
        /// The topic
        topic: String,
        /// Only of this partition
        #[arg(long)]
        partition: Option<u32>,
        /// Only this record and older ones
        #[arg(long, value_name = "OFFSET", requires = "partition")]
        from: Option<u64>,
        /// Only with this key: a saga's id
        #[arg(long)]
        key: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
        /// Where.
        #[command(flatten)]
        remote: Remote,
    },
}

/// `saga man`
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Write one page for each verb into this folder, instead of the first one to standard output
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
