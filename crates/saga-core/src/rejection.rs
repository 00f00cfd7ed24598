//! Why an input changes nothing.

use thiserror::Error;

use crate::key::{Name, Op, SagaKey};
use crate::state::{ReplayError, Status};

/// Why nothing happens. None of these is a fault of the engine; each is counted by its name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Rejection {
    /// A start for a saga that exists: its results and its outstanding command are to be sent again.
    #[error("saga {0} exists already")]
    Exists(SagaKey),
    /// A message for a saga that does not exist.
    #[error("saga {0} does not exist")]
    UnknownSaga(SagaKey),
    /// A message for a step that the definition does not have.
    #[error("definition {definition} has no step {step}")]
    UnknownStep {
        /// Which definition.
        definition: Name,
        /// The step that was named.
        step: Name,
    },
    /// An answer to something that is not, or no longer, asked.
    #[error("the reply for {step}.{op} is not awaited")]
    NotAwaited {
        /// Which step.
        step: Name,
        /// Which command.
        op: Op,
    },
    /// A timer with nothing due.
    #[error("nothing is due")]
    NothingDue,
    /// A verb that looked at an older version.
    #[error("the saga has moved on: it is at version {actual}, not {expected}")]
    StaleVersion {
        /// What the operator looked at.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// A cancel past the pivot, or a verb on a finished saga.
    #[error("the saga is {0}: too late for that", .status.as_str())]
    TooLate {
        /// Where it is.
        status: Status,
    },
    /// Skip or resolve on a saga that is not stuck.
    #[error("the saga is {0}, not stuck", .status.as_str())]
    NotStuck {
        /// Where it is.
        status: Status,
    },
    /// Retry of a saga that is not stuck, by somebody who does not say what they looked at.
    #[error(
        "the saga is {0}: it is not stuck, its steps are tried by themselves; to try again at once all the same, give the \
         version that you looked at",
        .status.as_str()
    )]
    UnderWay {
        /// Where it is.
        status: Status,
    },
    /// Resolve to a state that is not terminal.
    #[error("a saga is resolved as COMPLETED or COMPENSATED, not {}", .status.as_str())]
    NotTerminal {
        /// What was asked for.
        status: Status,
    },
    /// The state and the definition contradict each other: the saga is parked and a human is told.
    #[error("the history cannot go on: {0}")]
    Corrupt(#[from] ReplayError),
}

impl Rejection {
    /// Whether the same input can be lawful for the same saga at another time: whoever refused it by what they remember of
    /// the saga has to look at it again.
    pub fn depends_on_where_it_stands(&self) -> bool {
        match self {
            Self::NotAwaited { .. }
            | Self::StaleVersion { .. }
            | Self::TooLate { .. }
            | Self::NotStuck { .. }
            | Self::UnderWay { .. } => true,
            // A start has no other time, and a timer is a question that can be asked again.
            Self::Exists(_)
            | Self::NothingDue
            | Self::UnknownSaga(_)
            | Self::UnknownStep { .. }
            | Self::NotTerminal { .. }
            | Self::Corrupt(_) => false,
        }
    }
}
