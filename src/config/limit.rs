//! The sections `[rate_limit]` and `[token_cache]`, and the limits of routes.

use std::time::Duration;

use super::{
    bounds::Bounds, diagnostic::Fault, network, reader::Table, server::secs, words::Choice::Is,
};
use crate::{
    authn::settings::CacheSettings,
    limit::settings::{IpLimitSettings, LimitKey, Quota, RouteLimitSettings},
    policy::Access,
};

/// What one client address may do where nothing is said.
const PER_IP: Quota = Quota {
    count: 100,
    window: Duration::from_secs(1),
    burst: 200,
};
/// How many failed verifications one client address may cause where nothing is said.
const BAD_TOKENS: Quota = Quota {
    count: 20,
    window: Duration::from_secs(60),
    burst: 50,
};

/// How long somebody waits for a refusal beyond that where nothing is said. A hundred connections that only send bad tokens get a
/// thousand refusals a second then, for a hundredth of a core.
const BAD_TOKENS_WAIT: Duration = Duration::from_millis(100);

/// The most limits of one route.
const ROUTE_LIMITS_MAX: usize = 8;

/// The section `[rate_limit]`.
pub(super) struct RateLimit {
    /// What one client address may do.
    pub(super) per_client: IpLimitSettings,
    /// How many times the budget of one client the account routes give a whole /48 of IPv6.
    pub(super) ipv6_site_factor: u32,
    /// Whether refusals bear `X-RateLimit-*` too.
    pub(super) x_headers: bool,
}

pub(super) fn read(mut table: Table<'_>) -> RateLimit {
    let per_ip = quota(&mut table, "per_ip", PER_IP);
    let bad_tokens = bad_tokens(&mut table);
    let wait = Bounds::new(Duration::ZERO, secs(5))
        .because("a connection and a request that only wait take memory all the while");
    let bad_tokens_wait = table.duration("bad_tokens_wait", wait);
    let exempt: Vec<_> = network::read(&mut table, "exempt")
        .into_iter()
        .flatten()
        .map(|(network, _)| network)
        .collect();
    network::refuse_everything(&table, "exempt", &exempt, "nobody would be limited");
    let prefix =
        Bounds::new(32, 128).because("a shorter one would let a whole provider share one budget");
    let ipv6_prefix = table.number("ipv6_prefix", prefix).unwrap_or(64);
    let factor = Bounds::new(1, 65_536)
        .because("one client is not to have more than its site, which has 65536 networks at most");
    let ipv6_site_factor = table.number("ipv6_site_factor", factor).unwrap_or(4);
    let max_keys = table.number("max_keys", Bounds::new(1000, 100_000_000));
    let x_headers = table.flag("x_headers").unwrap_or(false);
    table.finish();
    let per_client = IpLimitSettings {
        per_ip,
        bad_tokens,
        bad_tokens_wait: bad_tokens_wait.unwrap_or(BAD_TOKENS_WAIT),
        exempt,
        ipv6_prefix,
        max_keys: max_keys.unwrap_or(1_000_000),
    };
    RateLimit {
        per_client,
        ipv6_site_factor,
        x_headers,
    }
}

pub(super) fn read_cache(mut table: Table<'_>) -> CacheSettings {
    let default = CacheSettings::default();
    let max_bytes = table.size("max_bytes", Bounds::new(1 << 20, 1 << 40));
    let ttl = Bounds::new(secs(1), secs(15 * 60))
        .because("a verified token is taken without its signature being checked again for so long");
    let max_ttl = table.duration("max_ttl", ttl);
    table.finish();
    CacheSettings {
        max_bytes: max_bytes.unwrap_or(default.max_bytes),
        max_ttl: max_ttl.unwrap_or(default.max_ttl),
    }
}

/// How many failed verifications; at least one a minute is given back, so that nobody is shut out for longer than that after
/// the last one (RATE-8).
fn bad_tokens(table: &mut Table<'_>) -> Quota {
    let quota = quota(table, "bad_tokens", BAD_TOKENS);
    if quota.window > secs(60).saturating_mul(quota.count) {
        let message = "would shut an address out for more than a minute after its last bad token";
        let hint = "at least one a minute: rate = \"1/1m\", or \"20/1m\"";
        table.fault("bad_tokens", Fault::new(message, hint));
    }
    quota
}

/// The limits of one route.
pub(super) fn read_route(table: &mut Table<'_>, access: Option<Access>) -> Vec<RouteLimitSettings> {
    let tables = table.sections("rate_limit");
    if tables.len() > ROUTE_LIMITS_MAX {
        let message = format!("has {} limits, {ROUTE_LIMITS_MAX} at most", tables.len());
        let hint = "each of them is asked for every request of the route; leave out the wider ones";
        table.fault("rate_limit", Fault::new(message, hint));
    }
    let limits: Vec<_> = tables.into_iter().filter_map(read_one).collect();
    let by_user = limits.iter().any(|limit| limit.key == LimitKey::User);
    if by_user && access == Some(Access::Public) {
        let message = "is for each user, and a public route knows none";
        let hint = "key = \"ip\" or \"route\"; or access = \"optional\"";
        table.fault("rate_limit", Fault::new(message, hint));
    }
    limits
}

fn read_one(mut table: Table<'_>) -> Option<RouteLimitSettings> {
    table.need("key", "whom it is for: \"user\", \"ip\" or \"route\"");
    let key = table.choice(
        "key",
        &[
            ("user", Is(LimitKey::User)),
            ("ip", Is(LimitKey::Ip)),
            ("route", Is(LimitKey::Route)),
        ],
    );
    let quota = read_quota(&mut table);
    table.finish();
    Some(RouteLimitSettings {
        key: key?,
        quota: quota?,
    })
}

/// A rate and a burst, in a table of its own.
fn quota(table: &mut Table<'_>, key: &'static str, default: Quota) -> Quota {
    let mut limit = table.section(key);
    let quota = if limit.is_there() {
        read_quota(&mut limit)
    } else {
        None
    };
    limit.finish();
    quota.unwrap_or(default)
}

/// The rate and the burst of a table; as many at once as the rate says where there is no burst.
fn read_quota(table: &mut Table<'_>) -> Option<Quota> {
    table.need("rate", "how many in which time: rate = \"100/s\"");
    let rate = table.rate("rate");
    let burst = table.number("burst", Bounds::new(1, 10_000_000));
    rate.map(|rate| Quota {
        burst: burst.unwrap_or(rate.count),
        ..rate
    })
}
