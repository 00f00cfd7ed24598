//! A page of metrics, read, and held against docs/metrics.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use saga::remote::{Connection, Endpoint};

use crate::town::BodyJson as _;

/// Everything on a page.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// By family: its type.
    pub types: BTreeMap<String, String>,
    /// By series: its value.
    pub samples: BTreeMap<String, f64>,
}

/// One process's page.
pub async fn scrape(url: &str) -> Scrape {
    let mut connection = Connection::new(&Endpoint::parse(url).unwrap());
    let answer = connection.send(Method::GET, "/metrics", None, Bytes::new()).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.ends_with("# EOF\n"));
    Scrape::parse(&text)
}

impl Scrape {
    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let before = scrape.samples.insert(series.to_owned(), value.parse().unwrap());
                assert!(before.is_none(), "{series} twice");
            }
        }
        scrape
    }

    /// One series, written as on the page.
    pub fn of(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("there is no {series} in {:#?}", self.samples.keys()))
    }

    /// By documented name: type and labels. Only of what has samples.
    fn described(&self) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let mut all: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
        for series in self.samples.keys() {
            let (sample, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
            let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.strip_suffix(end));
            let (name, kind) = match histogram.filter(|base| self.types.get(*base).is_some_and(|t| t == "histogram")) {
                Some(base) => (base, "histogram"),
                None if sample.ends_with("_total") => (sample, "counter"),
                None => (sample, "gauge"),
            };
            let known = all.entry(name.to_owned()).or_insert_with(|| (kind.to_owned(), BTreeSet::new()));
            known.1.extend(names.filter(|label| label != "le"));
        }
        all
    }

    pub fn and(mut self, other: Self) -> Self {
        self.types.extend(other.types);
        self.samples.extend(other.samples);
        self
    }
}

/// The rows of docs/metrics.md: name, type, labels, and the heading they stand under.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let (mut rows, mut heading) = (BTreeMap::new(), String::new());
    for line in std::fs::read_to_string(path).unwrap().lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        }
        let Some(row) = line.strip_prefix("| `saga_") else { continue };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = format!("saga_{}", cells[0].trim_end_matches('`'));
        let labels = cells[2].split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let labels: BTreeSet<String> = labels.filter(|label| !label.is_empty()).collect();
        assert!(rows.insert(name.clone(), (cells[1].to_owned(), labels, heading.clone())).is_none(), "{name} twice");
    }
    rows
}

/// The documented names that can stand on the pages of a shop, but for what stands under `elsewhere`.
pub fn names(elsewhere: &str) -> BTreeSet<String> {
    let all = documented().into_iter().filter(|(_, (.., heading))| heading != elsewhere);
    all.map(|(name, _)| name).collect()
}

/// The largest values that series have had so far: counters that began again and gauges that have fallen included.
#[derive(Default)]
pub struct Seen(BTreeMap<String, f64>);

impl Seen {
    pub fn add(&mut self, scrape: &Scrape) {
        for (series, value) in &scrape.samples {
            let most = self.0.entry(series.clone()).or_insert(*value);
            *most = most.max(*value);
        }
    }

    /// Whether a series that begins like this, with all of these labels, has been more than nothing.
    pub fn has(&self, name: &str, labels: &[&str]) -> bool {
        self.0.iter().any(|(series, value)| {
            let (sample, rest) = series.split_once('{').unwrap_or((series, ""));
            let is_it = sample == name || sample.strip_suffix("_count") == Some(name);
            is_it && *value > 0.0 && labels.iter().all(|label| rest.contains(label))
        })
    }
}

/// Whatever is on a page is documented as it is; whatever is documented is on it, but for what stands under `elsewhere`.
pub fn is_as_documented(scrape: &Scrape, elsewhere: &str) {
    let (documented, shown) = (documented(), scrape.described());
    let mut findings = Vec::new();
    for (name, (kind, labels)) in &shown {
        match documented.get(name) {
            None => findings.push(format!("{name} is not in docs/metrics.md")),
            Some((said, names, _)) if said != kind || names != labels => {
                findings.push(format!("{name} is a {kind} with {labels:?}, and documented as a {said} with {names:?}"));
            }
            Some(_) => {}
        }
    }
    for (name, (.., heading)) in &documented {
        if !shown.contains_key(name) && heading != elsewhere {
            findings.push(format!("{name} is documented, and not shown"));
        }
    }
    assert!(documented.len() > 50, "the page lists metrics");
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
