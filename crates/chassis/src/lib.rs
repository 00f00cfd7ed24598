//! What every service gets for free: HTTP with limits, problem+json, authentication, ids, paging, time, health.

pub mod ids;
pub mod json;
pub mod paging;
pub mod problem;
pub mod time;
