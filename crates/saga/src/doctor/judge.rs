//! Facts in, findings out. Pure.

mod servers;

use super::Finding;
use super::facts::{Facts, Folder, Port, Server, Shop, Store, StoreState, Traces};
use crate::config::Config;

/// Below this a shop under load fills the disk within the hour: a purchase takes some kilobytes.
const LITTLE_ROOM: u64 = 1 << 30;
/// Below this SQLite and PostgreSQL refuse soon.
const NO_ROOM: u64 = 100 << 20;
/// Every connection and every event stream is a descriptor.
const FEW_DESCRIPTORS: u64 = 1_024;
/// A commit waits for the server at least once.
const SLOW_MS: f64 = 50.0;
/// Deadlines and timeouts are compared between machines.
const CLOCK_OFF_MS: u64 = 2_000;
/// 2025-01-01: ids count from then.
const EPOCH: u64 = 1_735_689_600_000;
/// A token that can be guessed opens everything.
const SHORT_TOKEN: usize = 16;
/// Passwords that are tried first.
const WEAK: [&str; 8] = ["password", "postgres", "secret", "changeme", "admin", "saga", "123456", "test"];

/// What is to be said about an installation, in the order in which things depend on each other.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    settings(facts, &mut found);
    secrets(facts, &mut found);
    if let Some(folder) = &facts.folder {
        self::folder(folder, &mut found);
    }
    machine(facts, &mut found);
    let running = facts.shop.as_ref().filter(|shop| shop.ready.is_ok());
    facts.ports.iter().for_each(|port| found.push(self::port(port, running)));
    facts.stores.iter().for_each(|store| self::store(store, facts, &mut found));
    servers::sessions(facts, &mut found);
    match &facts.brokers {
        None => {}
        Some(Ok(brokers)) => servers::brokers(brokers, &facts.config, &mut found),
        Some(Err(why)) => found.push(Finding::problem(
            "kafka",
            format!("{}: {why}", facts.config.bus.url),
            "no purchase gets further than its acceptance",
            "start the brokers, or set bus.url to where they are",
        )),
    }
    servers::redis(facts, &mut found);
    for peer in &facts.peers {
        found.push(match &peer.state {
            Ok(ms) => Finding::ok(peer.key, format!("{} answers in {ms:.1} ms", peer.url)),
            Err(why) if peer.key.starts_with("console.") || peer.key.starts_with("failures.") => Finding::warning(
                peer.key,
                format!("{}: {why}", peer.url),
                "operators' and customers' pages cannot show or steer what is there; purchases go on without",
                format!("start that process, or set {} to where it is", peer.key),
            ),
            Err(why) => Finding::problem(
                peer.key,
                format!("{}: {why}", peer.url),
                "this process cannot do without it and is not ready",
                format!("start that service, or set {} to the internal address of a process that runs it", peer.key),
            ),
        });
    }
    traces(&facts.traces, &mut found);
    shop(facts.shop.as_ref(), &mut found);
    found
}

fn traces(traces: &Traces, found: &mut Vec<Finding>) {
    found.push(match traces {
        Traces::Off => return,
        Traces::Wrong(why) => Finding::problem(
            "traces",
            why.clone(),
            "no process starts with it",
            "correct the variable, or unset it: docs/tracing.md",
        ),
        Traces::To(collector, Ok(ms)) => Finding::ok("traces", format!("{collector} takes connections in {ms:.1} ms")),
        Traces::To(collector, Err(why)) => Finding::warning(
            "traces",
            format!("{collector}: {why}"),
            "spans are dropped; purchases go on as ever",
            "start the collector, or set OTEL_EXPORTER_OTLP_ENDPOINT to where it is",
        ),
    });
}

fn settings(facts: &Facts, found: &mut Vec<Finding>) {
    found.push(match &facts.misfit {
        None => Finding::ok("config", "lawful, definitions included"),
        Some(why) => Finding::problem("config", why, "nothing starts", "correct it; `saga config check` says the same"),
    });
    if facts.config.failures.enabled {
        found.push(Finding::warning(
            "config",
            "failures.enabled: operators can make purchases fail",
            "it is for teaching and tests",
            "remove it from a shop that people use",
        ));
    }
    let filter = facts.config.log.filter.to_ascii_lowercase();
    if filter.contains("trace") || filter.contains("debug") {
        found.push(Finding::warning(
            "config",
            format!("log.filter is {filter:?}"),
            "a line or more for each request: disks fill, and throughput falls",
            "set it to info when you have seen what you wanted to",
        ));
    }
}

