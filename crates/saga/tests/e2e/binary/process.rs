//! The real binary as a child of the tests.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use saga::remote::RunFile;

use crate::town::{PATIENCE, Person, eventually};

/// The binary under test: `SAGA_BIN`, or the one that was built with the tests.
pub fn binary() -> PathBuf {
    std::env::var_os("SAGA_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_saga")), PathBuf::from)
}

/// The binary on a data folder, with cheap password hashes.
pub fn saga(data: &Path) -> Command {
    let mut command = Command::new(binary());
    command.env("SAGA_DATA", data).env("SAGA_ACCOUNT__PASSWORD_MEMORY_KIB", "64");
    command.env("SAGA_ACCOUNT__PASSWORD_PASSES", "1").env("SAGA_LOG__FILTER", "warn");
    command.stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn run(data: &Path, args: &[&str]) -> Output {
    saga(data).args(args).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A shop in a process of its own; killed when dropped.
pub struct Process {
    child: Child,
    pub run: RunFile,
}

impl Process {
    /// Starts a shop on any port and waits until it is ready.
    pub async fn start(data: &Path) -> Self {
        Self::start_with(data, &["--listen", "127.0.0.1:0"]).await
    }

    pub async fn start_with(data: &Path, args: &[&str]) -> Self {
        let child = saga(data).args(args).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        Self::of(child, data).await
    }

    /// A child that is starting, when it is ready.
    pub async fn of(child: Child, data: &Path) -> Self {
        let pid = child.id();
        let run = eventually("the shop announces itself", || async {
            RunFile::read(data).ok().flatten().filter(|run| run.pid == pid)
        });
        Self { run: run.await, child }
    }

    pub fn nobody(&self) -> Person {
        Person::at(&self.run.public)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Its exit code, if it has ended.
    pub fn exited(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().and_then(|status| status.code())
    }

    /// Its exit code and what it said on standard output.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let limit = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < limit, "the shop does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
