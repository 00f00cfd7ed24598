//! The runbook of each alert, `/docs/runbooks/{alert}` on admin listeners: what its `runbook_url` leads to where nobody has put
//! `docs/operations.md` on the web.

use axum::Router;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use chassis::problem::{Code, Problem};

/// The chapter whose headings are the alerts' names.
const OPERATIONS: &str = include_str!("../../../../../docs/operations.md");

/// The route.
pub(in crate::up) fn router() -> Router {
    Router::new().route("/docs/runbooks/{alert}", get(runbook))
}

async fn runbook(Path(alert): Path<String>) -> Response {
    match section(&alert) {
        // As text: a browser shows it, and nothing in it is taken for anything else.
        Some(text) => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        None => Problem::new(Code::NotFound, "there is no such alert").into_response(),
    }
}

/// From its heading to the next.
fn section(alert: &str) -> Option<&'static str> {
    let alerts = OPERATIONS.split("\n## Alerts\n").nth(1)?.split("\n## ").next()?;
    let mut all = alerts.split("\n### ").skip(1);
    all.find(|text| text.lines().next().is_some_and(|name| name.eq_ignore_ascii_case(alert)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_prometheus_leads_to_a_runbook() {
        let mut links = 0;
        for rules in [
            include_str!("../../../../../deploy/observability/rules/datastores.yml"),
            include_str!("../../../../../deploy/observability/rules/messages.yml"),
            include_str!("../../../../../deploy/observability/rules/processes.yml"),
            include_str!("../../../../../deploy/observability/rules/requests.yml"),
            include_str!("../../../../../deploy/observability/rules/sagas.yml"),
        ] {
            for link in rules.split("$externalLabels.runbooks }}").skip(1) {
                let alert = link.split('"').next().unwrap_or_default();
                assert!(section(alert).is_some_and(|text| text.len() > 100), "{alert}");
                links += 1;
            }
        }
        assert!(links > 15, "{links}");
        assert_eq!(section("sagasneezed"), None);
    }
}
