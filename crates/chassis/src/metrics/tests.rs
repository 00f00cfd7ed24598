#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::get;
use saga_runtime::SystemClock;
use saga_runtime::stats::Histogram;
use tower::ServiceExt as _;

use super::*;

fn lines(page: Page, containing: &str) -> Vec<String> {
    page.render().lines().filter(|line| line.contains(containing)).map(str::to_owned).collect()
}

#[test]
fn a_page_is_openmetrics_text() {
    let (mut page, sizes) = (Page::default(), Histogram::sizes());
    sizes.observe(1);
    sizes.observe(3);
    page.counter("things", "What there is.", &[("kind", "a \"b\"\nc\\")], 3);
    page.gauge("level", "How high.", &[], 0.5);
    page.histogram("size", "How large.", &[("of", "it")], &sizes.snapshot(), UNITS);
    page.counter("things", "What there is.", &[("kind", "d")], 4);
    let text = page.render();
    for line in [
        "# HELP saga_things What there is.",
        "# TYPE saga_things counter",
        r#"saga_things_total{kind="a \"b\"\nc\\"} 3"#,
        r#"saga_things_total{kind="d"} 4"#,
        "# TYPE saga_level gauge",
        "saga_level 0.5",
        r#"saga_size_sum{of="it"} 4.0"#,
        r#"saga_size_count{of="it"} 2"#,
        r#"saga_size_bucket{le="2.0",of="it"} 1"#,
        r#"saga_size_bucket{le="4.0",of="it"} 2"#,
        r#"saga_size_bucket{le="+Inf",of="it"} 2"#,
        "saga_metrics_left_out_total 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(text.matches("# TYPE saga_things ").count(), 1);
}

#[test]
fn durations_are_shown_in_seconds() {
    let (mut page, durations) = (Page::default(), Histogram::durations());
    durations.observe_millis(1_500);
    page.histogram("wait_seconds", "How long.", &[], &durations.snapshot(), SECONDS);
    assert_eq!(lines(page, "saga_wait_seconds_sum"), ["saga_wait_seconds_sum 1.5"]);
}

#[test]
fn o05_too_many_labels_are_left_out_and_counted_and_harm_no_other_name() {
    let mut page = Page::default();
    let values: Vec<String> = (0..MOST_SERIES + 500).map(|number| number.to_string()).collect();
    for value in &values {
        page.counter("exploding", "Somebody made a label of an id.", &[("id", value)], 1);
    }
    page.counter("modest", "One.", &[], 1);
    let text = page.render();
    assert_eq!(text.matches("saga_exploding_total{").count(), MOST_SERIES);
    assert!(text.contains("\nsaga_modest_total 1\n") && text.contains("\nsaga_metrics_left_out_total 500\n"));
}

async fn ask(router: &Router, method: &str, path: &str) -> StatusCode {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    crate::http::oneshot(router.clone(), request).await.status()
}

/// As a listener asks, which has nothing around what is counted.
async fn ask_bare(router: &Router, method: &str, path: &str) -> StatusCode {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap().status()
}

fn shop() -> (Router, HttpMetrics) {
    let metrics = HttpMetrics::new("public", Arc::new(SystemClock));
    let stuck = get(|| async { std::future::pending::<()>().await });
    let broken = get(|| async { panic!("a bug") as StatusCode });
    let router = Router::new().route("/things/{id}", get(|| async { "here" }));
    let router = router.route("/stuck", stuck).route("/broken", broken);
    (measured(crate::http::refusing(router), &metrics), metrics)
}

fn of(metrics: &HttpMetrics, containing: &str) -> Vec<String> {
    let mut page = Page::default();
    metrics.collect(&mut page);
    lines(page, containing)
}

#[tokio::test]
async fn o05_requests_are_counted_by_template_and_all_unknown_paths_together() {
    let (router, metrics) = shop();
    for number in 0..50 {
        assert_eq!(ask_bare(&router, "GET", &format!("/things/{number}")).await, StatusCode::OK);
        assert_eq!(ask_bare(&router, "GET", &format!("/nowhere/{number}")).await, StatusCode::NOT_FOUND);
        assert_eq!(ask_bare(&router, &format!("VERB{number}"), "/things/1").await, StatusCode::METHOD_NOT_ALLOWED);
    }
    let labels = |method: &str, route: &str, status: u16| {
        format!(
            r#"saga_http_requests_total{{listener="public",method="{method}",route="{route}",status="{status}"}} 50"#
        )
    };
    let expected =
        [labels("GET", "/things/{id}", 200), labels("_OTHER", "/things/{id}", 405), labels("GET", "other", 404)];
    assert_eq!(of(&metrics, "saga_http_requests_total{"), expected);
    assert_eq!(of(&metrics, "saga_http_request_duration_seconds_count{").len(), 3);
}

#[tokio::test]
async fn a_client_that_goes_away_and_a_handler_that_panics_are_counted() {
    let (router, metrics) = shop();
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), ask(&router, "GET", "/stuck"));
    assert!(waiting.await.is_err());
    assert_eq!(ask(&router, "GET", "/broken").await, StatusCode::INTERNAL_SERVER_ERROR);
    let counted = of(&metrics, "saga_http_requests_total{").join("\n");
    assert!(counted.contains(r#"route="/stuck",status="499"} 1"#), "{counted}");
    assert!(counted.contains(r#"route="/broken",status="500"} 1"#), "{counted}");
    assert_eq!(of(&metrics, "in_flight{"), [r#"saga_http_requests_in_flight{listener="public"} 0.0"#]);
}
