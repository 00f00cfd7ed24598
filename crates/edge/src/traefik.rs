//! Traefik v3: the fixed configuration that it starts with, and the dynamic one that it watches.
//!
//! Three traps that this keeps out of: a matcher takes one value (`||` between two), a prefix is text and not segments
//! (`/orders` would take `/ordersmen`), and a rule's length is its priority unless one is given.

use serde_json::{Map, Value, json};

use crate::table::Timeouts;
use crate::{Error, HEADER, Layout, Rate, Route, Table};

/// What a request from outside is not, whatever else it is.
const NOT_GRPC: &str = "!HeaderRegexp(`Content-Type`, `(?i)^\\s*application/grpc`)";

/// Once and twice more, as long as no connection was had.
const ATTEMPTS: u32 = 3;

/// The static configuration: `traefik.yaml`.
///
/// # Errors
/// Never for a table that was parsed.
pub fn fixed(table: &Table, layout: &Layout) -> Result<String, Error> {
    let times = &table.timeouts;
    let graceful = json!({ "requestAcceptGraceTimeout": ms(0), "graceTimeOut": ms(times.drain_ms) });
    let settings = json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "log": { "level": "INFO", "format": "json" },
        // Headers carry tokens.
        "accessLog": { "format": "json", "fields": { "headers": { "defaultMode": "drop" } } },
        "api": { "dashboard": true, "insecure": true },
        "ping": { "entryPoint": "traefik" },
        "metrics": { "prometheus": { "entryPoint": "traefik" } },
        "providers": { "file": { "filename": "/etc/traefik/dynamic.yaml", "watch": true } },
        "serversTransport": {
            "maxIdleConnsPerHost": 200,
            "forwardingTimeouts": {
                "dialTimeout": ms(times.connect_ms),
                "responseHeaderTimeout": ms(times.server_ms),
                "idleConnTimeout": ms(times.idle_ms),
            },
        },
        "entryPoints": {
            "web": {
                "address": layout.web,
                // Nobody's word is taken for where a request came from.
                "forwardedHeaders": { "insecure": false, "trustedIPs": [] },
                "http": {
                    "maxHeaderBytes": table.limits.header_bytes,
                    "encodedCharacters": spellings(),
                },
                "http2": { "maxConcurrentStreams": 100 },
                "transport": {
                    "lifeCycle": graceful,
                    "respondingTimeouts": {
                        "readTimeout": ms(times.request_ms.saturating_mul(3)),
                        // A stream is written for as long as it lives.
                        "writeTimeout": ms(0),
                        "idleTimeout": ms(times.idle_ms),
                    },
                },
            },
            "internal": {
                "address": layout.internal,
                "transport": {
                    "lifeCycle": graceful,
                    "respondingTimeouts": {
                        "readTimeout": ms(0),
                        "writeTimeout": ms(0),
                        "idleTimeout": ms(times.stream_ms),
                    },
                },
            },
            "traefik": { "address": layout.dashboard },
        },
    });
    write(&settings)
}

/// Letters that let one path be spelt in two ways: none is let in.
fn spellings() -> Value {
    let names = ["BackSlash", "Hash", "NullCharacter", "Percent", "QuestionMark", "Semicolon", "Slash"];
    Value::Object(names.iter().map(|name| (format!("allowEncoded{name}"), Value::Bool(false))).collect())
}

/// The dynamic configuration: `dynamic.yaml`.
///
/// # Errors
/// Never for a table that was parsed.
pub fn dynamic(table: &Table, layout: &Layout) -> Result<String, Error> {
    let mut parts = Parts { table, routers: Map::new(), services: Map::new(), middlewares: Map::new() };
    parts.shared_middlewares();
    for (at, route) in table.web.iter().enumerate() {
        parts.web(route, at);
        parts.service(route, layout, false);
    }
    for (at, route) in table.internal.iter().enumerate() {
        parts.internal(route, &format!("{}-internal", route.service), at);
        parts.service(route, layout, true);
    }
    for (at, route) in table.inside().enumerate() {
        parts.internal(route, &route.service, table.internal.len().saturating_add(at));
    }
    let Parts { routers, services, middlewares, .. } = parts;
    write(&json!({ "http": { "routers": routers, "services": services, "middlewares": middlewares } }))
}

struct Parts<'a> {
    table: &'a Table,
    routers: Map<String, Value>,
    services: Map<String, Value>,
    middlewares: Map<String, Value>,
}

