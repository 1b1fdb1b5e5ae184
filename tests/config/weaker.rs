//! In what one configuration is weaker than another.

use std::time::Duration;

use portcullis::{
    accounts::settings::AccountSettings,
    authn::settings::KeySource,
    config::Config,
    limit::settings::{LimitKey, Quota},
    policy::{Access, Route, Routes, Rule},
    server::settings::ServerSettings,
};

/// An open door, a requirement lost, a limit grown, more trust: each in words.
pub(crate) fn weaker(before: &Config, after: &Config) -> Vec<String> {
    let mut found = Vec::new();
    open_doors(before, after, &mut found);
    let old = limits(before);
    for (what, after) in limits(after) {
        // What was not there before has no limit to keep.
        let before = old.iter().find(|(other, _)| *other == what);
        if let Some((_, before)) = before.filter(|(_, before)| after > *before) {
            found.push(format!("{what} grew from {before} to {after}"));
        }
    }
    trust(before, after, &mut found);
    found
}

fn trust(before: &Config, after: &Config, found: &mut Vec<String>) {
    for (before, after) in before.issuers.iter().zip(&after.issuers) {
        let audience = !after.audience.is_empty() && subset(&after.audience, &before.audience);
        let known = |one| before.algorithms.contains(one);
        for (what, kept) in [
            ("audience", audience),
            (
                "token_types",
                subset(&after.token_types, &before.token_types),
            ),
            ("algorithms", after.algorithms.iter().all(known)),
        ] {
            if !kept {
                found.push(format!("{what} of {}", after.name));
            }
        }
    }
    let proxies = |config: &Config| format!("{:?}", config.server.trusted_proxies);
    let nobody = proxies(after) == "TrustedProxies([])";
    let exempt = |one| before.limit.exempt.contains(one);
    let flags = [
        (
            "trusted_proxies",
            proxies(after) != proxies(before) && !nobody,
        ),
        (
            "proxy_protocol",
            after.server.proxy_protocol && !before.server.proxy_protocol,
        ),
        ("exempt", !after.limit.exempt.iter().all(exempt)),
        (
            "pass_token",
            after.identity.pass_token && !before.identity.pass_token,
        ),
        ("upstream.tls", unverified(after) > unverified(before)),
        ("store without TLS", exposed(after) && !exposed(before)),
        (
            "development",
            after.tls.development && !before.tls.development,
        ),
        ("client_auth", asks_fewer_clients(before, after)),
        (
            "min_version",
            after.tls.min_version != before.tls.min_version,
        ),
        ("access log", before.log.access && !after.log.access),
        ("issuers", after.issuers.len() > before.issuers.len()),
        (
            "accounts",
            after.accounts.is_some() && before.accounts.is_none(),
        ),
    ];
    let raised = flags.iter().filter(|flag| flag.1);
    found.extend(raised.map(|flag| flag.0.to_owned()));
}

/// Whether some certificate's clients are asked for less than before, or believed by another authority.
fn asks_fewer_clients(before: &Config, after: &Config) -> bool {
    let pairs = before.tls.certificates.iter().zip(&after.tls.certificates);
    pairs
        .map(|(before, after)| (&before.clients, &after.clients))
        .any(|(before, after)| {
            after.auth < before.auth || (before.ca.is_some() && after.ca != before.ca)
        })
}

/// Upstreams whose certificates are not looked at.
fn unverified(config: &Config) -> usize {
    let upstreams = config.upstreams.iter();
    let unverified = upstreams.filter(|upstream| upstream.tls.danger_accept_any_certificate);
    unverified.count()
}

/// Whether the account store is spoken to in a way that others can read.
fn exposed(config: &Config) -> bool {
    let shared = config.accounts.as_ref();
    let shared = shared.and_then(|accounts| accounts.postgres.as_ref());
    shared.is_some_and(|store| store.is_exposed())
}

