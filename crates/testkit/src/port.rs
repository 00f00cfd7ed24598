//! Ports for servers that must be told theirs before they take it.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range that the kernel hands out for `bind(0)` and for outgoing connections, so that nobody who did not
/// ask here takes one in between; and below what `deploy/stack` takes in tests.
const FIRST: u16 = 10_000;
const COUNT: u16 = 10_000;

/// A port of 127.0.0.1 that nobody listens on, and that no other caller in this process gets.
///
/// Asking the kernel instead and letting go of its answer would give the same port to two tests now and then, and a
/// server that binds with `SO_REUSEPORT` (HAProxy) would then share it without a word.
pub fn unused() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run side by side begin at different places.
    let begin = std::process::id().wrapping_mul(331);
    let places = (0..COUNT).map(|_| NEXT.fetch_add(1, Ordering::Relaxed));
    let mut ports = places.map(|place| FIRST + (begin.wrapping_add(place.into()) % u32::from(COUNT)) as u16);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("one of ten thousand ports is free")
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_port_is_given_twice() {
        let ports: Vec<u16> = (0..500).map(|_| super::unused()).collect();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), ports.len());
        assert!(ports.iter().all(|port| (10_000..20_000).contains(port)));
    }
}
