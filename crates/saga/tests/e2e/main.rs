//! The whole shop over HTTP: in this process, and the real binary as people run it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, missing_docs, dead_code, reason = "tests")]

mod abuse;
mod asyncapi;
mod backup;
mod binary;
mod browser;
mod configuration;
mod conformance;
mod console;
mod crash;
mod doctor;
mod documents;
mod failures;
mod home;
mod internal;
mod limits;
mod logs;
mod metrics;
mod operators;
mod purchases;
mod readme;
mod regressions;
mod retention;
mod roles;
mod schemathesis;
mod screenshots;
mod town;
mod tracing;
