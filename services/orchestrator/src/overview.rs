//! The shop at a glance, put together once a second at most, and only while somebody looks.
//!
//! Whoever comes while it is put together waits for that, so a hundred readers cost as much as one. Nothing runs by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use saga_core::{Millis, Status};
use saga_runtime::StoreError;
use saga_runtime::bus::GroupReading;
use saga_runtime::store::{SagaCount, SagaFilter};
use tokio::sync::{Mutex, Semaphore};

use crate::app::{Counts, Sagas};
use crate::participants::{ParticipantReport, participants};

/// How old what is shown may be, in ms.
const FRESH: Millis = 900;
/// How old the groups' reading may be: over a network it is many questions.
const READ_EVERY: Millis = 3_000;
/// Rates are over this long, in ms.
const WINDOW: Millis = 10_000;
/// Latencies are of this many sagas.
const LATEST: u32 = 200;
/// Event streams at a time.
const STREAMS: usize = 100;

/// Sagas a second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    /// Begun.
    pub started: f64,
    /// Ended with all of it.
    pub completed: f64,
    /// Ended with none of it.
    pub compensated: f64,
    /// How they were found.
    pub from: RatesFrom,
}

/// How rates were found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RatesFrom {
    /// By the counters of the one process that drives sagas: exact.
    Counters,
    /// By the rows of the sagas that started lately, whoever drives them: what takes longer than the window is not in it.
    Rows,
}

/// The shop at one moment.
#[derive(Clone, Debug)]
pub struct Overview {
    /// When, in ms since the epoch.
    pub as_of: Millis,
    /// How many sagas there are.
    pub counts: Counts,
    /// Sagas a second.
    pub rates: Rates,
    /// From start to end of the sagas that ended last, in ms: median and 99th percentile.
    pub latency_ms: Option<(u64, u64)>,
    /// Those who carry out the steps.
    pub participants: Vec<ParticipantReport>,
    /// Records that could not be handled.
    pub dead_letters: u64,
    /// Records that wait for somebody; `None`: the bus does not answer.
    pub lag: Option<u64>,
}

/// What the bus last said, and when.
type Reading = (Millis, Arc<Vec<GroupReading>>);

/// What is kept between two looks.
#[derive(Clone)]
pub(crate) struct Looks {
    last: Arc<Mutex<Last>>,
    reading: Arc<Mutex<Option<Reading>>>,
    pub(crate) streams: Arc<Semaphore>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { last: Arc::default(), reading: Arc::default(), streams: Arc::new(Semaphore::new(STREAMS)) }
    }
}

impl Looks {
    /// Streams that are open.
    pub(crate) fn open(&self) -> usize {
        STREAMS.saturating_sub(self.streams.available_permits())
    }
}

#[derive(Default)]
struct Last {
    overview: Option<Arc<Overview>>,
    samples: VecDeque<Sample>,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    at: Millis,
    started: u64,
    completed: u64,
    compensated: u64,
}

impl Sagas {
    /// The shop at a glance.
    ///
    /// # Errors
    /// See [`StoreError`]. A bus that does not answer is no error.
    pub async fn overview(&self) -> Result<Arc<Overview>, StoreError> {
        let mut last = self.looks.last.lock().await;
        let now = self.clock.now();
        if let Some(known) = last.overview.as_ref().filter(|known| now.saturating_sub(known.as_of) < FRESH) {
            return Ok(Arc::clone(known));
        }
        let reading = self.reading().await;
        let alone = reading.as_ref().is_some_and(|groups| drivers(groups) <= 1);
        let counts = self.counts().await?;
        let rates = match alone.then(|| rate(&mut last.samples, self.sample(now))).flatten() {
            Some(rates) => rates,
            None => by_rows(&self.store.count_started(now.saturating_sub(WINDOW)).await?),
        };
        let ended = SagaFilter {
            statuses: vec![Status::Completed, Status::Compensated],
            limit: LATEST,
            ..SagaFilter::default()
        };
        let ended = self.store.list(ended).await?;
        let latency_ms = percentiles(ended.iter().map(|row| row.updated_at.saturating_sub(row.started_at)).collect());
        let letters = self.dead_letters.topics().await?;
        let lag = reading.as_ref().map(|groups| groups.iter().flat_map(|g| &g.places).map(|p| p.waiting).sum());
        let overview = Arc::new(Overview {
            as_of: now,
            counts,
            rates,
            latency_ms,
            participants: self.reports(reading.as_ref().map_or(&[], |groups| groups), now).await?,
            dead_letters: letters.iter().map(|topic| topic.count).sum(),
            lag,
        });
        last.overview = Some(Arc::clone(&overview));
        Ok(overview)
    }

