//! Being built.

pub mod conformance;
