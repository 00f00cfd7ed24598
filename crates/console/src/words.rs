//! Numbers, moments, amounts and states in words: the same everywhere.

use jiff::Timestamp;

/// How something stands, as it is shown: never by its colour alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Badge {
    /// The class that colours it.
    pub(crate) class: &'static str,
    /// A sign.
    pub(crate) icon: &'static str,
    /// A word.
    pub(crate) word: &'static str,
}

const fn badge(class: &'static str, icon: &'static str, word: &'static str) -> Badge {
    Badge { class, icon, word }
}

/// Of a saga or a purchase.
pub(crate) fn status(text: &str) -> Badge {
    match text {
        "PENDING" => badge("idle", "○", "pending"),
        "RUNNING" => badge("busy", "▶", "running"),
        "COMPENSATING" => badge("back", "◀", "compensating"),
        "COMPLETED" => badge("good", "✓", "completed"),
        "COMPENSATED" => badge("undone", "↺", "compensated"),
        "STUCK" => badge("bad", "!", "stuck"),
        "COMPENSATION_STUCK" => badge("bad", "!", "compensation stuck"),
        "QUARANTINED" => badge("bad", "✕", "quarantined"),
        _ => badge("idle", "·", "unknown"),
    }
}

/// `2026-11-25 23:31:57`; what is no moment stays as it is.
pub(crate) fn moment(rfc3339: &str) -> String {
    match rfc3339.parse::<Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => rfc3339.to_owned(),
    }
}

/// A moment as a browser's field has it, `2026-11-25T09:30` or with seconds, becomes one of UTC; anything else stays as it is,
/// and whoever is asked says what is wrong with it.
pub(crate) fn as_utc(text: &str) -> String {
    let text = text.trim();
    let bare = |shape: &str| {
        let fits = |(byte, wanted): (u8, u8)| if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
        text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
    };
    if bare("0000-00-00T00:00") {
        return format!("{text}:00Z");
    }
    if bare("0000-00-00T00:00:00") { format!("{text}Z") } else { text.to_owned() }
}

/// The same, of a parameter.
pub(crate) fn utc<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    <String as serde::Deserialize>::deserialize(deserializer).map(|text| as_utc(&text))
}

/// In ms since the epoch.
pub(crate) fn millis(rfc3339: &str) -> Option<u64> {
    let at = rfc3339.parse::<Timestamp>().ok()?;
    u64::try_from(at.as_millisecond()).ok()
}

/// `23:31:57.123`.
pub(crate) fn clock(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    format!("{}.{:03}", at.strftime("%H:%M:%S"), ms % 1_000)
}

/// `23 ms`, `4.2 s`, `3 min`, `5 h`, `2 d`.
pub(crate) fn span(ms: u64) -> String {
    let tenth = |unit: u64| format!("{}.{}", ms / unit, ms % unit * 10 / unit);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{} s", tenth(1_000)),
        60_000..3_600_000 => format!("{} min", tenth(60_000)),
        3_600_000..172_800_000 => format!("{} h", tenth(3_600_000)),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// `1 234 567`, with narrow spaces.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// An amount of minor units: `24 460 VND`, `13.90 EUR`.
pub(crate) fn money(minor: i64, currency: &str) -> String {
    let places = chassis::money::decimals(currency);
    let unit = 10_u64.pow(places);
    let (whole, rest) = (minor.unsigned_abs() / unit, minor.unsigned_abs() % unit);
    let sign = if minor < 0 { "−" } else { "" };
    let fraction = if places == 0 { String::new() } else { format!(".{rest:0width$}", width = places as usize) };
    format!("{sign}{}{fraction} {currency}", count(whole))
}

/// `update-product-inventory` as people say it.
pub(crate) fn step(name: &str) -> String {
    match name {
        "update-product-inventory" => "Take from stock".to_owned(),
        "create-order" => "Write the order".to_owned(),
        "create-payment" => "Charge".to_owned(),
        "confirm-order" => "Confirm the order".to_owned(),
        other => {
            let text = other.replace('-', " ");
            let mut chars = text.chars();
            chars.next().map(|first| first.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
        }
    }
}

/// A part of an address.
pub(crate) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// A query of what is not empty.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut written = form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        written.append_pair(name, value);
    }
    written.finish()
}

/// JSON with lines, for reading.
pub(crate) fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_amounts_have_their_currencies_decimals() {
        assert_eq!([count(0), count(999), count(1_234_567)], ["0", "999", "1\u{202f}234\u{202f}567"]);
        assert_eq!(money(24_460, "VND"), "24\u{202f}460 VND");
        assert_eq!(money(1_390, "EUR"), "13.90 EUR");
        assert_eq!(money(5, "USD"), "0.05 USD");
    }

    #[test]
    fn spans_have_the_unit_that_fits() {
        let texts = [23, 4_250, 90_000, 5_400_000, 200_000_000].map(span);
        assert_eq!(texts, ["23 ms", "4.2 s", "1.5 min", "1.5 h", "2 d"]);
    }

    #[test]
    fn moments_are_read_and_shown() {
        assert_eq!(moment("2026-11-24T08:00:00.021Z"), "2026-11-24 08:00:00");
        assert_eq!(moment("soon"), "soon");
        for (field, utc) in [
            ("2026-11-24T08:00", "2026-11-24T08:00:00Z"),
            (" 2026-11-24T08:00:07 ", "2026-11-24T08:00:07Z"),
            ("2026-11-24T08:00:07+07:00", "2026-11-24T08:00:07+07:00"),
            ("yesterday at half", "yesterday at half"),
            ("", ""),
        ] {
            assert_eq!(as_utc(field), utc);
        }
        assert_eq!(clock(millis("2026-11-24T08:00:00.021Z").unwrap_or_default()), "08:00:00.021");
    }

    #[test]
    fn queries_leave_out_what_is_empty_and_encode_the_rest() {
        assert_eq!(query(&[("state", "STUCK"), ("q", ""), ("step", "a&b=c")]), "state=STUCK&step=a%26b%3Dc");
    }
}
