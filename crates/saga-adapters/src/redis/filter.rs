//! The filter in the cluster, shared by the replicas of a service: cuckoo (`CF.*`) where the server has it, else a
//! bitmap with the same promise on any server (ten bits an id, one wrong *maybe* in a thousand).
//!
//! **Why a wrong *no* is never answered.** All is decided on one node, in scripts, which run one at a time. A *no* is
//! given only by a version that is complete (its mark, set last, is in the key of the ids: who loses these loses it)
//! and only while all of this holds:
//!
//! 1. *The server is the process that the ids were added to* (its run id). A replica that was promoted, or a node that
//!    came back, may lack the last writes: its state counts for none.
//! 2. *Every member's lease runs.* A member is a replica that may add. One whose add is not known to have happened
//!    stops renewing, and its `add` does not return, so that its row does not become visible, before it has revoked
//!    the version or its lease is over (one lease at most, and only the first time). A lease's end is an absolute time
//!    of the server's clock, so a renewal that comes late (from the buffers of a server that hung) extends nothing. A
//!    master that hung long enough to be replaced finds all leases over when it goes on, and denies nothing before it
//!    has heard that it was replaced. (One that is cut off with some of its clients stops by itself after the node
//!    timeout, before its replica is elected.)
//! 3. *Every member has caught up with the version.* Whoever fills reads the rows that are visible; a row that is still
//!    being written was added to the version before. So each member keeps what it added lately (`settle`, longer than a
//!    transaction takes) and adds it to every version that was begun since; then only it counts as caught up. A state
//!    that was made anew waits until everybody had time to join.
//!
//! An add reaches the published version and the one under construction in the same script. Of two that fill at a time
//! the later one's version is published; the earlier one's adds are in it as well, as any other's.
//!
//! **What is left**: a process that writes rows and cannot reach the cluster, either from its start on or longer than
//! `forget`, while another one that can fills the filter anew, is not known of. Its ids are denied by the others. No
//! protocol through Redis can help it; [`RedisFilter::is_cut_off`] says so.

mod protocol;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use saga_runtime::cache::Filter;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Cluster;
use protocol::{Renewed, Scripts};

/// Ids of one call: a script blocks its server, for ten microseconds an id and version.
const CHUNK: usize = 100;

/// Between looks at something that another task does.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How a filter is kept.
#[derive(Debug, Clone)]
pub struct FilterOptions {
    /// How long a replica is trusted without a sign of it; shorter than the cluster's node timeout. Also what an add
    /// may be delayed by when the cluster is lost.
    pub lease: Duration,
    /// Between two signs; a lease has room for some.
    pub renew: Duration,
    /// Longer than a transaction takes from its add to its commit.
    pub settle: Duration,
    /// After this long without a sign a replica counts as dead, and the filter must be filled again.
    pub forget: Duration,
    /// This replica's name, if it has one that outlives it: a restarted one then need not be forgotten first.
    pub member: Option<String>,
}

impl Default for FilterOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(1),
            renew: Duration::from_millis(200),
            settle: Duration::from_secs(10),
            forget: Duration::from_secs(600),
            member: None,
        }
    }
}

/// The filter.
pub struct RedisFilter {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

struct Shared {
    cluster: Cluster,
    key: String,
    member: String,
    options: FilterOptions,
    scripts: Scripts,
    local: Mutex<Local>,
    empty: watch::Sender<bool>,
}

/// What this replica knows.
#[derive(Default)]
struct Local {
    /// Between begin and ready; `sound`: all that was added since is in it.
    building: Option<Building>,
    /// An add failed: nothing is trusted, and no lease renewed, until the version is revoked.
    dirty: bool,
    /// The server's time, and when it was heard: its clock shows at least that much more by now.
    heard: Option<(u64, Instant)>,
    /// When the last renewal was sent.
    renewed: Option<Instant>,
    /// The state that was met last, and the version of it that was caught up with.
    state: String,
    caught_up: u64,
    /// What was added lately.
    recent: VecDeque<(Instant, u64)>,
}

struct Building {
    version: String,
    sound: bool,
}

impl Local {
    /// What is being built lacks something.
    fn spoil(&mut self) {
        if let Some(building) = self.building.as_mut() {
            building.sound = false;
        }
    }
}

impl std::fmt::Debug for RedisFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisFilter").field("key", &self.shared.key).field("member", &self.shared.member).finish()
    }
}

