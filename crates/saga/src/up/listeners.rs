//! The three listeners, and what to do when an address cannot be had.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thiserror::Error;
use tokio::net::TcpListener;

use crate::config::Config;

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("{what} cannot listen on {address}: {}", .advice)]
pub(super) struct ListenError {
    what: &'static str,
    address: SocketAddr,
    advice: String,
    #[source]
    source: std::io::Error,
}

/// Where a shop is reached.
pub(crate) struct Listeners {
    /// Customers.
    pub(crate) public: TcpListener,
    /// Services.
    pub(crate) internal: TcpListener,
    /// Operators.
    pub(crate) admin: TcpListener,
}

impl Listeners {
    /// Binds all three, or none.
    ///
    /// # Errors
    /// The first that is taken or not allowed, and what to do about it.
    pub(crate) async fn bind(config: &Config) -> Result<Self, ListenError> {
        let public = bind("the shop", "--listen", config.listen).await?;
        // Where nothing was said: the ports after the first (any, if that took any), and never reachable from outside.
        let beside = |offset: u16| {
            let port = if config.listen.port() == 0 { 0 } else { config.listen.port().saturating_add(offset) };
            let ip = Some(config.listen.ip()).filter(IpAddr::is_loopback).unwrap_or(Ipv4Addr::LOCALHOST.into());
            SocketAddr::new(ip, port)
        };
        let internal = config.internal_listen.unwrap_or_else(|| beside(1));
        let admin = config.admin_listen.unwrap_or_else(|| beside(2));
        Ok(Self {
            public,
            internal: bind("the internal gRPC", "--internal-listen", internal).await?,
            admin: bind("the admin API", "--admin-listen", admin).await?,
        })
    }
}

async fn bind(what: &'static str, flag: &str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| {
        let port = address.port();
        let advice = match source.kind() {
            ErrorKind::AddrInUse => format!(
                "the port is taken by another program (`ss -ltnp sport = :{port}` shows which); stop that one, or choose another address with {flag}"
            ),
            ErrorKind::PermissionDenied => format!("{source}; choose a port above 1023 with {flag}"),
            ErrorKind::AddrNotAvailable => format!("this machine does not have that address; choose another with {flag}"),
            _ => source.to_string(),
        };
        ListenError { what, address, advice, source }
    })
}
