//! The saga engine, pure: definitions, state, decisions.
//!
//! `decide` says what happens next as data; `evolve` folds what happened into the state.
//! **Architecture Invariant:** this crate has no tokio, no clock, no random numbers and no logging;
//! everything it needs to know it is told, everything it wants done it returns.

pub mod json;
pub mod key;
pub mod protocol;

pub use json::Json;
pub use key::{Millis, Name, Op, SagaKey};
