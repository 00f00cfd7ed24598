//! Tests only: conformance suites for the ports, the simulated world, a client of routers, real servers, a way to them that
//! fails, and (under `tests/`) the tidy tests.

pub mod client;
pub mod conformance;
pub mod kafka;
pub mod port;
pub mod postgres;
pub mod proxy;
pub mod redis;
pub mod sim;
