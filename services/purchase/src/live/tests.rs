#![allow(clippy::unwrap_used, reason = "tests")]

use saga_core::Name;
use saga_core::protocol::ResultStatus;

use super::*;

fn event(id: u64, seq: u32) -> ResultEvent {
    let (step, status) = (Name::new("create-order"), ResultStatus::Execute);
    ResultEvent { saga_id: id, seq, step, status, terminal: false, reason: None, at: 1 }
}

fn end(id: u64, seq: u32) -> ResultEvent {
    ResultEvent { step: Name::new("purchase"), status: ResultStatus::Success, terminal: true, ..event(id, seq) }
}

fn publish(live: &Live, id: u64, customer_id: u64, events: &[ResultEvent]) {
    let ended = events.iter().any(|event| event.terminal);
    live.publish(&[News { id, customer_id, events, ended }], 77);
}

#[test]
fn streams_of_a_purchase_share_the_bytes_and_get_nothing_of_others() {
    let live = Arc::new(Live::default());
    let ((mut a, _a), (mut b, _b), (mut other, _other)) =
        (live.purchase_stream(1), live.purchase_stream(1), live.purchase_stream(2));
    publish(&live, 1, 9, &[event(1, 1), event(1, 2)]);
    let (first, same) = (a.try_recv().unwrap(), b.try_recv().unwrap());
    assert_eq!(first.seq, 1);
    assert_eq!(first.bytes.as_ptr(), same.bytes.as_ptr());
    assert_eq!(a.try_recv().unwrap().seq, 2);
    assert!(other.try_recv().is_err());
}

#[test]
fn a51_a_reader_that_does_not_keep_up_is_cut_off_and_costs_no_more() {
    let live = Arc::new(Live::default());
    let (mut slow, _slow) = live.purchase_stream(1);
    let (mut all, _all) = live.customer_stream(9, false);
    for seq in 1..1_000 {
        publish(&live, 1, 9, &[event(1, seq)]);
    }
    assert_eq!(live.waiting(), 0);
    let mut count = 0;
    while slow.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, PURCHASE_QUEUE);
    assert!(matches!(slow.try_recv(), Err(mpsc::TryRecvError::Closed)));
    count = 0;
    while all.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, CUSTOMER_QUEUE);
}

#[test]
fn a_customers_stream_gets_whole_batches_and_can_ask_for_ends_only() {
    let live = Arc::new(Live::default());
    let (mut all, _all) = live.customer_stream(9, false);
    let (mut ends, _ends) = live.customer_stream(9, true);
    let (mut other, _other) = live.customer_stream(8, false);
    let (first, second) = ([event(1, 1)], [event(2, 8), end(2, 9)]);
    let news = |id, events| News { id, customer_id: 9, events, ended: id == 2 };
    live.publish(&[news(1, &first[..]), news(2, &second[..])], 77);
    let text = String::from_utf8(all.try_recv().unwrap().to_vec()).unwrap();
    assert_eq!(text.matches("id: 77\n").count(), 3);
    let text = String::from_utf8(ends.try_recv().unwrap().to_vec()).unwrap();
    assert_eq!(text.matches("event: ").count(), 1);
    assert!(text.contains("event: purchase.success") && text.contains("\"purchase_id\":2"));
    publish(&live, 1, 9, &[event(1, 2)]);
    assert!(ends.try_recv().is_err(), "nothing ended");
    assert!(other.try_recv().is_err());
}

#[tokio::test]
async fn a_poll_for_the_end_is_woken_by_the_end_only() {
    let live = Arc::new(Live::default());
    let (woken, _registration) = live.poll(1, true);
    publish(&live, 1, 9, &[event(1, 1)]);
    live.changed(1);
    let silent = std::future::poll_fn(|cx| {
        let mut notified = std::pin::pin!(woken.notified());
        std::task::Poll::Ready(notified.as_mut().poll(cx).is_pending())
    });
    assert!(silent.await);
    publish(&live, 1, 9, &[end(1, 2)]);
    woken.notified().await;
}

#[test]
fn who_goes_away_leaves_nothing_behind() {
    let live = Arc::new(Live::default());
    let waiting = (live.purchase_stream(1), live.customer_stream(9, false), live.poll(1, false));
    assert_eq!(live.waiting(), 3);
    drop(waiting);
    assert_eq!(live.waiting(), 0);
    assert!(live.purchases.shards.iter().all(|shard| shard.lock().is_empty()));
    assert!(live.customers.shards.iter().all(|shard| shard.lock().is_empty()));
}

#[test]
fn a52_a_customer_has_so_many_streams_and_no_more() {
    let live = Arc::new(Live::default());
    let open: Vec<_> = (0..10).map(|_| live.open_stream(9, 10).unwrap()).collect();
    assert!(live.open_stream(9, 10).is_none());
    assert!(live.open_stream(8, 10).is_some());
    drop(open);
    assert!(live.open_stream(9, 10).is_some());
    assert!(live.streams.lock().is_empty());
}
