//! `saga doctor`: what is wrong with an installation, why that matters, and how to mend it.
//!
//! ```text
//!   gather (looks, changes nothing) ─► facts ─► judge (pure) ─► findings
//! ```
//!
//! Works whether a shop runs or not, on files and on servers. Nothing is repaired, nothing waits for long: what does not answer
//! in some seconds is a finding. Whether the books balance is `saga check`'s question.

pub mod facts;
mod gather;
pub mod judge;

use serde::Serialize;

pub use gather::gather;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and will or may not.
    Warning,
    /// It does not work.
    Problem,
}

impl Level {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Of what: `config`, `database order`, …
    pub subject: String,
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub what: String,
    /// Why it matters; empty where nothing is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What to do; empty where nothing is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Finding {
    /// All is well.
    pub fn ok(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { subject: subject.into(), level: Level::Ok, what: what.into(), why: String::new(), fix: String::new() }
    }

    /// It works, and will or may not.
    pub fn warning(
        subject: impl Into<String>,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { subject: subject.into(), level: Level::Warning, what: what.into(), why: why.into(), fix: fix.into() }
    }

    /// It does not work.
    pub fn problem(
        subject: impl Into<String>,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { level: Level::Problem, ..Self::warning(subject, what, why, fix) }
    }
}
