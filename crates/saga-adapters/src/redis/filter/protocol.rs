//! The filter's scripts, and what is said through them.

use super::{Shared, millis};
use crate::redis::script::Script;

/// Room for this many times what was expected.
const GROWTH: u64 = 2;

/// The smallest version's ids.
const SMALLEST: u64 = 1 << 16;

/// The largest one's: its bitmap has 240 MB.
const LARGEST: u64 = 1 << 27;

/// Bits an id: with ten of them set, one wrong *maybe* in about 1400 when full.
const BITS: u64 = 15;

/// One for each thing that is said.
pub(super) struct Scripts {
    begin: Script,
    add: Script,
    ready: Script,
    check: Script,
    renew: Script,
    revoke: Script,
    leave: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |text: &str| Script::new(&format!("{}\n{text}", include_str!("common.lua")));
        Self {
            begin: script(include_str!("begin.lua")),
            add: script(include_str!("add.lua")),
            ready: script(include_str!("ready.lua")),
            check: script(include_str!("check.lua")),
            renew: script(include_str!("renew.lua")),
            revoke: script(include_str!("revoke.lua")),
            leave: script(include_str!("leave.lua")),
        }
    }
}

/// What a renewal is answered with.
pub(super) struct Renewed {
    /// The server's, in milliseconds.
    pub(super) time: u64,
    /// Which state; another one after a loss.
    pub(super) state: String,
    /// Of the version that was begun last.
    pub(super) seq: u64,
    /// Of the version that is published: `cuckoo`, `bits`, or nothing.
    kind: String,
    /// Whether it may deny.
    pub(super) trusted: bool,
    /// Nothing is published and nobody is at it.
    pub(super) empty: bool,
}

impl Renewed {
    /// For people.
    pub(super) fn describe(&self) -> &'static str {
        match (self.kind.as_str(), self.trusted) {
            ("cuckoo", true) => "cuckoo (CF.*)",
            ("cuckoo", false) => "cuckoo (CF.*), not trusted: a replica is missing or not in step",
            ("bits", true) => "bitmap (the server has no CF.*)",
            ("bits", false) => "bitmap (the server has no CF.*), not trusted: a replica is missing or not in step",
            _ => "none: it has to be filled",
        }
    }
}

impl Shared {
    /// The state's id that they were added to (empty: there is none), if that is known to have happened.
    pub(super) async fn send(&self, ids: &[u64]) -> Option<String> {
        self.scripts.add.run(&self.cluster, &self.key, &[&items(ids)]).await
    }

    /// For each; `false`: it certainly does not exist.
    pub(super) async fn check(&self, ids: &[u64]) -> Vec<bool> {
        let (lease, joining) = (text(millis(self.options.lease)), text(millis(self.joining())));
        let arguments = [lease.as_bytes(), joining.as_bytes(), &items(ids)];
        let answers: Option<Vec<u8>> = self.scripts.check.run(&self.cluster, &self.key, &arguments).await;
        match answers {
            Some(answers) if answers.len() == ids.len() => answers.into_iter().map(|answer| answer != 0).collect(),
            _ => vec![true; ids.len()],
        }
    }

    pub(super) async fn ask_renewal(&self, ends: u64, state: &str, caught_up: u64) -> Option<Renewed> {
        let id = format!("{:016x}", crate::redis::nonce());
        let (ends, caught_up) = (text(ends), text(caught_up));
        let times = [self.options.lease, self.joining(), self.options.forget].map(|time| text(millis(time)));
        let mut arguments: Vec<&[u8]> = [&id, &self.member, &ends, state, &caught_up].map(str::as_bytes).to_vec();
        arguments.extend(times.iter().map(String::as_bytes));
        let answer = self.scripts.renew.run(&self.cluster, &self.key, &arguments).await;
        let (time, state, seq, kind, trusted, empty): (u64, String, u64, String, u8, u8) = answer?;
        Some(Renewed { time, state, seq, kind, trusted: trusted == 1, empty: empty == 1 })
    }

    /// Whether the version is begun.
    pub(super) async fn begin_version(&self, version: &str, expected: u64) -> bool {
        let capacity = expected.saturating_mul(GROWTH).clamp(SMALLEST, LARGEST);
        let (bits, capacity) = (text(capacity * BITS), text(capacity));
        let id = format!("{:016x}", crate::redis::nonce());
        let arguments = [&id, version, &capacity, &bits, &self.member].map(str::as_bytes);
        let answer: Option<u8> = self.scripts.begin.run(&self.cluster, &self.key, &arguments).await;
        answer == Some(1)
    }

    /// Whether the version is published.
    pub(super) async fn complete_version(&self, version: &str) -> bool {
        let answer: Option<u8> = self.scripts.ready.run(&self.cluster, &self.key, &[version.as_bytes()]).await;
        answer == Some(1)
    }

    /// Whether nothing is published any more.
    pub(super) async fn revoke(&self) -> bool {
        let answer: Option<u8> = self.scripts.revoke.run(&self.cluster, &self.key, &[]).await;
        answer == Some(1)
    }

    pub(super) async fn leave(&self) {
        // If this fails the others miss it, and forget it.
        let _: Option<u8> = self.scripts.leave.run(&self.cluster, &self.key, &[self.member.as_bytes()]).await;
    }
}

fn items(ids: &[u64]) -> Vec<u8> {
    ids.iter().flat_map(|id| item(*id)).collect()
}

/// What stands for an id: a number to begin at and an odd one to step by, four bytes each.
fn item(id: u64) -> [u8; 8] {
    let mut item = [0; 8];
    item.copy_from_slice(blake3::hash(&id.to_le_bytes()).as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
    item[7] |= 1;
    item
}

fn text(number: u64) -> String {
    number.to_string()
}
