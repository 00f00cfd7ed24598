//! Moments as JSON shows them: RFC 3339, UTC, milliseconds.

use saga_core::Millis;

/// `2026-11-23T12:00:00.000Z`; a moment out of range is shown as the epoch.
pub fn rfc3339(at: Millis) -> String {
    let moment = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", moment.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// The reverse of [`rfc3339`], with any offset; `None`: no moment since the epoch.
pub fn from_rfc3339(text: &str) -> Option<Millis> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn moments_are_read_with_any_offset_and_nothing_else_is() {
        assert_eq!(super::from_rfc3339("2023-11-14T22:13:20.007Z"), Some(1_700_000_000_007));
        assert_eq!(super::from_rfc3339("2023-11-14T23:13:20+01:00"), Some(1_700_000_000_000));
        for bad in ["", "yesterday", "2023-11-14", "1969-01-01T00:00:00Z", "1700000000"] {
            assert_eq!(super::from_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn moments_are_shown_in_utc_with_milliseconds() {
        assert_eq!(super::rfc3339(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(super::rfc3339(u64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
