//! The process itself: what it is, how it is, what it takes.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use chassis::health::Health;
use chassis::metrics::{Page, Source};
use saga_core::Millis;
use tokio::runtime::Handle;

use crate::telemetry::Spans;
use crate::up::roles::ServiceRole;

/// Ticks of `/proc/<pid>/stat`: what Linux shows to programs, whatever it counts itself (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// What is known of a process.
pub(crate) struct Process {
    pub(crate) roles: BTreeSet<ServiceRole>,
    /// `embedded` or `stack`.
    pub(crate) profile: &'static str,
    /// In ms since the epoch.
    pub(crate) started_at: Millis,
    pub(crate) health: Health,
    pub(crate) spans: Arc<Spans>,
}

impl Source for Process {
    fn collect(&self, page: &mut Page) {
        let Self { roles, profile, started_at, health, spans } = self;
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("profile", profile)];
        page.gauge("build_info", "Always 1: what is running.", &labels, 1.0);
        for role in roles {
            page.gauge("role", "Always 1: what this process is there for.", &[("role", role.as_str())], 1.0);
        }
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let started = *started_at as f64 / 1_000.0;
        page.gauge("process_start_time_seconds", "When it started, since the epoch.", &[], started);
        page.gauge("ready", "Whether it is ready.", &[], f64::from(u8::from(health.is_ready())));
        for (condition, met) in health.conditions() {
            let labels = [("condition", condition.as_str())];
            let help = "Whether what readiness depends on is there.";
            page.gauge("condition_met", help, &labels, f64::from(u8::from(met)));
        }
        page.counter("trace_spans_exported", "Spans that a collector took.", &[], spans.exported.get());
        page.counter("trace_spans_dropped", "Spans that were lost.", &[], spans.dropped.get());
        runtime(page);
        system(page);
    }
}

fn runtime(page: &mut Page) {
    let metrics = Handle::current().metrics();
    page.gauge_of("runtime_workers", "Threads that run tasks.", &[], metrics.num_workers());
    page.gauge_of("runtime_tasks", "Tasks that have not ended.", &[], metrics.num_alive_tasks());
    let help = "Tasks that are ready and wait for a thread, in the queue that all threads share.";
    page.gauge_of("runtime_queue", help, &[], metrics.global_queue_depth());
}

/// What the kernel says; left out where it says nothing.
fn system(page: &mut Page) {
    let [status, stat, limits] =
        ["status", "stat", "limits"].map(|name| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default());
    if let Some(bytes) = resident(&status) {
        page.gauge("process_resident_memory_bytes", "Memory that it occupies.", &[], bytes);
    }
    if let Some(seconds) = cpu(&stat) {
        page.counter_f64("process_cpu_seconds", "Time that it has run, on all processors together.", &[], seconds);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The one that reads the folder is not counted.
        page.gauge_of("process_open_fds", "File descriptors that are open.", &[], open.count().saturating_sub(1));
    }
    if let Some(most) = max_fds(&limits) {
        page.gauge("process_max_fds", "File descriptors that may be open.", &[], most);
    }
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1_024.0)
}

/// Fields 14 and 15; the second one is a name in parentheses, in which anything may stand.
fn cpu(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 12 34 56";
        assert_eq!(cpu(stat), Some(3.0));
        assert_eq!(resident("Name:\tsaga\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            256      4096      files\n";
        assert_eq!(max_fds(limits), Some(256.0));
        assert_eq!(max_fds("Max open files            unlimited  unlimited  files"), None);
        assert_eq!((cpu(""), resident("")), (None, None));
    }
}
