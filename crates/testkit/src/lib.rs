//! Tests only: conformance suites for the ports, the simulated world, and (under `tests/`) the tidy tests.

pub mod conformance;
pub mod sim;
