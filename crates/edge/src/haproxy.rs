//! HAProxy's configuration (2.6 and later).
//!
//! Each service has up to four backends, which share one health check:
//!
//! | Backend | Takes | Connections to the replica | Sent again |
//! |---|---|---|---|
//! | `x` | what may be sent twice | kept | after a lost answer, too |
//! | `x-write` | everything else | new ones, so that none is closing | if no connection was had |
//! | `x-stream` | event streams | kept | if no connection was had |
//! | `x-internal` | gRPC and keys, HTTP/2 | shared | if no connection was had |

use std::collections::BTreeSet;

use crate::{HEADER, Layout, Rate, Replica, Route, Table};

/// Over how many seconds requests are counted.
const WINDOW_S: u32 = 10;

/// Client addresses that are remembered; the longest unseen is forgotten first.
const ADDRESSES: &str = "type ipv6 size 200k expire 60s";

/// Paths that have a second spelling, which somebody behind us might read differently.
const AMBIGUOUS: &str = r"(//|/\.\.?(/|$)|\\|;|%2e|%2f|%5c|%3b|%25|%00)";

/// What the edge itself answers: status, the contract's code, its title, what to do, whether it can pass.
const PROBLEMS: [(u16, &str, &str, &str, bool); 6] = [
    (404, "not_found", "Not found", "there is nothing at this path", false),
    (413, "payload_too_large", "The body is too large", "send less", false),
    (429, "rate_limited", "Too many requests", "wait a moment, then send fewer", true),
    (
        502,
        "dependency_unavailable",
        "A part of the shop is not available",
        "its answer was cut off; ask what became of the request, then try again",
        true,
    ),
    (503, "dependency_unavailable", "A part of the shop is not available", "try again in a moment", true),
    (
        504,
        "dependency_unavailable",
        "A part of the shop is not available",
        "it did not answer in time; ask what became of the request, then try again",
        true,
    ),
];

/// The whole file.
pub fn config(table: &Table, layout: &Layout) -> String {
    let mut out = Writer(HEADER.to_owned());
    global(&mut out, table);
    defaults(&mut out, table);
    if layout.replicas.have_names() {
        out.section("resolvers names", &["parse-resolv-conf".to_owned(), "hold valid 1s".to_owned()]);
    }
    web(&mut out, table, layout);
    internal(&mut out, table, layout);
    dashboard(&mut out, layout);
    limits(&mut out, table);
    let services: BTreeSet<&str> = table.web.iter().chain(&table.internal).map(|r| r.service.as_str()).collect();
    for service in services {
        backends(&mut out, table, layout, service);
    }
    out.0
}

struct Writer(String);

impl Writer {
    fn section(&mut self, head: &str, lines: &[String]) {
        self.0.push('\n');
        self.0.push_str(head);
        self.0.push('\n');
        for line in lines {
            self.0.push_str("  ");
            self.0.push_str(line);
            self.0.push('\n');
        }
    }
}

fn global(out: &mut Writer, table: &Table) {
    let lines = [
        "log stdout format raw local0 info".to_owned(),
        // Two for each client's connection, one of them to a service. Where the machine grants fewer, HAProxy takes
        // those and admits as many connections as they are for.
        format!("fd-hard-limit {}", table.limits.connections.saturating_mul(2).saturating_add(1_000)),
        format!("hard-stop-after {}", ms(table.timeouts.drain_ms)),
        // A request's headers must fit with room for ours.
        format!("tune.bufsize {}", table.limits.header_bytes.saturating_add(4_096)),
    ];
    out.section("global", &lines);
}

