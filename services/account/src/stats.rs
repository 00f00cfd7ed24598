//! Who came in and who did not: results only, never who.

use chassis::metrics::{Page, Source};
use saga_runtime::stats::Counter;

/// Counted since the start of the process.
#[derive(Debug, Default)]
pub struct Stats {
    /// Log-ins with the right password.
    pub login_accepted: Counter,
    /// Log-ins with a wrong password, or to an account that does not exist.
    pub login_wrong: Counter,
    /// Log-ins that were not looked at: too many failed before.
    pub login_limited: Counter,
    /// Accounts made by customers.
    pub registered: Counter,
    /// Registrations with an address that has an account.
    pub register_taken: Counter,
    /// Registrations that were not looked at: too many failed before.
    pub register_limited: Counter,
    /// Refresh tokens that were exchanged.
    pub refreshed: Counter,
    /// Refresh tokens that were not.
    pub refresh_refused: Counter,
    /// Passwords that were hashed, for whichever of these: what a log-in costs.
    pub hashed: Counter,
}

impl Source for Stats {
    fn collect(&self, page: &mut Page) {
        let results = [
            ("login", "accepted", &self.login_accepted),
            ("login", "refused", &self.login_wrong),
            ("login", "limited", &self.login_limited),
            ("register", "accepted", &self.registered),
            ("register", "refused", &self.register_taken),
            ("register", "limited", &self.register_limited),
            ("refresh", "accepted", &self.refreshed),
            ("refresh", "refused", &self.refresh_refused),
        ];
        for (action, result, counter) in results {
            let labels = [("action", action), ("result", result)];
            page.counter("auth", "Log-ins, registrations and refreshes, by result.", &labels, counter.get());
        }
        page.counter(
            "auth_password_hashes",
            "Passwords that were hashed, to keep or to compare.",
            &[],
            self.hashed.get(),
        );
    }
}
