//! Ring 2: the real loops in the simulated world. See `testkit::sim`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "tests")]

mod scenarios;
mod seeds;
