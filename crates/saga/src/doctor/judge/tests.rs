#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::Level;
use super::super::facts::{Brokers, Cluster, Node, Peer};
use super::*;

/// A healthy installation on files, at rest.
fn healthy() -> Facts {
    let store = |service| Store {
        service,
        place: format!("data/{service}.db"),
        state: StoreState::File,
        stuck: (service == "orchestrator").then_some(0),
        letters: (service == "orchestrator").then_some(0),
        newest: (service == "orchestrator").then_some(EPOCH + 1),
        accounts: (service == "account").then_some(3),
    };
    let folder = Folder {
        path: "data".into(),
        exists: true,
        mode: 0o700,
        free: Some(50 << 30),
        run_file_mode: Some(0o600),
        ..Folder::default()
    };
    let port = Port { what: "customers", address: "127.0.0.1:8000".into(), number: 8000, taken: None, holder: None };
    Facts {
        config: Config::default(),
        misfit: None,
        now: EPOCH + 1_000_000,
        token_length: None,
        folder: Some(folder),
        descriptors: Some(65_536),
        shop: None,
        ports: vec![port],
        stores: ["account", "product", "order", "payment", "purchase", "orchestrator"].map(store).into(),
        brokers: None,
        nodes: vec![],
        peers: vec![],
        traces: Traces::Off,
    }
}

/// The same on servers.
fn served() -> Facts {
    let mut facts = healthy();
    for store in &mut facts.stores {
        store.place = format!("postgres://{0}@db:5432/{0}", store.service);
        store.state = StoreState::Server(Server {
            latency_ms: 0.5,
            fsync: true,
            synchronous_commit: "on".into(),
            full_page_writes: true,
            sessions_allowed: 97,
            ahead_ms: 3,
            sessions: vec![(format!("saga-{}-1", store.service), 8)],
        });
    }
    facts.brokers = Some(Ok(Brokers {
        topics: vec![("purchase".into(), Some(2)), ("purchase.dlq".into(), Some(2))],
        groups: vec![("order".into(), vec!["saga-1".into(), "saga-2".into()])],
        waiting: vec![("order".into(), 3)],
        latency_ms: 1.0,
    }));
    let state = Cluster { is_ok: true, slots_ok: 16_384, nodes: 6, latency_ms: 0.2 };
    facts.nodes = vec![Node { address: "r:6379".into(), state: Ok(state) }];
    facts.peers = vec![Peer { key: "peers.account", url: "http://a:1".into(), state: Ok(1.0) }];
    facts
}

/// What is not well, as `subject: what`.
fn ill(facts: &Facts) -> Vec<(Level, String)> {
    let found = judge(facts).into_iter().filter(|finding| finding.level != Level::Ok);
    found
        .map(|finding| {
            assert!(!finding.why.is_empty() && !finding.fix.is_empty(), "{finding:?}");
            (finding.level, format!("{}: {}", finding.subject, finding.what))
        })
        .collect()
}

#[track_caller]
fn is_found(start: Facts, change: impl FnOnce(&mut Facts), level: Level, words: &str) {
    let mut facts = start;
    change(&mut facts);
    let found = ill(&facts);
    assert!(found.len() == 1 && found[0].0 == level && found[0].1.contains(words), "{words}: {found:?}");
}

#[test]
fn what_is_healthy_is_left_alone() {
    assert_eq!(ill(&healthy()), []);
    assert_eq!(ill(&served()), []);
}

#[test]
fn what_is_wrong_with_the_machine_is_found() {
    let folder = |facts: &mut Facts, change: fn(&mut Folder)| change(facts.folder.as_mut().unwrap());
    is_found(healthy(), |f| f.misfit = Some("no such key".into()), Level::Problem, "no such key");
    is_found(healthy(), |f| folder(f, |d| d.unusable = Some("denied".into())), Level::Problem, "denied");
    is_found(healthy(), |f| folder(f, |d| d.mode = 0o755), Level::Warning, "755");
    is_found(healthy(), |f| folder(f, |d| d.run_file_mode = Some(0o644)), Level::Problem, "644");
    is_found(healthy(), |f| folder(f, |d| d.free = Some(99 << 20)), Level::Problem, "99 MiB");
    is_found(healthy(), |f| folder(f, |d| d.free = Some(999 << 20)), Level::Warning, "999 MiB");
    is_found(healthy(), |f| f.descriptors = Some(256), Level::Warning, "256");
    is_found(healthy(), |f| f.now = EPOCH - 1, Level::Problem, "before 2025");
    is_found(healthy(), |f| f.stores[5].newest = Some(f.now + 60_000), Level::Problem, "60 s after now");
    let taken = |f: &mut Facts| {
        f.ports[0].taken = Some("in use".into());
        f.ports[0].holder = Some("nginx (7)".into());
    };
    is_found(healthy(), taken, Level::Problem, "nginx (7)");
}

#[test]
fn a_port_that_the_running_shop_has_is_as_it_should_be() {
    let mut facts = healthy();
    facts.ports[0].taken = Some("in use".into());
    let shop =
        Shop { admin: "http://127.0.0.1:8002".into(), ports: vec![8000], ready: Ok((true, vec![])), operators: Ok(()) };
    facts.shop = Some(shop.clone());
    assert_eq!(ill(&facts), []);
    let waits = Shop { ready: Ok((false, vec!["bus: gone".into()])), ..shop.clone() };
    is_found(healthy(), |f| f.shop = Some(waits), Level::Problem, "bus: gone");
    let hung = Shop { ready: Err("refused".into()), ..shop.clone() };
    is_found(healthy(), |f| f.shop = Some(hung), Level::Problem, "refused");
    let stranger = Shop { operators: Err("401".into()), ..shop };
    is_found(healthy(), |f| f.shop = Some(stranger), Level::Warning, "401");
}

