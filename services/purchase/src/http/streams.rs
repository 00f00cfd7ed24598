//! Event streams (WHATWG server-sent events): of one purchase, and of all purchases of a customer.
//!
//! | | one purchase | all of them |
//! |---|---|---|
//! | `id` | the event's number | the moment of its commit, ms since the epoch |
//! | resume | exactly what follows; an id that was never given out: everything | at least once: purchases that changed since, with all their events, from among the customer's newest 5,000; data carries `purchase_id` and `seq` to tell duplicates |
//! | ends | after the terminal event; 204 from then on | never |
//!
//! Both end with the token, with the process, and when the reader is too slow: then it resumes. Memory per stream is
//! its queue; a page of replayed purchases at a time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use chassis::auth::Identity;
use chassis::json::{PathId, ValidQuery};
use chassis::problem::{Code, Problem};
use futures_channel::mpsc;
use futures_util::stream;
use garde::Validate;
use saga_core::Millis;
use serde::Deserialize;
use utoipa::IntoParams;

use super::no_such_purchase;
use crate::app::Purchases;
use crate::live::{Frame, OpenStream, Registration};
use crate::results;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Below the idle time-outs of the usual proxies.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
const COMMENT: Bytes = Bytes::from_static(b":\n\n");
/// Sent first: the headers leave at once, and a reader that is cut off comes back after this.
const OPENING: &[u8] = b"retry: 1000\n\n";
/// A resumed stream of all purchases looks at so many of the newest: 80 kB while it replays.
const RESUMED: u32 = 5_000;
/// And at what changed a little before, because commits and clocks are not that exact, in ms.
const OVERLAP: Millis = 2_000;

/// What happens to a purchase, as it happens (server-sent events, WHATWG).
///
/// `id` is the event's number, `event` the step and its status (`create-payment.success`), `data` a `PurchaseEvent`. The
/// stream ends after the terminal event, and with the token. A comment is sent every 15 s.
#[utoipa::path(
    get, path = "/purchases/{id}/events", operation_id = "watchPurchase", tag = "purchase",
    params(
        ("id" = u64, Path, minimum = 1, maximum = 9007199254740991_u64),
        ("Last-Event-ID" = Option<String>, Header, nullable = false, description = "Only what came after this event."),
    ),
    responses(
        (status = 200, description = "The stream.", body = String, content_type = "text/event-stream",
            example = "retry: 1000\n\nid: 1\nevent: update-product-inventory.execute\ndata: {\"purchase_id\":4503599627370500,\"seq\":1,\"step\":\"update-product-inventory\",\"status\":\"EXECUTE\",\"occurred_at\":\"2026-11-24T08:00:00.004Z\"}\n\n"),
        (status = 204, description = "All of it was read before."),
    ),
    security(("bearer" = [])),
    extensions(("x-problems" = json!(["too_many_streams", "overloaded"]))),
)]
pub(super) async fn of_purchase(
    State(purchases): State<Purchases>,
    identity: Identity,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let inner = purchases.inner();
    let customer_id = identity.customer_id;
    let open = open(&purchases, customer_id)?;
    // Registered before the row is read: what happens between is not missed.
    let (frames, registration) = inner.live.purchase_stream(id);
    let row = inner.store.get(customer_id, id).await?.ok_or_else(|| no_such_purchase(id))?;
    // A number that was never given out was forged, or given out before a power loss: begin again.
    let seen: u32 = last_event_id(&headers).filter(|seen| *seen <= row.last_seq).unwrap_or(0);
    if row.status.is_terminal() && seen == row.last_seq {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let entries = results::parse(&row.results).map_err(|e| saga_runtime::StoreError::Fault(e.to_string()))?;
    let mut opening = BytesMut::from(OPENING);
    for entry in entries.iter().filter(|entry| entry.seq > seen) {
        entry.render(id, u64::from(entry.seq), &mut opening);
    }
    let stream = OfPurchase {
        opening: Some(opening.freeze()),
        sent: row.last_seq,
        ended: row.status.is_terminal(),
        frames,
        hold: Hold {
            purchases: purchases.clone(),
            expires_at: identity.expires_at,
            _registration: registration,
            _open: open,
        },
    };
    let body = stream::unfold(stream, async |mut stream| {
        let bytes = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), stream))
    });
    Ok(response(Body::from_stream(body)))
}

/// What a stream holds on to, and what ends it.
struct Hold {
    purchases: Purchases,
    expires_at: Millis,
    _registration: Registration,
    _open: OpenStream,
}

/// What happens beside events.
enum Pause {
    Over,
    Silence,
}

impl Hold {
    async fn pause(&self) -> Pause {
        let inner = self.purchases.inner();
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => Pause::Over,
            () = inner.clock.sleep_until(self.expires_at) => Pause::Over,
            () = inner.clock.sleep(COMMENT_EVERY) => Pause::Silence,
        }
    }
}

struct OfPurchase {
    opening: Option<Bytes>,
    sent: u32,
    ended: bool,
    frames: mpsc::Receiver<Frame>,
    hold: Hold,
}

