//! The edge: one table of routes, two configurations of it.
//!
//! [`Table`] says what customers and services may reach and where it goes; [`Layout`] says where the edge listens and
//! where each service's replicas are. From the two, [`haproxy::config`] writes what HAProxy reads and
//! [`traefik::fixed`] and [`traefik::dynamic`] what Traefik v3 reads, with the same behaviour:
//!
//! - what is not in the table is 404, whatever host, header or spelling of the path asks for it;
//! - a request is sent to a second replica only where the first cannot have seen it, or where twice is once;
//! - a stream may be silent for long, nothing else may.
//!
//! Nothing here opens a socket or starts a program.

pub mod haproxy;
pub mod layout;
pub mod table;
pub mod traefik;

use std::collections::BTreeSet;

use thiserror::Error;

pub use layout::{Layout, Replica, Replicas};
pub use table::{Rate, Route, Table};

/// Why no configuration can be written.
#[derive(Debug, Error)]
pub enum Error {
    /// The table is not YAML, or says something unknown.
    #[error("the route table: {0}")]
    Table(#[source] serde_norway::Error),
    /// The list of replicas is not YAML, or says something unknown.
    #[error("the list of replicas: {0}")]
    Replicas(#[source] serde_norway::Error),
    /// A route that cannot be meant.
    #[error("route {path}: {why}")]
    Route {
        /// Which.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Not `host:port`, or no service's name.
    #[error("{text:?}: {why}")]
    Place {
        /// What was given.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Routes lead to a service that runs nowhere.
    #[error("routes lead to {0}, which has no replica")]
    Nowhere(String),
    /// A route of the internal entry point leads to a service that has no internal listener.
    #[error("{0} has internal routes and a replica without an internal address")]
    NotInternal(String),
    /// A value that could not be written down.
    #[error("writing YAML: {0}")]
    Write(#[source] serde_norway::Error),
}

/// One file for an edge to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Its name, without a folder.
    pub name: &'static str,
    /// What is in it.
    pub text: String,
}

/// All three configurations of a table, in a layout.
///
/// # Errors
/// Routes that lead nowhere.
pub fn generate(table: &Table, layout: &Layout) -> Result<Vec<File>, Error> {
    check(table, layout)?;
    Ok(vec![
        File { name: "haproxy.cfg", text: haproxy::config(table, layout) },
        File { name: "traefik.yaml", text: traefik::fixed(table, layout)? },
        File { name: "dynamic.yaml", text: traefik::dynamic(table, layout)? },
    ])
}

/// Whether every route leads somewhere.
///
/// # Errors
/// The first that does not.
pub fn check(table: &Table, layout: &Layout) -> Result<(), Error> {
    let services: BTreeSet<&str> = table.web.iter().chain(&table.internal).map(|r| r.service.as_str()).collect();
    for service in services {
        if layout.replicas.of(service).is_empty() {
            return Err(Error::Nowhere(service.to_owned()));
        }
    }
    for route in &table.internal {
        if layout.replicas.of(&route.service).iter().any(|replica| replica.internal.is_none()) {
            return Err(Error::NotInternal(route.service.clone()));
        }
    }
    Ok(())
}

/// What generated files begin with, each line of it a comment in both languages.
const HEADER: &str = "\
# Written by the edge crate from deploy/routes.yaml: change that, then `cargo run -p edge -- compose` (for the files in
# deploy/generated), or start deploy/stack again.
";
