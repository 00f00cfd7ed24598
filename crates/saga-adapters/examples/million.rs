//! The operators' lists and counts with a million sagas: fills a database directly, asks for every combination of filters,
//! and prints how long the slowest answers took.
//!
//! ```sh
//! cargo run --release -p saga-adapters --example million -- sqlite      # a file in a temporary folder
//! cargo run --release -p saga-adapters --example million -- postgres    # a server of its own; or postgres://user@host/database
//! cargo run --release -p saga-adapters --example million -- fill data   # only fills the file of a shop's folder: for bench/console
//! ```
//!
//! A number after that is how many sagas it is to be.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use saga_adapters::postgres::saga_store::{self as pg_sagas, PgSagaStore};
use saga_adapters::postgres::{Options as PgOptions, Pg, Query};
use saga_adapters::sqlite::saga_store::{self, SqliteSagaStore};
use saga_adapters::sqlite::{Db, Durability, Options};
use saga_core::{Name, Status};
use saga_runtime::store::{SagaFilter, SagaStore};

/// Sagas, if nobody says how many.
const SAGAS: u64 = 1_000_000;
/// One saga starts each millisecond.
const FIRST: u64 = 1_764_000_000_000;
/// What every statement is asked for.
const PAGE: u32 = 51;

/// A saga of each millisecond: one in a thousand of another definition, one in ten thousand compensated, one in a hundred of
/// the last tenth in flight, one in fifty thousand stuck since the beginning. `series` names the numbers from 1 to `sagas`.
fn fill(sagas: u64, series: &str, yes: &str, no: &str, modulo: fn(u64) -> String) -> String {
    let m = modulo;
    let stuck = format!("{} = 1", m(50_000));
    let running = format!("n > {} and {} = 2", sagas / 10 * 9, m(100));
    let open = format!("({stuck} or ({running}))");
    format!(
        "insert into saga (id, definition, definition_version, partition, version, open, status, awaiting, wake_at,
            started_at, updated_at)
        select n, case when {} = 0 then 'refund' else 'purchase' end, 1, 0, 6, case when {open} then {yes} else {no} end,
            case when {stuck} then 'STUCK' when {running} then 'RUNNING' when {} = 3 then 'COMPENSATED' else 'COMPLETED' end,
            case when {open} then 'create-payment.do' else '' end, null, {FIRST} + n, {FIRST} + n + 40
        from {series}",
        m(1_000),
        m(10_000),
    )
}

async fn sqlite(folder: &Path, sagas: u64) -> Arc<dyn SagaStore> {
    let db = Db::open(&folder.join("orchestrator.db"), &saga_store::SCHEMA, &Options::default()).unwrap();
    let series =
        format!("(with recursive s (n) as (select 1 union all select n + 1 from s where n < {sagas}) select n from s)");
    let sql = fill(sagas, &series, "1", "0", |by| format!("n % {by}"));
    db.write(Durability::Durable, move |conn| Ok(conn.execute_batch(&sql)?)).await.unwrap();
    Arc::new(SqliteSagaStore::new(db))
}

async fn postgres(url: &str, sagas: u64) -> Arc<dyn SagaStore> {
    let options = PgOptions { statement_timeout: Duration::from_secs(600), ..PgOptions::new(url) };
    let pg = Pg::connect(&options, &pg_sagas::SCHEMA).await.unwrap();
    let series = format!("generate_series(1, {sagas}) as s (n)");
    pg.run(Query::new(fill(sagas, &series, "true", "false", |by| format!("n % {by}")))).await.unwrap();
    // What autovacuum does in a shop that is in use.
    pg.run(Query::new("analyze saga")).await.unwrap();
    Arc::new(PgSagaStore::new(pg))
}

