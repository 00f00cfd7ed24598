//! Where the edge listens, and where each service's replicas are.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

use crate::Error;

/// A machine's or container's address: host and port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Place(String);

impl Place {
    /// Whether a name has to be looked up.
    pub fn is_name(&self) -> bool {
        let host = self.0.rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
    }
}

impl FromStr for Place {
    type Err = Error;

    /// `host:port`, and nothing that a configuration language could take for anything else.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Place { text: text.to_owned(), why };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("want host:port"))?;
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b)) {
            return Err(wrong("not a host's name or address"));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Self(text.to_owned())),
            _ => Err(wrong("not a port")),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One process of a service.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(from = "Pair")]
pub struct Replica {
    /// Its listener for customers.
    pub public: Place,
    /// Its listener for services.
    pub internal: Option<Place>,
}

/// `[public]` or `[public, internal]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Both(Place, Place),
    Public((Place,)),
}

impl From<Pair> for Replica {
    fn from(pair: Pair) -> Self {
        match pair {
            Pair::Both(public, internal) => Self { public, internal: Some(internal) },
            Pair::Public((public,)) => Self { public, internal: None },
        }
    }
}

/// Which services run where.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Replicas(BTreeMap<String, Vec<Replica>>);

impl Replicas {
    /// Reads a list, YAML or JSON: `service: [[public, internal], …]`.
    ///
    /// # Errors
    /// What is not one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        serde_norway::from_str(text).map_err(Error::Replicas)
    }

    /// Adds one from a command line: `service=public/internal`, or `service=public`.
    ///
    /// # Errors
    /// What is not that.
    pub fn add(&mut self, text: &str) -> Result<(), Error> {
        let wrong = |why| Error::Place { text: text.to_owned(), why };
        let (service, places) = text.split_once('=').ok_or_else(|| wrong("want service=public/internal"))?;
        if service.is_empty() || !service.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            return Err(wrong("services are lower case"));
        }
        let (public, internal) = match places.split_once('/') {
            Some((public, internal)) => (public.parse()?, Some(internal.parse()?)),
            None => (places.parse()?, None),
        };
        self.0.entry(service.to_owned()).or_default().push(Replica { public, internal });
        Ok(())
    }

    /// The replicas of a service.
    pub fn of(&self, service: &str) -> &[Replica] {
        self.0.get(service).map_or(&[], Vec::as_slice)
    }

    /// Whether any address is a name that has to be looked up.
    pub fn have_names(&self) -> bool {
        let places = self.0.values().flatten().flat_map(|r| std::iter::once(&r.public).chain(&r.internal));
        places.into_iter().any(Place::is_name)
    }
}

/// Where the edge listens, and what is behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// For customers.
    pub web: String,
    /// For services.
    pub internal: String,
    /// For operators: the edge's own page.
    pub dashboard: String,
    /// The services.
    pub replicas: Replicas,
}

impl Layout {
    /// Inside `deploy/compose.yaml`'s network, where every container has all ports to itself.
    pub fn compose(replicas: Replicas) -> Self {
        Self { web: ":8000".to_owned(), internal: ":9000".to_owned(), dashboard: ":8080".to_owned(), replicas }
    }
}
