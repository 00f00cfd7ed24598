//! Metrics as Prometheus reads them: what the parts of a process counted, put on one page when somebody asks.
//!
//! ```text
//!   atomics, anywhere ─► Source::collect ─► Page ─► OpenMetrics text
//! ```
//!
//! Nothing is registered anywhere and nothing is global: whoever builds a process keeps the list of its [`Source`]s.
//! Promised: no name has more than [`MOST_SERIES`] sets of labels; what is over that is left out and counted, so that
//! one bad label harms nobody else's series. Not here: what is counted, and how long it takes to find out.

mod http;
mod once;

use std::fmt::Write as _;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use saga_runtime::stats::{Counter, Snapshot};

pub use http::{HttpMetrics, measured};
pub use once::Once;

/// Sets of labels of one name: a few times what a shop has.
pub const MOST_SERIES: usize = 1_000;

/// What every name begins with.
pub const PREFIX: &str = "saga";

/// Of a page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Histograms of durations count microseconds, and are shown in seconds.
pub const SECONDS: f64 = 1e-6;
/// Histograms of sizes are shown as they are.
pub const UNITS: f64 = 1.0;

/// Something that has counted.
pub trait Source: Send + Sync {
    /// Puts what it has on the page.
    fn collect(&self, page: &mut Page);
}

/// A label's name and value.
pub type Label<'l> = (&'static str, &'l str);

#[derive(Clone, Debug)]
enum Value {
    Counter(u64),
    Amount(f64),
    Gauge(f64),
    Histogram { sum: f64, count: u64, buckets: Vec<(f64, u64)> },
}

/// All series of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    series: Vec<(Vec<(&'static str, String)>, Value)>,
}

/// What stands for asking.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<Family>,
    left_out: u64,
}

impl Page {
    /// Only goes up. Its name is given without `saga_` and `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: &[Label<'_>], value: u64) {
        self.add(name, help, MetricType::Counter, labels, Value::Counter(value));
    }

    /// The same for what is no whole number.
    pub fn counter_f64(&mut self, name: &'static str, help: &'static str, labels: &[Label<'_>], value: f64) {
        self.add(name, help, MetricType::Counter, labels, Value::Amount(value));
    }

    /// The same for several that differ in one label.
    pub fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: &[(&str, &Counter)],
    ) {
        for (value, counter) in values {
            self.counter(name, help, &[(label, value)], counter.get());
        }
    }

    /// Goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: &[Label<'_>], value: f64) {
        self.add(name, help, MetricType::Gauge, labels, Value::Gauge(value));
    }

    /// The same for what is counted.
    pub fn gauge_of(&mut self, name: &'static str, help: &'static str, labels: &[Label<'_>], value: usize) {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        self.gauge(name, help, labels, value as f64);
    }

    /// How often which values were seen; `unit` is [`SECONDS`] or [`UNITS`].
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[Label<'_>],
        seen: &Snapshot,
        unit: f64,
    ) {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let scaled = |value: u64| value as f64 * unit;
        let bounds = seen.bounds.iter().map(|bound| scaled(*bound)).chain([f64::INFINITY]);
        let buckets = bounds.zip(seen.counts.iter().copied()).collect();
        let value = Value::Histogram { sum: scaled(seen.sum), count: seen.count(), buckets };
        self.add(name, help, MetricType::Histogram, labels, value);
    }

    fn add(&mut self, name: &'static str, help: &'static str, kind: MetricType, labels: &[Label<'_>], value: Value) {
        let place = self.families.iter().position(|family| family.name == name).unwrap_or_else(|| {
            self.families.push(Family { name, help, kind, series: Vec::new() });
            self.families.len() - 1
        });
        let Some(family) = self.families.get_mut(place) else { return };
        if family.series.len() >= MOST_SERIES {
            self.left_out += 1;
            return;
        }
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        family.series.push((labels, value));
    }

    /// The page as text.
    pub fn render(mut self) -> String {
        let left_out = self.left_out;
        self.counter("metrics_left_out", "Series that were one too many of their name, on this page.", &[], left_out);
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut text = String::with_capacity(64 * 1024);
        if text::encode(&mut text, &registry).is_err() {
            // Writing to memory does not fail.
            let _ = writeln!(text, "# the page could not be written");
        }
        text
    }
}

impl prometheus_client::collector::Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for Family { name, help, kind, series } in &self.families {
            let mut metric = encoder.encode_descriptor(name, help, None, *kind)?;
            for (labels, value) in series {
                if labels.is_empty() {
                    encode(&mut metric, value)?;
                } else {
                    encode(&mut metric.encode_family(labels)?, value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(metric: &mut MetricEncoder<'_>, value: &Value) -> Result<(), std::fmt::Error> {
    match value {
        Value::Counter(value) => metric.encode_counter::<NoLabelSet, _, u64>(value, None),
        Value::Amount(value) => metric.encode_counter::<NoLabelSet, _, u64>(value, None),
        Value::Gauge(value) => metric.encode_gauge(value),
        Value::Histogram { sum, count, buckets } => metric.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None),
    }
}

#[cfg(test)]
mod tests;
