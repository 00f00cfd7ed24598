//! What `saga check` reads: every saga with its row and its history.

pub use saga_adapters::sqlite::saga_store::{Audited, audit as read};
