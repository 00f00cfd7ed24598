//! The engine's laws, pure: any lawful definition, a participant that never errs, and weather.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod checks;
mod compensation;
mod definitions;
mod forward;
mod histories;
mod hostile;
mod names;
mod operators;
mod text;
mod world;