impl Parts<'_> {
    fn shared_middlewares(&mut self) {
        let stripped: Map<String, Value> =
            self.table.strip_headers.iter().chain([&"Forwarded".to_owned()]).map(|n| (n.clone(), json!(""))).collect();
        self.middlewares.insert("strip".into(), json!({ "headers": { "customRequestHeaders": stripped } }));
        let size = self.table.limits.body_bytes;
        let body = json!({ "buffering": { "maxRequestBodyBytes": size, "memRequestBodyBytes": size } });
        self.middlewares.insert("body".into(), body);
        // Only where no connection was had: Traefik does not repeat what it has begun to send.
        let retry = json!({ "retry": { "attempts": ATTEMPTS, "initialInterval": "100ms" } });
        self.middlewares.insert("retry".into(), retry);
        if let Some(client) = &self.table.limits.client {
            let in_flight = json!({ "inFlightReq": { "amount": client.in_flight, "sourceCriterion": address() } });
            self.middlewares.insert("client-in-flight".into(), in_flight);
            self.middlewares.insert("client-rate".into(), rate(client.rate()));
        }
    }

    fn web(&mut self, route: &Route, at: usize) {
        let mut chain = vec!["strip".to_owned()];
        if self.table.limits.client.is_some() {
            chain.extend(["client-rate".to_owned(), "client-in-flight".to_owned()]);
        }
        if let Some(limit) = route.limit {
            let name = format!("rate-{}", route.name());
            self.middlewares.insert(name.clone(), rate(limit));
            chain.push(name);
        }
        if !route.stream {
            // It holds the answer back, too.
            chain.push("body".to_owned());
        }
        chain.push("retry".to_owned());
        let method = if route.stream { " && Method(`GET`)" } else { "" };
        let router = json!({
            "entryPoints": ["web"],
            "rule": format!("({}){method} && {NOT_GRPC}", rule(route)),
            "priority": priority(at),
            "middlewares": chain,
            "service": route.service,
        });
        self.routers.insert(format!("web-{}", route.name()), router);
    }

    fn internal(&mut self, route: &Route, service: &str, at: usize) {
        let method = if route.stream { " && Method(`GET`)" } else { "" };
        let router = json!({
            "entryPoints": ["internal"],
            "rule": format!("({}){method}", rule(route)),
            "priority": priority(at),
            "middlewares": ["retry"],
            "service": service,
        });
        self.routers.insert(format!("internal-{}", route.name()), router);
    }

    fn service(&mut self, route: &Route, layout: &Layout, internal: bool) {
        let replicas = layout.replicas.of(&route.service);
        let (name, scheme) =
            if internal { (format!("{}-internal", route.service), "h2c") } else { (route.service.clone(), "http") };
        let place = |r: &crate::Replica| if internal { r.internal.clone() } else { Some(r.public.clone()) };
        let servers: Vec<Value> =
            replicas.iter().filter_map(place).map(|place| json!({ "url": format!("{scheme}://{place}") })).collect();
        let balancer = json!({ "loadBalancer": {
            "servers": servers,
            "passHostHeader": true,
            "healthCheck": health(&self.table.timeouts),
        } });
        self.services.insert(name, balancer);
    }
}

fn health(times: &Timeouts) -> Value {
    // In HTTP/1.1 on both listeners: Traefik wants the question's time to be the shorter one.
    let timeout = (times.check_ms / 2).max(1);
    json!({ "path": "/readyz", "scheme": "http", "interval": ms(times.check_ms), "timeout": ms(timeout) })
}

/// The first in the table wins: it is the highest.
fn priority(at: usize) -> usize {
    1_000_usize.saturating_sub(at)
}

fn rule(route: &Route) -> String {
    match (route.is_template(), route.exact) {
        (true, _) => format!("PathRegexp(`{}`)", route.regex()),
        (false, true) => format!("Path(`{}`)", route.path),
        (false, false) => format!("Path(`{0}`) || PathPrefix(`{0}/`)", route.path),
    }
}

fn rate(rate: Rate) -> Value {
    json!({ "rateLimit": { "average": rate.per_second, "burst": rate.burst, "sourceCriterion": address() } })
}

/// By the address that connected, not by a header and not by the host that was asked for.
fn address() -> Value {
    json!({ "ipStrategy": { "depth": 0 } })
}

fn ms(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1_000) { format!("{}s", milliseconds / 1_000) } else { format!("{milliseconds}ms") }
}

fn write(value: &Value) -> Result<String, Error> {
    Ok(format!("{HEADER}{}", serde_norway::to_string(value).map_err(Error::Write)?))
}
