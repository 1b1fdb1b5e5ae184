//! The sections `[rate_limit]` and `[token_cache]`.

use std::time::Duration;

use super::{bounds::Bounds, diagnostic::Fault, network, reader::Table, server::secs};
use crate::{
    authn::settings::CacheSettings,
    limit::settings::{IpLimitSettings, Quota},
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

pub(super) fn read(mut table: Table<'_>) -> IpLimitSettings {
    let per_ip = quota(&mut table, "per_ip", PER_IP);
    let bad_tokens = bad_tokens(&mut table);
    let exempt: Vec<_> = network::read(&mut table, "exempt")
        .into_iter()
        .flatten()
        .map(|(network, _)| network)
        .collect();
    network::refuse_everything(&table, "exempt", &exempt, "nobody would be limited");
    let prefix =
        Bounds::new(32, 128).because("a shorter one would let a whole provider share one budget");
    let ipv6_prefix = table.number("ipv6_prefix", prefix).unwrap_or(64);
    let max_keys = table.number("max_keys", Bounds::new(1000, 100_000_000));
    table.finish();
    IpLimitSettings {
        per_ip,
        bad_tokens,
        exempt,
        ipv6_prefix,
        max_keys: max_keys.unwrap_or(1_000_000),
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

/// A rate and a burst, in a table of its own.
fn quota(table: &mut Table<'_>, key: &'static str, default: Quota) -> Quota {
    let mut limit = table.section(key);
    if limit.is_there() {
        limit.need("rate", "how many in which time: rate = \"100/s\"");
    }
    let rate = limit.rate("rate");
    let burst = limit.number("burst", Bounds::new(1, 10_000_000));
    limit.finish();
    rate.map_or(default, |rate| Quota {
        burst: burst.unwrap_or(rate.count),
        ..rate
    })
}
