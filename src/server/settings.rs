//! What the listeners and connections are told by the configuration.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use url::Url;

use crate::{
    limit::settings::Quota,
    policy::{TlsPolicies, TlsPolicyId, TrustedProxies, head::HeadLimits},
};

/// The checked section `[server]`.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// TLS listeners; at least one.
    pub listen: Vec<SocketAddr>,
    /// Listeners without TLS, which send browsers to `public_url`; none of `listen`.
    pub redirect_listen: Vec<SocketAddr>,
    /// The admin listener: health and metrics. Loopback unless the operator says otherwise.
    pub admin_listen: SocketAddr,
    /// What clients call the gateway: issuer of its tokens. `https`, with neither path, query nor fragment.
    pub public_url: Url,
    /// Worker threads, 1 or more; the configuration's 0 is resolved to the number of cores.
    pub workers: usize,
    /// Whose forwarding fields are believed, and which ones.
    pub trusted_proxies: TrustedProxies,
    /// Whether every TLS connection begins with a PROXY header, of a trusted proxy; then that list is not empty.
    pub proxy_protocol: bool,
    /// Open client connections, over all workers.
    pub max_connections: usize,
    /// Open client connections of one address (IPv6: one /64).
    pub max_connections_per_ip: usize,
    /// The wait between going un-ready and closing the listeners.
    pub drain_delay: Duration,
    /// How long open exchanges may go on after that.
    pub drain_timeout: Duration,
    /// The Unix socket over which another gateway may take this one's place; `None`: none may.
    pub takeover_socket: Option<PathBuf>,
    /// Deadlines of a connection's phases.
    pub timeouts: Timeouts,
    /// Sizes of a request's head.
    pub head: HeadLimits,
    /// The largest request body in bytes, where a route has none of its own.
    pub body_bytes: u64,
    /// Concurrent HTTP/2 streams of one connection.
    pub h2_streams: u32,
    /// What one HTTP/2 connection may send of control frames: pings, settings, window updates and the like.
    pub h2_control_frames: Quota,
    /// The most memory that the process may use, in bytes, beside what its control groups say; `None`: they alone.
    pub memory_limit: Option<u64>,
    /// The least that a client must send of a body, in bytes a second, while the gateway waits for it.
    pub body_rate: u64,
}

/// Deadlines of a client connection. None may be zero.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a head to its end.
    pub header: Duration,
    /// Without a byte of a body, in either direction.
    pub body_idle: Duration,
    /// Without a request.
    pub keep_alive: Duration,
    /// How old a connection may become before it is asked to end.
    pub max_age: Duration,
}

/// The checked section `[tls]`.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// Certificate chains and keys, at least one; the first serves clients that name no known host.
    pub certificates: Vec<CertificateFiles>,
    /// Whether a missing pair is made, self-signed; only for loopback names.
    pub development: bool,
    /// The lowest protocol version.
    pub min_version: TlsVersion,
    /// Which host asks for which client certificates, by the names in the certificates when they were read.
    pub policies: TlsPolicies,
}

/// Whether clients show a certificate of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// One that is shown must be good.
    Optional,
    /// Without a good one there is no connection.
    Required,
}

/// What connections under a server certificate ask of clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ClientRule {
    /// Whether they show a certificate.
    pub auth: ClientAuth,
    /// The authorities that are believed, as PEM; there unless `auth` is [`ClientAuth::None`].
    pub ca: Option<PathBuf>,
}

impl ClientRule {
    /// The rule's id, for connections to be told apart by.
    #[must_use]
    pub fn id(&self) -> TlsPolicyId {
        if self.auth == ClientAuth::None {
            return TlsPolicyId::default();
        }
        // Its keys are fixed: the same rule has the same id after a reload.
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        TlsPolicyId(hasher.finish().max(1))
    }
}

/// Where a certificate chain and its key are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// What is asked of clients that come for its names.
    pub clients: ClientRule,
}

/// A TLS protocol version that may be the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// TLS 1.2, with forward-secret AEAD suites only.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}
