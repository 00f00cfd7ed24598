//! `saga check`: reads every file and database beside a running shop, or of one that is at rest.

use anyhow::Context as _;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::output::Output;
use super::{Place, Verdict};
use crate::args::{CheckArgs, Remote};
use crate::check::report::Report;
use crate::check::rules::Wanted;
use crate::config::Config;
use crate::remote::{Connection, Endpoint};

/// Runs the verb: here, or by the running orchestrator that `--url` names, which needs no way to the databases.
pub(super) async fn run(args: &CheckArgs, config: &Config, place: &Place, output: &Output) -> anyhow::Result<Verdict> {
    if args.url.is_some() {
        let remote = Remote { url: args.url.clone(), token_file: args.token_file.clone() };
        let (completed, compensated) = (args.expect_completed, args.expect_compensated);
        let wanted =
            json!({ "settled": args.settled, "expect_completed": completed, "expect_compensated": compensated });
        let report = place.admin(&remote)?.post("/admin/check", &wanted).await?;
        return tell(serde_json::from_value(report)?, output);
    }
    let wanted =
        Wanted { settled: args.settled, completed: args.expect_completed, compensated: args.expect_compensated };
    let (config, asks) = (config.clone(), args.shop.is_some());
    let read = move || {
        let mut products = Vec::new();
        let report = crate::check::check_with(&config, wanted, |id| products.extend(asks.then_some(id)))?;
        anyhow::Ok((report, products))
    };
    let (mut report, products) = tokio::task::spawn_blocking(read).await?.context("the books cannot be read")?;
    if let Some(url) = &args.shop {
        ask(&Endpoint::parse(url)?, products, &mut report)
            .await
            .with_context(|| format!("the shop at {url} cannot be asked"))?;
    }
    tell(report, output)
}

fn tell(report: Report, output: &Output) -> anyhow::Result<Verdict> {
    if output.json {
        output.value(&serde_json::to_value(&report)?);
    } else {
        output.line(&report.text());
    }
    Ok(if report.violations == 0 { Verdict::Fine } else { Verdict::Unbalanced })
}

/// Invariant 11, for what everybody may ask for: through caches and filter, every product that the books have is there.
async fn ask(shop: &Endpoint, products: Vec<u64>, report: &mut Report) -> anyhow::Result<()> {
    let mut connection = Connection::new(shop);
    for id in products {
        let path = format!("/api/v1/products/{id}");
        let answer = connection.send(Method::GET, &path, None, Bytes::new()).await?;
        if answer.status == StatusCode::NOT_FOUND {
            report.violation(11, format!("product {id}"), "the shop answers 404, and it is in the database");
        } else if !answer.status.is_success() {
            anyhow::bail!("GET {path}: {}", answer.status);
        }
    }
    Ok(())
}
