//! Clients that stall: who does not say what it wants, or does not read on, or does not send the body that it announced,
//! is cut off.
//!
//! A client that opens an event stream and never reads it would otherwise hold a connection, and what is buffered for it,
//! for ever. Only time in which a write is waiting counts: an idle stream has nothing to write and may live for hours.
//! What is not here: the headers' time (hyper's own), and a single stalled HTTP/2 stream on a connection that moves; its
//! buffer is bounded by its window.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// With this an HTTP/2 client begins (RFC 9113, section 3.4). As long as a connection's bytes could become it, hyper
/// waits without a limit of its own to learn which version is spoken.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Runs from the first time that something has to be waited for.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    #[expect(clippy::disallowed_methods, reason = "a socket's own limit, like hyper's timers")]
    fn poll(&mut self, cx: &mut Context<'_>, limit: Duration, what: &'static str) -> Poll<io::Error> {
        ready!(self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, what))
    }
}

/// Wraps a socket.
pub(crate) struct Stall<S> {
    socket: S,
    opening: Option<Opening>,
    write_limit: Duration,
    waiting: Timer,
}

/// A connection that has not yet shown which version it speaks.
struct Opening {
    /// So many bytes were read, and all are the preface's.
    seen: usize,
    limit: Duration,
    waiting: Timer,
}

impl<S> Stall<S> {
    /// The first bytes must come within `read_limit`, and waiting writes fail after `write_limit`.
    pub(crate) fn new(socket: S, read_limit: Duration, write_limit: Duration) -> Self {
        let opening = Some(Opening { seen: 0, limit: read_limit, waiting: Timer::default() });
        Self { socket, opening, write_limit, waiting: Timer::default() }
    }

    /// Passes on what a write came to; one that waits for too long has failed.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = Timer::default();
            return written;
        }
        self.waiting.poll(cx, self.write_limit, "the client does not read on").map(Err)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        let Some(opening) = &mut self.opening else { return read };
        if read.is_pending() {
            return opening.waiting.poll(cx, opening.limit, "the client does not say what it wants").map(Err);
        }
        let new = &buf.filled()[before..];
        opening.seen += new.len();
        if opening.seen >= PREFACE.len() || &PREFACE[opening.seen - new.len()..opening.seen] != new {
            self.opening = None;
        }
        read
    }
}

/// A request's body that must be there within `limit`, however slowly its bytes trickle in.
pub(crate) fn prompt(body: Body, limit: Duration) -> Body {
    if body.is_end_stream() { body } else { Body::new(Prompt { body, limit, waiting: Timer::default() }) }
}

struct Prompt {
    body: Body,
    limit: Duration,
    waiting: Timer,
}

impl hyper::body::Body for Prompt {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            return frame;
        }
        let limit = self.limit;
        self.waiting.poll(cx, limit, "the body does not arrive").map(|late| Some(Err(axum::Error::new(late))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        // A socket keeps nothing back, so a flush is at once done and tells nothing of the writes.
        if flushed.is_ready() { flushed } else { self.watch(cx, flushed) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
