//! What every service gets for free: HTTP with limits, problem+json, authentication, ids, paging, time, health.

pub mod audit;
pub mod auth;
pub mod health;
pub mod http;
pub mod ids;
pub mod json;
pub mod metrics;
pub mod money;
pub mod openapi;
pub mod paging;
pub mod problem;
pub mod sse;
pub mod time;
pub mod trace;

mod stall;
