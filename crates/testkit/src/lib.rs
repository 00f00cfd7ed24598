//! Tests only: conformance suites for the ports, the simulated world, a client of routers, a real database server, and
//! (under `tests/`) the tidy tests.

pub mod client;
pub mod conformance;
pub mod postgres;
pub mod sim;
