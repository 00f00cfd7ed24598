//! How a database is reached, and what its sessions are allowed.

use std::fmt;
use std::time::Duration;

/// Address, sizes and limits of one database.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `postgres://user:password@host:port/database`, or the `key=value` form. Several hosts may be named.
    pub url: String,
    /// Instead of the one in the URL.
    pub password: Option<String>,
    /// Sessions at most. Work comes in batches: few are needed. All processes together must stay under the server's
    /// `max_connections`; a pool that alone is larger is refused at the start.
    pub pool_size: usize,
    /// What the server calls our sessions; `saga-<service>` when it is empty.
    pub application_name: String,
    /// The server gives a statement up after this. We give the server up [`GRACE`] later.
    pub statement_timeout: Duration,
    /// The server ends a session that holds a transaction open and says nothing for this long.
    pub idle_in_transaction_timeout: Duration,
    /// How long a caller waits for a session before it is told that the database is busy.
    pub acquire_timeout: Duration,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// For how long a start tries to reach a server that is not there yet; `None`: for ever.
    pub connect_for: Option<Duration>,
    /// Whether missing migrations are applied, or complained about.
    pub migrate: bool,
    /// Whether commits that can be derived again skip the wait for the disk (`synchronous_commit = off` for that
    /// transaction only); everything else always waits.
    pub lazy_commits: bool,
    /// How long at most the next commit of a group (see [`super::Groups`]) may fill; see [`saga_runtime::pace`].
    pub pace: Duration,
}

/// A server that does not answer for this much longer than `statement_timeout` hangs: the session is thrown away.
pub(super) const GRACE: Duration = Duration::from_secs(2);

impl Options {
    /// The defaults, for this address.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password: None,
            pool_size: 8,
            application_name: String::new(),
            statement_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            connect_for: Some(Duration::from_secs(60)),
            migrate: true,
            lazy_commits: true,
            pace: Duration::ZERO,
        }
    }
}

/// Without the address: it may carry a password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("pool_size", &self.pool_size)
            .field("application_name", &self.application_name)
            .field("statement_timeout", &self.statement_timeout)
            .finish_non_exhaustive()
    }
}
