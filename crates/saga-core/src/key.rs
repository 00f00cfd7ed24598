//! How sagas, steps and moments are named.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch. The engine never reads a clock; it is told.
pub type Millis = u64;

/// The name of a definition, a step or a topic. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// Wraps a text; the definition checks say which texts are lawful names.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(Arc::from(text.as_ref()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text can name a definition, a step or a topic: what every database, broker and file can hold.
    pub fn is_lawful(text: &str) -> bool {
        let lawful = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        (1..=100).contains(&text.len()) && text.bytes().all(lawful)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

/// A saga's name: the definition it runs and the id its starter chose (its idempotency key).
///
/// Two definitions may use the same id without ever meeting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SagaKey {
    /// Name of the definition.
    pub definition: Name,
    /// Chosen by the starter; at most 2^53 − 1, so that every JSON client can hold it.
    pub id: u64,
}

impl SagaKey {
    /// Names a saga.
    pub fn new(definition: impl Into<Name>, id: u64) -> Self {
        Self { definition: definition.into(), id }
    }
}

/// By the id alone: two definitions that use the same one are rare, and every message is looked up several times.
impl Hash for SagaKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl fmt::Display for SagaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.definition, self.id)
    }
}

/// The two things that a step can be told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Have the effect.
    Do,
    /// Take the effect back, if it was had.
    Undo,
}

impl Op {
    /// `do` or `undo`.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Do => "do",
            Op::Undo => "undo",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
