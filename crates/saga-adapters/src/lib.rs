//! The only crate that names brands: SQLite, PostgreSQL, Kafka, Redis, and the in-process twins of broker, cache,
//! filter and lock.
//!
//! **Architecture Invariant:** nothing is decided here. Each module implements a port of `saga_runtime` (or offers
//! a database handle) and passes the conformance suite of that port, which other brands pass unchanged.

mod headers;
pub mod inproc;
pub mod kafka;
pub mod postgres;
pub mod redis;
pub mod sqlite;
pub mod stats;