fn defaults(out: &mut Writer, table: &Table) {
    let times = &table.timeouts;
    let mut lines = vec![
        "mode http".to_owned(),
        "log global".to_owned(),
        "option dontlognull".to_owned(),
        // What a service has said goes on at once: else an event waits up to 200 ms for company.
        "option http-no-delay".to_owned(),
        // Without the query and without any header: both may carry what nobody should read.
        r#"log-format "%ci %HM %[var(txn.path)] %ST %B bytes %Ta ms to %b/%s %tsc, %rc retries, trace %[var(txn.trace)]""#
            .to_owned(),
        format!("timeout connect {}", ms(times.connect_ms)),
        format!("timeout http-request {}", ms(times.request_ms)),
        format!("timeout http-keep-alive {}", ms(times.idle_ms)),
        // What a client does not read or send in this time; streams are why it is long, and `http-request` and
        // `http-keep-alive` are the short ones.
        format!("timeout client {}", ms(times.stream_ms)),
        format!("timeout server {}", ms(times.server_ms)),
        format!("timeout queue {}", ms(times.connect_ms)),
        "retries 3".to_owned(),
        "option redispatch 1".to_owned(),
    ];
    lines.extend(PROBLEMS.iter().map(problem));
    out.section("defaults", &lines);
}

/// The contract's problem+json, for what never reaches a service.
fn problem((status, code, title, detail, retryable): &(u16, &str, &str, &str, bool)) -> String {
    let body = format!(
        r#"{{"type":"/docs/errors/{code}","title":"{title}","status":{status},"detail":"{detail}","instance":"%[var(txn.path),json(utf8s)]","code":"{code}","trace_id":"%[var(txn.trace)]","retryable":{retryable}}}"#
    );
    let again = if *retryable { " hdr Retry-After 1" } else { "" };
    format!("http-error status {status} content-type application/problem+json lf-string '{body}'{again}")
}

fn web(out: &mut Writer, table: &Table, layout: &Layout) {
    let mut lines = vec![
        format!("bind {}", layout.web),
        format!("maxconn {}", table.limits.connections),
        // The start of a body is waited for under `timeout http-request`, before a service is troubled.
        "option http-buffer-request".to_owned(),
        "http-request set-var(txn.path) path".to_owned(),
    ];
    lines.extend(trace());
    lines.push(format!("acl ambiguous path_reg -i '{AMBIGUOUS}'"));
    lines.push("acl grpc req.hdr(content-type) -m beg -i application/grpc".to_owned());
    lines.push("http-request deny deny_status 404 if ambiguous || grpc".to_owned());
    lines.extend(chosen(&mut table.web.iter()));
    lines.extend(limited(table));
    lines.push(format!("http-request deny deny_status 413 if {{ req.body_size gt {} }}", table.limits.body_bytes));
    lines.extend(scrubbed(table));
    lines.extend(led(&mut table.web.iter()));
    out.section("frontend web", &lines);
}

/// To the public listeners of services.
fn led(routes: &mut dyn Iterator<Item = &Route>) -> Vec<String> {
    let mut lines = vec![
        "acl repeatable method GET HEAD OPTIONS".to_owned(),
        "acl keyed req.hdr(idempotency-key) -m found".to_owned(),
    ];
    for route in routes {
        let taken = format!("{{ var(txn.route) -m str {} }}", route.name());
        let service = &route.service;
        if route.stream {
            lines.push(format!("use_backend {service}-stream if {taken}"));
            continue;
        }
        lines.push(format!("use_backend {service} if {taken} repeatable"));
        if route.idempotency_key {
            lines.push(format!("use_backend {service} if {taken} keyed"));
        }
        lines.push(format!("use_backend {service}-write if {taken}"));
    }
    lines
}

/// The client's own trace, if it sends a well-formed one, else a new one: for the log and for problems.
fn trace() -> [String; 2] {
    let given = "req.hdr(traceparent) -m reg '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'";
    [
        r#"http-request set-var(txn.trace) uuid(4),regsub("-","",g)"#.to_owned(),
        format!("http-request set-var(txn.trace) req.hdr(traceparent),field(2,-) if {{ {given} }}"),
    ]
}

