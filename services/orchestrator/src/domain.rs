//! Which definitions are in force.

use std::path::{Path, PathBuf};

use saga_core::{Definition, DefinitionError};
use saga_runtime::Definitions;
use thiserror::Error;

/// The purchase saga, compiled in.
pub const BUILT_IN: &str = include_str!("../definitions/purchase.yaml");

/// Why a definition file is refused.
#[derive(Debug, Error)]
pub enum DefinitionFileError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file breaks a rule.
    #[error("{}: {source}", .path.display())]
    Rule {
        /// Which file.
        path: PathBuf,
        /// Which rule, where.
        source: DefinitionError,
    },
}

/// The built-in definition and the given files. A file with the same name and version replaces the built-in one.
///
/// # Errors
/// The first file that cannot be read or breaks a rule, with its name, the key and the reason.
pub fn load_definitions(files: &[PathBuf]) -> Result<Definitions, DefinitionFileError> {
    let rule = |path: &Path| {
        let path = path.to_owned();
        move |source| DefinitionFileError::Rule { path, source }
    };
    let built_in = Path::new("the built-in purchase.yaml");
    let mut all = vec![Definition::from_yaml(BUILT_IN).map_err(rule(built_in))?];
    for path in files {
        let text =
            std::fs::read_to_string(path).map_err(|source| DefinitionFileError::Read { path: path.clone(), source })?;
        all.push(Definition::from_yaml(&text).map_err(rule(path))?);
    }
    Ok(Definitions::new(all))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_built_in_purchase_saga_passes_its_checks() {
        let definitions = load_definitions(&[]).unwrap();
        let purchase = definitions.newest(&"purchase".into()).unwrap().clone();
        let names: Vec<&str> = purchase.steps.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["update-product-inventory", "create-order", "create-payment", "confirm-order"]);
    }

    #[test]
    fn a_file_with_a_broken_pivot_rule_is_refused_by_name_step_and_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broken.yaml");
        let text = BUILT_IN.replace(
            "kind: retriable\n    do: confirm-order",
            "kind: compensatable\n    undo: x\n    do: confirm-order",
        );
        std::fs::write(&path, text).unwrap();
        let error = load_definitions(&[path]).unwrap_err().to_string();
        assert!(error.contains("broken.yaml") && error.contains("confirm-order"), "{error}");
    }

    #[test]
    fn a_file_replaces_the_built_in_definition_of_the_same_name_and_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("purchase.yaml");
        std::fs::write(&path, BUILT_IN.replace("deadline: 5m", "deadline: 7m")).unwrap();
        let definitions = load_definitions(&[path]).unwrap();
        assert_eq!(definitions.all().len(), 1);
        assert_eq!(definitions.newest(&"purchase".into()).unwrap().deadline, Some(420_000));
    }
}
