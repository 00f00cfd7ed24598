//! Tests only: conformance suites for the ports, the simulated world, a client of routers, and (under `tests/`) the tidy
//! tests.

pub mod client;
pub mod conformance;
pub mod redis;
pub mod sim;
