//! What the configuration says of a backend.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// A checked `[[upstream]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// Where it listens: one server or more, no two alike.
    pub servers: Vec<ServerAddress>,
    /// Which server a request goes to.
    pub balance: Balance,
    /// When a server with faults gets no requests for a while; `None`: never.
    pub eject: Option<EjectSettings>,
    /// How its servers are asked for their health; `None`: not at all.
    pub health: Option<HealthSettings>,
    /// When a request is sent again; `None`: never.
    pub retry: Option<RetrySettings>,
    /// Which version of HTTP it is spoken to.
    pub protocol: Protocol,
    /// How its `https://` servers prove who they are, and the gateway who it is.
    pub tls: TlsSettings,
    /// How often names of servers are looked up, a tenth more or less.
    pub resolve_every: Duration,
    /// To an open connection, name look-up and TLS handshake included.
    pub connect_timeout: Duration,
    /// From the request's last byte to the first byte of the answer.
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Requests at once on one HTTP/2 connection, 1 or more; fewer where the server takes fewer.
    pub h2_streams: usize,
    /// Open connections to one server, over all workers.
    pub max_connections: usize,
    /// Requests that wait for one of those connections to one server, over all workers.
    pub max_pending: usize,
    /// Which `Host` it is told.
    pub host: HostPolicy,
    /// Whether its interim answers go on to clients.
    pub early_hints: bool,
}

/// Which version of HTTP an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What TLS agrees on (ALPN); HTTP/1.1 without TLS.
    Auto,
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: agreed on by TLS, or without being asked where there is none.
    Http2,
}

/// Which server of several a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The one that the client's address belongs to.
    HashIp,
    /// The one that the identity belongs to; without one, as [`Balance::HashIp`].
    HashUser,
    /// Of two at random, the one with fewer requests under way.
    #[default]
    LeastRequests,
    /// Each in turn.
    RoundRobin,
}

/// Passive ejection: what puts a server out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectSettings {
    /// So many faults, 1 or more,
    pub failures: usize,
    /// within this time,
    pub window: Duration,
    /// put it out for so long.
    pub duration: Duration,
}

/// Active health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSettings {
    /// The path, and query where there is one, below the server's base path.
    pub path: Box<str>,
    /// From one check to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// So many passed in a row bring a server in, 1 or more.
    pub healthy: u32,
    /// So many failed in a row put it out, 1 or more.
    pub unhealthy: u32,
}

/// Which requests are sent again when a connection ends before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// How often one request is sent again at most, 1 or more.
    pub attempts: u32,
    /// Of a thousand requests, how many may be sent again.
    pub thousandths: u32,
}

/// TLS towards the `https://` servers of an upstream. By default chain and name are verified against the roots of the system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// The file of the roots that are believed, in place of the system's.
    pub ca: Option<PathBuf>,
    /// The files of the certificate that the gateway shows, and of its key.
    pub client: Option<ClientFiles>,
    /// The name that the certificate must bear and that SNI tells, in place of the one in the URL.
    pub server_name: Option<Box<str>>,
    /// Whether any certificate will do: then whoever sits in between reads and writes everything.
    pub danger_accept_any_certificate: bool,
    /// The digests of what these files held when they were checked: at a reload, other content makes another upstream.
    pub content: Vec<u8>,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The address in an upstream's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Path that goes before every request's, without trailing slash; mostly empty.
    pub base_path: Box<str>,
}

/// Where a server listens, and what it speaks below HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A port, from an `http://` or `https://` URL.
    Tcp {
        /// Host name or address, IPv6 without brackets.
        host: Box<str>,
        /// Port.
        port: u16,
        /// Whether it is reached by TLS.
        tls: bool,
    },
    /// A Unix socket, from `unix:/path`.
    Unix(Box<Path>),
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
    /// Host and port as in a URL, without the scheme's own port; `localhost` for a Unix socket.
    #[must_use]
    pub fn authority(&self) -> String {
        let (host, port, tls) = match &self.endpoint {
            Endpoint::Tcp { host, port, tls } => (&**host, *port, *tls),
            Endpoint::Unix(_) => return "localhost".to_owned(),
        };
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        match (port, tls) {
            (80, false) | (443, true) => host,
            _ => format!("{host}:{port}"),
        }
    }

    /// Whether it is reached by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp { tls: true, .. })
    }
}

/// What logs and metrics call the server: its authority, after `https://` where it is reached by TLS, or `unix:/path`.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { tls: false, .. } => f.write_str(&self.authority()),
            Endpoint::Tcp { tls: true, .. } => write!(f, "https://{}", self.authority()),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