impl RedisFilter {
    /// The filter called `name`; all replicas of a service use the same.
    pub fn new(cluster: Cluster, name: &str, options: FilterOptions) -> Self {
        let member = options.member.clone().unwrap_or_else(|| format!("{:016x}", super::nonce()));
        let shared = Arc::new(Shared {
            key: format!("{{{name}}}:filter"),
            member,
            options,
            scripts: Scripts::new(),
            local: Mutex::default(),
            empty: watch::Sender::new(false),
            cluster,
        });
        let keeper = shared.cluster.spawn(keep(Arc::clone(&shared)));
        Self { shared, keeper }
    }

    /// Returns when the filter has to be filled (again): nothing is published and nobody is at it. All replicas are
    /// told, and one is enough: let a lock choose.
    pub async fn needs_filling(&self) {
        // Ends only with the sender, which lives as long as this.
        drop(self.shared.empty.subscribe().wait_for(|empty| *empty).await);
    }

    /// Whether the cluster has not been reached for longer than others wait for this replica: from now on they may
    /// deny what it adds.
    pub fn is_cut_off(&self) -> bool {
        let local = self.shared.local.lock();
        local.heard.is_none_or(|(_, at)| super::now() - at > self.shared.options.forget)
    }
}

impl Drop for RedisFilter {
    fn drop(&mut self) {
        self.keeper.abort();
        // One that could not add must be missed instead.
        if !self.shared.local.lock().dirty {
            let shared = Arc::clone(&self.shared);
            self.shared.cluster.spawn(async move { shared.leave().await });
        }
    }
}

#[async_trait]
impl Filter for RedisFilter {
    async fn begin(&self, expected: u64) {
        let version = format!("{:016x}", super::nonce());
        self.shared.local.lock().building = Some(Building { version: version.clone(), sound: true });
        if !self.shared.start(&version, expected).await {
            // It may have happened all the same: nobody is to wait for this version.
            let mut local = self.shared.local.lock();
            local.dirty = true;
            local.spoil();
        }
    }

    async fn add(&self, ids: &[u64]) {
        let shared = &self.shared;
        shared.join().await;
        if shared.remember(ids) {
            return;
        }
        for chunk in ids.chunks(CHUNK) {
            if shared.send(chunk).await.is_none() {
                shared.distrust().await;
                return;
            }
        }
    }

    async fn ready(&self) {
        self.shared.publish().await;
        self.shared.local.lock().building = None;
    }

    async fn may_contain_each(&self, ids: &[u64]) -> Vec<bool> {
        let unsure = {
            let local = self.shared.local.lock();
            local.dirty || local.building.is_some()
        };
        if unsure {
            return vec![true; ids.len()];
        }
        let mut answers = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            answers.extend(self.shared.check(chunk).await);
        }
        answers
    }
}

impl Shared {
    /// Known to the others before anything is added.
    async fn join(&self) {
        if self.local.lock().heard.is_none() {
            self.renew().await;
        }
    }

    /// Keeps ids for versions that are begun later; whether that is all that can be done now.
    fn remember(&self, ids: &[u64]) -> bool {
        let now = super::now();
        let mut local = self.local.lock();
        while local.recent.front().is_some_and(|(at, _)| now - *at > self.options.settle) {
            local.recent.pop_front();
        }
        local.recent.extend(ids.iter().map(|id| (now, *id)));
        if !local.dirty {
            return false;
        }
        local.spoil();
        // While the lease runs it may be trusted: then this one must be added, or wait, as the one that failed does.
        local.renewed.is_none_or(|at| now - at >= self.options.lease)
    }

    /// An add is not known to have happened: returns when nobody trusts the filter any more.
    async fn distrust(&self) {
        let until = {
            let mut local = self.local.lock();
            local.dirty = true;
            local.spoil();
            local.renewed.map(|at| at + self.options.lease)
        };
        while self.local.lock().dirty && until.is_some_and(|until| super::now() < until) {
            super::sleep(LOOK_AGAIN).await;
        }
    }

