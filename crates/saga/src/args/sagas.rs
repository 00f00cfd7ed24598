//! `saga sagas …`: which saga, what to do with it, and why.

use clap::{Args, Subcommand, ValueEnum};

use super::{BulkArgs, CountsArgs, Filters, Remote};

/// `saga sagas …`
#[derive(Subcommand, Debug)]
pub enum SagasCommand {
    /// The newest sagas
    List {
        /// Which.
        #[command(flatten)]
        filters: Filters,
        /// Only the one with this id
        #[arg(short, long, value_name = "ID")]
        q: Option<u64>,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Go on where an earlier list ended (its `next_page_token`)
        #[arg(long, value_name = "TOKEN")]
        page_token: Option<String>,
        /// Where.
        #[command(flatten)]
        remote: Remote,
    },
    /// How many sagas there are, by definition and state
    Counts(CountsArgs),
    /// One saga with its history as a timeline
    Show(SagaArgs),
    /// What a saga and its participants told each other
    Messages(SagaArgs),
    /// The same, and whatever happens next, until it has ended
    Watch(SagaArgs),
    /// Do the same to many sagas; only tells which, until --yes is given
    Bulk(BulkArgs),
    /// Try a stuck step again now
    Retry(SteerArgs),
    /// Take everything back, if the pivot is not done
    Cancel(SteerArgs),
    /// Declare a stuck step dealt with
    Skip(SteerArgs),
    /// End a stuck saga by hand
    Resolve {
        /// Which, and why.
        #[command(flatten)]
        steer: SteerArgs,
        /// How it ended in truth
        #[arg(long, value_enum)]
        status: Resolution,
    },
}

/// How a stuck saga ended in truth.
#[derive(ValueEnum, Clone, Copy, Debug)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// All of it.
    Completed,
    /// None of it.
    Compensated,
}

impl Resolution {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "COMPLETED",
            Self::Compensated => "COMPENSATED",
        }
    }
}

/// Names a saga.
#[derive(Args, Debug)]
pub struct SagaArgs {
    /// The saga's id: the purchase's
    pub id: u64,
    /// Its definition
    #[arg(long, default_value = "purchase")]
    pub definition: String,
    /// Where.
    #[command(flatten)]
    pub remote: Remote,
}

/// Names a saga and says why it is touched.
#[derive(Args, Debug)]
pub struct SteerArgs {
    /// Which.
    #[command(flatten)]
    pub saga: SagaArgs,
    /// Why; it is kept in the saga's history
    #[arg(long)]
    pub reason: String,
    /// Only if the saga is at this version (from `show`)
    #[arg(long)]
    pub version: Option<u64>,
}