/// Everything of which more is weaker; where less is weaker, with its sign turned.
fn limits(config: &Config) -> Vec<(String, i128)> {
    let limit = &config.limit;
    let mut limits = server_limits(&config.server);
    limits.extend([
        ("max_bytes", number(config.token_cache.max_bytes)),
        ("max_ttl", millis(config.token_cache.max_ttl)),
        ("per_ip", per_hour(&limit.per_ip)),
        ("burst", number(limit.per_ip.burst)),
        ("bad_tokens", per_hour(&limit.bad_tokens)),
        ("bad_tokens.burst", number(limit.bad_tokens.burst)),
        ("ipv6_prefix", number(limit.ipv6_prefix)),
        ("max_keys", number(limit.max_keys)),
    ]);
    limits.extend(config.accounts.iter().flat_map(account_limits));
    let mut limits: Vec<(String, i128)> = limits
        .into_iter()
        .map(|(what, value)| (what.to_owned(), value))
        .collect();
    let mut named = |kind: &str, name: &str, what: &str, value| {
        limits.push((format!("{kind} {name} {what}"), value));
    };
    for issuer in &config.issuers {
        named("issuer", &issuer.name, "leeway", millis(issuer.leeway));
        for (what, value) in fetch_limits(&issuer.keys) {
            named("issuer", &issuer.name, what, value);
        }
    }
    for upstream in &config.upstreams {
        let name = &upstream.name;
        for (what, value) in [
            ("h2_streams", number(upstream.h2_streams)),
            ("max_connections", number(upstream.max_connections)),
            ("max_pending", number(upstream.max_pending)),
        ] {
            named("upstream", name, what, value);
        }
        let retry = upstream
            .retry
            .map(|retry| (retry.attempts, retry.thousandths));
        let (attempts, thousandths) = retry.unwrap_or_default();
        named("upstream", name, "retry.attempts", number(attempts));
        named("upstream", name, "retry.budget", number(thousandths));
        named(
            "upstream",
            name,
            "response_timeout",
            millis(upstream.response_timeout),
        );
    }
    limits.extend(config.routes.iter().flat_map(|route| route_limits(route)));
    let limited = config.routes.iter();
    limits.extend(limited.flat_map(|route| rate_limits(config, route)));
    limits
}

fn fetch_limits(keys: &KeySource) -> Vec<(&'static str, i128)> {
    if let KeySource::Introspection(asked) = keys {
        return vec![
            ("timeout", millis(asked.fetch.timeout)),
            ("wait", millis(asked.wait)),
            ("max_concurrent", number(asked.max_concurrent)),
            ("networks", number(asked.fetch.networks.len())),
        ];
    }
    let KeySource::Remote(remote) = keys else {
        return Vec::new();
    };
    vec![
        ("timeout", millis(remote.fetch.timeout)),
        ("wait", millis(remote.wait)),
        ("cooldown", -millis(remote.cooldown)),
        ("refresh_max", millis(remote.refresh_max)),
        ("max_stale", millis(remote.max_stale)),
        ("hosts", number(remote.hosts.len())),
        ("networks", number(remote.fetch.networks.len())),
    ]
}

fn route_limits(route: &Route) -> Vec<(String, i128)> {
    let streams = &route.streams;
    [
        ("max_body", number(route.max_body)),
        ("timeout", millis(route.timeout)),
        ("websocket", number(streams.websocket)),
        ("trailers", number(streams.trailers)),
        ("idle_timeout", millis(streams.idle_timeout)),
    ]
    .map(|(what, value)| (format!("route {} {what}", route.name), value))
    .into()
}

/// A limit that is not there lets everything pass.
fn rate_limits(config: &Config, route: &Route) -> Vec<(String, i128)> {
    let limits = config.route_limits.get(&route.name);
    let limits = limits.map_or(&[][..], Vec::as_slice);
    let keys = [LimitKey::Ip, LimitKey::Route, LimitKey::User];
    let both = keys.map(|key| {
        let quotas = limits.iter().filter(move |limit| limit.key == key);
        let least = |of: fn(&Quota) -> i128| {
            let all = quotas.clone().map(|limit| of(&limit.quota));
            all.min().unwrap_or(i128::MAX)
        };
        let name = format!("route {} rate_limit {key:?}", route.name);
        [
            (format!("{name} burst"), least(|quota| number(quota.burst))),
            (name, least(per_hour)),
        ]
    });
    both.into_iter().flatten().collect()
}

