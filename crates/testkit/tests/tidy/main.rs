//! The house rules that a machine can check, over every file that git knows or would know.
//!
//! A rule that fails says which file, what is wrong and what to do. What clippy, rustfmt and cargo-deny can check is
//! left to them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod dependencies;
mod documents;
mod errors;
mod files;
mod migrations;
mod tree;
