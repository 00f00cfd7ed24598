//! What the loops of this process counted: sagas, steps, messages, batches.

use std::sync::Arc;

use chassis::metrics::{Page, SECONDS, Source, UNITS};
use saga_runtime::Stats;
use saga_runtime::stats::{Group, OfDefinition, OfStep};

const IGNORED: &str = "Messages that were late, double, or about nothing.";

/// The loops of a process. The orchestrator's series are only shown where it runs.
pub(crate) struct Engine {
    pub(crate) stats: Arc<Stats>,
    pub(crate) drives: bool,
}

impl Source for Engine {
    fn collect(&self, page: &mut Page) {
        let Self { stats, drives } = self;
        page.counter("messages_published", "Messages that the bus took.", &[], stats.published.get());
        let help = "Units of work that were run again because the database or the bus could not.";
        page.counter("units_retried", help, &[], stats.retried_units.get());
        let help = "Sagas, and answers about them, that retention removed here.";
        page.counter("rows_removed", help, &[], stats.removed.get());
        let commands = [("late_command", &stats.late_commands), ("duplicate_command", &stats.duplicate_commands)];
        page.counters("messages_ignored", IGNORED, "kind", &commands);
        for group in stats.groups.all() {
            participant(&group, page);
        }
        for definition in stats.sagas.all() {
            for step in &definition.steps {
                queued(definition, step, page);
            }
        }
        if *drives {
            orchestrator(stats, page);
        }
    }
}

fn participant(group: &Group, page: &mut Page) {
    let labels = [("group", group.name.as_str())];
    let help = "Commands in a participant's unit of work.";
    page.histogram("participant_batch", help, &labels, &group.batch.snapshot(), UNITS);
    let help = "How long a participant took for a unit of work: mostly its transaction.";
    page.histogram("participant_handling_seconds", help, &labels, &group.handling.snapshot(), SECONDS);
    buried(&group.name, group.poisoned.get(), page);
    let help = "Units of work of a participant that could not be written and were tried again.";
    page.counter("participant_retries", help, &labels, group.retried.get());
}

fn buried(group: &str, count: u64, page: &mut Page) {
    page.counter("dead_letters_buried", "Records that this process gave up.", &[("group", group)], count);
}

fn op(step: &OfStep) -> &'static str {
    step.op.as_str()
}

/// Counted where the participant is, which need not be where the orchestrator is.
fn queued(definition: &OfDefinition, step: &OfStep, page: &mut Page) {
    let seen = step.queued.snapshot();
    if seen.count() > 0 {
        let labels = [("definition", definition.name.as_str()), ("step", step.step.as_str()), ("op", op(step))];
        let help = "From a command's sending until its participant took it up.";
        page.histogram("step_queue_seconds", help, &labels, &seen, SECONDS);
    }
}

fn orchestrator(stats: &Stats, page: &mut Page) {
    for definition in stats.sagas.all() {
        sagas(definition, page);
        for of in &definition.steps {
            step(definition, of, page);
        }
    }
    page.counter("transitions", "Decisions that were committed.", &[], stats.transitions.get());
    page.counter("commits", "Commits of decisions: transitions per commit is the batch.", &[], stats.commits.get());
    page.counter(
        "commands_recovered",
        "Commands sent again because a saga was taken over.",
        &[],
        stats.recovered.get(),
    );
    let ignored = [
        ("late_reply", &stats.late_replies),
        ("duplicate_start", &stats.duplicate_starts),
        ("unknown_saga", &stats.unknown_sagas),
        ("late_start", &stats.late_starts),
    ];
    page.counters("messages_ignored", IGNORED, "kind", &ignored);
    let help = "Promises of a starter that a saga which has not ended kept from being followed in full.";
    page.counter("promises_held_back", help, &[], stats.held_back.get());
    page.counter("write_conflicts", "Compare-and-set that lost.", &[], stats.conflicts.get());
    let help = "Commits that were refused because another owner had taken the partition over.";
    page.counter("fenced_writes", help, &[], stats.fenced.get());
    page.counter("quarantined", "Sagas whose rows make no sense.", &[], stats.quarantined.get());
    let participants: u64 = stats.groups.all().iter().map(|group| group.poisoned.get()).sum();
    buried("orchestrator", stats.poisoned.get().saturating_sub(participants), page);
    let help = "How late the earliest timer was that the orchestrator woke up for.";
    page.histogram("timer_lag_seconds", help, &[], &stats.timer_lag.snapshot(), SECONDS);
}

fn sagas(of: &OfDefinition, page: &mut Page) {
    let definition = ("definition", of.name.as_str());
    page.counter("started", "Sagas that began.", &[definition], of.started.get());
    for (outcome, ended) in [("completed", &of.completed), ("compensated", &of.compensated)] {
        let labels = [definition, ("outcome", outcome)];
        page.counter("ended", "Sagas that ended, by outcome.", &labels, ended.count.get());
        let help = "From a saga's start to its end.";
        page.histogram("duration_seconds", help, &labels, &ended.took.snapshot(), SECONDS);
    }
    page.counter("compensations", "Compensations that began.", &[definition], of.compensations.get());
}

fn step(definition: &OfDefinition, of: &OfStep, page: &mut Page) {
    let [name, step, op] = [("definition", definition.name.as_str()), ("step", of.step.as_str()), ("op", op(of))];
    let labels = [name, step, op];
    page.counter("step_attempts", "Sendings of a step's command, repeats included.", &labels, of.attempts.get());
    for (outcome, counter) in [("done", &of.done), ("refused", &of.refused)] {
        let labels = [name, step, op, ("outcome", outcome)];
        page.counter("step_outcomes", "Final answers to a step's command.", &labels, counter.get());
    }
    let help = "Answers that asked for another try, or could not say what had happened.";
    page.counter("step_retries", help, &labels, of.retries.get());
    page.counter("step_timeouts", "Commands sent again because no answer came in time.", &labels, of.timeouts.get());
    page.counter("steps_stuck", "Times that a step ran out of attempts: a human is needed.", &labels, of.stuck.get());
    let help = "From a command's last sending to its final answer.";
    page.histogram("step_duration_seconds", help, &labels, &of.took.snapshot(), SECONDS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_participants_count_is_shown_where_no_orchestrator_runs() {
        let stats = Arc::new(Stats::default());
        stats.late_commands.add(2);
        stats.duplicate_commands.add(4);
        stats.removed.add(3);
        let mut page = Page::default();
        Engine { stats, drives: false }.collect(&mut page);
        let text = page.render();
        assert!(text.contains("saga_messages_ignored_total{kind=\"late_command\"} 2"), "{text}");
        assert!(text.contains("saga_messages_ignored_total{kind=\"duplicate_command\"} 4"), "{text}");
        assert!(text.contains("saga_rows_removed_total 3") && !text.contains("saga_transitions_total"), "{text}");
    }
}