fn secrets(facts: &Facts, found: &mut Vec<Finding>) {
    let before = found.len();
    if let Some(length) = facts.token_length.filter(|length| *length < SHORT_TOKEN) {
        found.push(Finding::problem(
            "secrets",
            format!("SAGA_ADMIN_TOKEN has {length} characters"),
            "whoever guesses it steers every saga and makes administrators",
            "use 32 random bytes: openssl rand -hex 32",
        ));
    }
    if let Some(password) = facts.config.stores.password.as_ref().map(|password| password.expose()) {
        let weak = password.len() < 8 || WEAK.contains(&password.to_ascii_lowercase().as_str());
        if weak {
            found.push(Finding::problem(
                "secrets",
                "stores.password is short or well known",
                "whoever reaches the database has everything",
                "alter the roles, and give the new one in SAGA_STORES__PASSWORD_FILE",
            ));
        }
    }
    if urls(&facts.config).any(has_password) {
        found.push(Finding::warning(
            "secrets",
            "a database's URL holds its password",
            "configuration files are copied and shown",
            "take it out of the URL and give it in SAGA_STORES__PASSWORD_FILE",
        ));
    }
    let accounts = facts.stores.iter().find_map(|store| store.accounts);
    if facts.config.account.first_account_is_admin && accounts == Some(0) && !facts.config.listen.ip().is_loopback() {
        found.push(Finding::warning(
            "secrets",
            "nobody has an account, and the first who registers becomes the administrator",
            "others can reach this shop: it may be one of them",
            "saga admin create, and account.first_account_is_admin = false",
        ));
    }
    if facts.config.admin_listen.is_some_and(|address| !address.ip().is_loopback()) {
        found.push(Finding::warning(
            "secrets",
            "the admin API listens on more than this machine",
            "it is plain HTTP: tokens can be read on the way",
            "keep it in a private network, or put TLS before it",
        ));
    }
    if found.len() == before {
        found.push(Finding::ok("secrets", "none that is short, well known or in a URL"));
    }
}

fn urls(config: &Config) -> impl Iterator<Item = &str> {
    let stores = &config.stores;
    let own =
        [&stores.account, &stores.product, &stores.order, &stores.payment, &stores.purchase, &stores.orchestrator];
    own.into_iter().filter_map(|url| url.as_deref()).chain([stores.url.as_str()])
}

fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

fn folder(folder: &Folder, found: &mut Vec<Finding>) {
    let Folder { path, exists, unusable, mode, free, run_file_mode } = folder;
    let subject = "data folder";
    match unusable {
        Some(why) => found.push(Finding::problem(
            subject,
            format!("{path}: {why}"),
            "nothing can be kept in it",
            "change its owner (chown), or name another one with --data",
        )),
        None if !exists => found.push(Finding::ok(subject, format!("{path} is not there; the first start makes it"))),
        None if mode & 0o077 != 0 => found.push(Finding::warning(
            subject,
            format!("{path} is open to other users ({:03o})", mode & 0o777),
            "it holds password hashes, signing keys and the local operators' token",
            format!("chmod 700 {path}"),
        )),
        None => found.push(Finding::ok(subject, format!("{path} can be written, by its owner only"))),
    }
    if let Some(mode) = run_file_mode.filter(|mode| mode & 0o077 != 0) {
        found.push(Finding::problem(
            subject,
            format!("run.json is open to other users ({:03o})", mode & 0o777),
            "it holds the local operators' token",
            format!("chmod 600 {path}/run.json, and start the shop again: that makes a new token"),
        ));
    }
    let Some(free) = free else { return };
    let mib = free >> 20;
    found.push(match *free {
        ..NO_ROOM => Finding::problem(
            "disk",
            format!("{mib} MiB are free"),
            "purchases are refused when it is full",
            "make room; nothing is lost meanwhile, and it goes on by itself",
        ),
        NO_ROOM..LITTLE_ROOM => Finding::warning(
            "disk",
            format!("{mib} MiB are free"),
            "a purchase takes some kilobytes for ever",
            "make room, or move the data folder",
        ),
        _ => Finding::ok("disk", format!("{mib} MiB are free")),
    });
}

fn machine(facts: &Facts, found: &mut Vec<Finding>) {
    if let Some(descriptors) = facts.descriptors {
        let what = format!("a process may open {descriptors} files and connections");
        found.push(match descriptors < FEW_DESCRIPTORS {
            true => Finding::warning(
                "descriptors",
                what,
                "each customer, event stream and database session needs one; who gets none waits",
                "ulimit -n 65536 before the start (LimitNOFILE= with systemd)",
            ),
            false => Finding::ok("descriptors", what),
        });
    }
    let newest = facts.stores.iter().filter_map(|store| store.newest).max().unwrap_or(0);
    found.push(if facts.now < EPOCH {
        Finding::problem(
            "clock",
            "this machine's clock is before 2025",
            "ids count from 2025: none can be made, and every token has expired or is not valid yet",
            "set it; run an NTP client",
        )
    } else if newest > facts.now + CLOCK_OFF_MS {
        Finding::problem(
            "clock",
            format!("the newest saga was changed {} s after now", (newest - facts.now) / 1_000),
            "the clock went back, or another machine's is ahead: timeouts and deadlines come late",
            "set it; run an NTP client on every machine",
        )
    } else {
        Finding::ok("clock", "not before what was written last")
    });
}

