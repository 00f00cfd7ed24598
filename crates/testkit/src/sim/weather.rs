//! How bad the world is: chances in a thousand.

use super::Sim;

/// The chances.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// A record never reaches a group.
    pub loss: u16,
    /// A record reaches a group twice.
    pub duplicate: u16,
    /// A record may overtake others of its key.
    pub reorder: u16,
    /// A record takes seconds.
    pub late: u16,
    /// `publish` fails; some of it may have been delivered.
    pub publish_fails: u16,
    /// `next` or `commit` of a subscription fails, or joining the group.
    pub bus_fails: u16,
    /// Work takes up to two seconds.
    pub slow: u16,
    /// A store cannot right now; it may have committed.
    pub transient: u16,
    /// The orchestrator's disk is full.
    pub full: bool,
    /// A participant's handler fails for no good reason.
    pub fault: u16,
    /// Business says no.
    pub refuse: u16,
    /// Even where it must not: a retriable step, an undo. A human is needed then.
    pub refuse_unlawfully: u16,
    /// A participant or the gateway says: nothing happened, try again.
    pub retry: u16,
    /// The gateway does not answer; it may have charged.
    pub unknown: u16,
}

impl Weather {
    /// None of it.
    pub const CALM: Self = Self {
        loss: 0,
        duplicate: 0,
        reorder: 0,
        late: 0,
        publish_fails: 0,
        bus_fails: 0,
        slow: 0,
        transient: 0,
        full: false,
        fault: 0,
        refuse: 0,
        refuse_unlawfully: 0,
        retry: 0,
        unknown: 0,
    };

    /// Some of it: each kind is absent, rare, or frequent.
    pub fn draw(sim: &Sim) -> Self {
        let any = |rare: u16, frequent: u16| match sim.below(4) {
            0 => frequent,
            1 => rare,
            _ => 0,
        };
        Self {
            loss: any(20, 150),
            duplicate: any(20, 200),
            reorder: any(30, 300),
            late: any(20, 150),
            publish_fails: any(10, 100),
            bus_fails: any(10, 80),
            slow: any(10, 100),
            transient: any(10, 100),
            full: false,
            fault: any(5, 300),
            refuse: any(50, 200),
            refuse_unlawfully: any(5, 60),
            retry: any(30, 200),
            unknown: any(50, 300),
        }
    }
}
