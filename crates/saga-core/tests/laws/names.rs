//! Names of all events and rejections. A new variant does not compile until it has a name here and is reached by
//! `hostile::every_event_and_every_rejection_is_reached`.

use saga_core::{Event, Rejection};

macro_rules! names {
    ($(#[$doc:meta])* $function:ident, $all:ident, $type:ident: $($variant:ident),* $(,)?) => {
        $(#[$doc])*
        pub(crate) fn $function(value: &$type) -> &'static str {
            match value {
                $($type::$variant { .. } => concat!(stringify!($type), "::", stringify!($variant)),)*
            }
        }

        pub(crate) const $all: &[&str] =
            &[$(concat!(stringify!($type), "::", stringify!($variant)),)*];
    };
}

names! {
    /// An event's kind.
    event_name, EVENTS, Event:
    Started, StepStarted, StepCompleted, StepRefused, StepDelayed, StepRepeated, StepStuck, CompensationBegun,
    UndoStarted, StepUndone, Cancelled, Retried, Skipped, Resolved, Completed, Compensated,
}

names! {
    /// A rejection's kind.
    rejection_name, REJECTIONS, Rejection:
    Exists, UnknownSaga, UnknownStep, NotAwaited, NothingDue, StaleVersion, TooLate, NotStuck, UnderWay, NotTerminal, Corrupt,
}
