//! The server over real sockets: what it takes, what it cuts off, how it stops.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get as on_get, post as on_post};
use chassis::http::HttpLimits;
use chassis::json::Valid;
use chassis::problem::Problem;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::sync::Notify;

use server::{Server, get, post, within};

#[derive(Deserialize, garde::Validate)]
#[serde(deny_unknown_fields)]
struct Note {
    #[garde(length(min = 1))]
    text: String,
}

#[expect(clippy::panic, reason = "the test is about it")]
async fn panics() -> &'static str {
    panic!("on purpose, in a test")
}

fn router() -> Router {
    Router::new()
        .route("/ok", on_get(|| async { "ok" }))
        .route("/panic", on_get(panics))
        .route("/notes", on_post(|Valid(note): Valid<Note>| async move { note.text.len().to_string() }))
        .route("/bytes", on_post(|body: Bytes| async move { body.len().to_string() }))
}

fn limits() -> HttpLimits {
    HttpLimits { header_time: Duration::from_millis(200), drain: Duration::from_secs(15), ..HttpLimits::default() }
}

#[tokio::test]
async fn a49_who_does_not_finish_the_headers_is_cut_off() {
    let server = Server::start(router(), limits()).await;
    for start in ["", "PRI * HTTP/2.0", "GET /ok HTT", "GET /ok HTTP/1.1\r\nhost: shop\r\nx-slow: 1\r\n"] {
        let mut client = server.connect().await;
        client.send(start).await;
        let said = client.until_closed().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{start:?}: {said:?}");
    }
    assert_eq!(server.ask(&get("/ok")).await.status, 200);
}

#[tokio::test]
async fn a49_trickling_header_bytes_do_not_buy_time() {
    let server = Server::start(router(), limits()).await;
    let mut client = server.connect().await;
    client.send("GET /ok HTTP/1.1\r\n").await;
    let (mut read, mut write) = client.socket.split();
    let trickle = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if tokio::io::AsyncWriteExt::write_all(&mut write, b"x-a: b\r\n").await.is_err() {
                return;
            }
        }
    };
    let mut said = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut said);
    within("the connection to be closed", async {
        tokio::select! { () = trickle => {}, _ = closed => {} }
    })
    .await;
}