/// Every combination of filters, with a name each.
fn filters(sagas: u64) -> Vec<(String, SagaFilter)> {
    let statuses = [
        ("any", vec![]),
        ("COMPLETED", vec![Status::Completed]),
        ("COMPENSATED (rare)", vec![Status::Compensated]),
        ("STUCK", vec![Status::Stuck]),
        ("RUNNING,COMPENSATED", vec![Status::Running, Status::Compensated]),
    ];
    let definitions = [None, Some("purchase"), Some("refund"), Some("none")];
    let steps = [None, Some("create-payment")];
    let last = FIRST + sagas;
    let times = [
        ("", None, None, None),
        (" older than all but a few", Some(FIRST + 100), None, None),
        (" older than half", Some(FIRST + sagas / 2), None, None),
        (" started in one minute in the middle", None, Some(FIRST + sagas / 2), Some(FIRST + sagas / 2 + 60_000)),
        (" started in the last second", None, Some(last - 1_000), None),
        (" started and changed apart", Some(FIRST + 10_000), Some(FIRST + 5_000), None),
    ];
    let mut all = Vec::new();
    for (word, statuses) in &statuses {
        for definition in definitions {
            for step in steps {
                for (when, updated_before, started_from, started_before) in times {
                    for ids in [vec![], vec![7, sagas / 2, sagas + 5]] {
                        let name = format!("{word} {definition:?} {step:?}{when} {} ids", ids.len());
                        let filter = SagaFilter {
                            statuses: statuses.clone(),
                            definition: definition.map(Name::new),
                            step: step.map(Name::new),
                            updated_before,
                            started_from,
                            started_before,
                            ids,
                            before: None,
                            limit: PAGE,
                        };
                        all.push((name, filter));
                    }
                }
            }
        }
    }
    all
}

async fn measure(store: &dyn SagaStore, sagas: u64) {
    let mut took: Vec<(Duration, String)> = Vec::new();
    for (name, filter) in filters(sagas) {
        let begun = Instant::now();
        let rows = store.list(filter.clone()).await.unwrap();
        took.push((begun.elapsed(), format!("{name}: {} rows", rows.len())));
        // And the page after it.
        if let Some(last) = rows.last().filter(|_| rows.len() == PAGE as usize) {
            let before = Some((last.started_at, last.key.clone()));
            let begun = Instant::now();
            store.list(SagaFilter { before, ..filter }).await.unwrap();
            took.push((begun.elapsed(), format!("{name}, the next page")));
        }
    }
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].0;
    println!("{} lists: p50 {:?}, p99 {:?}, the slowest:", took.len(), at(50), at(99));
    for (duration, name) in took.iter().rev().take(5) {
        println!("  {duration:?} {name}");
    }
    for round in ["first", "second"] {
        let begun = Instant::now();
        let open: u64 = store.count_in_flight().await.unwrap().iter().map(|count| count.count).sum();
        let counted = begun.elapsed();
        let begun = Instant::now();
        let ended: u64 = store.count_ended().await.unwrap().iter().map(|count| count.count).sum();
        println!("{round} count: {open} in flight in {counted:?}, {ended} ended in {:?}", begun.elapsed());
    }
    let begun = Instant::now();
    let started: u64 = store
        .count_started((FIRST + sagas).saturating_sub(50_000))
        .await
        .unwrap()
        .iter()
        .map(|count| count.count)
        .sum();
    println!("started lately: {started} in {:?}", begun.elapsed());
}

#[tokio::main]
async fn main() {
    let begun = Instant::now();
    let mut args = std::env::args().skip(1);
    let place = args.next().unwrap_or_else(|| "sqlite".to_owned());
    let folder = if place == "fill" { args.next().map(PathBuf::from) } else { None };
    let sagas = args.next().map_or(SAGAS, |number| number.parse().unwrap());
    let taken = |what: &str| println!("{sagas} sagas in {what} after {:?}", begun.elapsed());
    if let Some(folder) = folder {
        std::fs::create_dir_all(&folder).unwrap();
        sqlite(&folder, sagas).await;
        taken(&folder.display().to_string());
    } else if place.starts_with("postgres") {
        let url = if place == "postgres" { testkit::postgres::database() } else { place };
        let store = postgres(&url, sagas).await;
        taken("PostgreSQL");
        measure(&*store, sagas).await;
    } else {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite(folder.path(), sagas).await;
        taken("SQLite");
        measure(&*store, sagas).await;
    }
}
