//! What the configuration says of a backend.

use std::{sync::Arc, time::Duration};

/// A checked `[[upstream]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// Where it listens.
    pub server: ServerAddress,
    /// To an open connection, name look-up included.
    pub connect_timeout: Duration,
    /// From the request's last byte to the first byte of the answer.
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Open connections, over all workers.
    pub max_connections: usize,
    /// Requests that wait for one of those connections, over all workers.
    pub max_pending: usize,
    /// Which `Host` it is told.
    pub host: HostPolicy,
}

/// The address in an upstream's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Host name or address, IPv6 without brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// Path that goes before every request's, without trailing slash; mostly empty.
    pub base_path: Box<str>,
}

/// Which `Host` an upstream is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostPolicy {
    /// The client's.
    #[default]
    Client,
    /// This one.
    Fixed(Box<str>),
    /// The one in the upstream's URL.
    Upstream,
}

impl ServerAddress {
    /// Host and port as in a URL, without port 80.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.to_string()
        };
        if self.port == 80 {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}