    /// Those who carry out the steps; of a bus that does not answer nobody is known.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn participants(&self) -> Result<Vec<ParticipantReport>, StoreError> {
        let reading = self.reading().await;
        self.reports(reading.as_ref().map_or(&[], |groups| groups), self.clock.now()).await
    }

    async fn reports(&self, reading: &[GroupReading], now: Millis) -> Result<Vec<ParticipantReport>, StoreError> {
        let awaited = self.store.count_awaited().await?;
        Ok(participants(self.definitions(), reading, &awaited, self.stats(), now))
    }

    /// How far every group has read, not older than [`READ_EVERY`]; `None`: the bus does not answer.
    async fn reading(&self) -> Option<Arc<Vec<GroupReading>>> {
        let mut known = self.looks.reading.lock().await;
        let now = self.clock.now();
        if let Some((at, groups)) = known.as_ref()
            && now.saturating_sub(*at) < READ_EVERY
        {
            return Some(Arc::clone(groups));
        }
        match self.bus.reading().await {
            Ok(groups) => {
                let groups = Arc::new(groups);
                *known = Some((now, Arc::clone(&groups)));
                Some(groups)
            }
            Err(error) => {
                tracing::debug!(%error, "how far the groups have read is not known");
                None
            }
        }
    }

    fn sample(&self, at: Millis) -> Sample {
        let stats = self.stats();
        let (started, completed, compensated) = (stats.started.get(), stats.completed.get(), stats.compensated.get());
        Sample { at, started, completed, compensated }
    }
}

/// How many processes drive sagas.
fn drivers(groups: &[GroupReading]) -> usize {
    groups.iter().find(|group| group.group == "orchestrator").map_or(0, |group| group.members.len())
}

/// Since the oldest look of the window; `None`: nobody has looked lately.
fn rate(samples: &mut VecDeque<Sample>, now: Sample) -> Option<Rates> {
    while samples.front().is_some_and(|sample| now.at.saturating_sub(sample.at) > WINDOW) {
        samples.pop_front();
    }
    let first = samples.front().copied();
    samples.push_back(now);
    let first = first.filter(|first| first.at < now.at)?;
    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    let each = |then: u64, now_: u64| now_.saturating_sub(then) as f64 * 1_000.0 / (now.at - first.at) as f64;
    Some(Rates {
        started: each(first.started, now.started),
        completed: each(first.completed, now.completed),
        compensated: each(first.compensated, now.compensated),
        from: RatesFrom::Counters,
    })
}

fn by_rows(counts: &[SagaCount]) -> Rates {
    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    let each = |wanted: fn(Status) -> bool| {
        let count: u64 = counts.iter().filter(|count| wanted(count.status)).map(|count| count.count).sum();
        count as f64 * 1_000.0 / WINDOW as f64
    };
    Rates {
        started: each(|_| true),
        completed: each(|status| status == Status::Completed),
        compensated: each(|status| status == Status::Compensated),
        from: RatesFrom::Rows,
    }
}

/// Nearest rank.
fn percentiles(mut all: Vec<u64>) -> Option<(u64, u64)> {
    all.sort_unstable();
    let rank = |percent: usize| all.get((all.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Some((rank(50)?, rank(99)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]

    use super::*;

    fn sample(at: Millis, started: u64) -> Sample {
        Sample { at, started, completed: started / 2, compensated: 0 }
    }

    #[test]
    fn rates_are_over_the_window_and_need_an_earlier_look() {
        let mut samples = VecDeque::new();
        assert_eq!(rate(&mut samples, sample(1_000, 0)), None);
        let rates = rate(&mut samples, sample(3_000, 10)).unwrap();
        assert_eq!((rates.started, rates.completed, rates.from), (5.0, 2.5, RatesFrom::Counters));
        let rates = rate(&mut samples, sample(12_500, 48)).unwrap();
        assert_eq!(rates.started, 4.0, "38 in the 9.5 seconds that are in the window");
        assert_eq!(rate(&mut samples, sample(60_000, 50)), None, "too long ago");
        assert_eq!(samples.len(), 1, "what is kept has a bound");
    }

    #[test]
    fn rates_of_several_processes_are_those_of_the_rows() {
        let count = |status, count| SagaCount { definition: "trip".into(), status, count };
        let rates = by_rows(&[count(Status::Running, 10), count(Status::Completed, 30), count(Status::Compensated, 5)]);
        assert_eq!((rates.started, rates.completed, rates.compensated), (4.5, 3.0, 0.5));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        assert_eq!(percentiles(vec![]), None);
        assert_eq!(percentiles(vec![7]), Some((7, 7)));
        assert_eq!(percentiles((1..=200).rev().collect()), Some((100, 198)));
    }
}
