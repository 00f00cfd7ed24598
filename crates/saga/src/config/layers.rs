//! Layers of settings: defaults ← file (TOML) ← environment (`SAGA_…`). What is not a setting is an error that names
//! the key and where it was found.
//!
//! `SAGA_PURCHASE__MAX_IN_FLIGHT` is `purchase.max_in_flight`: two underscores go one level down. `…_FILE` names a file
//! with the value, for secrets.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

/// What environment variables of ours begin with.
const PREFIX: &str = "SAGA_";

/// Variables that are not settings: for the command line and for tests.
pub(super) const NOT_SETTINGS: [&str; 7] =
    ["SAGA_CONFIG", "SAGA_ADMIN_TOKEN", "SAGA_ADMIN_URL", "SAGA_SHOP", "SAGA_BIN", "SAGA_EDGE_BIN", "SAGA_CRASH_AT"];

/// A configuration that is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that is no setting, or with a value that is none.
    #[error("the configuration file {}: {detail}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Which key, what is wrong.
        detail: String,
    },
    /// A variable says something that is no setting, or with a value that is none.
    #[error("the environment variable {name}: {detail}")]
    Variable {
        /// Which.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// Each setting is lawful, and together they are not.
    #[error("{key}: {detail}")]
    Value {
        /// Which key.
        key: String,
        /// What is wrong.
        detail: String,
    },
}

/// Puts the layers together.
///
/// # Errors
/// The first setting that is not one, by key and source.
pub(super) fn layered<T>(file: Option<&Path>, variables: Vec<(String, String)>) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut table = match file {
        Some(path) => read::<T>(path)?,
        None => Table::new(),
    };
    let known = Table::try_from(T::default()).unwrap_or_default();
    for (name, text) in variables {
        set::<T>(&mut table, &known, &name, text).map_err(|detail| ConfigError::Variable { name, detail })?;
    }
    // Every layer was tried alone; only their combination is new.
    T::deserialize(table).map_err(|e| ConfigError::Value { key: "configuration".to_owned(), detail: e.to_string() })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Table, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let wrong = |error: toml::de::Error| ConfigError::File { path: path.to_owned(), detail: error.to_string() };
    // Alone first: its errors know line and key.
    toml::from_str::<T>(&text).map_err(wrong)?;
    toml::from_str(&text).map_err(wrong)
}

/// Sets one variable's key and tries the whole, so that an error is this variable's.
fn set<T: DeserializeOwned>(table: &mut Table, known: &Table, name: &str, text: String) -> Result<(), String> {
    let mut path: Vec<String> = name.trim_start_matches(PREFIX).split("__").map(str::to_ascii_lowercase).collect();
    let mut text = text;
    if let Some(last) = path.last_mut()
        && let Some(key) = last.strip_suffix("_file")
    {
        *last = key.to_owned();
        text = std::fs::read_to_string(&text).map_err(|error| format!("{text}: {error}"))?.trim_end().to_owned();
    }
    let mut tried = Vec::new();
    for value in readings(known, &path, &text) {
        let mut draft = table.clone();
        insert(&mut draft, &path, value);
        match T::deserialize(draft.clone()) {
            Ok(_) => {
                *table = draft;
                return Ok(());
            }
            Err(error) => tried.push(error.to_string()),
        }
    }
    Err(format!("{}: {}", path.join("."), tried.first().map_or("", |first| first.trim())))
}

/// What a text may mean: if the default is a text it is one; else TOML, and a text where that does not fit.
fn readings(known: &Table, path: &[String], text: &str) -> Vec<Value> {
    let plain = Value::String(text.to_owned());
    let mut at = Some(known);
    let mut default = None;
    for key in path {
        default = at.and_then(|table| table.get(key));
        at = default.and_then(Value::as_table);
    }
    if default.is_some_and(Value::is_str) {
        return vec![plain];
    }
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
    parsed.into_iter().chain([plain]).collect()
}

fn insert(table: &mut Table, path: &[String], value: Value) {
    let Some((key, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.insert(key.clone(), value);
        return;
    }
    let below = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
    if !below.is_table() {
        *below = Value::Table(Table::new());
    }
    if let Value::Table(below) = below {
        insert(below, rest, value);
    }
}

/// The process's variables that are settings, by name.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub(super) fn environment() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(PREFIX) && !NOT_SETTINGS.contains(&name.as_str()))
        .collect();
    all.sort();
    all
}

/// Which variables there are whose names begin like this, and that say something.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub(super) fn names(prefix: &str) -> Vec<String> {
    let said = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let mut all: Vec<String> = said.filter_map(|(name, _)| name.into_string().ok()).collect();
    all.retain(|name| name.starts_with(prefix));
    all.sort();
    all
}

/// A variable that is not a setting.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        name: String,
        wait: Option<u64>,
        shop: Shop,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Shop {
        open: bool,
        tables: u32,
        waiters: Vec<String>,
        owner: Option<String>,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { name: "saga".into(), wait: None, shop: Shop::default() }
        }
    }

    fn load(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = file.map(|text| {
            let path = dir.path().join("saga.toml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        layered(path.as_deref(), variables).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let file = "wait = 5\n[shop]\ntables = 3\nopen = true";
        let settings = load(Some(file), &[("SAGA_SHOP__TABLES", "7"), ("SAGA_NAME", "12")]).unwrap();
        assert_eq!((settings.name.as_str(), settings.wait), ("12", Some(5)));
        assert!(settings.shop.open && settings.shop.tables == 7);
    }

    #[test]
    fn variables_carry_lists_and_texts_without_defaults() {
        let variables = [("SAGA_SHOP__WAITERS", "[\"a\", \"b\"]"), ("SAGA_SHOP__OWNER", "mary"), ("SAGA_WAIT", "9")];
        let settings = load(None, &variables).unwrap();
        assert_eq!(settings.shop.waiters, ["a", "b"]);
        assert_eq!((settings.shop.owner.unwrap().as_str(), settings.wait), ("mary", Some(9)));
    }

    #[test]
    fn o01_an_unknown_key_is_refused_by_key_and_source() {
        let error = load(Some("[shop]\ntabels = 3"), &[]).unwrap_err();
        assert!(error.contains("saga.toml") && error.contains("tabels"), "{error}");
        let error = load(None, &[("SAGA_SHOP__TABELS", "3")]).unwrap_err();
        assert!(error.contains("SAGA_SHOP__TABELS") && error.contains("tabels"), "{error}");
    }

    #[test]
    fn o01_a_wrong_value_is_refused_by_key_and_source() {
        let error = load(Some("[shop]\ntables = \"many\""), &[]).unwrap_err();
        assert!(error.contains("saga.toml") && error.contains("tables"), "{error}");
        let error = load(None, &[("SAGA_SHOP__TABLES", "-1")]).unwrap_err();
        assert!(error.contains("SAGA_SHOP__TABLES"), "{error}");
    }

    #[test]
    fn a_file_may_hold_what_a_variable_should_not_show() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "mary\n").unwrap();
        let settings = load(None, &[("SAGA_SHOP__OWNER_FILE", secret.to_str().unwrap())]).unwrap();
        assert_eq!(settings.shop.owner.unwrap(), "mary");
        let error = load(None, &[("SAGA_SHOP__OWNER_FILE", "/nowhere")]).unwrap_err();
        assert!(error.contains("/nowhere"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = layered::<Settings>(Some(Path::new("none.toml")), Vec::new()).unwrap_err().to_string();
        assert!(error.contains("none.toml"), "{error}");
    }
}