fn server_limits(server: &ServerSettings) -> Vec<(&'static str, i128)> {
    vec![
        ("max_connections", number(server.max_connections)),
        (
            "max_connections_per_ip",
            number(server.max_connections_per_ip),
        ),
        ("drain_timeout", millis(server.drain_timeout)),
        ("handshake", millis(server.timeouts.handshake)),
        ("header", millis(server.timeouts.header)),
        ("body_idle", millis(server.timeouts.body_idle)),
        ("keep_alive", millis(server.timeouts.keep_alive)),
        ("header_bytes", number(server.head.header_bytes)),
        ("header_count", number(server.head.header_count)),
        ("uri_bytes", number(server.head.uri_bytes)),
        ("body", number(server.body_bytes)),
        (
            "memory_limit",
            number(server.memory_limit.unwrap_or(u64::MAX)),
        ),
        ("max_age", millis(server.timeouts.max_age)),
        ("min_body_rate", -number(server.body_rate)),
        ("h2_control_frames", per_hour(&server.h2_control_frames)),
        ("h2_streams", number(server.h2_streams)),
    ]
}

fn account_limits(accounts: &AccountSettings) -> Vec<(&'static str, i128)> {
    vec![
        ("access_ttl", millis(accounts.access_ttl)),
        ("refresh_idle", millis(accounts.refresh_idle)),
        ("refresh_max", millis(accounts.refresh_max)),
        ("max_lag", millis(accounts.max_lag)),
        ("refresh_grace", millis(accounts.refresh_grace)),
        (
            "refresh_per_session",
            per_hour(&accounts.refresh_per_session),
        ),
        ("login_per_ip", per_hour(&accounts.login_per_ip)),
        ("login_per_account", per_hour(&accounts.login_per_account)),
        ("login_failures", per_hour(&accounts.login_failures)),
        ("accounts.audience", number(accounts.audience.len())),
        ("clients", number(accounts.clients.len())),
        ("password_min", -number(accounts.password_min)),
        ("argon2.memory", -number(accounts.argon2.memory_kib)),
        ("argon2.iterations", -number(accounts.argon2.iterations)),
    ]
}

fn per_hour(quota: &Quota) -> i128 {
    number(quota.count) * 3_600_000 / millis(quota.window)
}

fn millis(duration: Duration) -> i128 {
    number(duration.as_millis())
}

fn number(value: impl TryInto<i128>) -> i128 {
    value.try_into().unwrap_or(i128::MAX)
}

/// Tries every door of both, by the route table itself.
fn open_doors(before: &Config, after: &Config, found: &mut Vec<String>) {
    let table = |config: &Config| Routes::new(config.routes.clone()).unwrap();
    let (old, new) = (table(before), table(after));
    for host in ["localhost", "app.example.com", "other.example"] {
        for path in ["/", "/orders", "/healthz", "/healthz/x", "/auth/login"] {
            for method in ["GET", "HEAD", "POST", "DELETE"] {
                let method = method.parse().unwrap();
                let Ok(new) = new.find(host, path, &method) else {
                    continue;
                };
                let opened = match old.find(host, path, &method) {
                    // What was refused may be asked for credentials now, but not let in without.
                    Err(_) => new.access != Access::Authenticated,
                    Ok(old) => opened(old, new),
                };
                if opened {
                    found.push(format!("{method} {host}{path} is open: {new:?}"));
                }
            }
        }
    }
}

fn opened(old: &Route, new: &Route) -> bool {
    let rank = |access| match access {
        Access::Public => 0,
        Access::Optional => 1,
        Access::Authenticated => 2,
    };
    rank(new.access) < rank(old.access)
        || (old.enforce && !new.enforce)
        || (old.strict && !new.strict)
        || (old.access != Access::Public && lost(&old.rule, &new.rule))
}

fn lost(old: &Rule, new: &Rule) -> bool {
    let any = |old: &[Box<str>], new: &[Box<str>]| {
        !old.is_empty() && (new.is_empty() || !subset(new, old))
    };
    let claim = |(name, values): &(Box<str>, Vec<serde_json::Value>)| {
        let still = new.claims.iter().find(|(other, _)| other == name);
        still.is_some_and(|(_, still)| still.iter().all(|value| values.contains(value)))
    };
    // A claim of another name is asked for instead: whoever had the old one is not let in by that.
    let fewer_claims = new.claims.len() < old.claims.len()
        || (!old.claims.iter().all(claim)
            && new.claims.iter().any(|(_, values)| values.is_empty()));
    any(&old.roles, &new.roles)
        || any(&old.issuers, &new.issuers)
        || any(&old.audiences, &new.audiences)
        || !subset(&old.scopes, &new.scopes)
        || fewer_claims
}

fn subset(part: &[Box<str>], whole: &[Box<str>]) -> bool {
    part.iter().all(|one| whole.contains(one))
}
