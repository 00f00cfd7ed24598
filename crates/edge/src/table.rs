//! The route table as types, and which route a path takes.

use serde::Deserialize;

use crate::Error;

/// The first page.
const ROOT: &str = "/";

/// Everything that is reachable, and how.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How much of them there may be.
    pub limits: Limits,
    /// Headers that are removed from what customers send.
    pub strip_headers: Vec<String>,
    /// What customers reach, the first that fits.
    pub web: Vec<Route>,
    /// What services reach of each other.
    pub internal: Vec<Route>,
}

/// How long things may take, in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// Connecting to a replica.
    pub connect_ms: u64,
    /// A request's headers and the start of its body.
    pub request_ms: u64,
    /// A service's answer.
    pub server_ms: u64,
    /// Silence on a stream.
    pub stream_ms: u64,
    /// A client's connection without a request.
    pub idle_ms: u64,
    /// Between two questions whether a replica is ready.
    pub check_ms: u64,
    /// Open requests when the edge is stopped.
    pub drain_ms: u64,
}

/// How much there may be.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections of all clients.
    pub connections: u32,
    /// A request's body, in bytes.
    pub body_bytes: u32,
    /// A request's headers, in bytes.
    pub header_bytes: u32,
    /// For each client address. `None`: as much as it likes (for load tests).
    pub client: Option<Client>,
}

/// What one client address may do.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Open requests and streams.
    pub in_flight: u32,
    /// Requests a second in the long run.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
}

impl Client {
    /// The two numbers that are a rate.
    pub fn rate(&self) -> Rate {
        Rate { per_second: self.per_second, burst: self.burst }
    }
}

/// Requests of one client address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Segments, where `{name}` stands for any one.
    pub path: String,
    /// Who answers.
    pub service: String,
    /// This path alone, nothing below it.
    #[serde(default)]
    pub exact: bool,
    /// A stream of events: not buffered, and silent for long.
    #[serde(default)]
    pub stream: bool,
    /// A request with an `Idempotency-Key` may be sent twice.
    #[serde(default)]
    pub idempotency_key: bool,
    /// Narrower than the table's limit.
    pub limit: Option<Rate>,
    /// Of the public entry point, and reached by services, too: by the internal one, without the limits of client addresses.
    #[serde(default)]
    pub inside: bool,
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// What is not YAML, not known, or not meant.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let table: Self = serde_norway::from_str(text).map_err(Error::Table)?;
        for routes in [&table.web, &table.internal] {
            for (at, route) in routes.iter().enumerate() {
                route.check()?;
                if let Some(other) = routes.iter().take(at).find(|other| other.takes(&route.path)) {
                    return Err(route.wrong(format!("never taken: {} is before it", other.path)));
                }
            }
        }
        if let Some(route) = table.internal.iter().find(|route| route.inside || route.limit.is_some()) {
            return Err(route.wrong("an internal route is inside, and has no limits"));
        }
        if let Some(name) = table.strip_headers.iter().find(|name| !name.bytes().all(plain_header)) {
            return Err(Error::Place { text: name.clone(), why: "not a header's name" });
        }
        Ok(table)
    }

    /// Lifts what holds for each client address: for load from one machine.
    pub fn without_client_limits(&mut self) {
        self.limits.client = None;
        for route in &mut self.web {
            route.limit = None;
        }
    }

    /// The route that a path of the public entry point takes.
    pub fn web_route(&self, path: &str) -> Option<&Route> {
        self.web.iter().find(|route| route.takes(path))
    }

    /// The route that a path of the internal entry point takes: one of services, or a public one that they use.
    pub fn internal_route(&self, path: &str) -> Option<&Route> {
        self.internal.iter().chain(self.inside()).find(|route| route.takes(path))
    }

    /// The public routes that services use, too.
    pub fn inside(&self) -> impl Iterator<Item = &Route> {
        self.web.iter().filter(|route| route.inside)
    }
}

impl Route {
    /// Whether a path takes this route. The path is taken as it is: an edge refuses what has several spellings.
    pub fn takes(&self, path: &str) -> bool {
        let mut given = path.split('/');
        for wanted in self.path.split('/') {
            match given.next() {
                Some(segment) if wanted == segment || (is_placeholder(wanted) && !segment.is_empty()) => {}
                _ => return false,
            }
        }
        !self.exact || given.next().is_none()
    }

    /// Whether any segment stands for others.
    pub fn is_template(&self) -> bool {
        self.path.split('/').any(is_placeholder)
    }

    /// A regular expression for the whole path, in the syntax that PCRE and Go share.
    pub fn regex(&self) -> String {
        let segments: Vec<String> = self
            .path
            .split('/')
            .map(|segment| if is_placeholder(segment) { "[^/]+".to_owned() } else { segment.replace('.', "[.]") })
            .collect();
        format!("^{}{}$", segments.join("/"), if self.exact { "" } else { "(/.*)?" })
    }

    /// A name for it that every configuration language takes.
    pub fn name(&self) -> String {
        if self.path == ROOT {
            return "root".to_owned();
        }
        let clean: String =
            self.path.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        clean.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
    }

    fn check(&self) -> Result<(), Error> {
        let Some(below) = self.path.strip_prefix('/') else {
            return Err(self.wrong("paths begin with /"));
        };
        // Everything is below it: it can only be meant alone.
        if self.path == ROOT && !self.exact {
            return Err(self.wrong("the first page alone: exact"));
        }
        for segment in below.split('/').filter(|_| self.path != ROOT) {
            let name = if is_placeholder(segment) { segment.trim_matches(['{', '}']) } else { segment };
            if name.is_empty() || name == "." || name == ".." || !name.bytes().all(plain) {
                return Err(self.wrong("segments are letters, digits, `.`, `-`, `_`, or one `{name}`"));
            }
        }
        if self.service.is_empty() || !self.service.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            return Err(self.wrong("services are lower case"));
        }
        if self.stream && self.idempotency_key {
            return Err(self.wrong("a stream is only read"));
        }
        Ok(())
    }

    fn wrong(&self, why: impl Into<String>) -> Error {
        Error::Route { path: self.path.clone(), why: why.into() }
    }
}

fn is_placeholder(segment: &str) -> bool {
    segment.len() > 2 && segment.starts_with('{') && segment.ends_with('}')
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

fn plain_header(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}
