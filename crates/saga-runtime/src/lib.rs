//! The loops that drive sagas, over ports: orchestrator, participant, timers, recovery.
//!
//! The same code runs in the simulator, embedded, and on the real stack.
//! **Architecture Invariant:** no brand is named here (no SQL, no Kafka, no Redis), and nothing is decided here:
//! decisions are `saga_core`'s, this crate loads, commits, then acts.

pub mod audit;
pub mod barrier;
pub mod bus;
pub mod cache;
pub mod clock;
pub mod crash;
pub mod dead_letters;
pub mod delivery;
pub mod failures;
pub mod orchestrator;
pub mod pace;
pub mod participant;
pub mod read_through;
pub mod retention;
pub mod stats;
pub mod store;
pub mod trace;
pub mod wire;

pub use bus::{Assignment, Bus, BusError, Delivery, Membership, Message, Position, Subscription};
pub use clock::{Clock, SystemClock};
pub use delivery::LoopOptions;
pub use orchestrator::{
    Definitions, GroupHandle, OperateError, Orchestrator, OrchestratorGroup, OrchestratorHandle, OrchestratorOptions,
};
pub use participant::{LoopContext, Participant, run_participant};
pub use read_through::{Loaded, ReadStats, ReadThrough};
pub use retention::{Marks, Watermark, Watermarks};
pub use stats::Stats;
pub use store::StoreError;
