//! The saga engine, pure: definitions, state, decisions.
//!
//! `decide` says what happens next as data; `evolve` folds what happened into the state.
//! **Architecture Invariant:** this crate has no tokio, no clock, no random numbers and no logging;
//! everything it needs to know it is told, everything it wants done it returns.

pub mod decide;
pub mod definition;
pub mod event;
pub mod json;
pub mod key;
pub mod progress;
pub mod protocol;
pub mod rejection;
pub mod render;
pub mod retry;
pub mod state;
pub mod told;

pub use decide::{Decision, Effect, Input, Verb, decide, outstanding};
pub use definition::{Definition, DefinitionError};
pub use event::Event;
pub use json::Json;
pub use key::{Millis, Name, Op, SagaKey};
pub use rejection::Rejection;
pub use state::{ReplayError, Saga, Status, replay, results};
