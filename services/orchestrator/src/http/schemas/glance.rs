//! The overview and the participants, for the API's document.

use utoipa::ToSchema;

use super::SagaCountView;

/// Sagas a second, over the last ten.
#[derive(ToSchema)]
pub(in crate::http) struct OverviewRates {
    started: f64,
    completed: f64,
    compensated: f64,
    /// `counters` of the one process that drives sagas; or, where there are several, `rows` of the sagas that started in
    /// that time, which leaves out those that take longer.
    #[schema(pattern = "^(counters|rows)$")]
    from: String,
}

/// From start to end, of the sagas that ended last.
#[derive(ToSchema)]
pub(in crate::http) struct OverviewLatency {
    p50: u64,
    p99: u64,
}

/// The shop at a glance.
#[derive(ToSchema)]
pub(in crate::http) struct Overview {
    #[schema(format = DateTime)]
    as_of: String,
    counts: Vec<SagaCountView>,
    /// When what has ended was counted.
    #[schema(format = DateTime)]
    counts_as_of: String,
    in_flight: u64,
    stuck: u64,
    #[schema(required = true, format = DateTime)]
    oldest_in_flight_at: Option<String>,
    rates: OverviewRates,
    /// Null before the first has ended.
    #[schema(required = true)]
    latency_ms: Option<OverviewLatency>,
    participants: Vec<ParticipantView>,
    dead_letters: u64,
    /// Records that wait for somebody; null where the bus does not answer.
    #[schema(required = true)]
    lag: Option<u64>,
    version: String,
    uptime_s: u64,
    /// `embedded` or `stack`.
    profile: String,
}

/// How a participant is.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(in crate::http) enum ParticipantHealth {
    /// It answers.
    Ok,
    /// It answers late.
    Slow,
    /// It is asked and does not answer, or nobody is there to.
    Silent,
    /// It is not asked.
    Idle,
}

/// Somebody who carries out steps.
#[derive(ToSchema)]
#[schema(as = Participant)]
pub(in crate::http) struct ParticipantView {
    /// Its consumer group.
    participant: String,
    /// Of its commands.
    topics: Vec<String>,
    /// Where the bus knows.
    members: Vec<String>,
    /// Records that wait for it.
    waiting: u64,
    /// Sagas that await its answer.
    in_flight: u64,
    /// How long the one has waited that has for longest.
    #[schema(required = true)]
    oldest_outstanding_ms: Option<u64>,
    /// As this process saw it, like the counts below.
    #[schema(required = true, format = DateTime)]
    last_reply_at: Option<String>,
    attempts: u64,
    timeouts: u64,
    refusals: u64,
    state: ParticipantHealth,
}

/// Those who carry out the steps.
#[derive(ToSchema)]
pub(in crate::http) struct Participants {
    items: Vec<ParticipantView>,
}
