//! Settings that are not shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// Instead of what is not shown.
const HIDDEN: &str = "(hidden)";

/// A setting that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// What it hides.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// A text in which no URL shows its password: `scheme://user:password@host` becomes `scheme://user:(hidden)@host`.
pub(super) fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let authority = after.split(['/', '?', '"', ' ', '\n']).next().unwrap_or_default();
        rest = after;
        if let Some((user, _)) = authority.rsplit_once('@')
            && let Some((name, password)) = user.split_once(':')
        {
            shown.push_str(&format!("{name}:{HIDDEN}"));
            rest = &after[name.len() + 1 + password.len()..];
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let secret: Secret = serde_json::from_str("\"hush\"").unwrap();
        assert_eq!(secret.expose(), "hush");
        assert!(!format!("{secret:?} {}", serde_json::to_string(&secret).unwrap()).contains("hush"));
        let text = "url = \"postgres://mary:hush@db:5432/order?x=1\"\nother = \"kafka://a:9092,b:9092\"";
        let shown = without_passwords(text);
        assert_eq!(shown, text.replace("hush", HIDDEN));
        assert_eq!(without_passwords("postgres://order@db/order"), "postgres://order@db/order");
    }
}