#[tokio::test]
async fn a48_headers_over_the_limit_are_refused_and_the_server_goes_on() {
    let server = Server::start(router(), HttpLimits::default()).await;
    let with = |bytes: usize| format!("GET /ok HTTP/1.1\r\nhost: shop\r\nx-big: {}\r\n\r\n", "a".repeat(bytes));
    assert_eq!(server.ask(&with(15 * 1024)).await.status, 200);
    assert_eq!(server.ask(&with(17 * 1024)).await.status, 431);
    let many = format!("GET /ok HTTP/1.1\r\nhost: shop\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert_eq!(server.ask(&many).await.status, 431);
    assert_eq!(server.ask(&get("/ok")).await.status, 200);
}

#[tokio::test]
async fn a09_a_body_over_the_limit_is_refused_whether_or_not_it_says_its_length() {
    let server = Server::start(router(), HttpLimits::default()).await;
    let note = |length: usize| format!(r#"{{"text":"{}"}}"#, "a".repeat(length - 11));
    assert_eq!(server.ask(&post("/notes", &note(64 * 1024))).await.status, 200);
    for path in ["/notes", "/bytes"] {
        let answer = server.ask(&post(path, &note(64 * 1024 + 1))).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (413, Some("payload_too_large")), "{path}");
        assert_eq!(answer.json()["instance"], path);

        let mut client = server.connect().await;
        let head = "POST /notes HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ntransfer-encoding: chunked";
        client.send(&format!("{head}\r\n\r\n20000\r\n{}\r\n", "a".repeat(0x20000))).await;
        assert_eq!(client.answer().await.status, 413);
    }
    // 100 MB are announced: the answer does not wait for them.
    let mut client = server.connect().await;
    let head = "POST /notes HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ncontent-length: 100000000";
    client.send(&format!("{head}\r\n\r\n")).await;
    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test]
async fn a49_a_body_that_does_not_arrive_is_not_waited_for() {
    let limits = HttpLimits { body_time: Duration::from_millis(100), ..HttpLimits::default() };
    let server = Server::start(router(), limits).await;
    for path in ["/notes", "/bytes"] {
        let mut client = server.connect().await;
        client.send(&post(path, r#"{"text":"abc"}"#).replace("abc\"}", "")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{path}");
        client.until_closed().await;
    }
}

#[tokio::test]
async fn a09_an_encoded_or_untyped_body_is_refused_unread() {
    let server = Server::start(router(), HttpLimits::default()).await;
    let body = r#"{"text":"a"}"#;
    for (from, to) in [
        ("content-type: application/json", "content-type: text/plain"),
        ("content-type: application/json", "x: y"),
        ("content-type: application/json", "content-type: application/jsonp"),
        ("host: shop", "host: shop\r\ncontent-encoding: gzip"),
    ] {
        let answer = server.ask(&post("/notes", body).replace(from, to)).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (415, Some("unsupported_media_type")), "{to}");
    }
    let typed = post("/notes", body).replace("application/json", "Application/JSON; charset=utf-8");
    assert_eq!(server.ask(&typed).await.status, 200);
}

#[tokio::test]
async fn p19_a_panic_is_a_problem_and_the_connection_goes_on() {
    let server = Server::start(router(), HttpLimits::default()).await;
    let mut client = server.connect().await;
    client.send(&get("/panic")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 500);
    let problem = answer.json();
    assert_eq!(problem["code"], "internal_error");
    assert_eq!(problem["instance"], "/panic");
    assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);
    assert!(!problem.to_string().contains("on purpose"), "the cause stays in the logs");
    client.send(&get("/ok")).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_connection_serves_many_requests_also_pipelined() {
    let server = Server::start(router(), HttpLimits::default()).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.send(&get("/ok")).await;
        assert_eq!(client.answer().await.body, b"ok");
    }
    client.send(&(get("/ok") + &post("/notes", r#"{"text":"abc"}"#) + &get("/none"))).await;
    assert_eq!(client.answer().await.body, b"ok");
    assert_eq!(client.answer().await.body, b"3");
    assert_eq!(client.answer().await.status, 404);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_header_time() {
    let server = Server::start(router(), limits()).await;
    let mut client = server.connect().await;
    client.send(&get("/ok")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.until_closed().await, "");
}

#[tokio::test]
async fn p17_a_drain_lets_the_open_request_end_and_takes_no_new_connection() {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (arrived, go) = (arrived.clone(), go.clone());
        move || async move {
            arrived.notify_one();
            go.notified().await;
            "done"
        }
    };
    let server = Server::start(router().route("/slow", on_get(slow)), limits()).await;
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    idle.send(&get("/ok")).await;
    assert_eq!(idle.answer().await.status, 200);
    busy.send(&get("/slow")).await;
    within("the request to arrive", arrived.notified()).await;

    server.stop.cancel();
    assert_eq!(idle.until_closed().await, "", "an idle connection has nothing to wait for");
    let refused = async {
        loop {
            match tokio::net::TcpStream::connect(server.address).await {
                Err(_) => return,
                // In the kernel's queue just before the listener went: it is reset.
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    within("new connections to be refused", refused).await;
    assert!(!server.done.is_finished(), "one request is open");

    go.notify_one();
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"done".as_slice()));
    assert_eq!(busy.until_closed().await, "");
    within("the server to end", server.done).await.unwrap();
}

#[tokio::test]
async fn a_drain_ends_when_its_time_is_over() {
    let arrived = Arc::new(Notify::new());
    let seen = arrived.clone();
    let stuck = move || async move {
        seen.notify_one();
        std::future::pending::<()>().await;
    };
    let limits = HttpLimits { drain: Duration::from_millis(50), ..HttpLimits::default() };
    let server = Server::start(Router::new().route("/stuck", on_get(stuck)), limits).await;
    let mut client = server.connect().await;
    client.send(&get("/stuck")).await;
    within("the request to arrive", arrived.notified()).await;
    server.stop.cancel();
    within("the server to end", server.done).await.unwrap();
}

#[tokio::test]
async fn connections_over_the_limit_wait_until_one_ends() {
    let server = Server::start(router(), HttpLimits { connections: 1, ..HttpLimits::default() }).await;
    let mut first = server.connect().await;
    first.send(&get("/ok")).await;
    assert_eq!(first.answer().await.status, 200);
    let mut second = server.connect().await;
    second.send(&get("/ok")).await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.answer()).await;
    assert!(early.is_err(), "the first still holds the only place: {early:?}");
    drop(first);
    assert_eq!(second.answer().await.status, 200);
}

/// Of a kilobyte each: far more than sockets and buffers hold.
const MOST_EVENTS: usize = 50_000;

/// An endless event stream that counts its events and tells when it was dropped.
struct Stream {
    made: Arc<AtomicUsize>,
    dropped: Arc<Notify>,
}

struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Stream {
    fn route(&self, wait: Option<Arc<Notify>>) -> Router {
        let (made, dropped) = (self.made.clone(), self.dropped.clone());
        let open = move || async move {
            let told = Arc::new(Told(dropped));
            let events = futures_util::stream::unfold((), move |()| {
                let (made, told, wait) = (made.clone(), told.clone(), wait.clone());
                async move {
                    let _ = &told;
                    if let Some(wait) = wait {
                        wait.notified().await;
                    }
                    if made.fetch_add(1, Ordering::Relaxed) == MOST_EVENTS {
                        // Somebody buffers without bound: not until the machine's memory is gone.
                        std::future::pending::<()>().await;
                    }
                    Some((Ok::<_, Problem>(Bytes::from("data: ".to_owned() + &"x".repeat(1_000) + "\n\n")), ()))
                }
            });
            Body::from_stream(events.map(|event| event.map_err(|_| std::io::Error::other("never"))))
        };
        router().route("/events", on_get(open))
    }
}

#[tokio::test]
async fn a51_a_reader_that_does_not_read_is_cut_off_and_its_stream_dropped() {
    let stream = Stream { made: Arc::default(), dropped: Arc::default() };
    let limits = HttpLimits { write_stall: Duration::from_millis(200), ..HttpLimits::default() };
    let server = Server::start(stream.route(None), limits).await;
    let mut client = server.connect().await;
    client.send(&get("/events")).await;
    within("the stream to be dropped", stream.dropped.notified()).await;
    let made = stream.made.load(Ordering::Relaxed);
    assert!(made < MOST_EVENTS, "what is buffered for a reader is bounded, not {made} events");
    assert_eq!(server.ask(&get("/ok")).await.status, 200);
}

#[tokio::test]
async fn a51_a_quiet_stream_and_a_reader_that_reads_outlive_the_stall_limit() {
    let stream = Stream { made: Arc::default(), dropped: Arc::default() };
    let limits = HttpLimits { write_stall: Duration::from_millis(50), ..HttpLimits::default() };
    let next = Arc::new(Notify::new());
    let server = Server::start(stream.route(Some(next.clone())), limits).await;
    let mut client = server.connect().await;
    client.send(&get("/events")).await;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut bytes = vec![0; 4_096];
    for _ in 0..4 {
        // Nothing to write for twice the limit, then an event that is read.
        tick.tick().await;
        next.notify_one();
        let read = tokio::io::AsyncReadExt::read(&mut client.socket, &mut bytes);
        assert!(within("an event", read).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a51_a_slow_reader_that_makes_progress_is_not_cut_off() {
    let stream = Stream { made: Arc::default(), dropped: Arc::default() };
    let limits = HttpLimits { write_stall: Duration::from_secs(2), ..HttpLimits::default() };
    let server = Server::start(stream.route(None), limits).await;
    // A small window, so that the server's writes wait again and again.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut socket = socket.connect(server.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, get("/events").as_bytes()).await.unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let mut bytes = vec![0; 64 * 1024];
    for _ in 0..60 {
        tick.tick().await;
        let read = tokio::io::AsyncReadExt::read_exact(&mut socket, &mut bytes);
        within("the next events", read).await.unwrap();
    }
    let made = stream.made.load(Ordering::Relaxed);
    assert!(made < MOST_EVENTS, "the server has waited for the reader");
    // What the kernel holds could be read on even if the server had given up.
    assert!(stream.dropped.notified().now_or_never().is_none(), "the stream is still open");
}
