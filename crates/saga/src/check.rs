//! `saga check`: whether the books of all databases balance.

pub mod facts;
pub mod merge;
pub mod report;
pub mod rules;
