//! What the status page asks of the node. Whoever puts the node together answers; nothing here knows the way of a request.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;

use crate::{accounts::KeyInfo, policy::Route, upstream::Condition};

/// A node, seen from outside.
pub trait Observed: fmt::Debug + Send + Sync {
    /// Look-ups of the token cache since it was made: hit, joined, missed. Asked each second.
    fn cache(&self) -> [u64; 3];

    /// What runs. Asked when somebody looks, at most once a second.
    fn facts(&self) -> Facts;

    /// How many sessions of accounts are alive; `None` without accounts, or where the store does not say. Asked once a minute
    /// at most.
    fn sessions(&self) -> BoxFuture<'_, Option<u64>>;
}

/// What runs.
#[derive(Debug, Default)]
pub struct Facts {
    /// The routes, in the order of the table.
    pub routes: Vec<RouteFacts>,
    /// The upstreams, in the order of the configuration.
    pub upstreams: Vec<UpstreamFacts>,
    /// Who issues tokens.
    pub issuers: Vec<IssuerFacts>,
    /// The keys that sign tokens of accounts, the one that signs first.
    pub signing_keys: Vec<KeyInfo>,
    /// The certificates in use: a name, and the end.
    pub certificates: Vec<(String, SystemTime)>,
    /// The memory of the token cache, in bytes.
    pub cache_bytes: u64,
    /// The memory in use and its limit in bytes (0 for none), and the stage by its number.
    pub memory: (u64, u64, u8),
    /// Accounts, where they are on.
    pub accounts: Option<AccountFacts>,
    /// Whether the configuration names a Redis.
    pub redis: bool,
}

/// A route.
#[derive(Debug)]
pub struct RouteFacts {
    /// It.
    pub route: Arc<Route>,
    /// Where its requests go.
    pub target: Arc<str>,
}

/// An upstream.
#[derive(Debug)]
pub struct UpstreamFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Its servers: where each is, and how.
    pub servers: Vec<(String, Condition)>,
}

/// An issuer.
#[derive(Debug)]
pub struct IssuerFacts {
    /// Its name.
    pub name: Arc<str>,
    /// How many of its keys can be used, and how many were left out.
    pub keys: (usize, usize),
    /// Since its keys were read, or last fetched; `None` while it has none.
    pub age: Option<Duration>,
}

/// What there is to say of accounts.
#[derive(Debug)]
pub struct AccountFacts {
    /// What keeps them.
    pub store: &'static str,
    /// Since revocations of other processes were last read to the end; `None` before the first time.
    pub lag: Option<Duration>,
    /// Requests that wait for a password hash.
    pub password_queue: usize,
}