    /// Begins a version and catches up with it.
    async fn start(&self, version: &str, expected: u64) -> bool {
        if self.local.lock().dirty && !self.heal().await {
            return false;
        }
        self.join().await;
        self.begin_version(version, expected).await && self.renew().await.is_some()
    }

    /// Publishes what was built, and waits a moment until it is trusted.
    async fn publish(&self) {
        let version = {
            let local = self.local.lock();
            let sound = local.building.as_ref().filter(|building| building.sound && !local.dirty);
            sound.map(|building| building.version.clone())
        };
        let Some(version) = version else {
            tracing::warn!("the filter could not be filled: everything may exist");
            return;
        };
        if !self.complete_version(&version).await {
            tracing::info!("the filter is being filled by another replica, or was lost meanwhile");
            return;
        }
        let until = super::now() + self.joining() + self.options.lease;
        while super::now() < until && !self.renew().await.is_some_and(|renewed| renewed.trusted) {
            super::sleep(LOOK_AGAIN).await;
        }
    }

    /// How long a new state waits for members: any that can will have renewed.
    fn joining(&self) -> Duration {
        self.options.renew * 2
    }

    /// Revokes whatever the failed add is missing from. What is begun later gets it from what is remembered.
    async fn heal(&self) -> bool {
        if !self.revoke().await {
            return false;
        }
        let mut local = self.local.lock();
        local.dirty = false;
        local.caught_up = 0;
        tracing::warn!("an id could not be added to the filter: it has to be filled again");
        true
    }

    /// A sign of life, and what there is to catch up with.
    async fn renew(&self) -> Option<Renewed> {
        let renewed = self.send_renewal().await?;
        if !self.catch_up(&renewed).await {
            return Some(renewed);
        }
        self.send_renewal().await
    }

    async fn send_renewal(&self) -> Option<Renewed> {
        let (ends, state, caught_up) = {
            let mut local = self.local.lock();
            if local.dirty {
                return None;
            }
            let sent = super::now();
            let ends = local.heard.map(|(time, at)| time + millis(sent - at) + millis(self.options.lease));
            // The first one only joins: no lease runs yet.
            local.renewed = ends.map(|_| sent);
            (ends.unwrap_or_default(), local.state.clone(), local.caught_up)
        };
        let renewed = self.ask_renewal(ends, &state, caught_up).await?;
        let mut local = self.local.lock();
        local.heard = Some((renewed.time, super::now()));
        if local.state != renewed.state {
            local.state.clone_from(&renewed.state);
            local.caught_up = 0;
        }
        drop(local);
        self.empty.send_replace(renewed.empty);
        self.cluster.note_filter(renewed.describe());
        Some(renewed)
    }

    /// Adds what was added lately to versions that were begun since; whether there was one and it has all.
    async fn catch_up(&self, renewed: &Renewed) -> bool {
        let recent: Vec<u64> = {
            let local = self.local.lock();
            if local.dirty || local.state != renewed.state || local.caught_up >= renewed.seq {
                return false;
            }
            local.recent.iter().map(|(_, id)| *id).collect()
        };
        for chunk in recent.chunks(CHUNK) {
            if self.send(chunk).await.as_deref() != Some(renewed.state.as_str()) {
                return false;
            }
        }
        let mut local = self.local.lock();
        if local.dirty || local.state != renewed.state {
            return false;
        }
        local.caught_up = local.caught_up.max(renewed.seq);
        true
    }
}

/// Renews the lease, or revokes what cannot be trusted, until the filter is dropped.
async fn keep(shared: Arc<Shared>) {
    loop {
        if shared.local.lock().dirty {
            let pause = if shared.heal().await { Duration::ZERO } else { LOOK_AGAIN * 10 };
            super::sleep(pause).await;
            continue;
        }
        shared.renew().await;
        let next = super::now() + shared.options.renew;
        while super::now() < next && !shared.local.lock().dirty {
            super::sleep(LOOK_AGAIN.max(shared.options.renew / 10)).await;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