/// Puts the first route that fits into a variable, and answers 404 where none does.
fn chosen(routes: &mut dyn Iterator<Item = &Route>) -> Vec<String> {
    let mut lines = Vec::new();
    for route in routes {
        let name = route.name();
        match (route.is_template(), route.exact) {
            (true, _) => lines.push(format!("acl {name} path_reg '{}'", route.regex())),
            (false, true) => lines.push(format!("acl {name} path {}", route.path)),
            (false, false) => {
                lines.push(format!("acl {name} path {}", route.path));
                lines.push(format!("acl {name} path_beg {}/", route.path));
            }
        }
        let read = if route.stream { " { method GET }" } else { "" };
        lines.push(format!(
            "http-request set-var(txn.route) str({name}) if !{{ var(txn.route) -m found }} {name}{read}"
        ));
    }
    lines.push("http-request deny deny_status 404 unless { var(txn.route) -m found }".to_owned());
    lines
}

/// Counts each client address, all of its requests and those of routes with a limit of their own.
fn limited(table: &Table) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(client) = &table.limits.client {
        lines.push("http-request track-sc0 src table clients".to_owned());
        let (rate, open) = (window(client.rate()), client.in_flight);
        lines.push(format!("http-request deny deny_status 429 if {{ sc0_http_req_rate gt {rate} }}"));
        lines.push(format!("http-request deny deny_status 429 if {{ sc0_conn_cur gt {open} }}"));
    }
    for route in &table.web {
        if let Some(limit) = route.limit {
            let (name, rate) = (route.name(), window(limit));
            let taken = format!("{{ var(txn.route) -m str {name} }}");
            lines.push(format!("http-request track-sc1 src table clients-{name} if {taken}"));
            lines.push(format!("http-request deny deny_status 429 if {taken} {{ sc1_http_req_rate gt {rate} }}"));
        }
    }
    lines
}

fn limits(out: &mut Writer, table: &Table) {
    let counted = |what: &str| vec![format!("stick-table {ADDRESSES} store http_req_rate({WINDOW_S}s){what}")];
    if table.limits.client.is_some() {
        out.section("backend clients", &counted(",conn_cur"));
    }
    for route in table.web.iter().filter(|route| route.limit.is_some()) {
        out.section(&format!("backend clients-{}", route.name()), &counted(""));
    }
}

fn window(rate: Rate) -> u32 {
    rate.per_second.saturating_mul(WINDOW_S).saturating_add(rate.burst)
}

/// Nothing that a client says about where it came from or where it goes is passed on; what we know is.
fn scrubbed(table: &Table) -> Vec<String> {
    let mut lines: Vec<String> =
        table.strip_headers.iter().map(|name| format!("http-request del-header {name}")).collect();
    lines.extend(
        [
            // HAProxy has read it already; what is left of it would ask a service to change protocols.
            "http-request del-header Connection",
            "http-request del-header Forwarded",
            "http-request del-header X-Forwarded -m beg",
            "http-request set-header X-Forwarded-Proto http",
            "http-request set-header X-Forwarded-Host %[req.hdr(host)] if { req.hdr(host) -m found }",
            "option forwardfor",
        ]
        .map(str::to_owned),
    );
    lines
}

fn internal(out: &mut Writer, table: &Table, layout: &Layout) {
    let mut lines = vec![
        // HTTP/2 from its first bytes on, or HTTP/1.1.
        format!("bind {}", layout.internal),
        // A client's one connection, however little it has to ask.
        format!("timeout http-keep-alive {}", ms(table.timeouts.stream_ms)),
        "http-request set-var(txn.path) path".to_owned(),
    ];
    lines.extend(trace());
    lines.extend(chosen(&mut table.internal.iter().chain(table.inside())));
    for route in &table.internal {
        let service = &route.service;
        lines.push(format!("use_backend {service}-internal if {{ var(txn.route) -m str {} }}", route.name()));
    }
    lines.extend(led(&mut table.inside()));
    out.section("frontend internal", &lines);
}

