//! What `portcullis check` tells of routes: who may do what on each of them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    config::{Config, show_duration, show_size},
    limit::settings::{LimitKey, Quota, RouteLimitSettings},
    policy::{Access, HostPattern, PathPattern, Route, Target},
};

pub(super) const COLUMNS: [&str; 9] = [
    "ROUTE", "HOSTS", "PATH", "METHODS", "ACCESS", "REQUIRES", "UPSTREAM", "MAX BODY", "TIMEOUT",
];

/// What a route does, in words, in the order of [`COLUMNS`].
pub(super) fn rows(config: &Config) -> Vec<[String; 9]> {
    let row = |route: &Arc<Route>| {
        [
            route.name.to_string(),
            listed(route.hosts.iter().map(host), "any"),
            path(&route.path),
            listed(route.methods.iter().map(ToString::to_string), "any"),
            enforced(route),
            listed(
                requirements(route).into_iter().chain(limits(route, config)),
                "-",
            ),
            told(route, config),
            show_size(route.max_body),
            show_duration(route.timeout),
        ]
    };
    config.routes.iter().map(row).collect()
}

/// The same for programs.
pub(super) fn as_json(route: &Route, config: &Config) -> Value {
    let methods = route.methods.iter().map(ToString::to_string);
    let rule = &route.rule;
    let networks =
        |list: &[ipnet::IpNet]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
    let claims: serde_json::Map<String, Value> = rule
        .claims
        .iter()
        .map(|(name, values)| (name.to_string(), values.clone().into()))
        .collect();
    json!({
        "name": &*route.name,
        "hosts": route.hosts.iter().map(host).collect::<Vec<_>>(),
        "path": match &route.path { PathPattern::Exact(path) => Some(path), PathPattern::Prefix(_) => None },
        "path_prefix": match &route.path { PathPattern::Prefix(path) => Some(path), PathPattern::Exact(_) => None },
        "methods": methods.collect::<Vec<_>>(),
        "access": access(route.access),
        "enforce": route.enforce,
        "strict": route.strict,
        "require": {
            "roles": rule.roles, "scopes": rule.scopes, "claims": claims, "issuers": rule.issuers, "audiences": rule.audiences,
        },
        "allow_ips": networks(&route.addresses.allow),
        "deny_ips": networks(&route.addresses.deny),
        "rate_limit": limits_json(route, config),
        "upstream": upstream(route, config),
        "strip_prefix": route.strip_prefix,
        "max_body": route.max_body,
        "timeout_ms": u64::try_from(route.timeout.as_millis()).unwrap_or(u64::MAX),
    })
}

fn host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Wildcard(name) => format!("*.{name}"),
    }
}

/// An exact path as it is, a prefix with a star for what lies below it.
fn path(path: &PathPattern) -> String {
    match path {
        PathPattern::Exact(path) => path.to_string(),
        PathPattern::Prefix(path) => format!("{}/*", path.trim_end_matches('/')),
    }
}

/// The access, whether it is more than told, and whether it holds when revocations cannot be learned of.
fn enforced(route: &Route) -> String {
    let access = access(route.access);
    let enforced = if route.enforce { "" } else { ", not enforced" };
    let strict = if route.strict { ", strict" } else { "" };
    format!("{access}{enforced}{strict}")
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Authenticated => "authenticated",
        Access::Optional => "optional",
        Access::Public => "public",
    }
}

fn requirements(route: &Route) -> Vec<String> {
    let (rule, addresses) = (&route.rule, &route.addresses);
    let mut parts = Vec::new();
    let any = |what: &str, list: &[Box<str>]| {
        (!list.is_empty()).then(|| format!("{what} {}", list.join("|")))
    };
    parts.extend(any("role", &rule.roles));
    parts.extend(rule.scopes.iter().map(|scope| format!("scope {scope}")));
    for (name, values) in &rule.claims {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        parts.push(format!("{name}={}", values.join("|")));
    }
    parts.extend(any("issuer", &rule.issuers));
    parts.extend(any("audience", &rule.audiences));
    for (what, networks) in [("from", &addresses.allow), ("not from", &addresses.deny)] {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        if !networks.is_empty() {
            parts.push(format!("{what} {}", networks.join("|")));
        }
    }
    parts
}

