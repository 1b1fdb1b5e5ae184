//! What the configuration says of issuers and of the cache of verified tokens.

use std::{sync::Arc, time::Duration};

use http::Uri;
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::keys::LiveKeys;

/// The name of the built-in issuer in rules, logs and metrics, which no entry may take.
pub const BUILT_IN: &str = "portcullis";

/// A checked `[[issuer]]`.
#[derive(Debug, Clone)]
pub struct IssuerSettings {
    /// The name in rules, logs and metrics.
    pub name: Arc<str>,
    /// `iss`, compared byte for byte.
    pub issuer: Arc<str>,
    /// One of these must be in `aud`; never empty.
    pub audience: Vec<Box<str>>,
    /// The algorithms accepted; never empty, never symmetric and asymmetric together.
    pub algorithms: Vec<Algorithm>,
    /// Where the keys come from.
    pub keys: KeySource,
    /// Tolerance for `exp`, `nbf` and `iat`: 0 to 60 s.
    pub leeway: Duration,
    /// Accepted values of `typ`, compared without regard to case and without `application/`; the empty one is absence.
    pub token_types: Vec<Box<str>>,
    /// Which claims say what.
    pub claims: ClaimNames,
}

/// An issuer's keys: their content, read when the configuration was, or where they are.
#[derive(Clone)]
pub enum KeySource {
    /// A JSON Web Key Set (RFC 7517 §5).
    Jwks(Vec<u8>),
    /// A public key as PEM, or a certificate's, or DER.
    PublicKey(Vec<u8>),
    /// A shared secret, at least 32 bytes.
    Secret(Zeroizing<Vec<u8>>),
    /// Keys that change while they are in use.
    Live(Arc<LiveKeys>),
    /// Keys that must be fetched. [`RemoteKeys`](super::remote::RemoteKeys) makes them live; as they are, there are none.
    Remote(Arc<RemoteSettings>),
}

/// Keys to be fetched, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSettings {
    /// Where they are.
    pub place: KeyPlace,
    /// How anything is fetched from this issuer.
    pub fetch: FetchSettings,
    /// Hosts that a discovery document may name for the keys, besides its own.
    pub hosts: Vec<Box<str>>,
    /// The shortest time between two refreshes, whatever the answer says of caching.
    pub refresh_min: Duration,
    /// The longest.
    pub refresh_max: Duration,
    /// The shortest time between two fetches of any cause: a refresh, a failure, an unknown key id (KEY-1).
    pub cooldown: Duration,
    /// How old keys may become without a fetch that succeeds (KEY-2).
    pub max_stale: Duration,
    /// How long a request with an unknown key id waits for the fetch that may bring it.
    pub wait: Duration,
}

/// Where the address of the keys comes from: the configuration, never a token (KEY-3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// The document at this address names it (OpenID Connect Discovery 1.0 §4).
    Discovery(Uri),
    /// It is this.
    Jwks(Uri),
}

/// How something is fetched from an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSettings {
    /// Certificates that are trusted besides the system's.
    pub roots: Vec<CertificateDer<'static>>,
    /// Networks that a name may resolve to although they are loopback or link-local.
    pub networks: Vec<IpNet>,
    /// The most time for one exchange, from the name's resolution to the last byte.
    pub timeout: Duration,
}

/// Which claims say who the caller is. Dots reach into objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// The user, `sub` by default.
    pub user: Box<str>,
    /// The e-mail address, `email` by default.
    pub email: Box<str>,
    /// The display name, `preferred_username` by default.
    pub name: Box<str>,
    /// Roles: a list, or words in a string; `roles` by default.
    pub roles: Box<str>,
    /// Scopes: words in a string, or a list; `scope` by default.
    pub scopes: Box<str>,
}

/// The checked section `[token_cache]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// The most memory that entries take together, in bytes.
    pub max_bytes: u64,
    /// The longest life of an entry; never beyond the token's own.
    pub max_ttl: Duration,
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jwks(_) => "Jwks(..)",
            Self::PublicKey(_) => "PublicKey(..)",
            Self::Secret(_) => "Secret([redacted])",
            Self::Live(_) => "Live(..)",
            Self::Remote(settings) => return write!(f, "Remote({settings:?})"),
        })
    }
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            user: "sub".into(),
            email: "email".into(),
            name: "preferred_username".into(),
            roles: "roles".into(),
            scopes: "scope".into(),
        }
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_ttl: Duration::from_secs(60),
        }
    }
}