#[test]
fn secrets_that_are_none_are_found() {
    is_found(healthy(), |f| f.token_length = Some(5), Level::Problem, "5 characters");
    let weak = |f: &mut Facts| f.config.stores.password = Some(serde_json::from_str("\"postgres\"").unwrap());
    is_found(healthy(), weak, Level::Problem, "well known");
    let shown = |f: &mut Facts| f.config.stores.order = Some("postgres://order:hush@db/order".into());
    is_found(healthy(), shown, Level::Warning, "URL");
    is_found(healthy(), |f| f.config.failures.enabled = true, Level::Warning, "failures.enabled");
    is_found(healthy(), |f| f.config.log.filter = "info,saga=trace".into(), Level::Warning, "trace");
    let open = |f: &mut Facts| {
        f.config.listen = "0.0.0.0:8000".parse().unwrap();
        f.stores[0].accounts = Some(0);
    };
    is_found(healthy(), open, Level::Warning, "first who registers");
    let admin = |f: &mut Facts| f.config.admin_listen = Some("0.0.0.0:8002".parse().unwrap());
    is_found(healthy(), admin, Level::Warning, "admin API");
}

#[test]
fn what_is_wrong_with_stores_and_what_waits_in_them_is_found() {
    let refused = |why: &str, unreachable, older| StoreState::Refused { why: why.into(), unreachable, older };
    let set = |f: &mut Facts, state: StoreState| f.stores[2].state = state;
    is_found(healthy(), |f| set(f, refused("is damaged", false, false)), Level::Problem, "is damaged");
    is_found(healthy(), |f| set(f, refused("is away", true, false)), Level::Problem, "is away");
    is_found(healthy(), |f| set(f, refused("has 1 of 2", false, true)), Level::Warning, "has 1 of 2");
    is_found(healthy(), |f| f.stores[5].stuck = Some(2), Level::Warning, "2 wait for a human");
    is_found(healthy(), |f| f.stores[5].letters = Some(9), Level::Warning, "9 records");
    let server = |f: &mut Facts, change: fn(&mut Server)| {
        let StoreState::Server(server) = &mut f.stores[2].state else { panic!("a server") };
        change(server);
    };
    is_found(served(), |f| server(f, |s| s.fsync = false), Level::Problem, "fsync");
    is_found(served(), |f| server(f, |s| s.synchronous_commit = "off".into()), Level::Problem, "synchronous_commit");
    is_found(served(), |f| server(f, |s| s.latency_ms = 80.0), Level::Warning, "80.0 ms");
    is_found(served(), |f| server(f, |s| s.ahead_ms = -9_000), Level::Warning, "-9000 ms");
    is_found(served(), |f| server(f, |s| s.sessions[0].1 = 16), Level::Warning, "has 16 sessions");
    is_found(served(), |f| f.config.stores.connections = 20, Level::Problem, "120 sessions of 97");
}

#[test]
fn what_is_wrong_with_brokers_caches_and_peers_is_found() {
    let brokers = |f: &mut Facts, change: fn(&mut Brokers)| change(f.brokers.as_mut().unwrap().as_mut().unwrap());
    is_found(served(), |f| f.brokers = Some(Err("away".into())), Level::Problem, "away");
    is_found(served(), |f| brokers(f, |b| b.topics[1].1 = None), Level::Problem, "missing: purchase.dlq");
    is_found(served(), |f| brokers(f, |b| b.topics[1].1 = Some(3)), Level::Problem, "different numbers");
    is_found(served(), |f| f.config.bus.partitions = 6, Level::Warning, "bus.partitions says 6");
    is_found(
        served(),
        |f| brokers(f, |b| b.groups[0].1[1] = "saga-1".into()),
        Level::Problem,
        "call themselves saga-1",
    );
    is_found(served(), |f| brokers(f, |b| b.waiting[0].1 = 20_000), Level::Warning, "20000 records wait");
    let node = |f: &mut Facts, state| f.nodes[0].state = state;
    is_found(served(), |f| node(f, Err("no answer".into())), Level::Warning, "no answer");
    let half = Cluster { is_ok: false, slots_ok: 8_192, nodes: 6, latency_ms: 0.1 };
    is_found(served(), |f| node(f, Ok(half)), Level::Warning, "8192 of 16384");
    is_found(served(), |f| f.peers[0].state = Err("refused".into()), Level::Problem, "refused");
    let pages =
        |f: &mut Facts| f.peers[0] = Peer { key: "console.shop_url", state: Err("gone".into()), ..f.peers[0].clone() };
    is_found(served(), pages, Level::Warning, "gone");
    let collector = |state| Traces::To("http://c:4318/v1/traces".into(), state);
    is_found(served(), |f| f.traces = collector(Err("no route".into())), Level::Warning, "no route");
    is_found(served(), |f| f.traces = Traces::Wrong("OTEL_X".into()), Level::Problem, "OTEL_X");
    let mut traced = served();
    traced.traces = collector(Ok(1.0));
    assert!(judge(&traced).iter().any(|finding| finding.subject == "traces" && finding.level == Level::Ok));
}
