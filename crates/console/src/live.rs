//! Event streams from a service, event by event, and to a browser.
//!
//! Pulled: nothing is read from the service before the browser has taken what came before, and a browser that goes away
//! ends the stream of the service, too.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::response::Response;
use bytes::Bytes;
use chassis::sse::Lines;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::BodyStream;

/// An event of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) data: String,
}

/// The events of an answer, to its end.
pub(crate) struct Events {
    frames: BodyStream<Body>,
    lines: Lines,
    read: VecDeque<Event>,
}

impl Events {
    pub(crate) fn of(body: Body) -> Self {
        Self { frames: BodyStream::new(body), lines: Lines::default(), read: VecDeque::new() }
    }

    /// The next one; `None` at the end, or when the service broke off.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Some(event);
            }
            let frame = self.frames.next().await?.ok()?;
            if let Some(chunk) = frame.data_ref() {
                let read = &mut self.read;
                self.lines.feed(chunk, |event| {
                    if !event.data.is_empty() {
                        read.push_back(Event { id: event.id.to_owned(), data: event.data.to_owned() });
                    }
                });
            }
        }
    }

    /// Whether another one has been read already: what is shown of the one before would be out of date at once.
    pub(crate) fn more(&self) -> bool {
        !self.read.is_empty()
    }
}

/// An event for a browser.
pub(crate) fn event(name: &str, id: &str, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 64);
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        text.push_str("id: ");
        text.push_str(id);
        text.push('\n');
    }
    text.push_str("event: ");
    text.push_str(name);
    // The end of a line in the data, of either kind, would begin another field.
    for line in data.split(['\n', '\r']) {
        text.push_str("\ndata: ");
        text.push_str(line);
    }
    text.push_str("\n\n");
    Bytes::from(text)
}

/// A stream as an answer.
pub(crate) fn answer(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    // A browser that was cut off comes back after a second.
    let opening = stream::once(async { Bytes::from_static(b"retry: 1000\n\n") });
    let body = Body::from_stream(opening.chain(events).map(Ok::<_, Infallible>));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_with_lines_stays_one_event() {
        let written = event("saga", "7", "<p>\nevent: x\r\nid: 9</p>");
        let text = String::from_utf8_lossy(&written).into_owned();
        assert_eq!(text, "id: 7\nevent: saga\ndata: <p>\ndata: event: x\ndata: \ndata: id: 9</p>\n\n");
        assert!(!event("x", "1\n2", "").starts_with(b"id"), "an id from elsewhere cannot begin a field");
    }

    #[tokio::test]
    async fn events_come_one_by_one_however_they_were_cut() {
        let chunks = ["id: 1\nevent: a\nda", "ta: one\n\n:\n\nid: 2\ndata: two\n\nid: 3\nda"];
        let body = Body::from_stream(stream::iter(chunks.map(Ok::<_, Infallible>)));
        let mut events = Events::of(body);
        let mut seen = Vec::new();
        while let Some(event) = events.next().await {
            seen.push((event.id, event.data));
        }
        let expected = [("1", "one"), ("2", "two")].map(|(id, data)| (id.to_owned(), data.to_owned()));
        assert_eq!(seen, expected);
    }
}
