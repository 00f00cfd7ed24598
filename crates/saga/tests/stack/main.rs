//! The whole shop over HTTP as it is run in production: the same suite as `e2e`, against processes on the real stack
//! behind a real edge; and what happens to them when parts of it fail.
//!
//! The servers are started by the first test and gone with the last (`servers.rs`).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, missing_docs, dead_code, reason = "tests")]

#[path = "../e2e/abuse.rs"]
mod abuse;
#[path = "../e2e/asyncapi.rs"]
mod asyncapi;
#[path = "../e2e/binary/process.rs"]
mod binary;
mod caches;
mod city;
#[path = "../e2e/conformance.rs"]
mod conformance;
mod console;
mod counted;
mod crashes;
mod databases;
mod doctor;
#[path = "../e2e/documents.rs"]
mod documents;
mod failures;
mod faults;
mod home;
#[path = "../e2e/internal.rs"]
mod internal;
mod messages;
mod metrics;
mod network;
mod pages;
#[path = "../e2e/purchases.rs"]
mod purchases;
#[path = "../e2e/regressions.rs"]
mod regressions;
#[path = "../e2e/roles.rs"]
mod roles;
#[path = "../e2e/schemathesis.rs"]
mod schemathesis;
#[path = "../e2e/metrics/page.rs"]
mod scrapes;
mod servers;
mod steering;
#[path = "../e2e/town.rs"]
mod town;
mod tracing;
mod traffic;
#[path = "../e2e/console/visitor.rs"]
mod visitor;
