//! Files of the repository, and the schemas beside it.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses some of it; a file that is missing is a finding")]

use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A document that is checked out beside the repository.
pub(crate) fn shared(path: &str) -> String {
    let path = root().join("../shared").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; the folder `shared` must lie beside the repository", path.display())
    })
}

pub(crate) fn schema(name: &str) -> Value {
    serde_json::from_str(&shared(&format!("schemas/{name}"))).unwrap()
}

/// Fails with everything that the schema does not allow.
pub(crate) fn validate(schema: &Value, value: &Value) {
    let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft7).build(schema).unwrap();
    let findings: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
