//! What only the orchestrator's database and the bus know: asked when somebody scrapes, at most every few seconds, and
//! never for longer than a moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chassis::metrics::Page;
use saga_core::{Millis, Name, Status};
use saga_runtime::bus::GroupReading;
use saga_runtime::dead_letters::{DeadLetterCount, DeadLetters, SUFFIX};
use saga_runtime::stats::Counter;
use saga_runtime::store::{InFlight, SagaStore};
use saga_runtime::{Bus, Clock, Definitions};

/// Answers are shown again for this long: several scrapers cost no more than one.
const FRESH: Millis = 5_000;
/// A scraper gives up after ten seconds, usually; what takes longer than this is not waited for.
const WITHIN: Duration = Duration::from_secs(3);
/// Names that are not ours.
const OTHER: &str = "other";
/// Groups that read all of a purchase's topics, each with a replica's number behind it.
const REPLICAS: &str = "purchase-";
/// Groups that a shop has, besides those of the replicas.
const GROUPS: [&str; 6] = ["orchestrator", "product", "order", "payment", "purchase", "dead-letters"];

/// Who is asked.
pub(crate) struct Polled {
    store: Arc<dyn SagaStore>,
    letters: Arc<dyn DeadLetters>,
    bus: Arc<dyn Bus>,
    definitions: Arc<Definitions>,
    clock: Arc<dyn Clock>,
    failures: [Counter; 3],
    last: tokio::sync::Mutex<Option<Answers>>,
}

/// What they said. `None`: nothing, in time.
struct Answers {
    at: Millis,
    in_flight: Option<Vec<InFlight>>,
    letters: Option<Vec<DeadLetterCount>>,
    reading: Option<Vec<GroupReading>>,
}

impl Polled {
    /// Nobody was asked yet.
    pub(crate) fn new(
        store: Arc<dyn SagaStore>,
        letters: Arc<dyn DeadLetters>,
        bus: Arc<dyn Bus>,
        definitions: Arc<Definitions>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, letters, bus, definitions, clock, failures: Default::default(), last: Default::default() }
    }

    /// Puts the answers on the page.
    pub(crate) async fn collect(&self, page: &mut Page) {
        // Held while they are asked: who scrapes meanwhile is shown the same answers.
        let mut last = self.last.lock().await;
        let now = self.clock.now();
        let answers = match last.take().filter(|answers| answers.at <= now && now - answers.at < FRESH) {
            Some(answers) => answers,
            None => self.ask(now).await,
        };
        let up = [
            ("sagas", answers.in_flight.is_some()),
            ("dead_letters", answers.letters.is_some()),
            ("consumer_lag", answers.reading.is_some()),
        ];
        for ((what, up), failures) in up.into_iter().zip(&self.failures) {
            let labels = [("source", what)];
            let help = "Whether what is asked on a scrape was answered in time.";
            page.gauge("poll_up", help, &labels, f64::from(u8::from(up)));
            page.counter("poll_failures", "Times that it was not.", &labels, failures.get());
        }
        if let Some(counts) = &answers.in_flight {
            self.in_flight(counts, answers.at, page);
        }
        if let Some(counts) = &answers.letters {
            self.letters(counts, page);
        }
        if let Some(groups) = &answers.reading {
            self.lag(groups, page);
        }
        *last = Some(answers);
    }

    async fn ask(&self, at: Millis) -> Answers {
        let [sagas, letters, lag] = &self.failures;
        let (in_flight, letters, reading) = tokio::join!(
            answered("sagas in flight", sagas, &*self.clock, self.store.count_in_flight()),
            answered("dead letters", letters, &*self.clock, self.letters.topics()),
            answered("consumer lag", lag, &*self.clock, self.bus.reading()),
        );
        Answers { at, in_flight, letters, reading }
    }

    /// Every definition and state, also where there is none: a series that is missing raises no alarm.
    fn in_flight(&self, counts: &[InFlight], now: Millis, page: &mut Page) {
        let mut names: Vec<Name> = self.definitions.all().iter().map(|definition| definition.name.clone()).collect();
        names.dedup();
        for name in &names {
            let of = |status: Status| counts.iter().find(|count| count.definition == *name && count.status == status);
            let mut stuck = 0;
            for status in Status::ALL.into_iter().filter(|status| !status.is_terminal()) {
                let count = of(status).map_or(0, |count| count.count);
                stuck += if status.is_stuck() { count } else { 0 };
                let labels = [("definition", name.as_str()), ("status", status.as_str())];
                page.gauge("in_flight", "Sagas that have not ended, by state.", &labels, float(count));
                let age = of(status).map_or(0, |count| now.saturating_sub(count.oldest_at));
                let help = "Since when the oldest saga in this state has been running.";
                page.gauge("oldest_in_flight_seconds", help, &labels, float(age) / 1_000.0);
            }
            let help = "Sagas that wait for a human, whichever way they got there.";
            page.gauge("stuck", help, &[("definition", name.as_str())], float(stuck));
        }
    }

    fn letters(&self, counts: &[DeadLetterCount], page: &mut Page) {
        let mut topics: BTreeMap<String, u64> = self.topics().into_iter().map(|topic| (topic, 0)).collect();
        for DeadLetterCount { topic, count, .. } in counts {
            let known = topics.contains_key(topic.as_str());
            *topics.entry(if known { topic.to_string() } else { OTHER.to_owned() }).or_default() += count;
        }
        for (topic, count) in &topics {
            let help = "Records that were given up and wait for a human, by the topic they came from.";
            page.gauge("dead_letters", help, &[("topic", topic)], float(*count));
        }
    }

    fn lag(&self, groups: &[GroupReading], page: &mut Page) {
        let topics = self.topics();
        let mut waiting: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for GroupReading { group, members, places } in groups {
            let of_replica = group.strip_prefix(REPLICAS).is_some_and(|number| number.parse::<u16>().is_ok());
            // A replica that is gone for good leaves its group behind: nobody will read what is counted there.
            if of_replica && members.is_empty() {
                continue;
            }
            let group = if of_replica || GROUPS.contains(&group.as_str()) { group.as_str() } else { OTHER };
            for place in places {
                let topic = place.topic.as_str();
                let known = topics.iter().any(|known| known == topic.strip_suffix(SUFFIX).unwrap_or(topic));
                *waiting.entry((group, if known { topic } else { OTHER })).or_default() += place.waiting;
            }
        }
        for ((group, topic), count) in waiting {
            let help = "Records that wait for a consumer group.";
            page.gauge("consumer_lag", help, &[("group", group), ("topic", topic)], float(count));
        }
    }

    fn topics(&self) -> Vec<String> {
        let mut topics: Vec<String> =
            self.definitions.all().iter().flat_map(|d| d.topics()).map(|topic| topic.to_string()).collect();
        topics.sort();
        topics.dedup();
        topics
    }
}

/// An answer, if it comes in time.
async fn answered<T, E: std::fmt::Display>(
    what: &str,
    failures: &Counter,
    clock: &dyn Clock,
    question: impl Future<Output = Result<T, E>>,
) -> Option<T> {
    let failed = |detail: String| {
        failures.inc();
        tracing::debug!(what, detail, "not told on this scrape");
    };
    tokio::select! {
        answer = question => answer.map_err(|error| failed(error.to_string())).ok(),
        () = clock.sleep(WITHIN) => {
            failed("no answer in time".to_owned());
            None
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}
