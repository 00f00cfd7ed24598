//! The data folder: made if it is not there, held by one process at a time, and what that one leaves in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::remote::RunFile;

/// A folder that cannot be used. Each says what to do.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Not there, and cannot be made.
    #[error("the data folder {} cannot be made: {source}; give another one with --data", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something else has its name.
    #[error("{} is not a folder; give another one with --data", .0.display())]
    NotAFolder(PathBuf),
    /// There, and not writable.
    #[error("the data folder {} is not writable: {source}; change its owner or give another one with --data", path.display())]
    NotWritable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process holds it.
    #[error("the data folder {} is in use by {holder}: stop that one, or give another folder with --data", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
        /// By whom, as far as it is known.
        holder: String,
    },
}

/// The folder, held. Given back when dropped, also by `kill -9`: the kernel holds the lock.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes hold of a folder.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn hold(path: &Path) -> Result<Self, FolderError> {
        if path.exists() && !path.is_dir() {
            return Err(FolderError::NotAFolder(path.to_owned()));
        }
        // It will hold password hashes: nobody else's business.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| FolderError::Make { path: path.to_owned(), source })?;
        let not_writable = |source| FolderError::NotWritable { path: path.to_owned(), source };
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"));
        let lock = lock.map_err(not_writable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = match RunFile::read(path) {
                    Ok(Some(run)) => format!("process {} (a shop at {})", run.pid, run.public),
                    _ => "another process".to_owned(),
                };
                return Err(FolderError::InUse { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(not_writable(source)),
        }
        // Left behind by one that was killed.
        drop(std::fs::remove_file(RunFile::path(path)));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Tells the command line where the shop is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn announce(&self, run: &RunFile) -> Result<(), FolderError> {
        let path = RunFile::path(&self.path);
        let draft = path.with_extension("new");
        let write = || {
            // Anew, so that a file with other rights does not lend them.
            drop(std::fs::remove_file(&draft));
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
            file.write_all(serde_json::to_string_pretty(run)?.as_bytes())?;
            std::fs::rename(&draft, &path)
        };
        write().map_err(|source| FolderError::NotWritable { path: self.path.clone(), source })
    }

    /// The shop is gone: takes the announcement back.
    pub fn withdraw(&self) {
        drop(std::fs::remove_file(RunFile::path(&self.path)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn run() -> RunFile {
        let at = |port| format!("http://127.0.0.1:{port}");
        RunFile { pid: 77, public: at(1), internal: at(2), admin: at(3), token: "secret".into() }
    }

    #[test]
    fn a_folder_is_held_by_one_at_a_time_and_the_second_is_told_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::hold(dir.path()).unwrap();
        first.announce(&run()).unwrap();
        let error = Folder::hold(dir.path()).unwrap_err().to_string();
        assert!(error.contains("process 77") && error.contains("--data"), "{error}");
        drop(first);
        Folder::hold(dir.path()).unwrap();
    }

    #[test]
    fn the_run_file_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::hold(&dir.path().join("new")).unwrap();
        folder.announce(&run()).unwrap();
        let path = RunFile::path(&dir.path().join("new"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(dir.path().join("new").metadata().unwrap().permissions().mode() & 0o777, 0o700);
        folder.withdraw();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_folders_place_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, "x").unwrap();
        let error = Folder::hold(&path).unwrap_err().to_string();
        assert!(error.contains("data") && error.contains("not a folder"), "{error}");
    }
}
