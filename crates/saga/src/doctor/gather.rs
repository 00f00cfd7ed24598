//! Looks at an installation, and changes nothing. What does not answer soon is told so.

mod machine;
mod stores;

use std::time::Duration;

use saga_adapters::kafka::KafkaBus;
use saga_adapters::redis;
use saga_core::Name;
use saga_runtime::bus::Bus as _;
use saga_runtime::delivery::dead_letter_topic;
use saga_runtime::{Clock as _, SystemClock};
use tokio::time::timeout;

use super::facts::{Brokers, Cluster, Facts, Node, Peer, Shop, Traces};
use crate::args::Remote;
use crate::cli::Place;
use crate::config::Config;
use crate::remote::{Connection, Endpoint, RunFile};
use crate::telemetry::settings::Settings;
use crate::up::{places, roles};

/// Whoever needs longer than this for a question is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything that there is to be seen.
pub async fn gather(config: Config, remote: &Remote) -> Facts {
    let misfit = crate::up::definitions(&config).err().map(|error| error.to_string());
    let roles = roles::ALL.into();
    let (misfit, needs_folder) = match places::needs_folder(&config, &roles) {
        Ok(needs) => (misfit, needs),
        Err(error) => (Some(error.to_string()), false),
    };
    let shop = shop(&config, remote).await;
    let mut stores = Vec::new();
    for role in roles::ALL {
        stores.extend(stores::look(&config, role).await);
    }
    Facts {
        misfit,
        now: SystemClock.now(),
        token_length: crate::config::admin_token().map(|token| token.len()),
        folder: needs_folder.then(|| machine::folder(&config.data)),
        descriptors: machine::descriptors(),
        ports: machine::ports(&config),
        shop,
        stores,
        brokers: brokers(&config).await,
        nodes: nodes(&config).await,
        peers: peers(&config).await,
        traces: traces().await,
        config,
    }
}

fn millis(since: u64) -> f64 {
    Duration::from_nanos(SystemClock.nanos().saturating_sub(since)).as_secs_f64() * 1_000.0
}

/// What a `GET` is answered: whether with a success, and the body.
async fn get(url: &str, path: &str) -> Result<(bool, String), String> {
    let endpoint = Endpoint::parse(url).map_err(|error| format!("{error:#}"))?;
    let mut connection = Connection::new(&endpoint);
    let ask = connection.send(hyper::Method::GET, path, None, bytes::Bytes::new());
    match timeout(PATIENCE, ask).await {
        Ok(Ok(answer)) => Ok((answer.status.is_success(), String::from_utf8_lossy(&answer.body).into_owned())),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!("no answer for {PATIENCE:?}")),
    }
}

async fn shop(config: &Config, remote: &Remote) -> Option<Shop> {
    let run = RunFile::read(&config.data).ok().flatten();
    let url = remote.url.clone().or_else(crate::config::admin_url);
    let admin = url.or_else(|| run.as_ref().map(|run| run.admin.clone()))?;
    let own = run.as_ref().filter(|run| run.admin == admin);
    let port = |url: &String| url.rsplit_once(':').and_then(|(_, port)| port.trim_end_matches('/').parse().ok());
    let ports = own.map(|run| [&run.public, &run.internal, &run.admin].into_iter().filter_map(port).collect());
    let ready = get(&admin, "/readyz?verbose").await.map(|(ready, report)| {
        let missing = report.lines().filter_map(|line| line.strip_prefix("[-] ")).map(str::to_owned);
        (ready, missing.collect())
    });
    let place = Place { data: config.data.clone() };
    let remote = Remote { url: Some(admin.clone()), token_file: remote.token_file.clone() };
    let operators = match place.admin(&remote) {
        Err(error) => Err(format!("{error:#}")),
        Ok(client) => match timeout(PATIENCE, client.get("/admin/sagas?limit=1")).await {
            // Without the orchestrator there is no such route, but behind the door.
            Ok(Err(error)) if !error.to_string().starts_with("404") => Err(format!("{error:#}")),
            Ok(_) => Ok(()),
            Err(_) => Err(format!("no answer for {PATIENCE:?}")),
        },
    };
    Some(Shop { admin, ports: ports.unwrap_or_default(), ready, operators })
}

