//! Accounts, sessions and their rules. Pure.

use chassis::auth::Role;
use saga_core::Millis;
use serde::{Deserialize, Serialize};

/// A customer's name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Personal {
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// Lower case.
    pub email: String,
}

/// Where things are sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Postal address.
    pub address: String,
    /// As the customer wrote it.
    pub phone_number: String,
}

/// A password's argon2id hash and what it was made with.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    /// Random.
    pub salt: [u8; 16],
    /// Of password and salt.
    pub hash: [u8; 32],
    /// Memory cost in KiB.
    pub memory_kib: u32,
    /// Time cost.
    pub passes: u32,
}

/// Never shown, not even in a log.
impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// An account to be created.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// Its id.
    pub customer_id: u64,
    /// Who.
    pub personal: Personal,
    /// Where to.
    pub delivery: Delivery,
    /// For logging in.
    pub password: PasswordHash,
    /// `None`: a customer, or the admin if it is the first account and the installation wants that.
    pub role: Option<Role>,
}

/// What logging in needs to know.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Whose.
    pub customer_id: u64,
    /// What they may do.
    pub role: Role,
    /// To compare with.
    pub password: PasswordHash,
}

/// A refresh token's row with its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefreshRow {
    /// The family.
    pub session: u64,
    /// Whose.
    pub customer_id: u64,
    /// What they may do now.
    pub role: Role,
    /// When it was used.
    pub spent_at: Option<Millis>,
    /// When the family ends.
    pub session_expires_at: Millis,
    /// Whether the family was revoked.
    pub revoked: bool,
}

/// What to do with a refresh token that was handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refresh {
    /// Spend it and hand out the next.
    Rotate,
    /// Refuse.
    Refuse,
    /// Refuse, and revoke the family: somebody has a copy.
    RevokeFamily,
}

/// Decides. A token that was spent less than `grace` ms ago is a double click or a race of two tabs, not a theft:
/// it is refused, and the family lives.
pub fn judge_refresh(row: &RefreshRow, now: Millis, grace: Millis) -> Refresh {
    match row.spent_at {
        _ if row.revoked || row.session_expires_at <= now => Refresh::Refuse,
        None => Refresh::Rotate,
        Some(spent) if now.saturating_sub(spent) < grace => Refresh::Refuse,
        Some(_) => Refresh::RevokeFamily,
    }
}

/// One address is one account, whatever its capitals.
pub fn normalize_email(email: &str) -> String {
    email.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(spent_at: Option<Millis>) -> RefreshRow {
        let (customer_id, role) = (1, Role::Customer);
        RefreshRow { session: 1, customer_id, role, spent_at, session_expires_at: 100_000, revoked: false }
    }

    #[test]
    fn a_fresh_token_rotates_a_spent_one_kills_the_family_and_a_race_is_forgiven() {
        assert_eq!(judge_refresh(&row(None), 50_000, 10_000), Refresh::Rotate);
        assert_eq!(judge_refresh(&row(Some(45_000)), 50_000, 10_000), Refresh::Refuse);
        assert_eq!(judge_refresh(&row(Some(30_000)), 50_000, 10_000), Refresh::RevokeFamily);
        assert_eq!(judge_refresh(&row(None), 100_000, 10_000), Refresh::Refuse);
        assert_eq!(judge_refresh(&RefreshRow { revoked: true, ..row(None) }, 50_000, 10_000), Refresh::Refuse);
    }
}
