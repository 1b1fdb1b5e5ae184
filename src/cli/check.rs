//! `portcullis check`: what is wrong with a configuration, and what it means.

mod assertions;
mod cluster;
mod tls;
mod upstreams;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::SystemTime,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{explain, say, tell, tell_report};
use crate::{
    authn::{Authenticator, Revocations},
    config::{Checked, Config, Problem, Report, Severity, inspect, show_duration, show_size},
    limit::settings::{LimitKey, Quota, RouteLimitSettings},
    policy::{Access, HostPattern, PathPattern, Route, Target},
    server::tls::Tls,
    upstream::{SystemRoots, tls_config},
};

/// How to answer.
#[derive(Debug, Args)]
pub struct CheckCommand {
    /// `text` for people; `json` for programs, problems and routes in one object on standard output.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// A TOML file of requests, and of what shall become of each: `[[case]]` with name, method, url, from, token or claims, headers
    /// and expect.
    #[arg(long, value_name = "FILE")]
    tests: Option<PathBuf>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Reads the configuration and prints its problems, or the policy of every route and the warnings. Exit code 1 on any
/// error.
///
/// # Errors
/// Only where the answer could not be written.
pub fn run(command: &CheckCommand, path: &Path) -> anyhow::Result<ExitCode> {
    let checked = inspect(path);
    let unusable = checked
        .as_ref()
        .map_or_else(|_| Vec::new(), |checked| unusable(&checked.config));
    match (command.format, &checked) {
        (Format::Json, checked) => say(&format!("{:#}", as_json(checked.as_ref(), &unusable)))?,
        (Format::Text, Err(report)) => tell_report(report),
        (Format::Text, Ok(Checked { config, warnings })) => {
            if unusable.is_empty() {
                say(&table(COLUMNS, &rows(config)))?;
                let upstreams = upstreams::rows(config);
                if !upstreams.is_empty() {
                    say(&format!("\n{}", table(upstreams::COLUMNS, &upstreams)))?;
                }
                for table in tls::tables(&config.tls, SystemTime::now()) {
                    say(&format!("\n{table}"))?;
                }
                say(&summary(config))?;
            }
            if !warnings.problems().is_empty() {
                tell_report(warnings);
            }
            for fault in &unusable {
                tell(&format!("error: {fault}"));
            }
        }
    }
    let passed = match (&command.tests, &checked) {
        (Some(file), Ok(Checked { config, .. })) if unusable.is_empty() => {
            explain::run_cases(file, config)?
        }
        (Some(_), _) | (None, _) => true,
    };
    Ok(if checked.is_ok() && unusable.is_empty() && passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What `run` would still refuse: keys and certificates that are there and readable, and of no use. The built-in issuer's keys
/// are made at the first start, so they are not looked at.
fn unusable(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let templates = Arc::clone(&config.identity.templates);
    let revocations = Arc::new(Revocations::new());
    if let Err(issuers) =
        Authenticator::new(&config.issuers, &config.token_cache, revocations, templates)
    {
        faults.extend(issuers.iter().map(ToString::to_string));
    }
    let mut settings = config.tls.clone();
    if settings.development {
        // Pairs of which neither file exists are made by `run`.
        let is_there = |path: &Path| path.exists();
        settings
            .certificates
            .retain(|files| is_there(&files.cert) || is_there(&files.key));
    }
    if let Err(fault) = Tls::load(&settings) {
        faults.push(format!("{:#}", anyhow::Error::from(fault)));
    }
    faults.extend(assertions::fault(config));
    let system = SystemRoots::default();
    for settings in &config.upstreams {
        if let Err(fault) = tls_config(settings, &system) {
            let fault = anyhow::Error::from(fault);
            faults.push(format!("upstream \"{}\": {fault:#}", settings.name));
        }
    }
    faults
}

const COLUMNS: [&str; 9] = [
    "ROUTE", "HOSTS", "PATH", "METHODS", "ACCESS", "REQUIRES", "UPSTREAM", "MAX BODY", "TIMEOUT",
];

/// What a route does, in words, in the order of [`COLUMNS`].
fn rows(config: &Config) -> Vec<[String; 9]> {
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

fn table<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> String {
    let header = columns.map(str::to_owned);
    let all = || std::iter::once(&header).chain(rows);
    let mut width = [0; N];
    for row in all() {
        for (width, cell) in width.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(width);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

fn summary(config: &Config) -> String {
    let built_in = config.accounts.as_ref().map_or_else(
        || "no accounts".to_owned(),
        |accounts| format!("accounts under {}", accounts.path),
    );
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    format!(
        "{}{}\ngood: {}, {}, {}, {built_in}",
        assertions::line(config),
        cluster::line(config),
        count(config.routes.len(), "route"),
        count(config.upstreams.len(), "upstream"),
        count(config.issuers.len(), "issuer"),
    )
}

fn as_json(checked: Result<&Checked, &Report>, unusable: &[String]) -> Value {
    let (report, config) = match checked {
        Ok(checked) => (&checked.warnings, Some(&checked.config)),
        Err(report) => (report, None),
    };
    let unplaced = |message: &String| json!({ "severity": "error", "key": "", "message": message, "line": 0, "column": 0, "hint": null });
    let problems = report.problems().iter().map(problem);
    let problems: Vec<Value> = problems.chain(unusable.iter().map(unplaced)).collect();
    let routes: Vec<Value> = config
        .into_iter()
        .flat_map(|config| config.routes.iter().map(|route| route_json(route, config)))
        .collect();
    let upstreams: Vec<Value> = config
        .into_iter()
        .flat_map(|config| config.upstreams.iter().map(upstreams::as_json))
        .collect();
    let tls = config.map(|config| tls::as_json(&config.tls, SystemTime::now()));
    json!({ "ok": config.is_some() && unusable.is_empty(), "problems": problems, "routes": routes, "upstreams": upstreams, "tls": tls,
        "assertion": config.and_then(assertions::as_json) })
}

fn problem(problem: &Problem) -> Value {
    json!({
        "severity": match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "key": problem.key,
        "message": problem.message,
        "line": problem.line,
        "column": problem.column,
        "hint": problem.hint,
    })
}

fn route_json(route: &Route, config: &Config) -> Value {
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
    use crate::config::{parse, starter};

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
        let limits = route_json(config.routes.first().unwrap(), &config)["rate_limit"].clone();
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

    #[test]
    fn json_has_problems_and_routes() {
        let folder = tempfile::tempdir().unwrap();
        let bad = folder.path().join("gateway.toml");
        std::fs::write(&bad, "upsteam = 1").unwrap();
        let json = as_json(inspect(&bad).as_ref(), &[]);
        assert_eq!(json["ok"], false);
        let unknown = &json["problems"].as_array().unwrap().last().unwrap();
        assert_eq!(unknown["key"], "upsteam");
        assert_eq!(
            (&unknown["line"], &unknown["column"]),
            (&json!(1), &json!(1))
        );
        std::fs::write(&bad, starter("http://127.0.0.1:9000")).unwrap();
        let json = as_json(inspect(&bad).as_ref(), &[]);
        assert_eq!(json["ok"], true);
        assert_eq!(json["routes"][0]["access"], "authenticated");
        assert_eq!(json["routes"][0]["path_prefix"], "/");
        assert_eq!(json["problems"][0]["severity"], "warning");
        assert_eq!(json["upstreams"][0]["protocol"], "http1");
        assert_eq!(json["upstreams"][0]["tls"], Value::Null);
    }
}
