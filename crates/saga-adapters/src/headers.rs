//! Headers as JSON, for tables of records: `[[name, value], …]`.
//!
//! Values are bytes, which JSON cannot carry: they stand there as lists of numbers only where they are not text.

use bytes::Bytes;
use saga_runtime::bus::Header;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Bytes(Vec<u8>),
}

pub(crate) fn to_json(headers: &[Header]) -> Result<String, serde_json::Error> {
    let value = |bytes: &Bytes| match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Bytes(bytes.to_vec()),
    };
    let pairs: Vec<(&str, Value)> = headers.iter().map(|(name, bytes)| (&**name, value(bytes))).collect();
    serde_json::to_string(&pairs)
}

pub(crate) fn from_json(text: &str) -> Result<Vec<Header>, serde_json::Error> {
    let pairs: Vec<(String, Value)> = serde_json::from_str(text)?;
    let bytes = |value| match value {
        Value::Text(text) => Bytes::from(text),
        Value::Bytes(bytes) => Bytes::from(bytes),
    };
    Ok(pairs.into_iter().map(|(name, value)| (name.into(), bytes(value))).collect())
}
