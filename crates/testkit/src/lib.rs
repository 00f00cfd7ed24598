//! What tests stand on: conformance suites of the ports, and real servers.

pub mod conformance;
pub mod postgres;
