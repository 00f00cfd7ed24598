//! The servers that a shop uses together.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::doctor::Finding;
use crate::doctor::facts::{Brokers, Cluster, Facts, StoreState};

/// More waits than a second's work.
const MUCH_WAITS: u64 = 10_000;
/// All slots of a Redis cluster.
const SLOTS: u64 = 16_384;

/// Sessions of all our pools against what each server allows; and numbers that two processes have.
pub(super) fn sessions(facts: &Facts, found: &mut Vec<Finding>) {
    let pool = facts.config.stores.connections as u64;
    let mut servers: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for store in &facts.stores {
        let StoreState::Server(server) = &store.state else { continue };
        let host = store.place.rsplit_once('@').map_or(store.place.as_str(), |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default();
        let entry = servers.entry(host).or_insert((0, server.sessions_allowed));
        entry.0 += pool;
        for (name, count) in server.sessions.iter().filter(|(_, count)| *count > pool) {
            found.push(Finding::warning(
                "nodes",
                format!("{name} has {count} sessions, and one process opens at most {pool}"),
                "two processes with one node number make the same ids",
                "give every process of a service a node of its own (SAGA_NODE, 0 to 31)",
            ));
        }
    }
    for (host, (wanted, allowed)) in servers {
        let what = format!("{host}: one process of each service wants up to {wanted} sessions of {allowed}");
        found.push(match wanted > allowed {
            true => Finding::problem(
                "sessions",
                what,
                "under load some get none: requests are answered 503",
                "lower stores.connections, or raise max_connections",
            ),
            false => Finding::ok("sessions", what),
        });
    }
}

pub(super) fn brokers(brokers: &Brokers, config: &Config, found: &mut Vec<Finding>) {
    found.push(Finding::ok("kafka", format!("{} answers in {:.1} ms", config.bus.url, brokers.latency_ms)));
    let missing: Vec<&str> =
        brokers.topics.iter().filter(|(_, there)| there.is_none()).map(|(name, _)| name.as_str()).collect();
    let mut counts: Vec<u32> = brokers.topics.iter().filter_map(|(_, there)| *there).collect();
    counts.sort_unstable();
    counts.dedup();
    found.push(if !missing.is_empty() {
        Finding::problem(
            "topics",
            format!("missing: {}", missing.join(", ")),
            "whoever reads or writes them waits; they are never made silently",
            "saga migrate",
        )
    } else if counts.len() > 1 {
        Finding::problem(
            "topics",
            format!("they have different numbers of partitions: {counts:?}"),
            "a saga's messages no longer meet in one process",
            "raise the smaller ones (kafka-topics --alter --partitions) while no purchase is on its way",
        )
    } else if counts.first().is_some_and(|count| *count != config.bus.partitions) {
        Finding::warning(
            "topics",
            format!("they have {counts:?} partitions, bus.partitions says {}", config.bus.partitions),
            "the setting only counts when topics are made",
            "set it to what there is, or alter the topics while no purchase is on its way",
        )
    } else {
        Finding::ok("topics", format!("all {} are there, with {counts:?} partitions", brokers.topics.len()))
    });
    for (group, members) in &brokers.groups {
        let mut names = members.clone();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            found.push(Finding::problem(
                "nodes",
                format!("two members of {group} call themselves {}", twice[0]),
                "two processes with one node number make the same ids",
                "if one was killed just now, look again after bus.session_timeout_ms; else give every process of a service \
                 a node of its own (SAGA_NODE, 0 to 31)",
            ));
        }
    }
    for (group, waiting) in brokers.waiting.iter().filter(|(_, waiting)| *waiting > MUCH_WAITS) {
        found.push(Finding::warning(
            "lag",
            format!("{waiting} records wait for {group}"),
            "purchases wait as long as it takes to read them",
            format!("see whether {group} runs (saga topics); start more of it, up to bus.partitions"),
        ));
    }
}

pub(super) fn redis(facts: &Facts, found: &mut Vec<Finding>) {
    let fix = "start the nodes (redis-cli --cluster fix), or set cache.url to where they are";
    let why = "nothing is wrong without it, but everything is read from the databases";
    let nodes = &facts.nodes;
    if nodes.is_empty() {
        return;
    }
    for node in nodes {
        if let Err(error) = &node.state {
            found.push(Finding::warning("redis", format!("{}: {error}", node.address), why, fix));
        }
    }
    let healthy = |state: &Cluster| state.is_ok && state.slots_ok == SLOTS;
    let seen: Vec<&Cluster> = nodes.iter().filter_map(|node| node.state.as_ref().ok()).collect();
    match seen.iter().find(|state| !healthy(state)) {
        Some(Cluster { is_ok, slots_ok, .. }) => found.push(Finding::warning(
            "redis",
            format!("the cluster is {}, {slots_ok} of {SLOTS} slots served", if *is_ok { "ok" } else { "not ok" }),
            why,
            fix,
        )),
        None => {
            if let Some(first) = seen.first() {
                let (answer, known) = (seen.len(), first.nodes);
                let what = format!(
                    "{answer} of {} named nodes answer in {:.1} ms; the cluster is ok, {known} nodes",
                    nodes.len(),
                    first.latency_ms
                );
                found.push(Finding::ok("redis", what));
            }
        }
    }
}
