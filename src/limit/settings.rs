//! What the configuration says of rate limits.

use std::time::Duration;

use ipnet::IpNet;

/// A rate with a burst, as `{ rate = "100/s", burst = 200 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a `window`, 1 or more.
    pub count: u32,
    /// The window, not zero.
    pub window: Duration,
    /// Requests at once, 1 or more.
    pub burst: u32,
}

/// The checked section `[rate_limit]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpLimitSettings {
    /// What one client address may do.
    pub per_ip: Quota,
    /// How many failed verifications of tokens one client address may cause.
    pub bad_tokens: Quota,
    /// How long a client waits for a refusal beyond that; zero for not at all.
    pub bad_tokens_wait: Duration,
    /// Networks that `per_ip` and limits of routes by client address skip.
    pub exempt: Vec<IpNet>,
    /// IPv6 addresses with this many leading bits in common share a budget: 32 to 128.
    pub ipv6_prefix: u8,
    /// The most addresses remembered.
    pub max_keys: usize,
}

/// What a limit of a route counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKey {
    /// Each client address, or each network of an IPv6 client.
    Ip,
    /// All requests together.
    Route,
    /// Each identity, by issuer and subject; each client address where there is none.
    User,
}

/// One of a route's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteLimitSettings {
    /// What it counts for.
    pub key: LimitKey,
    /// What one of them may do.
    pub quota: Quota,
}
