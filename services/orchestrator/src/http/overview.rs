//! `/admin/overview` and `/admin/participants`: the shop at a glance.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chassis::problem::{Code, Problem};
use chassis::time::rfc3339;
use futures_util::Stream;
use saga_core::Millis;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::sagas::counts_view;
use super::schemas;
use crate::app::Sagas;
use crate::overview::{Overview, RatesFrom};
use crate::participants::ParticipantReport;

/// How often a stream shows the shop.
const EVERY: Duration = Duration::from_secs(1);
/// How long a stream lasts, in ms; its reader comes again, with a token that is still good.
const LASTS: Millis = 10 * 60_000;

/// The shop at a glance.
#[utoipa::path(
    get, path = "/admin/overview", operation_id = "getOverview", tag = "overview",
    responses((status = 200, description = "As it is now, a second old at most.", body = schemas::Overview)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn show(State(sagas): State<Sagas>) -> Result<Response, Problem> {
    let overview = sagas.overview().await?;
    Ok(axum::Json(view(&sagas, &overview)).into_response())
}

/// The same once a second (server-sent events, WHATWG), until the reader goes, for ten minutes at most.
///
/// `event` is `overview`, `data` an `Overview`. It is put together once for all readers, and not at all without one.
#[utoipa::path(
    get, path = "/admin/overview/events", operation_id = "watchOverview", tag = "overview",
    responses((status = 200, description = "The stream.", body = String, content_type = "text/event-stream")),
    security(("bearer" = ["viewer"])),
    extensions(("x-problems" = json!(["too_many_streams"]))),
)]
pub(super) async fn events(State(sagas): State<Sagas>) -> Result<Response, Problem> {
    let permit = sagas.looks.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::new(Code::TooManyStreams, "too many look at once; come again later"))?;
    Ok(Sse::new(watch(sagas, permit)).keep_alive(KeepAlive::default()).into_response())
}

fn watch(sagas: Sagas, permit: OwnedSemaphorePermit) -> impl Stream<Item = Result<SseEvent, Infallible>> + Send {
    let until = sagas.now().saturating_add(LASTS);
    futures_util::stream::unfold((sagas, permit, false), move |(sagas, permit, begun)| async move {
        if begun {
            tokio::select! {
                () = sagas.about.closing.cancelled() => return None,
                () = sagas.sleep(EVERY) => {}
            }
        }
        if sagas.now() >= until {
            return None;
        }
        let event = match sagas.overview().await {
            Ok(overview) => SseEvent::default().event("overview").data(view(&sagas, &overview).to_string()),
            // The database is away for a moment; the next second may have it.
            Err(error) => SseEvent::default().comment(format!("not now: {error}").replace(['\n', '\r'], " ")),
        };
        Some((Ok(event), (sagas, permit, true)))
    })
}

/// How those who carry out the steps are.
#[utoipa::path(
    get, path = "/admin/participants", operation_id = "listParticipants", tag = "overview",
    responses((status = 200, description = "The participants, by name.", body = schemas::Participants)),
    security(("bearer" = ["viewer"])),
)]
pub(super) async fn participants(State(sagas): State<Sagas>) -> Result<Response, Problem> {
    let items: Vec<Value> = sagas.participants().await?.iter().map(participant_view).collect();
    Ok(axum::Json(json!({ "items": items })).into_response())
}

fn view(sagas: &Sagas, overview: &Overview) -> Value {
    let Overview { as_of, counts, rates, latency_ms, participants, dead_letters, lag } = overview;
    let counts = counts_view(counts, None, &[]);
    let of = |name: &str| counts[name].clone();
    json!({
        "as_of": rfc3339(*as_of),
        "counts": of("items"),
        "counts_as_of": of("as_of"),
        "in_flight": of("in_flight"),
        "stuck": of("stuck"),
        "oldest_in_flight_at": of("oldest_in_flight_at"),
        "rates": {
            "started": rates.started,
            "completed": rates.completed,
            "compensated": rates.compensated,
            "from": match rates.from {
                RatesFrom::Counters => "counters",
                RatesFrom::Rows => "rows",
            },
        },
        "latency_ms": latency_ms.map(|(p50, p99)| json!({ "p50": p50, "p99": p99 })),
        "participants": participants.iter().map(participant_view).collect::<Vec<_>>(),
        "dead_letters": dead_letters,
        "lag": lag,
        "version": sagas.about.version,
        "uptime_s": sagas.now().saturating_sub(sagas.since) / 1_000,
        "profile": sagas.about.profile,
    })
}

fn participant_view(report: &ParticipantReport) -> Value {
    json!({
        "participant": report.group,
        "topics": report.topics,
        "members": report.members,
        "waiting": report.waiting,
        "in_flight": report.in_flight,
        "oldest_outstanding_ms": report.oldest_outstanding_ms,
        "last_reply_at": report.last_reply_at.map(rfc3339),
        "attempts": report.attempts,
        "timeouts": report.timeouts,
        "refusals": report.refusals,
        "state": report.health().as_str(),
    })
}