impl OfPurchase {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        while !self.ended {
            tokio::select! {
                biased;
                frame = self.frames.recv() => {
                    let frame = frame.ok()?;
                    if frame.seq > self.sent {
                        // What this reader has not got is not jumped over: it resumes.
                        if frame.seq != self.sent + 1 {
                            return None;
                        }
                        self.sent = frame.seq;
                        self.ended = frame.terminal;
                        return Some(frame.bytes);
                    }
                }
                pause = self.hold.pause() => return match pause {
                    Pause::Over => None,
                    Pause::Silence => Some(COMMENT),
                },
            }
        }
        None
    }
}

#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// Only how purchases ended.
    #[serde(default)]
    #[garde(skip)]
    #[param(required = false)]
    terminal: bool,
}

/// What happens to all purchases of the customer, as it happens (server-sent events, WHATWG).
///
/// `id` is a moment, to resume from: then some events come again, and `seq` tells which. `event` is the step and its status,
/// `data` a `PurchaseEvent`. The stream ends with the token. A comment is sent every 15 s.
#[utoipa::path(
    get, path = "/purchases/events", operation_id = "watchPurchases", tag = "purchase",
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, nullable = false, description = "Only what came after this moment."),
    ),
    responses(
        (status = 200, description = "The stream.", body = String, content_type = "text/event-stream",
            example = "retry: 1000\n\nid: 1732435200021\nevent: create-order.success\ndata: {\"purchase_id\":4503599627370500,\"seq\":4,\"step\":\"create-order\",\"status\":\"SUCCESS\",\"occurred_at\":\"2026-11-24T08:00:00.012Z\"}\n\n"),
    ),
    security(("bearer" = [])),
    extensions(("x-problems" = json!(["too_many_streams", "overloaded"]))),
)]
pub(super) async fn of_customer(
    State(purchases): State<Purchases>,
    identity: Identity,
    ValidQuery(query): ValidQuery<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let inner = purchases.inner();
    let customer_id = identity.customer_id;
    let open = open(&purchases, customer_id)?;
    let (queue, registration) = inner.live.customer_stream(customer_id, query.terminal);
    let mut replay = Vec::new();
    if headers.contains_key(LAST_EVENT_ID) {
        // Not a moment, or one that has not come: forged, or from before the clock was set back. All of the newest then.
        let now = inner.clock.now();
        let since: Millis = last_event_id(&headers).filter(|at| *at <= now).unwrap_or(0);
        replay = inner.store.changed(customer_id, since.saturating_sub(OVERLAP), RESUMED).await?;
        // The oldest change is sent first; they are taken from the end.
        replay.reverse();
    }
    let stream = OfCustomer {
        opening: Some(Bytes::from_static(OPENING)),
        customer_id,
        only_ends: query.terminal,
        replay,
        queue,
        hold: Hold {
            purchases: purchases.clone(),
            expires_at: identity.expires_at,
            _registration: registration,
            _open: open,
        },
    };
    let body = stream::unfold(stream, async |mut stream| {
        let bytes = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), stream))
    });
    Ok(response(Body::from_stream(body)))
}

struct OfCustomer {
    opening: Option<Bytes>,
    customer_id: u64,
    only_ends: bool,
    /// (changed, id), the next one last.
    replay: Vec<(Millis, u64)>,
    queue: mpsc::Receiver<Bytes>,
    hold: Hold,
}

impl OfCustomer {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        while let Some((changed, id)) = self.replay.pop() {
            let bytes = self.replayed(changed, id).await?;
            if !bytes.is_empty() {
                return Some(bytes);
            }
        }
        tokio::select! {
            biased;
            bytes = self.queue.recv() => bytes.ok(),
            pause = self.hold.pause() => match pause {
                Pause::Over => None,
                Pause::Silence => Some(COMMENT),
            },
        }
    }

    /// The events of one purchase. `None`: the row cannot be read; the reader resumes.
    async fn replayed(&self, changed: Millis, id: u64) -> Option<Bytes> {
        let row = self.hold.purchases.get(self.customer_id, id).await;
        let row =
            row.inspect_err(|error| tracing::warn!(%error, id, "a stream ended: its row cannot be read")).ok()??;
        let mut out = BytesMut::new();
        // An empty one keeps the others coming.
        for entry in results::parse(&row.results).unwrap_or_default() {
            if entry.terminal || !self.only_ends {
                entry.render(id, changed, &mut out);
            }
        }
        Some(out.freeze())
    }
}

fn open(purchases: &Purchases, customer_id: u64) -> Result<OpenStream, Problem> {
    let inner = purchases.inner();
    if inner.live.waiting() >= inner.patience.waiting {
        inner.stats.streams_refused.inc();
        return Err(Problem::new(Code::Overloaded, "too many streams are open").retry_after(1));
    }
    let limit = inner.patience.streams;
    inner.live.open_stream(customer_id, limit).ok_or_else(|| {
        inner.stats.streams_refused.inc();
        Problem::new(Code::TooManyStreams, format!("too many streams: at most {limit} may be open at once"))
            .retry_after(1)
    })
}

fn last_event_id<T: std::str::FromStr>(headers: &HeaderMap) -> Option<T> {
    let text = headers.get(LAST_EVENT_ID)?.to_str().ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn response(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}