fn port(port: &Port, shop: Option<&Shop>) -> Finding {
    let Port { what, address, number, taken, holder } = port;
    let subject = format!("port {number}");
    match taken {
        None => Finding::ok(subject, format!("{address} is free for {what}")),
        Some(_) if shop.is_some_and(|shop| shop.ports.contains(number)) => {
            Finding::ok(subject, format!("{address}: the shop that runs has it"))
        }
        Some(why) => {
            let by = holder.as_ref().map_or_else(String::new, |holder| format!(", by {holder}"));
            Finding::problem(
                subject,
                format!("{address} cannot be had for {what}: {why}{by}"),
                "a shop cannot start on it",
                format!("stop that program (`ss -ltnp sport = :{number}` shows it), or choose another address"),
            )
        }
    }
}

fn store(store: &Store, facts: &Facts, found: &mut Vec<Finding>) {
    let subject = format!("store {}", store.service);
    let place = &store.place;
    found.push(match &store.state {
        StoreState::Missing => Finding::ok(&subject, format!("{place} is not there; the first start makes it")),
        StoreState::File => Finding::ok(&subject, format!("{place} is ours and up to date")),
        StoreState::Refused { why, older: true, .. } => {
            let fix = if facts.config.stores.migrate { "start it once, or run `saga migrate`" } else { "saga migrate" };
            Finding::warning(&subject, format!("{place} {why}"), "it was written by an older version", fix)
        }
        StoreState::Refused { why, unreachable: true, .. } => Finding::problem(
            &subject,
            format!("{place} {why}"),
            "the service cannot start, or answers 503 while it lasts",
            "start the server, or set stores.url to where it is",
        ),
        StoreState::Refused { why, .. } => Finding::problem(
            &subject,
            format!("{place} {why}"),
            "the service refuses to start rather than to damage it",
            "restore it from a backup, or name the right file or database",
        ),
        StoreState::Server(server) => return self::server(store, server, found),
    });
    people(store, found);
}

fn server(store: &Store, server: &Server, found: &mut Vec<Finding>) {
    let subject = format!("store {}", store.service);
    let place = &store.place;
    let latency = format!("{place} is ours, up to date, and answers in {:.1} ms", server.latency_ms);
    found.push(match server.latency_ms > SLOW_MS {
        true => Finding::warning(
            &subject,
            latency,
            "every step of a purchase waits for its database",
            "move them closer together, or look what keeps the server busy",
        ),
        false => Finding::ok(&subject, latency),
    });
    if !server.fsync || !server.full_page_writes {
        found.push(Finding::problem(
            &subject,
            "fsync or full_page_writes is off",
            "a power loss can leave a database that cannot be repaired, and loses what was acknowledged",
            "set both to on in postgresql.conf and reload",
        ));
    }
    if server.synchronous_commit == "off" {
        found.push(Finding::problem(
            &subject,
            "synchronous_commit is off",
            "a power loss forgets effects that were answered: money and stock no longer agree",
            "alter role … reset synchronous_commit, or set it to on in postgresql.conf",
        ));
    }
    if server.ahead_ms.unsigned_abs() > CLOCK_OFF_MS {
        found.push(Finding::warning(
            "clock",
            format!("the clock of {place} is {} ms ahead of ours", server.ahead_ms),
            "timeouts and deadlines are compared between machines",
            "run an NTP client on both",
        ));
    }
    people(store, found);
}

/// What waits for somebody.
fn people(store: &Store, found: &mut Vec<Finding>) {
    match store.stuck {
        Some(0) => found.push(Finding::ok("sagas", "none is stuck")),
        Some(stuck) => found.push(Finding::warning(
            "sagas",
            format!("{stuck} wait for a human"),
            "customers wait for their purchases, and stock may be held",
            "saga sagas list --state STUCK,COMPENSATION_STUCK, then show, and retry, skip or resolve",
        )),
        None => {}
    }
    match store.letters {
        Some(0) => found.push(Finding::ok("dead letters", "none")),
        Some(letters) => found.push(Finding::warning(
            "dead letters",
            format!("{letters} records could not be handled"),
            "what they asked for was not done",
            "saga dlq list, then show; redrive when the cause is mended, or purge",
        )),
        None => {}
    }
}

fn shop(shop: Option<&Shop>, found: &mut Vec<Finding>) {
    let Some(shop) = shop else {
        found.push(Finding::ok("shop", "none runs here"));
        return;
    };
    found.push(match &shop.ready {
        Ok((true, _)) => Finding::ok("shop", format!("runs and is ready ({})", shop.admin)),
        Ok((false, lines)) => Finding::problem(
            "shop",
            format!("runs and is not ready: {}", lines.join("; ")),
            "an edge sends it nothing",
            "what it names is what it waits for",
        ),
        Err(why) => Finding::problem(
            "shop",
            format!("{} does not answer: {why}", shop.admin),
            "it has hung, or was killed and has left its run.json",
            "look at its log; if its process is gone, start it again: what was on its way goes on",
        ),
    });
    if let Err(why) = &shop.operators
        && shop.ready.is_ok()
    {
        found.push(Finding::warning(
            "shop",
            format!("the admin API does not let us in: {why}"),
            "the verbs of the command line need it",
            "give --token-file or SAGA_ADMIN_TOKEN",
        ));
    }
}

#[cfg(test)]
mod tests;
