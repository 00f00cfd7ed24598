//! The service's numbers as metrics.

use chassis::metrics::{Page, Source};

use crate::app::{Inner, Purchases};
use crate::stats::Stats;

impl Source for Purchases {
    fn collect(&self, page: &mut Page) {
        let Inner { stats, admission, live, outbound, .. } = self.inner();
        counted(stats, page);
        page.counter(
            "starts_left_to_sweeper",
            "Starts that found the outbound queue full: the sweeper sends them.",
            &[],
            outbound.left.get(),
        );
        let slots = [
            ("free", admission.free_slots()),
            ("taken", admission.outstanding().saturating_sub(admission.parked())),
            ("parked", admission.parked()),
        ];
        for (state, count) in slots {
            let help =
                "Purchases let in by this process: slots that are free, taken, or given up by those that do not move.";
            page.gauge_of("admission_slots", help, &[("state", state)], count);
        }
        page.gauge_of("streams_open", "Event streams that are open.", &[], live.streams());
        page.gauge_of("waiters", "Streams and long polls that wait for news.", &[], live.waiting());
    }
}

fn counted(stats: &Stats, page: &mut Page) {
    let Stats { accepted, replayed, refused, backlog, streams_refused, polls_refused, .. } = stats;
    page.counter("purchases_accepted", "Purchases that were written.", &[], accepted.get());
    page.counter("purchases_replayed", "Answers given again for an idempotency key.", &[], replayed.get());
    let busy = refused.get().saturating_sub(backlog.get());
    let refusals = [
        ("busy", busy),
        ("backlog", backlog.get()),
        ("streams", streams_refused.get()),
        ("polls", polls_refused.get()),
    ];
    for (reason, count) in refusals {
        let help = "Requests that were told to come back: no slot, too many purchases that do not end, too many streams, too many that wait.";
        page.counter("admission_refused", help, &[("reason", reason)], count);
    }
    let ended = [("completed", &stats.completed), ("compensated", &stats.compensated)];
    page.counters("purchases_ended", "Purchases whose end this process has told.", "outcome", &ended);
    page.counter("results_applied", "Result events that were new.", &[], stats.applied.get());
    page.counter("results_gaps", "Batches of results in which a purchase's events had a gap.", &[], stats.gaps.get());
    page.counter("purchases_asked", "Questions about purchases that do not move.", &[], stats.asked.get());
    let ignored = [("duplicate_result", &stats.duplicates), ("unknown_purchase", &stats.unknown)];
    page.counters("messages_ignored", "Messages that were late, double, or about nothing.", "kind", &ignored);
    let group = [("group", "purchase")];
    page.counter("dead_letters_buried", "Records that this process gave up.", &group, stats.poisoned.get());
}
