//! Event streams: live, resumed, ended, cut off.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod shop;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use saga_core::protocol::ResultEvent;
use saga_runtime::SystemClock;

use shop::orchestrator::{completed, declined};
use shop::{ALICE, BOB, Events, HandClock, Script, Shop, SseEvent, quick, until};

async fn hold() -> Shop {
    Shop::with(quick(), Arc::new(SystemClock), Script::Hold).await
}

fn seqs(events: &[SseEvent]) -> Vec<u64> {
    events.iter().map(SseEvent::seq).collect()
}

fn path(id: u64) -> String {
    format!("/purchases/{id}/events")
}

async fn status(shop: &Shop, path: &str, last_event_id: &str) -> StatusCode {
    let request = Request::get(format!("/api/v1{path}")).header("last-event-id", last_event_id);
    shop.send(ALICE, request, Body::empty()).await.status()
}

#[tokio::test]
async fn a_stream_tells_everything_once_in_order_and_ends() {
    let shop = hold().await;
    let id = shop.buy(ALICE).await;
    let events = declined(id);
    shop.orchestrator.emit(id, &events[..3]).await;
    shop.until(id, "RUNNING").await;
    let mut stream = shop.stream(ALICE, &path(id), None).await;
    assert_eq!(stream.next().await.unwrap().seq(), 1);
    // While it is read, twice, and out of order: the service has seen all of it before.
    shop.orchestrator.publish(&events[..3]).await;
    shop.orchestrator.emit(id, &events[3..]).await;
    let mut seen =
        vec![SseEvent { id: "1".to_owned(), ..shop.stream(ALICE, &path(id), None).await.next().await.unwrap() }];
    seen.extend(stream.rest().await);
    assert_eq!(seqs(&seen), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for (seen, event) in seen.iter().zip(&events) {
        assert_eq!(seen.id, event.seq.to_string());
        assert_eq!(seen.event, format!("{}.{}", event.step, event.status.as_str().to_lowercase()));
        assert_eq!(seen.data["purchase_id"], id);
    }
    let last = seen.last().unwrap();
    assert_eq!((last.event.as_str(), &last.data["terminal"]), ("purchase.rollback", &true.into()));
    assert_eq!(last.data["reason"]["code"], "payment_declined");
    assert_eq!(status(&shop, &path(id), "9").await, StatusCode::NO_CONTENT);
    until("nothing is left behind", || shop.stat("waiting") == 0).await;
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_event_that_was_seen() {
    let shop = hold().await;
    let id = shop.buy(ALICE).await;
    let events = completed(id);
    shop.orchestrator.emit(id, &events[..5]).await;
    shop.until(id, "RUNNING").await;
    let mut first = shop.stream(ALICE, &path(id), None).await;
    assert_eq!(first.next().await.unwrap().seq(), 1);
    drop(first);
    shop.orchestrator.emit(id, &events[5..]).await;
    shop.until(id, "COMPLETED").await;
    for seen in 0..9 {
        let rest = shop.stream(ALICE, &path(id), Some(&seen.to_string())).await.rest().await;
        assert_eq!(seqs(&rest), (seen + 1..=9).collect::<Vec<_>>());
    }
    // What is replayed is what was live, to the byte.
    let live = completed(id)
        .iter()
        .map(|event| String::from_utf8(purchase::live::frame(id, event).bytes.to_vec()).unwrap())
        .collect::<String>();
    let response = shop.send(ALICE, Request::get(format!("/api/v1{}", path(id))), Body::empty()).await;
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(std::str::from_utf8(&bytes).unwrap(), format!("retry: 1000\n\n{live}"));
}

#[tokio::test]
async fn a54_a_forged_last_event_id_begins_again() {
    let shop = Shop::open().await;
    let id = shop.buy(ALICE).await;
    shop.until(id, "COMPLETED").await;
    for forged in ["10", "4294967295", "99999999999999999999", "-1", "+9", "9.0", "abc", "1 or 1=1", " ", "0x9"] {
        let all = shop.stream(ALICE, &path(id), Some(forged)).await.rest().await;
        assert_eq!(all.len(), 9, "{forged:?}");
    }
    assert_eq!(status(&shop, "/purchases/events", "forged").await, StatusCode::OK);
}

#[tokio::test]
async fn a53_the_tokens_end_is_the_streams_end() {
    let clock = HandClock::at(1_000_000_000);
    let shop = Shop::with(quick(), Arc::clone(&clock) as _, Script::Hold).await;
    let id = shop.buy(ALICE).await;
    let mut streams = Vec::new();
    for path in [path(id), "/purchases/events".to_owned()] {
        let auth = shop::tokens::bearer(ALICE, 1_000_060);
        let request = Request::get(format!("/api/v1{path}")).header("authorization", auth);
        let response = shop.send_raw(request.body(Body::empty()).unwrap()).await;
        streams.push(Events::of(response));
    }
    let read = |mut stream: Events| tokio::spawn(async move { stream.rest().await });
    let reading: Vec<_> = streams.into_iter().map(read).collect();
    clock.advance(Duration::from_secs(59));
    tokio::task::yield_now().await;
    assert!(reading.iter().all(|r| !r.is_finished()));
    clock.advance(Duration::from_secs(1));
    for reading in reading {
        assert_eq!(reading.await.unwrap(), []);
    }
    assert_eq!(shop.stat("waiting"), 0);
}

#[tokio::test]
async fn a_silent_stream_says_something_every_15_seconds() {
    let clock = HandClock::at(1_000_000_000);
    let shop = Shop::with(quick(), Arc::clone(&clock) as _, Script::Hold).await;
    let id = shop.buy(ALICE).await;
    for path in [path(id), "/purchases/events".to_owned()] {
        let mut stream = shop.stream(ALICE, &path, None).await;
        for _ in 0..3 {
            let mut comment = std::pin::pin!(stream.comment());
            // It is waiting, and 14 s are not enough.
            let poll = futures_util::poll!(&mut comment);
            assert!(poll.is_pending());
            clock.advance(Duration::from_secs(14));
            assert!(futures_util::poll!(&mut comment).is_pending());
            clock.advance(Duration::from_secs(1));
            comment.await;
        }
    }
}

#[tokio::test]
async fn the_end_of_the_process_is_the_end_of_its_streams() {
    let mut shop = hold().await;
    let id = shop.buy(ALICE).await;
    let mut streams = vec![shop.stream(ALICE, &path(id), None).await];
    streams.push(shop.stream(ALICE, "/purchases/events", None).await);
    shop.life().stop.cancel();
    for mut stream in streams {
        assert_eq!(stream.rest().await, []);
    }
    // And the next process takes over where it ended.
    shop.stop().await;
    shop.start().await;
    shop.orchestrator.emit(id, &completed(id)).await;
    let all = shop.stream(ALICE, &path(id), None).await.rest().await;
    assert_eq!(seqs(&all), (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn a52_a_customer_has_ten_streams() {
    let shop = hold().await;
    let id = shop.buy(ALICE).await;
    let mut open = Vec::new();
    for at in 0..10 {
        let path = if at % 2 == 0 { path(id) } else { "/purchases/events".to_owned() };
        open.push(shop.stream(ALICE, &path, None).await);
    }
    for path in [path(id), "/purchases/events".to_owned()] {
        let answer = shop.get(ALICE, &path).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::TOO_MANY_REQUESTS, "too_many_streams"));
        assert!(answer.header("retry-after").is_some());
    }
    shop.stream(BOB, "/purchases/events", None).await;
    open.pop();
    shop.stream(ALICE, &path(id), None).await;
}

#[tokio::test]
async fn a51_a_reader_that_does_not_read_is_cut_off_and_resumes() {
    let shop = hold().await;
    let id = shop.buy(ALICE).await;
    let mut slow = shop.stream(ALICE, &path(id), None).await;
    let mut all = shop.stream(ALICE, "/purchases/events", None).await;
    assert_eq!(shop.stat("waiting"), 2);
    // A purchase with very many steps; each a batch of its own, so that queues and not batches overflow.
    let step = completed(id).remove(0);
    let events: Vec<ResultEvent> = (1..=400).map(|seq| ResultEvent { seq, ..step.clone() }).collect();
    for event in &events {
        shop.orchestrator.emit(id, std::slice::from_ref(event)).await;
        until("the event", || shop.stat("applied") == u64::from(event.seq)).await;
    }
    assert_eq!(shop.stat("waiting"), 0, "nothing is kept for who does not read");
    let got = slow.rest().await;
    assert!(!got.is_empty() && got.len() < 400);
    let last = got.last().unwrap();
    let mut resumed = shop.stream(ALICE, &path(id), Some(&last.id)).await;
    for seq in last.seq() + 1..=400 {
        assert_eq!(resumed.next().await.unwrap().seq(), seq);
    }
    let got = all.rest().await;
    assert!(!got.is_empty() && got.len() < 400);
    let mut resumed = shop.stream(ALICE, "/purchases/events", Some(&got.last().unwrap().id)).await;
    while resumed.next().await.unwrap().seq() < 400 {}
}

#[tokio::test]
async fn all_purchases_of_a_customer_come_in_one_stream() {
    let shop = hold().await;
    let mut all = shop.stream(ALICE, "/purchases/events", None).await;
    let mut ends = shop.stream(ALICE, "/purchases/events?terminal=true", None).await;
    let (first, second, bobs) = (shop.buy(ALICE).await, shop.buy(ALICE).await, shop.buy(BOB).await);
    shop.orchestrator.emit(bobs, &completed(bobs)).await;
    shop.orchestrator.emit(first, &completed(first)).await;
    shop.orchestrator.emit(second, &declined(second)).await;
    let mut seen = Vec::new();
    for _ in 0..18 {
        seen.push(all.next().await.unwrap());
    }
    for id in [first, second] {
        let own: Vec<_> = seen.iter().filter(|event| event.data["purchase_id"] == id).cloned().collect();
        assert_eq!(seqs(&own), (1..=9).collect::<Vec<_>>());
    }
    let mut ended = [ends.next().await.unwrap(), ends.next().await.unwrap()];
    ended.sort_by_key(|event| event.data["purchase_id"].as_u64());
    let how: Vec<_> = ended.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(how, ["purchase.success", "purchase.rollback"]);
}

#[tokio::test]
async fn the_stream_of_all_resumes_at_least_once() {
    let clock = HandClock::at(1_795_435_200_000);
    let shop = Shop::with(quick(), Arc::clone(&clock) as _, Script::Hold).await;
    let old = shop.buy(ALICE).await;
    shop.orchestrator.emit(old, &completed(old)).await;
    shop.until(old, "COMPLETED").await;
    clock.advance(Duration::from_secs(60));
    let mut all = shop.stream(ALICE, "/purchases/events", None).await;
    let seen = shop.buy(ALICE).await;
    shop.orchestrator.emit(seen, &completed(seen)[..2]).await;
    all.next().await.unwrap();
    let last = all.next().await.unwrap().id;
    drop(all);
    clock.advance(Duration::from_secs(60));
    // Missed: the rest of one purchase, and another one.
    shop.orchestrator.emit(seen, &completed(seen)[2..]).await;
    let missed = shop.buy(ALICE).await;
    shop.orchestrator.emit(missed, &declined(missed)).await;
    shop.until(seen, "COMPLETED").await;
    shop.until(missed, "COMPENSATED").await;

    let mut all = shop.stream(ALICE, "/purchases/events", Some(&last)).await;
    let mut events = Vec::new();
    for _ in 0..18 {
        events.push(all.next().await.unwrap());
    }
    assert!(events.iter().all(|event| event.data["purchase_id"] != old), "that was seen a minute before");
    let own = |id: u64| events.iter().filter(|event| event.data["purchase_id"] == id).cloned().collect::<Vec<_>>();
    assert_eq!((seqs(&own(seen)), seqs(&own(missed))), ((1..=9).collect(), (1..=9).collect()));

    let ends = shop.stream(ALICE, "/purchases/events?terminal=true", Some(&last)).await;
    let mut ends = ends;
    let (a, b) = (ends.next().await.unwrap(), ends.next().await.unwrap());
    assert!(a.data["terminal"] == true && b.data["terminal"] == true);
    // An id from the future was never given out: everything.
    let mut everything = shop.stream(ALICE, "/purchases/events", Some("99999999999999")).await;
    let mut count = 0;
    while count < 27 {
        everything.next().await.unwrap();
        count += 1;
    }
}

#[tokio::test]
async fn p17_a_server_that_stops_is_not_held_up_by_its_streams() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut shop = hold().await;
    let id = shop.buy(ALICE).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (router, stop) = (shop.life().router.clone(), shop.life().stop.clone());
    let server = chassis::http::serve(listener, router, chassis::http::HttpLimits::default(), stop.clone());
    let server = tokio::spawn(server);
    let auth = shop::tokens::bearer(ALICE, shop::tokens::NEVER);
    let request = format!("GET /api/v1{} HTTP/1.1\r\nhost: shop\r\nauthorization: {auth}\r\n\r\n", path(id));
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        readers.push(connection);
    }
    until("three streams", || shop.stat("waiting") == 3).await;
    shop.orchestrator.emit(id, &completed(id)[..1]).await;
    for reader in &mut readers {
        let mut text = String::new();
        while !text.contains("event: update-product-inventory.execute") {
            let mut bytes = [0; 4096];
            let count = shop::within("the event", reader.read(&mut bytes)).await.unwrap();
            assert!(count > 0, "{text}");
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    stop.cancel();
    shop::within("the server to stop", server).await.unwrap();
    for mut reader in readers {
        let mut rest = String::new();
        shop::within("the stream to end", reader.read_to_string(&mut rest)).await.unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "a whole response: {rest:?}");
    }
    shop.stop().await;
}

#[tokio::test]
async fn what_nobody_watches_is_written_down_with_its_end() {
    let shop = Shop::held().await;
    let (first, second) = (shop.buy(ALICE).await, shop.buy(ALICE).await);
    shop.orchestrator.emit(first, &completed(first)[..5]).await;
    shop.orchestrator.emit(second, &completed(second)).await;
    // An end that came after it is written: the first one's results have been heard.
    shop.until(second, "COMPLETED").await;
    assert_eq!(shop.get(ALICE, &format!("/purchases/{first}")).await.body["status"], "PENDING");
    shop.orchestrator.emit(first, &completed(first)[5..]).await;
    shop.until(first, "COMPLETED").await;
    let rest = shop.stream(ALICE, &path(first), Some("0")).await.rest().await;
    assert_eq!(seqs(&rest), (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn whoever_comes_to_watch_is_told_at_once() {
    let shop = Shop::held().await;
    let paths = |id: u64| [path(id), "/purchases/events".to_owned()];
    for at in 0..2 {
        let (id, second) = (shop.buy(ALICE).await, shop.buy(BOB).await);
        shop.orchestrator.emit(id, &completed(id)[..5]).await;
        shop.orchestrator.emit(second, &completed(second)).await;
        until("the results have been heard", || shop.stat("completed") == 2 * at + 1).await;
        let mut stream = shop.stream(ALICE, &paths(id)[usize::try_from(at).unwrap()], None).await;
        for seq in 1..=5 {
            assert_eq!(stream.next().await.unwrap().data["seq"], seq);
        }
        // And of what follows, while it watches.
        shop.orchestrator.emit(id, &completed(id)[5..7]).await;
        assert_eq!(stream.next().await.unwrap().data["seq"], 6);
        drop(stream);
        shop.orchestrator.emit(id, &completed(id)[7..]).await;
        until("it has ended", || shop.stat("completed") == 2 * at + 2).await;
    }
}

#[tokio::test]
async fn what_was_held_when_the_service_died_comes_again() {
    let mut shop = Shop::held().await;
    let (first, second) = (shop.buy(ALICE).await, shop.buy(BOB).await);
    shop.orchestrator.emit(first, &completed(first)[..5]).await;
    shop.orchestrator.emit(second, &completed(second)).await;
    until("the results have been heard", || shop.stat("completed") == 1).await;
    // Nobody tells it again what the bus has.
    shop.orchestrator.follow(Script::Deaf);
    shop.restart().await;
    let mut stream = shop.stream(ALICE, &path(first), None).await;
    assert_eq!(stream.next().await.unwrap().seq(), 1);
    shop.orchestrator.emit(first, &completed(first)[5..]).await;
    assert_eq!(seqs(&stream.rest().await), (2..=9).collect::<Vec<_>>());
}