fn limits_of<'c>(route: &Route, config: &'c Config) -> &'c [RouteLimitSettings] {
    let limits = config.route_limits.get(&route.name);
    limits.map_or(&[], Vec::as_slice)
}

fn limits(route: &Route, config: &Config) -> Vec<String> {
    let limits = limits_of(route, config).iter();
    let shown = limits.map(|RouteLimitSettings { key, quota }| {
        format!("at most {} by {}", rate(quota), limit_key(*key))
    });
    shown.collect()
}

fn limits_json(route: &Route, config: &Config) -> Vec<Value> {
    let limits = limits_of(route, config).iter();
    let shown = limits.map(|RouteLimitSettings { key, quota }| {
        json!({ "key": limit_key(*key), "rate": rate(quota), "burst": quota.burst })
    });
    shown.collect()
}

fn rate(quota: &Quota) -> String {
    format!("{}/{}", quota.count, show_duration(quota.window))
}

fn limit_key(key: LimitKey) -> &'static str {
    match key {
        LimitKey::Ip => "ip",
        LimitKey::Route => "route",
        LimitKey::User => "user",
    }
}

/// The upstream, and what it is not told of the path.
fn told(route: &Route, config: &Config) -> String {
    let name = upstream(route, config);
    match &route.strip_prefix {
        Some(prefix) => format!("{name} without {prefix}"),
        None => name.to_owned(),
    }
}

fn upstream<'c>(route: &Route, config: &'c Config) -> &'c str {
    match route.target {
        Target::Accounts => "(accounts)",
        Target::AssertionKeys => "(assertion keys)",
        Target::Elsewhere => "(another proxy)",
        Target::ForwardAuth => "(forward_auth)",
        Target::Upstream(id) => config
            .upstreams
            .get(id.0)
            .map_or("?", |upstream| &upstream.name),
    }
}

fn listed(texts: impl Iterator<Item = String>, none: &str) -> String {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() {
        none.to_owned()
    } else {
        texts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::check::table,
        config::{parse, starter},
    };
    use std::path::Path;

    fn config(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        parse(text, Path::new("gateway.toml"), folder.path()).unwrap()
    }

    #[test]
    fn every_part_of_a_policy_is_in_the_table() {
        let require = "require = { roles = [\"clerk\", \"admin\"], scopes = [\"r\", \"w\"], claims = { tenant = [\"a\", 1] }, \
                       issuers = [\"portcullis\"], audiences = [\"x\"] }";
        let text = starter("http://127.0.0.1:9000")
            .replace("#require = { roles = [\"staff\"] }", require)
            .replace(
                "path_prefix = \"/\"",
                "path_prefix = \"/app/\"\nhosts = [\"a.com\", \"*.b.com\"]\nmethods = [\"GET\"]\nstrip_prefix = \"/app\"\n\
                 rate_limit = [{ key = \"user\", rate = \"20/s\" }, { key = \"route\", rate = \"9/15m\", burst = 30 }]\n\
                 allow_ips = [\"10.0.0.0/8\", \"192.0.2.7\"]\ndeny_ips = [\"10.66.0.0/16\"]",
            );
        let config = config(&text);
        let rows = rows(&config);
        let limits = as_json(config.routes.first().unwrap(), &config)["rate_limit"].clone();
        let want = json!([{ "key": "user", "rate": "20/1s", "burst": 20 }, { "key": "route", "rate": "9/15m", "burst": 30 }]);
        assert_eq!(limits, want);
        let want = [
            "app",
            "a.com, *.b.com",
            "/app/*",
            "GET",
            "authenticated",
            "role clerk|admin, scope r, scope w, tenant=\"a\"|1, issuer portcullis, audience x, \
             from 10.0.0.0/8|192.0.2.7/32, not from 10.66.0.0/16, at most 20/1s by user, at most 9/15m by route",
            "app without /app",
            "10MiB",
            "5m",
        ];
        assert_eq!(rows, [want.map(str::to_owned)]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = table(COLUMNS, &rows(&config(&starter("http://127.0.0.1:9000"))));
        let want = "\
ROUTE  HOSTS  PATH  METHODS  ACCESS         REQUIRES  UPSTREAM  MAX BODY  TIMEOUT
app    any    /*    any      authenticated  -         app       10MiB     5m";
        assert_eq!(text, want);
    }
}
