//! What the configuration says of issuers and of the cache of verified tokens.

use std::{sync::Arc, time::Duration};

use http::Uri;
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{keys::LiveKeys, remote::Introspector};

/// The name of the built-in issuer in rules, logs and metrics, which no entry may take.
pub const BUILT_IN: &str = "portcullis";

/// A checked `[[issuer]]`.
#[derive(Debug, Clone, PartialEq)]
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
    /// None: its tokens are opaque, and it is asked about each.
    /// [`RemoteKeys`](super::remote::RemoteKeys) makes it one that can be asked; as it is, nobody is.
    Introspection(Arc<IntrospectionSettings>),
    /// None: its tokens are opaque, and this asks.
    Introspected(Arc<Introspector>),
}

/// Tokens that their issuer alone can explain, and how it is asked (RFC 7662).
#[derive(PartialEq, Eq)]
pub struct IntrospectionSettings {
    /// Where it is asked: the configuration's, never a token's (KEY-3).
    pub url: Uri,
    /// Our name there.
    pub client_id: Box<str>,
    /// Our secret there.
    pub client_secret: Zeroizing<Vec<u8>>,
    /// What its tokens begin with; empty for anything.
    pub token_prefix: Box<str>,
    /// How an exchange is made.
    pub fetch: FetchSettings,
    /// How long a request waits for the answer about its token.
    pub wait: Duration,
    /// The longest pause after failures in a row, in which nobody is asked.
    pub cooldown: Duration,
    /// How many questions may be under way at once, 1 or more; beyond them tokens are refused for the moment.
    pub max_concurrent: usize,
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

/// Equal where they hold the same; keys that are live are the same where they are one.
impl PartialEq for KeySource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Jwks(one), Self::Jwks(two)) | (Self::PublicKey(one), Self::PublicKey(two)) => {
                one == two
            }
            (Self::Secret(one), Self::Secret(two)) => one == two,
            (Self::Live(one), Self::Live(two)) => Arc::ptr_eq(one, two),
            (Self::Remote(one), Self::Remote(two)) => one == two,
            (Self::Introspection(one), Self::Introspection(two)) => one == two,
            (Self::Introspected(one), Self::Introspected(two)) => Arc::ptr_eq(one, two),
            (
                Self::Jwks(_)
                | Self::PublicKey(_)
                | Self::Secret(_)
                | Self::Live(_)
                | Self::Remote(_)
                | Self::Introspection(_)
                | Self::Introspected(_),
                _,
            ) => false,
        }
    }
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jwks(_) => "Jwks(..)",
            Self::PublicKey(_) => "PublicKey(..)",
            Self::Secret(_) => "Secret([redacted])",
            Self::Live(_) => "Live(..)",
            Self::Remote(settings) => return write!(f, "Remote({settings:?})"),
            Self::Introspection(settings) => return settings.fmt(f),
            Self::Introspected(_) => "Introspected(..)",
        })
    }
}

impl std::fmt::Debug for IntrospectionSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IntrospectionSettings")
            .field("url", &self.url)
            .field("client_id", &self.client_id)
            .field("token_prefix", &self.token_prefix)
            .field("fetch", &self.fetch)
            .finish_non_exhaustive()
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
