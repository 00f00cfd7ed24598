//! `saga failures …`

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Remote, duration};

/// `saga failures …`
#[derive(Subcommand, Debug)]
pub enum FailuresCommand {
    /// What goes wrong on purpose, in all processes that run participants
    Show {
        /// Only in the process that is asked, not in those that it knows elsewhere
        #[arg(long)]
        here: bool,
        /// Where.
        #[command(flatten)]
        remote: Remote,
    },
    /// Make this go wrong, and nothing else
    Set(FailuresArgs),
    /// Nothing goes wrong any more
    Clear {
        /// Why; it stands in the audit log
        #[arg(long)]
        reason: String,
        /// Only in the process that is asked
        #[arg(long)]
        here: bool,
        /// Where.
        #[command(flatten)]
        remote: Remote,
    },
}

/// What is to go wrong.
#[derive(Args, Debug)]
pub struct FailuresArgs {
    /// The share of charges that the gateway declines, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "RATE")]
    pub decline: f64,
    /// How much longer the gateway takes, like 200ms, 2s
    #[arg(long, default_value = "0ms", value_parser = duration)]
    pub latency: Duration,
    /// A step and how its answers go wrong, like create-order=retry:0.5,unknown:0.1,lost:0.1 (with `,do` or `,undo` only one way)
    #[arg(long = "step", value_name = "STEP=…")]
    pub steps: Vec<StepRule>,
    /// A participant that takes no more commands: product, order, payment
    #[arg(long = "stop", value_name = "PARTICIPANT")]
    pub stopped: Vec<String>,
    /// Why; it stands in the audit log
    #[arg(long)]
    pub reason: String,
    /// Only in the process that is asked, not in those that it knows elsewhere
    #[arg(long)]
    pub here: bool,
    /// Where.
    #[command(flatten)]
    pub remote: Remote,
}

/// How the answers of a step go wrong.
#[derive(Clone, PartialEq, Debug)]
pub struct StepRule {
    /// Which step.
    pub step: String,
    /// The share of commands that is answered *unknown*.
    pub unknown: f64,
    /// The share of commands that is answered *retry*.
    pub retry: f64,
    /// The share of commands that is carried out, and whose answer is lost.
    pub lost: f64,
    /// `do` or `undo`; nothing: both.
    pub op: Option<&'static str>,
}

impl std::str::FromStr for StepRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not like create-order=retry:0.5,unknown:0.1 or create-order=retry:1,undo");
        let (step, rules) = text.split_once('=').filter(|(step, _)| !step.is_empty()).ok_or_else(wrong)?;
        let mut rule = Self { step: step.to_owned(), unknown: 0.0, retry: 0.0, lost: 0.0, op: None };
        for part in rules.split(',') {
            let rate = |text: &str| text.parse().map_err(|_| wrong());
            match part.split_once(':') {
                Some(("retry", value)) => rule.retry = rate(value)?,
                Some(("unknown", value)) => rule.unknown = rate(value)?,
                Some(("lost", value)) => rule.lost = rate(value)?,
                None if part == "do" => rule.op = Some("do"),
                None if part == "undo" => rule.op = Some("undo"),
                _ => return Err(wrong()),
            }
        }
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_its_step_its_rates_and_perhaps_its_direction() {
        let rule = |unknown, retry, lost, op| Ok(StepRule { step: "take".into(), unknown, retry, lost, op });
        assert_eq!("take=retry:0.5".parse(), rule(0.0, 0.5, 0.0, None));
        assert_eq!("take=unknown:1,retry:0.1,undo".parse(), rule(1.0, 0.1, 0.0, Some("undo")));
        assert_eq!("take=lost:0.5".parse(), rule(0.0, 0.0, 0.5, None));
        for wrong in ["take", "=retry:1", "take=", "take=slow:1", "take=retry:x", "take=retry", "take=retry:1,redo"] {
            assert!(wrong.parse::<StepRule>().is_err(), "{wrong}");
        }
    }
}
