//! The orchestrator service: drives sagas by their definitions and lets operators look and steer.
//!
//! What it does not know: what any step means. Definitions are data; the engine is `saga-core`, the loop `saga-runtime`.

pub mod app;
pub mod audit;
pub mod domain;
pub mod http;
pub mod overview;
pub mod participants;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use saga_runtime::{Definitions, LoopContext, OrchestratorGroup, OrchestratorOptions};
use serde::{Deserialize, Serialize};

pub use app::{About, Sagas, Stores};
pub use domain::{BUILT_IN, DefinitionFileError, load_definitions};

/// Settings of the orchestrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Definition files beside, or (same name and version) instead of, the built-in purchase saga.
    pub definitions: Vec<PathBuf>,
    /// Sagas in flight that are kept in memory; the others are read when they are needed.
    pub cached_sagas: usize,
    /// How many sagas a second are sent again after a restart.
    pub recovery_rate: u32,
    /// The most messages in one unit of work.
    pub batch: usize,
    /// How long a loop lets its next unit fill, in ms, if the others' pace is not less: see [`saga_runtime::pace`].
    pub pace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        let options = OrchestratorOptions::default();
        Self {
            definitions: Vec::new(),
            cached_sagas: options.cached,
            recovery_rate: options.recovery_rate,
            batch: 512,
            pace_ms: 5,
        }
    }
}

impl Config {
    /// The loops' options.
    pub fn options(&self) -> OrchestratorOptions {
        OrchestratorOptions {
            cached: self.cached_sagas,
            recovery_rate: self.recovery_rate,
            ..OrchestratorOptions::default()
        }
    }
}

/// What the service is made of.
pub struct Service {
    /// The admin routes, without authentication: the composition root adds it.
    pub admin: axum::Router,
    /// The use cases behind them.
    pub sagas: Sagas,
    /// To be run; see [`OrchestratorGroup::run`].
    pub orchestrator: OrchestratorGroup,
}

/// Builds the service.
pub fn build(
    config: &Config,
    mut context: LoopContext,
    stores: Stores,
    definitions: Arc<Definitions>,
    about: About,
) -> Service {
    context.options.batch = config.batch;
    context.options.pace = context.options.pace.min(Duration::from_millis(config.pace_ms));
    let (orchestrator, handle) =
        OrchestratorGroup::new(context.clone(), Arc::clone(&stores.sagas), Arc::clone(&definitions), config.options());
    let sagas = Sagas::new(stores, definitions, handle, &context, about);
    Service { admin: http::router(sagas.clone()), sagas, orchestrator }
}