/// HAProxy's own page, its metrics, and whether it is there.
fn dashboard(out: &mut Writer, layout: &Layout) {
    let lines = [
        format!("bind {}", layout.dashboard),
        "option dontlog-normal".to_owned(),
        r#"http-request return status 200 content-type text/plain string "ok" if { path /livez }"#.to_owned(),
        "http-request use-service prometheus-exporter if { path /metrics }".to_owned(),
        "stats enable".to_owned(),
        "stats uri /".to_owned(),
        "stats refresh 5s".to_owned(),
        "stats hide-version".to_owned(),
    ];
    out.section("frontend dashboard", &lines);
}

fn backends(out: &mut Writer, table: &Table, layout: &Layout, service: &str) {
    let times = &table.timeouts;
    let replicas = layout.replicas.of(service);
    let web = |route: &&Route| route.service == service;
    let streams = table.web.iter().filter(web).any(|route| route.stream);
    let answers = table.web.iter().filter(web).any(|route| !route.stream);
    let (often, seldom) = (ms(times.check_ms), ms((times.check_ms / 5).max(1)));
    let mut base = vec![
        "balance roundrobin".to_owned(),
        "option httpchk GET /readyz".to_owned(),
        "http-check expect status 200".to_owned(),
        // A replica that is busy is not one that is gone.
        format!("timeout check {}", ms(times.check_ms.saturating_mul(3))),
        "retry-on conn-failure empty-response".to_owned(),
        // One refused connection is believed; the next answer to a check takes it back.
        format!(
            "default-server check inter {often} fastinter {seldom} downinter {seldom} fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down{}",
            names(layout)
        ),
    ];
    base.extend(replicas.iter().enumerate().map(|(at, replica)| server(service, at, &replica.public.to_string())));
    out.section(&format!("backend {service}"), &base);
    let tracking = |place: &dyn Fn(&Replica) -> Option<String>, extra: &str| {
        let line = |(at, replica): (usize, &Replica)| {
            let place = place(replica)?;
            let tracked = format!("{} track {service}/{service}-{}", server(service, at, &place), at + 1);
            Some(format!("{tracked}{extra}{}", names(layout)))
        };
        replicas.iter().enumerate().filter_map(line).collect::<Vec<String>>()
    };
    let public = |replica: &Replica| Some(replica.public.to_string());
    if answers {
        // A customer's first write gets a connection of its own, the next ones the same again. It cannot be closed under
        // them: a service that stops is not ready first, and a replica that is not ready gets nothing.
        let head = ["balance roundrobin", "http-reuse safe", "retry-on conn-failure"];
        let head = head.map(str::to_owned).into_iter();
        out.section(&format!("backend {service}-write"), &head.chain(tracking(&public, "")).collect::<Vec<_>>());
    }
    if streams {
        let head = ["balance leastconn".to_owned(), "retry-on conn-failure".to_owned()].into_iter();
        // That a client has left is noticed with the next comment: HAProxy does not listen to who only listens.
        let head = head.chain([format!("timeout server {}", ms(times.stream_ms))]);
        out.section(&format!("backend {service}-stream"), &head.chain(tracking(&public, "")).collect::<Vec<_>>());
    }
    if table.internal.iter().any(|route| route.service == service) {
        let head = ["balance roundrobin".to_owned(), "retry-on conn-failure".to_owned()].into_iter();
        let place = |replica: &Replica| replica.internal.as_ref().map(ToString::to_string);
        let all = head.chain(tracking(&place, " proto h2")).collect::<Vec<_>>();
        out.section(&format!("backend {service}-internal"), &all);
    }
}

fn server(service: &str, at: usize, place: &str) -> String {
    format!("server {service}-{} {place}", at + 1)
}

/// Names may be unknown when HAProxy starts, and change.
fn names(layout: &Layout) -> &'static str {
    if layout.replicas.have_names() { " resolvers names init-addr last,libc,none" } else { "" }
}

fn ms(milliseconds: u64) -> String {
    format!("{milliseconds}ms")
}