async fn brokers(config: &Config) -> Option<Result<Brokers, String>> {
    let named = places::brokers(config).ok().flatten()?;
    Some(ask_brokers(config, &named).await)
}

async fn ask_brokers(config: &Config, named: &str) -> Result<Brokers, String> {
    let options =
        saga_adapters::kafka::Options { request_timeout: PATIENCE, ..places::bus(config, named, "saga-doctor") };
    let bus = KafkaBus::new(options).map_err(|error| error.to_string())?;
    let begun = SystemClock.nanos();
    let asked = bus.partitions().await;
    let latency_ms = millis(begun);
    let there = match asked {
        Ok(there) => there,
        Err(error) => {
            bus.close().await;
            return Err(error.to_string());
        }
    };
    let definitions = crate::up::definitions(config).map_err(|error| error.to_string())?;
    let mut names: Vec<Name> = definitions.all().iter().flat_map(|definition| definition.topics()).collect();
    names.sort();
    names.dedup();
    let all = names.iter().flat_map(|name| [name.clone(), dead_letter_topic(name)]);
    let topics = all.map(|name| (name.to_string(), there.get(&name).copied())).collect();
    // Who reads is worth a look, but no reason to fail: a broker without groups is a young one.
    let reading = timeout(PATIENCE * 2, bus.reading()).await.ok().and_then(Result::ok).unwrap_or_default();
    bus.close().await;
    let waiting = |group: &saga_runtime::bus::GroupReading| group.places.iter().map(|place| place.waiting).sum();
    Ok(Brokers {
        latency_ms,
        topics,
        groups: reading.iter().map(|group| (group.group.clone(), group.members.clone())).collect(),
        waiting: reading.iter().map(|group| (group.group.clone(), waiting(group))).collect(),
    })
}

async fn nodes(config: &Config) -> Vec<Node> {
    let Ok(Some(named)) = places::nodes(config) else { return Vec::new() };
    let mut nodes = Vec::new();
    for address in named.split(',') {
        let view = redis::look(&format!("redis://{address}"), PATIENCE).await;
        let state = view.map(|view| Cluster {
            latency_ms: view.took.as_secs_f64() * 1_000.0,
            is_ok: view.is_ok,
            slots_ok: view.slots_ok,
            nodes: view.nodes,
        });
        nodes.push(Node { address: address.to_owned(), state });
    }
    nodes
}

async fn peers(config: &Config) -> Vec<Peer> {
    // What everybody may ask for, and what only operators' listeners have.
    let (keys, alive) = ("/.well-known/jwks.json", "/livez");
    let named = [
        ("peers.account", &config.peers.account, keys),
        ("peers.product", &config.peers.product, keys),
        ("console.shop_url", &config.console.shop_url, keys),
        ("console.admin_url", &config.console.admin_url, alive),
    ];
    let mut asked: Vec<(&'static str, &String, &str)> =
        named.into_iter().filter_map(|(key, url, path)| Some((key, url.as_ref()?, path))).collect();
    if config.failures.enabled {
        asked.extend(config.failures.elsewhere.iter().map(|url| ("failures.elsewhere", url, alive)));
    }
    let mut peers = Vec::new();
    for (key, url, path) in asked {
        let begun = SystemClock.nanos();
        let state = get(url, path).await.map(|_| millis(begun));
        peers.push(Peer { key, url: url.clone(), state });
    }
    peers
}

/// Whether somebody takes traces, where they are to go anywhere.
async fn traces() -> Traces {
    let settings = match Settings::read("saga", crate::config::variable) {
        Ok(None) => return Traces::Off,
        Ok(Some(settings)) => settings,
        Err(why) => return Traces::Wrong(why),
    };
    let place = settings.endpoint.parse::<hyper::Uri>().ok().and_then(|uri| {
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        Some((uri.host()?.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(usual)))
    });
    let Some(place) = place else { return Traces::Wrong(format!("{} is no address", settings.endpoint)) };
    let begun = SystemClock.nanos();
    let state = match timeout(PATIENCE, tokio::net::TcpStream::connect(place)).await {
        Ok(Ok(_)) => Ok(millis(begun)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer for {PATIENCE:?}")),
    };
    Traces::To(settings.endpoint, state)
}
