//! The verbs.
pub mod output;
