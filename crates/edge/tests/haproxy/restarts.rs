//! Replicas that come and go.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::proxy::{Proxy, get, send, wait_for};
use crate::replica::Replica;
use crate::{block_on, call, table, two_of};

const READ: &str = "GET /api/v1/purchases/7 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
const WRITE: &str = "POST /api/v1/purchases HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
const KEYED: &str = "POST /api/v1/purchases HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: 2\r\n\
    Idempotency-Key: seven\r\n\r\n{}";

/// Says that it is over also when what happens does not go well.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Sends without a pause while something happens; how many were answered, and which were not answered well.
fn under_load(proxy: &Proxy, requests: &[&str], happens: impl FnOnce(&dyn Fn(u32))) -> Vec<String> {
    let (over, done) = (AtomicBool::new(false), AtomicU32::new(0));
    let (over, done) = (&over, &done);
    std::thread::scope(|scope| {
        let threads: Vec<_> = requests
            .iter()
            .map(|request| {
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    while !over.load(Ordering::SeqCst) {
                        let status = send(proxy.web, request).map(|answer| answer.status);
                        done.fetch_add(1, Ordering::SeqCst);
                        if status != Some(200) {
                            failed.push(format!("{status:?} for {}", request.lines().next().unwrap()));
                        }
                    }
                    failed
                })
            })
            .collect();
        let some = |more: u32| {
            let from = done.load(Ordering::SeqCst);
            wait_for("requests are answered", || done.load(Ordering::SeqCst) >= from + more);
        };
        let end = Over(over);
        some(20);
        happens(&some);
        some(20);
        drop(end);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn unlimited() -> edge::Table {
    let mut table = table();
    table.without_client_limits();
    table
}

#[test]
fn o04_no_request_fails_while_a_replica_restarts() {
    let (proxy, mut one, mut two) = two_of("purchase", &unlimited());
    let failed = under_load(&proxy, &[READ, WRITE, KEYED], |some| {
        for (at, replica) in [(1, &mut one), (2, &mut two)] {
            // As the binary does it: first not ready, then, when nothing new comes, gone.
            replica.seen.ready.store(false, Ordering::SeqCst);
            proxy.wait("purchase", at, "DOWN");
            proxy.wait("purchase-write", at, "DOWN");
            let before = replica.requests();
            some(20);
            assert!(replica.requests() <= before + 1, "a replica that is not ready gets nothing new");
            replica.kill();
            some(20);
            replica.again();
            proxy.wait("purchase", at, "UP");
            let before = replica.requests();
            wait_for("the replica is used again", || replica.requests() > before);
        }
    });
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
}

#[test]
fn a_replica_that_dies_without_a_word_fails_nothing_that_may_be_sent_twice() {
    let (proxy, mut one, two) = two_of("purchase", &unlimited());
    let failed = under_load(&proxy, &[READ, KEYED], |some| {
        one.kill();
        some(50);
        one.again();
        proxy.wait("purchase", 1, "UP");
    });
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
    assert!(two.requests() > 0);
}

#[test]
fn a_dead_replica_gets_no_grpc_calls() {
    let (proxy, mut one, two) = two_of("product", &table());
    let path = "/product.ProductService/CheckProducts";
    one.kill();
    proxy.wait("product", 1, "DOWN");
    proxy.wait("product-internal", 1, "DOWN");
    for _ in 0..10 {
        let (status, body, grpc) = block_on(call(proxy.internal, path, "application/grpc"));
        assert_eq!((status, body.as_str(), grpc.as_deref()), (200, "two/internal", Some("0")));
    }
    assert_eq!((one.requests(), two.requests()), (0, 10));
    one.again();
    proxy.wait("product", 1, "UP");
    for _ in 0..10 {
        assert_eq!(block_on(call(proxy.internal, path, "application/grpc")).0, 200);
    }
    assert!(one.requests() > 0, "it is used again");
}

/// A replica that takes a request, and closes the connection without an answer.
fn losing() -> (Proxy, Replica, Replica) {
    let (proxy, one, two) = two_of("purchase", &unlimited());
    one.seen.drop_next.store(1, Ordering::SeqCst);
    two.seen.drop_next.store(0, Ordering::SeqCst);
    (proxy, one, two)
}

#[test]
fn a_lost_answer_is_asked_for_again_only_where_twice_is_once() {
    // Round robin begins with the first.
    for (request, status, received) in [(READ, 200, 2), (KEYED, 200, 2), (WRITE, 502, 1)] {
        let (proxy, one, two) = losing();
        let answer = send(proxy.web, request).unwrap();
        assert_eq!(answer.status, status, "{request}: {}", answer.body);
        assert_eq!(one.requests() + two.requests(), received, "{request}");
    }
}

#[test]
fn without_any_replica_the_answer_says_so() {
    let (proxy, mut one, mut two) = two_of("purchase", &table());
    one.kill();
    two.kill();
    proxy.wait("purchase", 1, "DOWN");
    proxy.wait("purchase", 2, "DOWN");
    let answer = get(proxy.web, "/api/v1/purchases").unwrap();
    assert_eq!(answer.status, 503);
    let head = answer.head.to_lowercase();
    assert!(head.contains("retry-after: 1") && head.contains("application/problem+json"), "{head}");
    assert!(answer.body.contains(r#""code":"dependency_unavailable""#), "{}", answer.body);
}
