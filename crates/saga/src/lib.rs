//! The binary's inside, as a library so that tests can start a whole shop in their own process.
//!
//! The only composition root: every service, every adapter and every listener is chosen and connected here.

pub mod args;
pub mod check;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod load;
mod log;
mod metrics;
pub mod remote;
pub mod telemetry;
pub mod up;
