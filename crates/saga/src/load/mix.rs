//! What is bought: a mix of purchases that succeed, find no stock, and are declined.

use std::str::FromStr;

/// How a purchase is meant to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// COMPLETED.
    Ok,
    /// COMPENSATED: there is no stock.
    Stock,
    /// COMPENSATED: the payment is declined.
    Declined,
}

/// Shares of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mix {
    ok: u32,
    stock: u32,
    declined: u32,
}

impl FromStr for Mix {
    type Err = String;

    /// `ok=90,stock=5,declined=5`; what is not named is zero, and the shares need not add up to anything.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut mix = Self { ok: 0, stock: 0, declined: 0 };
        for part in text.split(',') {
            let (name, share) = part.split_once('=').ok_or_else(|| format!("{part:?} is not like ok=90"))?;
            let share: u32 = share.trim().parse().map_err(|_| format!("{share:?} is not a share"))?;
            match name.trim() {
                "ok" => mix.ok = share,
                "stock" => mix.stock = share,
                "declined" => mix.declined = share,
                other => return Err(format!("{other:?} is none of ok, stock, declined")),
            }
        }
        match mix.total() {
            0 => Err("at least one share must be more than zero".to_owned()),
            1..=1_000_000 => Ok(mix),
            _ => Err("the shares are too large".to_owned()),
        }
    }
}

impl Mix {
    fn total(self) -> u64 {
        u64::from(self.ok) + u64::from(self.stock) + u64::from(self.declined)
    }

    /// The kind that a random number picks.
    pub fn pick(self, random: u64) -> Kind {
        let at = random % self.total();
        if at < u64::from(self.ok) {
            Kind::Ok
        } else if at < u64::from(self.ok) + u64::from(self.stock) {
            Kind::Stock
        } else {
            Kind::Declined
        }
    }

    /// Whether such purchases occur at all.
    pub fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Ok => self.ok > 0,
            Kind::Stock => self.stock > 0,
            Kind::Declined => self.declined > 0,
        }
    }
}

/// SplitMix64 of a counter: good enough to shuffle, the same for the same seed.
pub(crate) fn scramble(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn shares_are_kept_on_average() {
        let mix: Mix = "ok=90,stock=5,declined=5".parse().unwrap();
        let mut counts = [0_u32; 3];
        for number in 0..10_000 {
            counts[mix.pick(scramble(1, number)) as usize] += 1;
        }
        assert!((8_700..9_300).contains(&counts[0]), "{counts:?}");
        assert!((350..650).contains(&counts[1]) && (350..650).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn one_kind_may_be_all_there_is() {
        let mix: Mix = "declined=1".parse().unwrap();
        assert!((0..100).all(|n| mix.pick(scramble(7, n)) == Kind::Declined));
        assert!(!mix.has(Kind::Ok) && mix.has(Kind::Declined));
    }

    #[test]
    fn a_mix_of_nothing_is_refused() {
        for bad in ["", "ok", "ok=0", "ok=x", "free=1", "ok=-1", "ok=4294967295,stock=4294967295"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
