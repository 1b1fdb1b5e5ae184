//! What the configuration says of the cluster.

use std::{fmt, path::PathBuf};

use zeroize::Zeroizing;

/// The checked section `[cluster]`.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// A host name, which its certificate must bear where TLS is on, or an address.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// Whether the connection is TLS from its first byte.
    pub tls: bool,
    /// The number of the database.
    pub database: u32,
    /// The user, and their password; without a user it is the one of `default`.
    pub login: Option<(Option<Box<str>>, Zeroizing<String>)>,
    /// The file of the roots that its certificate must lead to; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// What all nodes of the cluster have in common: the public URL. Clusters of other sites in one server are apart by it.
    pub site: Box<str>,
}

impl fmt::Debug for ClusterSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
